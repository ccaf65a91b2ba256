//! The arrows between crates: `ledger-core <- platform <- {engine, web, payments} <- services <- ledger`; services never
//! import each other, nor do the libraries above the platform.

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

const LIBRARIES: [&str; 4] = ["platform", "engine", "web", "payments"];
const SERVICES: [&str; 4] = ["command-api", "projector", "alert-worker", "query-api"];

/// What a crate of the workspace may depend on within it.
fn allowed(name: &str) -> Vec<&'static str> {
    match name {
        "ledger-core" => vec![],
        "platform" => vec!["ledger-core"],
        library if LIBRARIES.contains(&library) => vec!["ledger-core", "platform"],
        service if SERVICES.contains(&service) => ["ledger-core"].into_iter().chain(LIBRARIES).collect(),
        "ledger" => ["ledger-core"].into_iter().chain(LIBRARIES).chain(SERVICES).collect(),
        other => panic!("{other} is not in the architecture"),
    }
}

fn packages() -> Vec<Package> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata runs");
    metadata.workspace_packages().into_iter().cloned().collect()
}

#[test]
fn crates_depend_on_each_other_along_the_arrows_only() {
    let packages = packages();
    assert_eq!(packages.len(), 10, "a new crate needs its place in the architecture");
    let names: Vec<String> = packages.iter().map(|package| package.name.to_string()).collect();
    for package in &packages {
        let allowed = allowed(&package.name);
        for dependency in package.dependencies.iter().filter(|dependency| names.contains(&dependency.name)) {
            assert!(
                allowed.contains(&dependency.name.as_str()),
                "{} must not depend on {} ({:?})",
                package.name,
                dependency.name,
                dependency.kind
            );
        }
    }
}

#[test]
fn the_core_knows_no_clock_chance_io_or_async() {
    let packages = packages();
    let core = packages.iter().find(|package| *package.name == "ledger-core").expect("the core");
    let forbidden =
        ["tokio", "async-trait", "futures", "rand", "sqlx", "rdkafka", "axum", "reqwest", "tracing"];
    for dependency in core.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal)
    {
        assert!(
            !forbidden.contains(&dependency.name.as_str()),
            "ledger-core must not depend on {}",
            dependency.name
        );
        if dependency.name == "chrono" {
            assert!(!dependency.uses_default_features, "chrono's default features bring a clock");
            assert!(!dependency.features.iter().any(|feature| feature == "clock" || feature == "now"));
        }
        if dependency.name == "uuid" {
            let chance = ["v4", "v7", "v1", "v6", "fast-rng", "rng"];
            assert!(!dependency.features.iter().any(|feature| chance.contains(&feature.as_str())));
        }
    }
}

#[test]
fn versions_stand_in_the_root_manifest_only() {
    for package in packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("the manifest");
        let dependencies = manifest.split("dependencies]").skip(1);
        for line in dependencies.flat_map(str::lines).filter(|line| line.contains('=')) {
            assert!(
                line.contains(".workspace = true") || line.contains("workspace = true"),
                "{}: `{line}` names a version of its own",
                package.name
            );
        }
    }
}
