//! Clients: the generators of three languages read the documents without a warning, and what they make compiles.
//!
//! Ignored by default: `.ci/run` installs the generators into `target/generators`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Returns a generator that CI has installed.
fn installed(path: &str) -> Result<PathBuf> {
    let tool = Path::new(ROOT).join("target/generators").join(path);
    ensure!(tool.exists(), "{} is not installed: .ci/run does it", tool.display());
    Ok(fs::canonicalize(tool)?)
}

/// Writes the document that `ledger openapi` writes.
fn write_document(folder: &Path, arguments: &[&str]) -> Result<PathBuf> {
    let output = Command::new(e2e::program()).arg("openapi").args(arguments).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = folder.join("openapi.json");
    fs::write(&path, output.stdout)?;
    Ok(path)
}

/// Runs a command, and returns what it said.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "{command:?}: {said}");
    ensure!(!said.to_lowercase().contains("warn"), "{command:?}: {said}");
    Ok(said)
}

#[test]
#[ignore = "needs openapi-typescript"]
fn typescript_reads_the_document() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let document = write_document(folder.path(), &[])?;
    let made = folder.path().join("ledger.ts");
    said(
        Command::new(installed("node_modules/.bin/openapi-typescript")?).arg(&document).arg("-o").arg(&made),
    )?;
    said(Command::new(installed("node_modules/.bin/tsc")?).args(["--strict", "--noEmit"]).arg(&made))?;
    let text = fs::read_to_string(&made)?;
    ensure!(text.contains("getBalance: {") && text.contains("recordUsage: {"), "an operation is missing");
    Ok(())
}

#[test]
#[ignore = "needs openapi-python-client"]
fn python_reads_the_document() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let document = write_document(folder.path(), &[])?;
    let made = folder.path().join("client");
    // It knows JSON and text, and no lines of JSON.
    let settings = folder.path().join("settings.yml");
    fs::write(&settings, "content_type_overrides:\n  application/x-ndjson: application/octet-stream\n")?;
    let path = format!("{}:{}", installed("venv/bin")?.display(), std::env::var("PATH").unwrap_or_default());
    let mut generate = Command::new(installed("venv/bin/openapi-python-client")?);
    generate.env("PATH", path).args(["generate", "--meta", "none", "--fail-on-warning"]);
    generate.arg("--config").arg(&settings).arg("--path").arg(&document).arg("--output-path").arg(&made);
    said(&mut generate)?;
    said(Command::new(installed("venv/bin/python")?).args(["-m", "compileall", "-q"]).arg(&made))?;
    Ok(())
}

#[test]
#[ignore = "needs oapi-codegen"]
fn go_reads_the_older_document() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let document = write_document(folder.path(), &["--older"])?;
    let made = folder.path().join("ledger.go");
    let generator = installed("bin/oapi-codegen")?;
    said(
        Command::new(generator)
            .args(["-generate", "types,client", "-package", "ledger", "-o"])
            .arg(&made)
            .arg(&document),
    )?;
    let text = fs::read_to_string(&made)?;
    ensure!(
        text.contains("GetBalanceWithResponse") && text.contains("RecordUsageWithResponse"),
        "an operation is missing"
    );
    Ok(())
}
