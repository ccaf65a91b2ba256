//! Demo: turns a real trace of LLM calls into balances and per-user usage, and proves the figures right.

mod client;
mod feed;
mod ingress;
mod prices;
mod progress;
mod proof;
mod read_back;
mod reference;
mod scenario;
mod tables;
mod top_ups;
mod trace;
mod workload;

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use tokio::time::Instant;

use client::Client;
use feed::{Fed, Ways};
use ingress::Producer;
use progress::Progress;
use proof::Findings;
use scenario::Scenario;
use tables::{Answered, counted};
use workload::{Account, Item};

/// Most runs of the demo on one ledger.
const RUNS_MAX: usize = 1_000;
/// Events of each account that are sent a second time.
const RESENT_ITEMS: usize = 100;
/// Most differences that an error names.
const DIFFERENCES_SHOWN: usize = 5;

/// The ledger that the demo feeds.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub url: String,
    pub key: String,
    /// Whether the key was set rather than generated.
    pub own_key: bool,
    /// Whether payments go to the sandbox.
    pub sandbox: bool,
    /// Kafka for producers.
    pub brokers: String,
    /// How clients connect to it, by librdkafka's names.
    pub kafka_client: Vec<(String, String)>,
    /// The topic of usage in Kafka.
    pub usage_topic: String,
}

/// Sends about `events` calls of the trace, prints the results, and proves them; fails where the ledger's figures
/// differ from the expected ones. `stays` says whether the ledger keeps running afterwards.
pub async fn run(ledger: &Ledger, events: usize, stays: bool, out: &mut impl Write) -> Result<()> {
    let started = Instant::now();
    let client = Client::new(&ledger.url, &ledger.key)?;
    let name = free_name(&client).await?;
    let calls = trace::thin(trace::calls()?, events);
    let scenarios = scenario::all(&name, &calls)?;
    introduce(&scenarios, calls.len(), out)?;
    let fed = feed_all(ledger, &client, &scenarios).await?;
    let resent = resend(&client, &scenarios).await?;
    let said = try_join_all(scenarios.iter().map(|scenario| read_back::read_back(&client, scenario))).await?;
    let answered: Vec<Answered<'_>> = scenarios.iter().zip(&said).collect();
    print_tables(&answered, out)?;
    if ledger.sandbox {
        top_ups::show(&client, &name, out).await?;
    }
    prove(&answered, fed, resent, out)?;
    writeln!(out, "  Took {:.1} s.", started.elapsed().as_secs_f64())?;
    print_ways_on(ledger, &name, stays, out)
}

/// Returns `demo-1`, or the first such name that no earlier run has used.
async fn free_name(client: &Client) -> Result<String> {
    for run in 1..=RUNS_MAX {
        let name = format!("demo-{run}");
        if !client.knows(&format!("{name}-team")).await? {
            return Ok(name);
        }
    }
    bail!("the demo ran {RUNS_MAX} times here: give it another data directory")
}

fn introduce(scenarios: &[Scenario], calls: usize, out: &mut impl Write) -> Result<()> {
    let through = |way| scenarios.iter().flat_map(|one| &one.items).filter(|item| item.way == way).count();
    let (http, kafka) = (through(workload::Way::Http), through(workload::Way::Kafka));
    writeln!(
        out,
        "\nOne real hour of LLM calls, stretched over three months and {} accounts:\n\
         {} calls and {} events of other work, {} through HTTP, {} through Kafka.\n",
        scenarios.len(),
        counted(calls),
        counted((http + kafka).saturating_sub(calls)),
        counted(http),
        counted(kafka),
    )?;
    Ok(out.flush()?)
}

/// Runs the stories of all accounts concurrently.
async fn feed_all(ledger: &Ledger, client: &Client, scenarios: &[Scenario]) -> Result<Fed> {
    feed::publish_cards(client).await.context("publishing the rate cards")?;
    let total = scenarios.iter().map(|scenario| scenario.items.len()).sum();
    let ways = Ways {
        client: client.clone(),
        producer: Producer::new(&ledger.brokers, &ledger.kafka_client, &ledger.usage_topic)?,
        progress: Progress::start(total, std::io::stderr().is_terminal()),
    };
    let all = try_join_all(scenarios.iter().map(|scenario| feed::feed(&ways, scenario))).await;
    ways.progress.finish();
    let mut fed = Fed::default();
    for one in all? {
        fed.add(one);
    }
    Ok(fed)
}

