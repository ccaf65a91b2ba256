//! Imports: which file of a crate needs which, whether all arrows point down its layers, and whether any run in a circle.
//!
//! Reads source text, not compiled code: it knows `use` trees, paths that begin at `crate`, `self`, `super` or a module
//! that was imported, and re-exports, which it follows to the file that defines the name. What a macro defines counts to
//! the file that the path names. Code under `#[cfg(test)]` is ignored: a test may import from above.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

/// Layers from the lowest up; those of one row may not import each other.
pub type Layers<'a> = &'a [&'a [&'a str]];

/// Names every arrow of a crate that points up its layers, and every loop of its files.
///
/// A layer is a module right below the root of the crate at `root`, whose sources are in `src`. Without any layers, loops
/// alone are named.
pub fn check_crate(root: &Path, layers: Layers<'_>) -> Vec<String> {
    let mut sources = Vec::new();
    let src = root.join("src");
    collect(&src, &src, &mut sources).unwrap_or_else(|error| panic!("{}: {error}", src.display()));
    assert!(!sources.is_empty(), "{} has no sources", src.display());
    check_sources(&sources, layers)
}

/// The same for sources at hand, each with its path below `src`.
pub fn check_sources(sources: &[(String, String)], layers: Layers<'_>) -> Vec<String> {
    let graph = Graph::of(sources);
    let mut faults = if layers.is_empty() { Vec::new() } else { graph.against(layers) };
    faults.extend(graph.loops());
    faults
}

fn collect(src: &Path, folder: &Path, sources: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(src, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(src).expect("it lies below").to_string_lossy().replace('\\', "/");
            sources.push((name, fs::read_to_string(&path)?));
        }
    }
    sources.sort();
    Ok(())
}

/// A module's path from the root of its crate.
type Module = Vec<String>;

/// What one file says.
#[derive(Default)]
struct File {
    path: String,
    /// Names that it brings in: from where, and whether for others only.
    names: BTreeMap<String, (Module, bool)>,
    /// Modules whose every name it brings in.
    globs: Vec<Module>,
    /// Names that it defines.
    defines: BTreeSet<String>,
    /// Paths in its code that begin at a module of the crate.
    paths: Vec<Module>,
    /// Words of its code outside of `use`.
    words: BTreeSet<String>,
}

struct Graph {
    files: BTreeMap<Module, File>,
    arrows: BTreeMap<Module, BTreeSet<Module>>,
}

impl Graph {
    fn of(sources: &[(String, String)]) -> Graph {
        let has_library = sources.iter().any(|(path, _)| path == "lib.rs");
        // Beside a library the program is a crate of its own that sees it from outside.
        let inside = sources.iter().filter(|(path, _)| !(has_library && path == "main.rs"));
        let modules: Vec<(Module, &str, &str)> =
            inside.map(|(path, text)| (module_of(path), path.as_str(), text.as_str())).collect();
        let known: BTreeSet<Module> = modules.iter().map(|(module, ..)| module.clone()).collect();
        let files = modules.iter().map(|(module, path, text)| {
            let reader = Reader { module: module.clone(), known: &known, file: File::default() };
            (module.clone(), File { path: (*path).to_owned(), ..reader.read(&tokens(text)) })
        });
        let mut graph = Graph { files: files.collect(), arrows: BTreeMap::new() };
        graph.arrows = graph.files.keys().map(|module| (module.clone(), graph.needs(module))).collect();
        graph
    }

    /// Returns the files that a file needs.
    fn needs(&self, module: &Module) -> BTreeSet<Module> {
        let file = &self.files[module];
        let own =
            file.names.iter().filter(|(name, (_, for_others))| !for_others || file.words.contains(*name));
        // A module by itself is needed for what is said of it, which is among the paths.
        let paths = own.map(|(_, (from, _))| from).chain(&file.paths);
        let named = paths.filter(|path| !self.files.contains_key(*path));
        let named = named.map(|path| self.resolve(path, &mut BTreeSet::new()));
        let globs = file.globs.iter().map(|glob| self.resolve(glob, &mut BTreeSet::new()));
        named.chain(globs).flatten().filter(|needed| needed != module).collect()
    }

