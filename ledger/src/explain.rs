//! Explain: prints how a figure came about, as a tree, from a running ledger.

use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use ledger_core::value::id::AccountId;
use ledger_core::value::time::Time;
use platform::http_client;
use serde_json::Value;

use crate::connection::Connection;
use crate::up;

/// What to explain, and where the ledger is.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("question").required(true))]
pub struct Explain {
    /// The account
    #[arg(long)]
    pub account: AccountId,
    /// A figure of its balance, such as settled, used, available or percent_used
    #[arg(long, group = "question")]
    pub figure: Option<String>,
    /// A line of its ledger, by the entry's id
    #[arg(long, group = "question")]
    pub entry: Option<String>,
    /// An event, by its id
    #[arg(long, group = "question")]
    pub event: Option<String>,
    /// What fired, by the firing's id
    #[arg(long, group = "question")]
    pub firing: Option<String>,
    /// Why work was refused or allowed, by the decision's id
    #[arg(long, group = "question")]
    pub decision: Option<String>,
    /// With `used` and `counted`: whose usage
    #[arg(long, requires = "figure")]
    pub user: Option<String>,
    /// The figure as it stood at this ledger time, as 2026-01-31T00:00:00Z
    #[arg(long, requires = "figure")]
    pub as_of: Option<Time>,
    /// The event's producer, where several have sent its id
    #[arg(long, requires = "event")]
    pub source: Option<String>,
    /// Shows what an answer before left over, by the cursor that it names
    #[arg(long)]
    pub cursor: Option<String>,
    /// Prints the answer as JSON
    #[arg(long)]
    pub json: bool,
    /// Where the ledger's reads are served
    #[arg(long, env = "LEDGER_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// An API key that may read the account; without it, that of the local stack's operator
    #[arg(long, env = "LEDGER_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// The local stack, where no key is given.
    #[command(flatten)]
    pub connection: Connection,
}

/// Asks, and writes the tree, or the answer as it came.
pub async fn run(arguments: &Explain, out: &mut impl Write) -> Result<()> {
    let answer = ask(arguments).await?;
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&answer)?)?;
        return Ok(());
    }
    let mut lines = Vec::new();
    draw(&answer["tree"], "", "", &mut lines);
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