/// Sends a part of every account's events once more, months later, and returns how many; none may count again.
async fn resend(client: &Client, scenarios: &[Scenario]) -> Result<usize> {
    let mut resent = 0;
    for scenario in scenarios {
        let items: Vec<&Item> = scenario.items.iter().take(RESENT_ITEMS).collect();
        let known = feed::resend_batch(client, &scenario.id, Scenario::end()?, &items).await?;
        ensure!(
            known == items.len(),
            "of {} events sent again the ledger took {} for new",
            items.len(),
            items.len() - known
        );
        resent += known;
    }
    Ok(resent)
}

fn print_tables(answered: &[Answered<'_>], out: &mut impl Write) -> Result<()> {
    let mut section = |title: &str, table: String| writeln!(out, "\n{title}\n\n{table}");
    section(
        "Balances, and of them bought and rolled over; used in this period (1 credit is $0.01)",
        tables::balances(answered)?,
    )?;
    section("Where it all went", tables::flows(answered)?)?;
    section("Top users", tables::top_users(answered))?;
    let crew = answered.iter().find(|(scenario, _)| scenario.account == Account::Crew);
    let crew = *crew.context("the crew is one of the accounts")?;
    section(&format!("What {} used", crew.0.id), tables::breakdown(crew)?)?;
    section(
        "Month by month (the account's own days; what a period left expired or rolled on into the next)",
        tables::months(answered)?,
    )?;
    Ok(())
}

fn prove(answered: &[Answered<'_>], fed: Fed, resent: usize, out: &mut impl Write) -> Result<()> {
    let mut findings = Findings::default();
    for (scenario, said) in answered {
        let expected = reference::work_out(scenario)?;
        findings.add(proof::examine(&scenario.id, &expected, said)?);
    }
    if !findings.differences.is_empty() {
        let shown: Vec<String> = findings.differences.iter().take(DIFFERENCES_SHOWN).cloned().collect();
        bail!("{} figures are wrong:\n  {}", findings.differences.len(), shown.join("\n  "));
    }
    let entries = answered.iter().map(|(_, said)| said.entries).sum();
    writeln!(
        out,
        "\nProof\n\n  \
         {} events sent, and {} figures read back: all equal, to 9 decimal places,\n  \
         what the demo worked out by itself from what it had sent.\n  \
         {} ledger entries add up to the balances: no credit appeared or disappeared.\n  \
         {} events sent a second time: none counted twice.",
        counted(fed.http + fed.kafka),
        counted(findings.figures),
        counted(entries),
        counted(resent),
    )?;
    Ok(())
}

fn print_ways_on(ledger: &Ledger, name: &str, stays: bool, out: &mut impl Write) -> Result<()> {
    let Ledger { url, brokers, .. } = ledger;
    let key = if ledger.own_key { "$LEDGER_OPERATOR_KEY" } else { &ledger.key };
    let start = if stays {
        ""
    } else {
        "cargo run --release -- up      # starts it again, with all that is in it\n  "
    };
    writeln!(
        out,
        "\nGo on with\n\n  {start}\
         KEY={key}\n  \
         curl -H \"Authorization: Bearer $KEY\" {url}/v1/accounts/{name}-crew/balance\n  \
         curl -H \"Authorization: Bearer $KEY\" '{url}/v1/accounts/{name}-crew/usage?period=all&group_by=user,model'\n  \
         curl -H \"Authorization: Bearer $KEY\" -H 'Accept: text/csv' '{url}/v1/accounts/{name}-team/entries?limit=20'\n\n  \
         Every request and answer: {url}/docs\n  \
         Figures for Prometheus:   {url}/metrics\n  \
         Kafka for producers:      {brokers}\n  \
         One curl per capability:  docs/tour.md"
    )?;
    Ok(out.flush()?)
}
