//! `ledger doctor`: reports which parts of the local stack are found and which are missing, one sentence each.

use std::io::Write;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use local_stack::StackOptions;
use local_stack::survey::{Finding, State, survey};

/// Writes the table, and returns whether everything required is present; `how` says how Kafka is connected to.
pub async fn run(options: &StackOptions, how: &str, out: &mut impl Write) -> Result<bool> {
    let mut findings = survey(options).await;
    if options.kafka_brokers.is_some() {
        let sentence = format!("Kafka is connected to by {how}.");
        findings.insert(1, Finding { what: "Kafka's clients", state: State::Note, sentence });
    }
    writeln!(out, "{}", table(&findings))?;
    let missing = findings.iter().filter(|finding| finding.state == State::Missing).count();
    match missing {
        0 => writeln!(out, "Everything needed is there: `ledger up` starts.")?,
        1 => writeln!(out, "One thing is missing; its line says how to get it.")?,
        n => writeln!(out, "{n} things are missing; their lines say how to get them.")?,
    }
    Ok(missing == 0)
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["what", "state", "details"]);
    for finding in findings {
        let state = match finding.state {
            State::Found => "found",
            State::Note => "note",
            State::Missing => "MISSING",
        };
        table.add_row([finding.what, state, finding.sentence.as_str()]);
    }
    table
}