    /// Returns the file that defines what a path names.
    fn resolve(&self, path: &[String], seen: &mut BTreeSet<Module>) -> Option<Module> {
        let at = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        let (module, rest) = (path[..at].to_vec(), &path[at..]);
        let Some(item) = rest.first() else { return Some(module) };
        if !seen.insert(path.to_vec()) {
            return None;
        }
        let file = &self.files[&module];
        if file.defines.contains(item) {
            return Some(module);
        }
        if let Some((from, _)) = file.names.get(item) {
            let through: Module = from.iter().chain(&rest[1..]).cloned().collect();
            return self.resolve(&through, seen);
        }
        let by_glob = file.globs.iter().find_map(|glob| {
            let through: Module = glob.iter().chain(rest).cloned().collect();
            let found = self.resolve(&through, seen)?;
            self.files[&found].defines.contains(item).then_some(found)
        });
        by_glob.or(Some(module))
    }

    fn path(&self, module: &Module) -> &str {
        &self.files[module].path
    }

    /// Names the arrows that point up, or aside.
    fn against(&self, layers: Layers<'_>) -> Vec<String> {
        let row = |module: &Module| {
            let name = module.first()?;
            layers.iter().position(|row| row.contains(&name.as_str()))
        };
        let mut faults = Vec::new();
        for (from, needed) in &self.arrows {
            if !from.is_empty() && row(from).is_none() {
                faults.push(format!("{} is in no layer", self.path(from)));
            }
            for to in needed {
                let (Some(lower), Some(upper)) = (row(from), row(to)) else { continue };
                if lower < upper || (lower == upper && from[0] != to[0]) {
                    faults.push(format!("{} may not import {}", self.path(from), self.path(to)));
                }
            }
        }
        faults
    }

    /// Names each set of files that all need each other.
    fn loops(&self) -> Vec<String> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.arrows.keys().map(|module| (module, self.reached_from(module))).collect();
        let mut faults = Vec::new();
        let mut named = BTreeSet::new();
        for (module, reach) in &reached {
            let circle: Vec<&Module> =
                reach.iter().copied().filter(|other| reached[other].contains(module)).collect();
            if !circle.is_empty() && !named.contains(module) {
                let files: Vec<&str> = circle.iter().map(|module| self.path(module)).collect();
                faults.push(format!("loop of {} files: {}", files.len(), files.join(", ")));
                named.extend(circle);
            }
        }
        faults
    }

    fn reached_from(&self, module: &Module) -> BTreeSet<&Module> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&Module> = self.arrows[module].iter().collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(&self.arrows[next]);
            }
        }
        reached
    }
}

fn module_of(path: &str) -> Module {
    let path = path.trim_end_matches(".rs");
    let mut module: Module = path.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") || matches!(path, "lib" | "main") {
        module.pop();
    }
    module
}

/// Reads the tokens of one file.
struct Reader<'a> {
    module: Module,
    known: &'a BTreeSet<Module>,
    file: File,
}

const DEFINING: [&str; 9] =
    ["struct", "enum", "union", "trait", "fn", "const", "static", "type", "macro_rules"];

