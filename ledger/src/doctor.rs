//! `ledger doctor`: reports which parts of the local stack are found and which are missing, one sentence each.

use std::io::Write;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use local_stack::StackOptions;
use local_stack::survey::{Finding, State, survey};
use platform::pg::{self, Login};
use serde_json::{Value, json};

/// Writes the table, or JSON, and returns whether everything required is present; `how` says how Kafka is connected to.
pub async fn run(options: &StackOptions, how: &str, as_json: bool, out: &mut impl Write) -> Result<bool> {
    let mut findings = survey(options).await;
    if options.kafka_brokers.is_some() {
        let sentence = format!("Kafka is connected to by {how}.");
        findings.insert(1, Finding { what: "Kafka's clients", state: State::Note, sentence });
    }
    if let Some(url) = &options.database_url {
        findings.extend(login(url).await);
    }
    let missing = findings.iter().filter(|finding| finding.state == State::Missing).count();
    if as_json {
        let list: Vec<Value> = findings.iter().map(json_of).collect();
        writeln!(out, "{}", json!({"complete": missing == 0, "findings": list}))?;
        return Ok(missing == 0);
    }
    writeln!(out, "{}", table(&findings))?;
    match missing {
        0 => writeln!(out, "Everything needed is there: `ledger up` starts.")?,
        1 => writeln!(out, "One thing is missing; its line says how to get it.")?,
        n => writeln!(out, "{n} things are missing; their lines say how to get them.")?,
    }
    Ok(missing == 0)
}

/// Says whether the login that is named owns the tables or only uses them; nothing where the database does not answer.
async fn login(url: &str) -> Option<Finding> {
    let pool = pg::connect(url, "ledger doctor", 1).await.ok()?;
    let login = Login::of(&pool).await.ok()?;
    pool.close().await;
    let name = &login.name;
    let sentence = match login.role() {
        Some(role) => format!(
            "{name} is the login of {} alone: it checks the tables, and `ledger migrate` makes them as their owner.",
            role.service()
        ),
        None if login.owns => format!(
            "{name} owns the tables and migrates them: right for `ledger up` and commands. Production gives each service a login of its own: `ledger migrate --roles`."
        ),
        None => format!("{name} neither owns the tables nor is the login of a service."),
    };
    Some(Finding { what: "login", state: State::Found, sentence })
}

fn word(state: State) -> &'static str {
    match state {
        State::Found => "found",
        State::Note => "note",
        State::Missing => "MISSING",
    }
}

fn json_of(finding: &Finding) -> Value {
    json!({"what": finding.what, "state": word(finding.state).to_lowercase(), "details": finding.sentence})
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["what", "state", "details"]);
    for finding in findings {
        table.add_row([finding.what, word(finding.state), finding.sentence.as_str()]);
    }
    table
}
