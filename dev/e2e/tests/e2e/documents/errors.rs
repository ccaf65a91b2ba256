//! `docs/errors.md` lists exactly the codes that the sources can answer with, under the right statuses.
//!
//! Reads source text: a code is the last argument but one of every function that makes an error, a literal of a
//! function `code`, or the beginning of a message `code: detail`.

use std::collections::{BTreeMap, BTreeSet};

use ledger_core::fold::Reason;

use super::{files, text};

const SOURCES: [&str; 5] =
    ["ledger-core/src", "lib/payments/src", "lib/web/src", "command-api/src", "query-api/src"];
/// Functions that make an error of a code, with the status where the name says it.
const MAKERS: [(&str, Option<&str>); 9] = [
    ("not_found", Some("404")),
    ("conflicting", Some("409")),
    ("unprocessable", Some("422")),
    ("not_now", Some("503")),
    ("Problem::new", None),
    ("Self::new", None),
    ("Refusal::new", None),
    ("FieldError::new", None),
    ("bad_field", None),
];
/// The same, under names that others use too.
const CLOSURES: [&str; 2] = ["refuse", "Refusal::field"];
/// Where the numbers of statuses are written as words.
const STATUSES: [(&str, &str); 12] = [
    ("BAD_REQUEST", "400"),
    ("UNAUTHORIZED", "401"),
    ("PAYMENT_REQUIRED", "402"),
    ("FORBIDDEN", "403"),
    ("METHOD_NOT_ALLOWED", "405"),
    ("REQUEST_TIMEOUT", "408"),
    ("PRECONDITION_FAILED", "412"),
    ("PAYLOAD_TOO_LARGE", "413"),
    ("UNSUPPORTED_MEDIA_TYPE", "415"),
    ("UNPROCESSABLE_ENTITY", "422"),
    ("TOO_MANY_REQUESTS", "429"),
    ("INTERNAL_SERVER_ERROR", "500"),
];
/// Codes that are passed on from where they are found already.
const PASSED_ON: [&str; 6] =
    ["code", "&code", "reason.code()", "unpayable.code()", "not_theirs.code()", "problem.code"];

/// Codes, each with the statuses that it is known to have.
type Codes = BTreeMap<String, BTreeSet<String>>;

/// Returns the text of a source without its tests.
fn program(path: &str) -> String {
    let text = text(path);
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..tests].to_owned()
}

fn is_code(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn literal(argument: &str) -> Option<&str> {
    argument.strip_prefix('"')?.strip_suffix('"')
}

/// Returns the arguments of a call whose bracket was opened just before `rest`.
fn arguments(rest: &str) -> Vec<String> {
    let (mut depth, mut in_text, mut escaped) = (0, false, false);
    let mut found = vec![String::new()];
    for c in rest.chars() {
        let is_escaped = escaped;
        escaped = in_text && c == '\\' && !is_escaped;
        match c {
            '"' if !is_escaped => in_text = !in_text,
            '(' | '[' | '{' if !in_text => depth += 1,
            ')' | ']' | '}' if !in_text && depth == 0 => break,
            ')' | ']' | '}' if !in_text => depth -= 1,
            ',' if !in_text && depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        found.last_mut().expect("at least one").push(c);
    }
    let trimmed = found.iter().map(|argument| argument.trim().to_owned());
    trimmed.filter(|argument| !argument.is_empty()).collect()
}

/// Returns the arguments of every call of a function in a text.
fn calls(text: &str, name: &str) -> Vec<Vec<String>> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let call = format!("{name}(");
    let starts = text.match_indices(&call).filter(|(at, _)| {
        let before = &text[..*at];
        !before.ends_with(is_part) && !before.ends_with("fn ")
    });
    starts.map(|(at, opened)| arguments(&text[at + opened.len()..])).collect()
}

/// Returns constants that hold a word, by their name.
fn constants(sources: &[String]) -> BTreeMap<&str, &str> {
    let lines = sources.iter().flat_map(|text| text.split("const ").skip(1));
    let found = lines.filter_map(|line| {
        let (name, rest) = line.split_once(": &str =")?;
        Some((name, rest.split('"').nth(1).filter(|word| is_code(word))?))
    });
    found.collect()
}

/// Adds what the calls of one maker say.
fn add_calls(codes: &mut Codes, text: &str, maker: (&str, Option<&str>), constants: &BTreeMap<&str, &str>) {
    for arguments in calls(text, maker.0) {
        let Some(code) = arguments.len().checked_sub(2).map(|at| arguments[at].as_str()) else { continue };
        let name = code.rsplit("::").next().unwrap_or(code);
        let code = match literal(code).or_else(|| constants.get(name).copied()) {
            Some(code) => code,
            None if PASSED_ON.contains(&code) || CLOSURES.contains(&maker.0) => continue,
            None => panic!("{}({}): this test can't tell the code", maker.0, arguments.join(", ")),
        };
        let word = arguments[0].strip_prefix("StatusCode::");
        let status = STATUSES.iter().find(|(it, _)| Some(*it) == word).map(|(_, number)| *number);
        codes.entry(code.to_owned()).or_default().extend(status.or(maker.1).map(str::to_owned));
    }
}

/// Returns the literals of every function `code` in a text.
fn of_functions(text: &str) -> Vec<String> {
    let bodies = text.split("fn code(").skip(1).filter_map(|rest| Some(rest.split_once("str {")?.1));
    let bodies = bodies.map(arguments).map(|body| body.join(","));
    let literals = |body: String| body.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    bodies.flat_map(literals).filter(|word| is_code(word)).collect()
}

/// Returns the codes that messages begin with, such as `#[error("bad_id: …")]` and `custom("not_a_period: …")`.
fn of_messages(text: &str) -> Vec<String> {
    let before = ["#[error(", "custom(", "custom(format!("];
    let messages = before.iter().flat_map(|before| text.split(before).skip(1));
    let codes = messages.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split_once(": "));
    codes.map(|(code, _)| code.to_owned()).filter(|code| is_code(code)).collect()
}