async fn ask(arguments: &Explain) -> Result<Value> {
    let key = match arguments.key.clone().filter(|key| !key.is_empty()) {
        Some(key) => key,
        None => up::operator_key_of(&arguments.connection.data_dir).with_context(|| {
            let data_dir = arguments.connection.data_dir.display();
            format!("no key: give --key, or name the --data-dir of a `ledger up` ({data_dir} has none)")
        })?,
    };
    let as_of = arguments.as_of.map(|as_of| as_of.to_string());
    let query: Vec<(&str, &str)> = [
        ("figure", &arguments.figure),
        ("entry", &arguments.entry),
        ("event", &arguments.event),
        ("firing", &arguments.firing),
        ("decision", &arguments.decision),
        ("user", &arguments.user),
        ("as_of", &as_of),
        ("source", &arguments.source),
        ("cursor", &arguments.cursor),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    .collect();
    let mut url = reqwest::Url::parse(&arguments.url).context("--url is not an address")?;
    let Ok(mut path) = url.path_segments_mut() else { bail!("--url is not the address of a service") };
    path.pop_if_empty().extend(["v1", "accounts", arguments.account.as_str(), "explain"]);
    drop(path);
    url.query_pairs_mut().extend_pairs(query);
    let asked = http_client::plain().get(url).bearer_auth(key);
    let answer = asked.send().await.with_context(|| format!("{} does not answer", arguments.url))?;
    let is_answered = answer.status().is_success();
    let body: Value = answer.json().await.context("the answer is not JSON")?;
    if !is_answered {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let fields: Vec<String> = body["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|error| format!("; {}: {}", error["field"], error["detail"]).replace('"', ""))
            .collect();
        bail!("{} ({}){}", text("detail"), text("code"), fields.concat());
    }
    Ok(body)
}

/// Draws a node, and below it its children and what is left of them. `lead` stands before its line, `below` before
/// those of its children.
fn draw(node: &Value, lead: &str, below: &str, lines: &mut Vec<String>) {
    lines.push(format!("{lead}{}", title(node)));
    let children = node["children"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rest = &node["rest"];
    let last = children.len() - usize::from(rest.is_null() && !children.is_empty());
    for (number, child) in children.iter().enumerate() {
        let (branch, stem) = if number == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        draw(child, &format!("{below}{branch}"), &format!("{below}{stem}"), lines);
    }
    if !rest.is_null() {
        let amount = rest["amount"].as_str().unwrap_or_default();
        let what = match (rest["count"].as_u64(), rest["next_cursor"].as_str()) {
            (Some(count), Some(cursor)) => format!("{count} more: {amount}   --cursor {cursor}"),
            (Some(count), None) if count > 0 => format!("{count} more: {amount}"),
            (Some(_) | None, _) => format!("not explained: {amount}"),
        };
        lines.push(format!("{below}└─ {what}"));
    }
}

/// Returns a node as a line: what it is, its amount, and by what names it is found.
fn title(node: &Value) -> String {
    let text = |name: &str| node[name].as_str();
    let kind = text("kind").unwrap_or_default();
    let what = match (text("figure"), text("type"), text("quantity")) {
        (Some(figure), _, _) => figure.to_owned(),
        (None, Some(entry), _) => entry.to_owned(),
        (None, None, Some(quantity)) => quantity.to_owned(),
        (None, None, None) => kind.to_owned(),
    };
    let operation = match text("operation") {
        Some("ratio") => " = 100 × first ÷ second",
        Some("min0") => " or 0",
        _ => "",
    };
    let amount = text("amount").unwrap_or("none");
    let mut line = format!("{what}{operation}: {amount}");
    if let (Some(units), Some(price), Some(per)) = (text("units"), text("unit_credits"), text("per")) {
        line += &format!("   {units} × {price} ÷ {per}");
    }
    for name in ["entry_id", "event_id", "grant_id", "source"] {
        if let Some(value) = text(name) {
            line += &format!("   {value}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tree_is_drawn_with_its_rests() {
        let lot = json!({"kind": "lot", "amount": "-2", "operation": "sum", "children": [], "rest": null,
                         "grant_id": "plan:0", "source": "plan"});
        let entry = json!({"kind": "entry", "type": "consumed", "amount": "-2", "operation": "sum", "children": [lot],
                           "rest": null, "entry_id": "0:3:0", "event_id": "u1"});
        let opening =
            json!({"kind": "opening", "amount": "5", "operation": "sum", "children": [], "rest": null});
        let tree = json!({"kind": "figure", "figure": "settled", "amount": "4", "operation": "sum",
                          "children": [opening, entry], "rest": {"count": 7, "amount": "1", "next_cursor": "abc"}});
        let mut lines = Vec::new();
        draw(&tree, "", "", &mut lines);
        assert_eq!(
            lines.join("\n"),
            "settled: 4\n\
             ├─ opening: 5\n\
             ├─ consumed: -2   0:3:0   u1\n\
             │  └─ lot: -2   plan:0   plan\n\
             └─ 7 more: 1   --cursor abc"
        );
    }

    #[test]
    fn a_price_line_shows_how_it_comes_to_its_amount() {
        let line = json!({"kind": "line", "amount": "0.3", "operation": "sum", "quantity": "input_tokens",
                          "units": "1200", "unit_credits": "250", "per": "1000000"});
        assert_eq!(title(&line), "input_tokens: 0.3   1200 × 250 ÷ 1000000");
        let ratio = json!({"kind": "figure", "figure": "percent_used", "amount": null, "operation": "ratio"});
        assert_eq!(title(&ratio), "percent_used = 100 × first ÷ second: none");
    }
}