impl Reader<'_> {
    fn read(mut self, tokens: &[String]) -> File {
        // Imports first: code may use a module above the line that brings it in.
        let mut code = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let begins = tokens[at] == "use" && tokens.get(at + 1).is_some_and(|next| next != "<");
            if !begins {
                code.push(tokens[at].as_str());
                at += 1;
                continue;
            }
            let for_others = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
            let end = at + tokens[at..].iter().position(|token| token == ";").expect("`use` ends in `;`");
            let mut rest = &tokens[at + 1..end];
            self.tree(&[], &mut rest, for_others);
            at = end + 1;
        }
        self.code(&code);
        self.file
    }

    fn tree(&mut self, prefix: &[String], rest: &mut &[String], for_others: bool) {
        let mut path = prefix.to_vec();
        while let Some((token, after)) = rest.split_first() {
            *rest = after;
            match token.as_str() {
                "::" => continue,
                "{" => {
                    while rest.first().is_some_and(|token| token != "}") {
                        self.tree(&path, rest, for_others);
                        if rest.first().is_some_and(|token| token == ",") {
                            *rest = &rest[1..];
                        }
                    }
                    *rest = rest.get(1..).unwrap_or_default();
                    return;
                }
                "*" => {
                    self.file.globs.extend(self.absolute(&path));
                    return;
                }
                word => path.push(word.to_owned()),
            }
            if rest.first().is_none_or(|token| token != "::") {
                break;
            }
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if let [word, alias, after @ ..] = *rest
            && word == "as"
        {
            name.clone_from(alias);
            *rest = after;
        }
        if let Some(from) = self.absolute(&path) {
            self.file.names.insert(name, (from, for_others));
        }
    }

    /// Returns a path from the root of the crate; none for one of another crate.
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let mut module = self.module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                module.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {}
            child => {
                module.push(child.to_owned());
                if !self.known.contains(&module) {
                    return None;
                }
                rest = &rest[1..];
            }
        }
        while let Some((_, after)) = rest.split_first().filter(|(first, _)| *first == "super") {
            module.pop();
            rest = after;
        }
        module.extend(rest.iter().cloned());
        Some(module)
    }

    fn code(&mut self, code: &[&str]) {
        let is_word = |token: &str| token.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let mut at = 0;
        while at < code.len() {
            if !is_word(code[at]) {
                at += 1;
                continue;
            }
            if at > 0 && DEFINING.contains(&code[at - 1]) {
                self.file.defines.insert(code[at].to_owned());
            }
            if code[at] == "macro_rules" && code.get(at + 1) == Some(&"!") {
                self.file.defines.extend(code.get(at + 2).map(|name| (*name).to_owned()));
            }
            let mut path = vec![code[at].to_owned()];
            while code.get(at + 1) == Some(&"::") && code.get(at + 2).is_some_and(|next| is_word(next)) {
                path.push(code[at + 2].to_owned());
                at += 2;
            }
            at += 1;
            self.file.words.insert(path[0].clone());
            if path.len() > 1 {
                self.path(path);
            }
        }
    }

    /// Notes a path in the code that begins at `crate`, at a neighbour or at a module that was brought in.
    fn path(&mut self, path: Vec<String>) {
        let brought_in = self.file.names.get(&path[0]).map(|(from, _)| from);
        if let Some(from) = brought_in {
            if self.known.contains(from) {
                let whole = from.iter().chain(&path[1..]).cloned().collect();
                self.file.paths.push(whole);
            }
        } else if let Some(whole) = self.absolute(&path) {
            self.file.paths.push(whole);
        }
    }
}

/// Cuts source text into words and signs, without comments, literals and code that is for tests only.
fn tokens(text: &str) -> Vec<String> {
    let text: Vec<char> = text.chars().collect();
    let mut tokens: Vec<String> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let next = text.get(at + 1).copied().unwrap_or('\0');
        match text[at] {
            '/' if next == '/' => at = end_of(&text, at, "\n"),
            '/' if next == '*' => at = end_of(&text, at + 2, "*/"),
            '"' => at = end_of_string(&text, at + 1),
            '\'' => at = end_of_quote(&text, at),
            'r' | 'b' if is_raw_string(&text, at) => {
                let quote = at + text[at..].iter().position(|c| *c == '"').expect("a raw string");
                let hashes = text[at..quote].iter().filter(|c| **c == '#').count();
                at = end_of(&text, quote + 1, &format!("\"{}", "#".repeat(hashes)));
            }
            c if c.is_alphanumeric() || c == '_' => {
                let end = text[at..].iter().position(|c| !(c.is_alphanumeric() || *c == '_'));
                let end = end.map_or(text.len(), |length| at + length);
                tokens.push(text[at..end].iter().collect());
                at = end;
            }
            ':' if next == ':' => {
                tokens.push("::".to_owned());
                at += 2;
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                at += 1;
            }
        }
    }
    without_tests(tokens)
}

fn end_of(text: &[char], from: usize, mark: &str) -> usize {
    let mark: Vec<char> = mark.chars().collect();
    let found = text[from..].windows(mark.len()).position(|window| window == mark);
    found.map_or(text.len(), |length| from + length + mark.len())
}

fn end_of_string(text: &[char], mut at: usize) -> usize {
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// A character ends at its quote; a lifetime has none.
fn end_of_quote(text: &[char], at: usize) -> usize {
    match (text.get(at + 1), text.get(at + 2)) {
        (Some('\\'), _) => end_of(text, at + 3, "'"),
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

fn is_raw_string(text: &[char], at: usize) -> bool {
    let starts_word = at == 0 || !(text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    let after: String = text[at..].iter().take(12).collect();
    let after = after.trim_start_matches('b');
    starts_word && after.strip_prefix('r').is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
}

/// Leaves out each item that follows `#[cfg(test)]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().take(MARK.len()).eq(MARK.iter()) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        for token in &tokens[at + MARK.len()..] {
            at += 1;
            match token.as_str() {
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
        }
        at += MARK.len();
    }
    kept
}
