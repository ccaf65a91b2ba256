//! The examples of the OpenAPI documents: requests of the tour and what the ledger really answered.
//!
//! `LEDGER_RECORD_EXAMPLES=1` writes them anew; without it, they must still be what the tour sends, and the answers
//! must have the form that is recorded.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const RECORD: &str = "LEDGER_RECORD_EXAMPLES";
/// Items of a list that an example shows.
const ITEMS_MAX: usize = 2;
/// How texts begin that no document shows whole, although they open nothing any more.
const SECRETS: [&str; 2] = ["ldg_", "whsec_"];

/// Requests and answers by operation; of each operation the first.
#[derive(Default)]
pub struct Examples {
    reads: BTreeMap<String, Value>,
    writes: BTreeMap<String, Value>,
}

impl Examples {
    /// Adds what a block sent and what was answered, if the documents describe both as JSON.
    pub fn add(&mut self, block: &str, status: u16, answer: &str) -> Result<()> {
        let (Some(sent), Ok(answer)) = (Sent::by(block), serde_json::from_str::<Value>(answer)) else {
            return Ok(());
        };
        let example = json!({
            "media_type": sent.media_type,
            "request": sent.body,
            "status": status,
            "answer": shortened(answer),
        });
        for (document, examples) in
            [(query_api::openapi(), &mut self.reads), (command_api::openapi(), &mut self.writes)]
        {
            if let Some(operation) = sent.operation(&document).filter(|name| !name.ends_with("Document")) {
                examples.entry(operation).or_insert_with(|| example.clone());
            }
        }
        Ok(())
    }

    /// Writes the examples, or compares them with those written.
    pub fn settle(&self) -> Result<()> {
        for (service, examples) in [("query-api", &self.reads), ("command-api", &self.writes)] {
            let path = format!("{ROOT}/{service}/examples.json");
            if std::env::var_os(RECORD).is_some() {
                fs::write(&path, serde_json::to_string_pretty(examples)? + "\n")?;
                continue;
            }
            let written: BTreeMap<String, Value> = serde_json::from_str(&fs::read_to_string(&path)?)?;
            let how = format!("{path} is not what the tour does: record it with {RECORD}=1");
            ensure!(written.keys().eq(examples.keys()), "{how}");
            for (operation, example) in examples {
                let known = &written[operation];
                ensure!(known["request"] == example["request"], "{operation}: {how}");
                ensure!(known["status"] == example["status"], "{operation}: {how}");
                ensure_alike(&known["answer"], &example["answer"])
                    .with_context(|| format!("{operation}: {how}"))?;
            }
        }
        Ok(())
    }
}

/// What a block sends with curl.
struct Sent {
    method: &'static str,
    path: String,
    media_type: &'static str,
    body: Value,
}

impl Sent {
    /// Reads a block that is one curl with its body in quotes.
    fn by(block: &str) -> Option<Sent> {
        let body =
            block.split_once("-d '").and_then(|(_, rest)| rest.rsplit_once('\'')).map(|(body, _)| body);
        let body = body.map_or(Some(Value::Null), |body| serde_json::from_str(body).ok())?;
        let given = ["PUT", "PATCH", "DELETE", "POST"];
        let given = given.into_iter().find(|method| block.contains(&format!("-X {method} ")));
        let method = given.unwrap_or(if body.is_null() { "GET" } else { "POST" });
        let (_, rest) = block.split_once("$URL")?;
        let path = rest.split([' ', '"', '?', '\n']).next()?.to_owned();
        let batch = "application/cloudevents-batch+json";
        let media_type = if block.contains(batch) { batch } else { "application/json" };
        Some(Sent { method, path, media_type, body })
    }

    fn operation(&self, document: &Value) -> Option<String> {
        let segments: Vec<&str> = self.path.split('/').collect();
        let paths = document["paths"].as_object()?;
        let (_, item) = paths.iter().find(|(template, _)| {
            let described: Vec<&str> = template.split('/').collect();
            let alike =
                |(described, segment): (&&str, &&str)| described == segment || described.starts_with('{');
            described.len() == segments.len() && described.iter().zip(&segments).all(alike)
        })?;
        item[self.method.to_lowercase()]["operationId"].as_str().map(str::to_owned)
    }
}

/// Shows the beginning of long lists, and no secrets.
fn shortened(answer: Value) -> Value {
    match answer {
        Value::Array(items) => items.into_iter().take(ITEMS_MAX).map(shortened).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, field)| (name, shortened(field)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::String(text) => match SECRETS.into_iter().find(|secret| text.starts_with(secret)) {
            Some(secret) => format!("{secret}…").into(),
            None => text.into(),
        },
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

/// Fails unless both have the same fields; figures, times and what is null may differ.
fn ensure_alike(known: &Value, found: &Value) -> Result<()> {
    match (known, found) {
        (Value::Object(known), Value::Object(found)) => {
            ensure!(known.keys().eq(found.keys()), "{known:?} and {found:?}");
            known.values().zip(found.values()).try_for_each(|(known, found)| ensure_alike(known, found))
        }
        (Value::Array(known), Value::Array(found)) => {
            known.iter().zip(found).try_for_each(|(known, found)| ensure_alike(known, found))
        }
        _ => Ok(()),
    }
}

#[test]
fn a_block_says_what_it_sends() {
    let put = Sent::by("curl -X PUT -H \"$AUTH\" $URL/v1/accounts/acme/limits -d '{\n \"enabled\":true}'\n")
        .expect("a curl");
    assert_eq!((put.method, put.path.as_str()), ("PUT", "/v1/accounts/acme/limits"));
    assert_eq!(put.body, json!({"enabled": true}));
    assert_eq!(put.operation(&command_api::openapi()).as_deref(), Some("setLimits"));
    let get = Sent::by("curl -H \"$AUTH\" \"$URL/v1/accounts/acme/balance?at_least=4:2\"\n").expect("a curl");
    assert_eq!((get.method, get.path.as_str()), ("GET", "/v1/accounts/acme/balance"));
    assert_eq!(get.operation(&query_api::openapi()).as_deref(), Some("getBalance"));
}