/// Returns every code that the sources can answer with.
fn in_sources() -> Codes {
    let paths = SOURCES.iter().flat_map(|folder| files(folder, "rs"));
    let sources: Vec<String> = paths.map(|path| program(&path)).collect();
    let constants = constants(&sources);
    let mut codes = Codes::new();
    for text in &sources {
        let closures = CLOSURES.map(|name| (name, None));
        for maker in MAKERS.into_iter().chain(closures) {
            add_calls(&mut codes, text, maker, &constants);
        }
        for code in of_functions(text).into_iter().chain(of_messages(text)) {
            codes.entry(code).or_default();
        }
    }
    for reason in Reason::ALL {
        let status = if *reason == Reason::AccountClosed { "409" } else { "422" };
        codes.entry(reason.code().to_owned()).or_default().insert(status.to_owned());
    }
    codes
}

/// Returns every code that the document lists, with its statuses.
fn in_document() -> Codes {
    let mut codes = Codes::new();
    for row in text("docs/errors.md").lines().filter_map(|line| line.strip_prefix("| `")) {
        let mut cells = row.split(" | ");
        let code = cells.next().and_then(|cell| cell.strip_suffix('`')).expect("a code");
        let statuses = cells.next().unwrap_or_default().split(", ").map(str::trim);
        let statuses = statuses.filter(|status| status.len() == 3 && status.parse::<u16>().is_ok());
        codes.entry(code.to_owned()).or_default().extend(statuses.map(str::to_owned));
    }
    codes
}

#[test]
fn every_code_is_documented_and_every_documented_code_exists() {
    let (sources, document) = (in_sources(), in_document());
    assert!(sources.len() > 80, "few codes are found: {:?}", sources.keys());
    let missing: Vec<_> = sources.keys().filter(|code| !document.contains_key(*code)).collect();
    let gone: Vec<_> = document.keys().filter(|code| !sources.contains_key(*code)).collect();
    assert!(missing.is_empty(), "docs/errors.md lacks {missing:?}");
    assert!(gone.is_empty(), "docs/errors.md lists codes that nothing answers with: {gone:?}");
}

#[test]
fn every_code_is_documented_under_its_statuses() {
    let (sources, document) = (in_sources(), in_document());
    for (code, statuses) in sources {
        // A code of a field alone has no status; the other test finds a missing code.
        let Some(listed) = document.get(&code) else { continue };
        let known = statuses.is_subset(listed);
        assert!(known, "{code} is answered with {statuses:?}, docs/errors.md says {listed:?}");
    }
}

#[test]
fn codes_are_found_where_they_are_made() {
    let check = |text: &str, expected: &str| {
        let sources = [text.to_owned()];
        let mut codes = Codes::new();
        for maker in MAKERS.into_iter().chain(CLOSURES.map(|name| (name, None))) {
            add_calls(&mut codes, text, maker, &constants(&sources));
        }
        let functions = of_functions(text).into_iter().chain(of_messages(text));
        let found: Vec<String> = codes.into_keys().chain(functions).collect();
        assert_eq!(found.join(" "), expected, "{text}");
    };
    check(r#"Problem::not_found("key_not_found", format!("no {key}, (none)"))"#, "key_not_found");
    check(r#"const GONE: &str = "gone"; Refusal::new(x::GONE, "it \" is, gone")"#, "gone");
    check(r#"refuse(errors, a(b, c), "amount", "zero", "must not be 0");"#, "zero");
    check(r#"fn code(self) -> &'static str { match self { A | B => "too_fine" } }"#, "too_fine");
    check(r#"#[error("bad_id: an id")] E::custom(format!("not_a_day: {day}"))"#, "bad_id not_a_day");
    check("fn conflicting(code: &'static str, detail: String)", "");
}
