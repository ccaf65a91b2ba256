//! The workspace's own rules about dependencies: which crate may use which, and under which licences others come in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use cargo_metadata::{Metadata, MetadataCommand};

/// `ledger-core <- platform <- {engine, web, payments} <- services <- ledger`: each crate with the crates of the workspace
/// it may use.
const ARROWS: [(&str, &[&str]); 10] = [
    ("ledger-core", &[]),
    ("platform", &["ledger-core"]),
    ("engine", &["ledger-core", "platform"]),
    ("web", &["ledger-core", "platform"]),
    ("payments", &["ledger-core", "platform"]),
    ("command-api", &["ledger-core", "platform", "engine", "web", "payments"]),
    ("projector", &["ledger-core", "platform", "engine", "web"]),
    ("alert-worker", &["ledger-core", "platform", "engine", "web", "payments"]),
    ("query-api", &["ledger-core", "platform", "engine", "web"]),
    (
        "ledger",
        &[
            "ledger-core",
            "platform",
            "engine",
            "web",
            "payments",
            "command-api",
            "projector",
            "alert-worker",
            "query-api",
        ],
    ),
];

fn metadata() -> Result<Metadata> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    // One platform, so that Cargo need not fetch what only Windows would build.
    let options = ["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"].map(str::to_owned);
    Ok(MetadataCommand::new().manifest_path(manifest).other_options(options.to_vec()).exec()?)
}

#[test]
fn services_never_import_each_other_and_the_core_imports_nobody() -> Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    for package in metadata()?.workspace_packages() {
        let name = package.name.as_str();
        let may = allowed.get(name).with_context(|| format!("{name} has no place among the arrows"))?;
        for dependency in &package.dependencies {
            let other = dependency.name.as_str();
            let is_ours = allowed.contains_key(other);
            ensure!(!is_ours || may.contains(&other), "{name} must not depend on {other}");
        }
    }
    Ok(())
}

#[test]
fn every_dependency_has_an_allowed_licence() -> Result<()> {
    let allowed = licences_in_deny_toml()?;
    for package in metadata()?.packages.iter().filter(|package| package.source.is_some()) {
        let name = &package.name;
        let terms = package.license.as_deref().with_context(|| format!("{name} names no licence"))?;
        ensure!(is_allowed(terms, &allowed), "{name} is under {terms}, which deny.toml does not allow");
    }
    Ok(())
}

fn licences_in_deny_toml() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deny.toml"))?;
    let list = text.split_once("\nallow = [").context("an allow list")?.1;
    let list = list.split_once(']').context("its end")?.0;
    Ok(list.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect())
}

/// Reads an SPDX expression; `/` is an old way to write OR. AND binds closer than OR.
fn is_allowed(terms: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = terms.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let spaced = spaced.replace("Apache-2.0 WITH LLVM-exception", "Apache-2.0_WITH_LLVM-exception");
    let mut words = spaced.split_whitespace().peekable();
    any_of(&mut words, allowed)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut holds = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        holds |= all_of(words, allowed);
    }
    holds
}

fn all_of(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut holds = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        holds &= one(words, allowed);
    }
    holds
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    match words.next() {
        Some("(") => {
            let holds = any_of(words, allowed);
            words.next_if_eq(&")").is_some() && holds
        }
        Some(word) => allowed.contains(&word.replace('_', " ")),
        None => false,
    }
}

#[test]
fn a_licence_expression_holds_only_when_its_terms_do() {
    let allowed: BTreeSet<String> = ["MIT", "Zlib"].map(str::to_owned).into();
    let check = |terms: &str, expected| assert_eq!(is_allowed(terms, &allowed), expected, "{terms}");
    check("MIT", true);
    check("GPL-3.0", false);
    check("GPL-3.0/MIT", true);
    check("GPL-3.0 OR MIT", true);
    check("GPL-3.0 AND MIT", false);
    check("(GPL-3.0 OR MIT) AND Zlib", true);
    check("(GPL-3.0 OR MIT) AND ISC", false);
    check("", false);
}
