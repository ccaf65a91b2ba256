//! The documents: what they say to paste works, what they name exists, and the lists that they call complete are.

mod demo;
mod errors;
mod examples;
mod limits;
mod links;
mod operations;
mod pasted;

use std::fs;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Folders without documents of ours.
const NOT_OURS: [&str; 3] = ["target", ".git", ".data"];

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the paths of all files with an extension below a folder of the repository, in order.
fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let read =
            fs::read_dir(Path::new(ROOT).join(&folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        for entry in read {
            let entry = entry.expect("a folder that can be read");
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if entry.file_type().expect("a type").is_dir() {
                open.extend((!NOT_OURS.contains(&name.as_str())).then_some(path));
            } else if name.ends_with(&format!(".{extension}")) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns all documents, each with its path.
fn documents() -> Vec<(String, String)> {
    let documents: Vec<_> = files("", "md").into_iter().map(|path| (path.clone(), text(&path))).collect();
    assert!(documents.len() > 10, "few documents: {}", documents.len());
    documents
}
