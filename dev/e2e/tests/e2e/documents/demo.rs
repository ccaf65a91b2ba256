//! The demo, as a new user runs it, on a part of the trace.

use anyhow::{Context, Result, ensure};
use local_stack::TestSpace;

use super::pasted::ledger_in;

/// Calls of the trace: few enough to be quick, enough for every account to have some in every period.
const EVENTS: &str = "900";

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_proves_itself_and_a_second_run_goes_on_cleanly() -> Result<()> {
    let space = TestSpace::new().await?;
    let folder = tempfile::tempdir()?;
    for run in [1, 2] {
        let mut command = ledger_in(&space, folder.path());
        // The demo's own figures include no bonus.
        command.env_remove("RUST_LOG").env("LEDGER_WELCOME_BONUS", "1000").args([
            "demo",
            "--exit",
            "--events",
            EVENTS,
            "--listen",
            "127.0.0.1:0",
        ]);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let (said, complaint) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        ensure!(output.status.success(), "run {run}: {complaint}\n{said}");
        check(&said, &format!("demo-{run}")).with_context(|| format!("run {run}:\n{said}"))?;
        ensure!(!complaint.lines().any(is_warning), "nothing to warn of: {complaint}");
    }
    Ok(())
}

/// Returns whether the line warns of more than a slow machine.
fn is_warning(line: &str) -> bool {
    let slow = ["sqlx::query: slow statement", "sqlx::pool: acquired connection", "status=503"];
    line.contains("WARN") && !slow.iter().any(|sign| line.contains(sign))
}

fn check(said: &str, name: &str) -> Result<()> {
    let titles = [
        "Balances",
        "Where it all went",
        "Top users",
        "What ",
        "Month by month",
        "Auto top-up",
        "Proof",
        "Go on with",
    ];
    for title in titles {
        ensure!(said.lines().any(|line| line.starts_with(title)), "{title} is missing");
    }
    for account in ["team", "crew", "monthly", "yearly", "wallet"] {
        let rows = said.lines().filter(|line| line.starts_with(&format!("  {name}-{account} "))).count();
        ensure!(rows == 4, "{account} has a row in {rows} tables of 4");
    }
    let topped_up = ["tops itself up", "$33.00", "$60.00", "$27.00", "3 x credit_auto_recharge_triggered"];
    let declined = ["its card fails", "$33.00", "$0.00", "-$33.00", "1 x credit_purchase_failed"];
    for (account, cells) in [("auto", topped_up), ("declined", declined)] {
        let row = said.lines().find(|line| line.starts_with(&format!("  {name}-{account} ")));
        let row = row.with_context(|| format!("{account} has no row"))?;
        let words: Vec<&str> = row.split_whitespace().collect();
        let expected = cells.join(" ");
        ensure!(words[1..].join(" ") == expected, "{row} is not {expected}");
    }
    for words in ["all equal", "no credit appeared or disappeared", "none counted twice"] {
        ensure!(said.contains(words), "not proved: {words}");
    }
    Ok(())
}
