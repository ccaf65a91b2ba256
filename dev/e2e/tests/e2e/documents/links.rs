//! Every link of a document leads somewhere, and every file that a document names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{ROOT, documents, files, text};

/// Returns the lines of a document outside of its fenced blocks.
fn prose(document: &str) -> String {
    let mut fenced = false;
    let lines = document.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the anchors of a document, as GitHub makes them from its headings.
fn anchors(document: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let prose = prose(document);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let slugs = headings.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    });
    let numbered = slugs.map(|slug| {
        let before = seen.entry(slug.clone()).or_insert(0);
        *before += 1;
        if *before == 1 { slug } else { format!("{slug}-{}", *before - 1) }
    });
    numbered.collect()
}

/// Returns what the links and pictures of a document point to.
fn targets(document: &str) -> Vec<String> {
    let prose = prose(document);
    let links = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let of_attribute = |name: &'static str| {
        let values = prose.split(name).skip(1);
        values.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect::<Vec<_>>()
    };
    let pictures = ["src=\"", "srcset=\"", "href=\""].into_iter().flat_map(of_attribute);
    links.map(str::to_owned).chain(pictures).collect()
}

/// Returns where a relative target lies in the repository, without `.` and `..`.
fn resolve(from: &str, target: &str) -> String {
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Returns what is wrong with a target, if anything.
fn fault(path: &str, target: &str, anchors: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if file.is_empty() { path.to_owned() } else { resolve(path, file) };
    if !Path::new(ROOT).join(&file).exists() {
        return Some(format!("{path}: there is no {target}"));
    }
    let known = anchor.is_empty() || anchors.get(&file).is_none_or(|anchors| anchors.contains(anchor));
    (!known).then(|| format!("{path}: {file} has no heading #{anchor}"))
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let documents = documents();
    let anchors = documents.iter().map(|(path, text)| (path.clone(), anchors(text))).collect();
    let faults = documents.iter().flat_map(|(path, text)| {
        targets(text).into_iter().filter_map(|target| fault(path, &target, &anchors)).collect::<Vec<_>>()
    });
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Documents for those who change the ledger: what looks like a file in them is one.
const NAMING_FILES: [&str; 5] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/internals.md", "docs/testing.md"];
const EXTENSIONS: [&str; 6] = ["rs", "py", "toml", "md", "json", "sql"];

#[test]
fn every_file_that_a_document_names_exists() {
    let all: Vec<String> = EXTENSIONS.iter().flat_map(|extension| files("", extension)).collect();
    let names: BTreeSet<&str> = all.iter().filter_map(|path| path.rsplit('/').next()).collect();
    let mut checked = 0;
    for document in NAMING_FILES {
        let prose = prose(&text(document));
        for code in prose.split('`').skip(1).step_by(2).filter(|code| is_path(code)) {
            checked += 1;
            let path = Path::new(ROOT).join(code.trim_end_matches("/*"));
            // A name without a folder is that of a file next to the one before.
            assert!(names.contains(code) || path.exists(), "{document} names {code}");
        }
    }
    assert!(checked > 60, "few files are named: {checked}");
}

/// Returns whether a piece of code in a text names a file or folder of the repository.
fn is_path(code: &str) -> bool {
    let is_plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "_-./*".contains(c));
    let has_extension = EXTENSIONS.iter().any(|extension| code.ends_with(&format!(".{extension}")));
    // What is built and what is served are not files of the repository.
    let is_ours = !code.starts_with('/') && !code.starts_with("target/");
    is_plain && is_ours && (code.contains('/') || has_extension)
}

#[test]
fn links_and_headings_are_read_as_github_reads_them() {
    let headings = "# A disk is full, or the `log` is\n## Lots\n## Lots\n```\n# no heading\n```\n";
    let expected = ["a-disk-is-full-or-the-log-is", "lots", "lots-1"];
    assert_eq!(anchors(headings), expected.map(str::to_owned).into());
    assert_eq!(targets("a [b](c.md#d) <img src=\"e.svg\">"), ["c.md#d", "e.svg"]);
    assert_eq!(resolve("docs/errors.md", "../schemas/README.md"), "schemas/README.md");
    assert_eq!(resolve("README.md", "./docs/tour.md"), "docs/tour.md");
}
