//! Program: finds the built `ledger`. Cargo gives this path only to tests of its own package.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

/// Returns the path of the program `ledger` that was built with the running test.
///
/// # Panics
///
/// Panics where it is not built, or built from older sources.
pub fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> =
        LazyLock::new(|| find().unwrap_or_else(|error| panic!("{error:#}: cargo build -p ledger")));
    &PROGRAM
}

/// Test programs lie in `target/<profile>/deps`, the ledger one folder up.
fn find() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(Path::parent).context("a test program lies in target")?;
    let program = profile.join("ledger");
    let built = changed(&program).context("the program `ledger` is not built")?;
    // `cargo test -p e2e` builds the tests alone; with an old program they would prove nothing.
    let sources = std::fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    for source in sources.split_whitespace().skip(1) {
        let is_older = changed(Path::new(source)).is_ok_and(|changed| changed > built);
        ensure!(!is_older, "the program `ledger` is older than {source}");
    }
    Ok(program)
}

fn changed(file: &Path) -> Result<SystemTime> {
    Ok(file.metadata()?.modified()?)
}
