//! Restored: the database comes back from a backup while the journal went on. Balances are those of the journal; nothing is
//! charged, mailed or fired twice; what can't come back is said.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use local_stack::TestSpace;
use platform::http_client;
use platform::pg::{self, PgPool};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{Instant, sleep};

use crate::client::write;
use crate::fleet::{self, Fleet, OPERATOR_KEY};
use crate::server::{MailServer, Mood};

const SERVICES: [&str; 4] = ["projector", "command-api", "alert-worker", "query-api"];
const WAIT_MAX: Duration = Duration::from_secs(90);
const ANSWER_MAX: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(50);
/// Several rounds of everything that sends or charges.
const ROUNDS: Duration = Duration::from_secs(3);
const MAILED: &str = "mailed";
const CHARGED: &str = "charged";

/// What of the database is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backup {
    Whole,
    /// As docs/operations.md asks for: the generations follow from the journal.
    ControlAndDelivery,
}

struct World {
    fleet: Fleet,
    http: reqwest::Client,
    mails: MailServer,
}

impl World {
    async fn start() -> Result<World> {
        let mails = MailServer::start(Mood::Take).await?;
        let mut fleet = Fleet::start_on(fleet::beside().await, TestSpace::new().await?, &[]).await?;
        fleet.set_env(
            "alert-worker",
            [
                ("LEDGER_SMTP_URL", mails.url()),
                ("LEDGER_MAIL_FROM", "Ledger <ledger@example.test>".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        );
        let http = http_client::builder().timeout(ANSWER_MAX).build()?;
        let mut world = World { fleet, http, mails };
        world.launch_all().await?;
        Ok(world)
    }

    async fn launch_all(&mut self) -> Result<()> {
        for service in SERVICES {
            self.fleet.launch(service, None)?;
        }
        self.fleet.ready_all_by_themselves().await
    }

    async fn write(&self, method: Method, path: &str, body: Value) -> Result<()> {
        write(&self.fleet, &self.http, method, path, &body).await
    }

    async fn open(&self) -> Result<()> {
        let plan =
            |allowance: &str| json!({"cycle": "yearly", "allowance": allowance, "on_exhausted": "allow"});
        let mailed = json!({"account_id": MAILED, "plan": plan("1000")});
        let charged = json!({"account_id": CHARGED, "usd_per_unit": "0.01", "plan": plan("0")});
        self.write(Method::POST, "/v1/accounts", mailed).await?;
        self.write(Method::POST, "/v1/accounts", charged).await?;
        let contacts = json!({"admins": [{"id": "carl", "email": "carl@example.test"}]});
        self.write(Method::PUT, &format!("/v1/accounts/{MAILED}/contacts"), contacts).await?;
        for (name, threshold) in [("first", "20"), ("second", "60"), ("third", "90")] {
            let rule =
                json!({"basis": "percent_used", "threshold": threshold, "channels": ["email", "in_app"]});
            self.write(Method::PUT, &format!("/v1/accounts/{MAILED}/alerts/{name}"), rule).await?;
        }
        let top_up = json!({"enabled": true, "basis": "available_balance", "threshold": "10", "amount": "50",
                            "payment_method": "pm_ok", "max_per_period": 1000});
        self.write(Method::PUT, &format!("/v1/accounts/{CHARGED}/auto-top-up"), top_up).await
    }

    async fn uses(&self, account: &str, id: &str, credits: &str) -> Result<()> {
        let body =
            json!({"id": id, "occurred_at": platform::clock::now(), "user_id": "ana", "credits": credits});
        self.write(Method::POST, &format!("/v1/accounts/{account}/usage"), body).await
    }

    async fn key(&self, name: &str) -> Result<String> {
        let request = self.http.post(format!("{}/v1/keys", self.fleet.command_url)).bearer_auth(OPERATOR_KEY);
        let request = request.header("idempotency-key", name).json(&json!({"role": "auditor", "name": name}));
        let answer: Value = request.send().await?.json().await?;
        Ok(answer["secret"].as_str().with_context(|| answer.to_string())?.to_owned())
    }

    /// Returns whether a key lets its holder read.
    async fn lets_in(&self, key: &str) -> Result<bool> {
        let url = format!("{}/v1/accounts/{MAILED}/balance", self.fleet.url("query-api")?);
        let status = self.http.get(url).bearer_auth(key).send().await?.status();
        ensure!(status == 200 || status == 401, "{status}");
        Ok(status == 200)
    }

    /// Returns both balances, without where they were read.
    async fn balances(&self) -> Result<Vec<Value>> {
        let mut balances = Vec::new();
        for account in [MAILED, CHARGED] {
            let url = format!("{}/v1/accounts/{account}/balance", self.fleet.url("query-api")?);
            let mut balance: Value =
                self.http.get(url).bearer_auth(OPERATOR_KEY).send().await?.json().await?;
            let figures = balance.as_object_mut().context("a balance")?;
            ensure!(figures.remove("position").is_some(), "{figures:?}");
            figures.remove("recorded_at");
            balances.push(balance);
        }
        Ok(balances)
    }

    async fn firings(&self) -> Result<Vec<String>> {
        self.texts("select firing_id::text from alerting_1.firing order by 1").await
    }

    async fn texts(&self, query: &'static str) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(query).fetch_all(&self.fleet.pool).await?)
    }

    async fn count(&self, what: &str) -> Result<i64> {
        let query = format!("select count(*) from {what}");
        Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&self.fleet.pool).await?)
    }

