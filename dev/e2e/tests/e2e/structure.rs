//! The workspace's rules: allowed dependencies between crates, no import loops, where versions are, allowed licences.

#[path = "../../../../ledger-core/tests/layers/imports.rs"]
mod imports;

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use cargo_metadata::{Dependency, DependencyKind, Metadata, MetadataCommand, Package};
use spdx::{Expression, ParseMode};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const SERVICES: [&str; 4] = ["command-api", "projector", "alert-worker", "query-api"];

/// Returns the workspace crates that a crate may use, outside of its tests; `None` for a crate without a layer.
fn allowed(name: &str) -> Option<Vec<&'static str>> {
    let libraries = ["ledger-core", "platform", "engine", "web", "payments", "contacts", "transparency-log"];
    Some(match name {
        "ledger-core" | "transparency-log" | "local-stack" => vec![],
        "platform" => vec!["ledger-core"],
        "engine" => vec!["ledger-core", "platform", "transparency-log"],
        "web" | "payments" | "contacts" => vec!["ledger-core", "platform"],
        service if SERVICES.contains(&service) => libraries.to_vec(),
        // A client of the API: it has no database and no rights of its own.
        "console" => vec!["ledger-core", "platform", "web"],
        "bench" | "demo" => [&libraries[..], &SERVICES, &["local-stack"]].concat(),
        "ledger" => [&libraries[..], &SERVICES, &["console", "local-stack", "bench", "demo"]].concat(),
        "e2e" => [&libraries[..], &SERVICES, &["local-stack", "ledger"]].concat(),
        _ => return None,
    })
}

fn metadata() -> Result<Metadata> {
    // One platform, so that Cargo need not fetch what only Windows would build.
    let options = ["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"].map(str::to_owned);
    let manifest = format!("{ROOT}/Cargo.toml");
    Ok(MetadataCommand::new().manifest_path(manifest).other_options(options.to_vec()).exec()?)
}

#[test]
fn crates_depend_on_each_other_along_the_arrows_only() -> Result<()> {
    let metadata = metadata()?;
    let packages = metadata.workspace_packages();
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    for package in &packages {
        let name = package.name.as_str();
        let allowed = allowed(name).with_context(|| format!("{name} has no place among the arrows"))?;
        for dependency in package.dependencies.iter().filter(|it| names.contains(it.name.as_str())) {
            let is_for_tests =
                dependency.kind == DependencyKind::Development && dependency.name == "local-stack";
            let is_pure = name == "ledger-core";
            ensure!(
                allowed.contains(&dependency.name.as_str()) || (is_for_tests && !is_pure),
                "{name} must not depend on {} ({:?})",
                dependency.name,
                dependency.kind
            );
        }
    }
    Ok(())
}

#[test]
fn no_files_of_a_crate_need_each_other_in_a_loop() -> Result<()> {
    let mut faults = Vec::new();
    for package in metadata()?.workspace_packages() {
        let root = package.manifest_path.parent().context("a folder")?;
        let loops = imports::check_crate(root.as_std_path(), &[]);
        faults.extend(loops.into_iter().map(|fault| format!("{}: {fault}", package.name)));
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn the_core_knows_no_clock_chance_io_or_async() -> Result<()> {
    let metadata = metadata()?;
    let packages = metadata.workspace_packages();
    let core = packages.iter().find(|package| *package.name == "ledger-core").context("the core")?;
    core.dependencies.iter().filter(|it| it.kind == DependencyKind::Normal).try_for_each(is_pure)
}

fn is_pure(dependency: &Dependency) -> Result<()> {
    let forbidden =
        ["tokio", "async-trait", "futures", "rand", "sqlx", "rdkafka", "axum", "reqwest", "tracing"];
    let name = dependency.name.as_str();
    ensure!(!forbidden.contains(&name), "ledger-core must not depend on {name}");
    let has = |features: &[&str]| dependency.features.iter().any(|it| features.contains(&it.as_str()));
    if name == "chrono" {
        ensure!(!dependency.uses_default_features, "chrono's default features bring a clock");
        ensure!(!has(&["clock", "now"]), "ledger-core must not have the clock of chrono");
    }
    if name == "uuid" {
        ensure!(!has(&["v4", "v7", "v1", "v6", "fast-rng", "rng"]), "ledger-core must not draw ids");
    }
    Ok(())
}

#[test]
fn versions_stand_in_the_root_manifest_only() -> Result<()> {
    for package in metadata()?.workspace_packages() {
        let manifest = fs::read_to_string(&package.manifest_path)?;
        let dependencies = manifest.split("dependencies]").skip(1);
        for line in dependencies.flat_map(str::lines).filter(|line| line.contains('=')) {
            ensure!(
                line.contains(".workspace = true") || line.contains("workspace = true"),
                "{}: `{line}` names a version of its own",
                package.name
            );
        }
    }
    Ok(())
}

/// As in deny.toml: what tests use, and nobody who uses the ledger gets.
const EXCEPTIONS: [(&str, &str); 1] = [("webdriver", "MPL-2.0")];

#[test]
fn every_dependency_has_an_allowed_licence() -> Result<()> {
    let allowed = licences_in_deny_toml()?;
    for package in metadata()?.packages.iter().filter(|package| package.source.is_some()) {
        let terms = licence_of(package)?;
        if EXCEPTIONS.contains(&(package.name.as_str(), terms.to_string().as_str())) {
            continue;
        }
        ensure!(
            terms.evaluate(|term| allowed.contains(&term.to_string())),
            "{} is under {terms}, which deny.toml does not allow",
            package.name
        );
    }
    Ok(())
}

fn licence_of(package: &Package) -> Result<Expression> {
    let name = &package.name;
    let terms = package.license.as_deref().with_context(|| format!("{name} names no licence"))?;
    // Lax, because some still write `/` for OR.
    Expression::parse_mode(terms, ParseMode::LAX).with_context(|| format!("{name}: {terms}"))
}

fn licences_in_deny_toml() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(format!("{ROOT}/deny.toml"))?;
    let list = text.split_once("\nallow = [").context("an allow list")?.1;
    let list = list.split_once(']').context("its end")?.0;
    Ok(list.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect())
}