    async fn until_count(&self, what: &str, count: i64) -> Result<()> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let found = self.count(what).await?;
            if found == count {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{found} of {what}, and not {count}");
            sleep(POLL).await;
        }
    }

    /// Stops everything, and runs statements beside the database, which nobody uses meanwhile.
    async fn while_stopped(&mut self, statements: &[String]) -> Result<()> {
        self.fleet.stop_all().await?;
        self.fleet.pool.close().await;
        let (server, _) = self.fleet.database_url.rsplit_once('/').context("a database")?;
        let mut admin = PgConnection::connect(&format!("{server}/postgres")).await?;
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut admin).await?;
        }
        admin.close().await?;
        self.fleet.pool = pg::connect(&self.fleet.database_url, "test", 4).await?;
        Ok(())
    }

    fn database(&self) -> Result<String> {
        let name = self.fleet.database_url.rsplit_once('/').context("a database")?.1;
        Ok(name.to_owned())
    }
}

async fn execute(pool: &PgPool, statements: &[&'static str]) -> Result<()> {
    for statement in statements {
        sqlx::query(*statement).execute(pool).await.with_context(|| (*statement).to_owned())?;
    }
    Ok(())
}

/// Something is mailed, charged and made before the backup, and again after it.
async fn before_the_backup(world: &World) -> Result<String> {
    world.open().await?;
    world.uses(MAILED, "u1", "250").await?;
    world.until_count("control.top_up where state = 'ended'", 1).await?;
    world.mails.wait_for(1).await?;
    world.until_count("delivery.notification where channel = 'email' and status = 'delivered'", 1).await?;
    world.key("before").await
}

async fn after_the_backup(world: &World) -> Result<String> {
    world.uses(MAILED, "u2", "450").await?;
    world.uses(CHARGED, "u3", "45").await?;
    world.mails.wait_for(2).await?;
    world.until_count("control.top_up where state = 'ended'", 2).await?;
    world.until_count("delivery.notification where channel = 'email' and status = 'delivered'", 2).await?;
    world.fleet.at_rest().await?;
    world.key("since").await
}

/// As if the backup had been taken a moment before its mail was sent and its charge answered, long ago: the provider has
/// forgotten its keys.
const MOMENT_BEFORE: [&str; 3] = [
    "update delivery.notification set status = 'pending', sent_at = null where channel = 'email'",
    "update control.top_up set state = 'started', leased_until = null, next_ask_at = clock_timestamp()",
    "delete from control.sandbox_charge",
];

async fn restore(backup: Backup) -> Result<()> {
    let mut world = World::start().await?;
    let before = before_the_backup(&world).await?;
    let name = world.database()?;
    // Nobody is connected, so a copy is what a dump of it would give back.
    world.while_stopped(&[format!("create database {name}_backup template {name}")]).await?;
    world.launch_all().await?;
    let since = after_the_backup(&world).await?;
    let (balances, firings) = (world.balances().await?, world.firings().await?);
    ensure!(world.lets_in(&since).await? && firings.len() >= 2, "{firings:?}");
    // The provider's book is no part of the backup.
    let charged: Vec<String> =
        world.texts("select row_to_json(c)::text from control.sandbox_charge as c").await?;

    world
        .while_stopped(&[
            format!("drop database {name}"),
            format!("alter database {name}_backup rename to {name}"),
        ])
        .await?;
    execute(&world.fleet.pool, &MOMENT_BEFORE).await?;
    if backup == Backup::ControlAndDelivery {
        let gone = ["drop schema read_model_1 cascade", "drop schema alerting_1 cascade"];
        execute(&world.fleet.pool, &gone).await?;
    }
    world.launch_all().await?;
    world.fleet.at_rest().await?;
    sleep(ROUNDS).await;

    ensure!(world.balances().await? == balances, "{:?} were {balances:?}", world.balances().await?);
    ensure!(world.firings().await? == firings, "{:?} were {firings:?}", world.firings().await?);
    ensure!(world.mails.mails().len() == 2, "{} mails", world.mails.mails().len());
    ensure!(world.count("control.sandbox_charge").await? == 0, "the provider was asked again");
    world.until_count("delivery.notification where last_error like '%restored from a backup%'", 2).await?;
    ensure!(world.lets_in(&before).await? && !world.lets_in(&since).await?, "keys");
    let metrics = world.http.get(format!("{}/metrics", world.fleet.url("alert-worker")?)).send().await?;
    let metrics = metrics.text().await?;
    ensure!(!metrics.contains("ledger_database_restored_partitions 0"), "it is not said");
    ensure!(metrics.contains("ledger_database_restored_partitions"), "it is not said");

    // Life goes on: what is new is mailed and charged.
    world.uses(MAILED, "u4", "250").await?;
    world.uses(CHARGED, "u5", "50").await?;
    world.mails.wait_for(3).await?;
    world.until_count("control.sandbox_charge", 1).await?;
    for charge in charged {
        let book = "insert into control.sandbox_charge
                    select * from json_populate_record(null::control.sandbox_charge, $1::json)";
        sqlx::query(book).bind(charge).execute(&world.fleet.pool).await?;
    }
    world.fleet.replays_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_from_a_backup_folds_on_and_charges_mails_and_fires_nothing_twice() -> Result<()> {
    restore(Backup::Whole).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_which_control_and_delivery_were_kept_is_folded_anew_and_repeats_nothing() -> Result<()>
{
    restore(Backup::ControlAndDelivery).await
}
