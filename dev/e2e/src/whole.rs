//! Whole: every service in this process, merged or apart, on a database and topics of its own.

use std::num::NonZeroU32;
use std::time::Duration;

use alert_worker::alerting::{Alerting, Evaluation, NotifyFrom};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use engine::consume::{self, ConsumeOptions, Source, Status, Worker};
use ledger::up::UpConfig;
use ledger_core::fold::FOLD_VERSION;
use local_stack::TestSpace;
use platform::http_client;
use platform::kafka::{self, Ends, KafkaOptions, LogIdentity, Position};
use platform::pg::{self, Model, PgPool, Schema};
use platform::shutdown::CancellationToken;
use reqwest::Client;
use serde_json::json;
use tempfile::TempDir;

use crate::caller::Caller;
use crate::services::{Addresses, Form, Services};

/// Enough for accounts to share a partition and to be in different ones.
const PARTITIONS: i32 = 3;
const WAIT: &str = "--wait-ms";
pub const OPERATOR_KEY: &str = "the operator's key of these tests";
/// Longest wait for the projection.
const PROJECTED_MAX: Duration = Duration::from_secs(120);
/// How long an answer waits for the projection here: a machine that stalls for seconds must not fail a test.
const WAIT_MS: &str = "20000";
/// The first answer may wait until a consumer group is joined.
const ANSWER_MAX: Duration = Duration::from_secs(90);

pub struct Whole {
    form: Form,
    addresses: Addresses,
    /// Kafka as the services use it.
    pub kafka: KafkaOptions,
    /// A pool with every right.
    pub pool: PgPool,
    pub database_url: String,
    identity: LogIdentity,
    client: Client,
    // In the order in which they are dropped: the space's topics and database last.
    services: Services,
    data_dir: TempDir,
    more: Vec<String>,
    space: TestSpace,
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    up: UpConfig,
}

/// Returns the settings of `ledger up` for a space, by its own flags and defaults.
fn settings(space: &TestSpace, data_dir: &TempDir, more: &[String]) -> Result<UpConfig> {
    let data_dir = data_dir.path().to_str().context("a path in UTF-8")?;
    let partitions = PARTITIONS.to_string();
    let arguments = [
        "ledger",
        "--data-dir",
        data_dir,
        "--kafka-brokers",
        &space.kafka_brokers,
        "--topic-prefix",
        &space.topic_prefix,
        "--partitions",
        &partitions,
        "--database-url",
        &space.database_url,
        "--listen",
        "127.0.0.1:0",
        "--operator-key",
        OPERATOR_KEY,
    ];
    let waits = more.iter().any(|flag| flag == WAIT);
    let wait = [WAIT, WAIT_MS].into_iter().filter(|_| !waits);
    let more = more.iter().map(String::as_str);
    Ok(Settings::try_parse_from(arguments.into_iter().chain(wait).chain(more))?.up)
}

impl Whole {
    /// Starts everything on a new space.
    pub async fn start() -> Result<Whole> {
        Whole::start_with(&[]).await
    }

    /// Starts everything with more flags.
    pub async fn start_with(more: &[&str]) -> Result<Whole> {
        Whole::start_as(Form::of_environment()?, more).await
    }

    /// Starts everything with the default waits of the API, for tests in which they run out.
    pub async fn start_impatient() -> Result<Whole> {
        Whole::start_with(&[WAIT, "2000"]).await
    }

    /// Starts each service by itself, regardless of the environment.
    pub async fn start_apart() -> Result<Whole> {
        Whole::start_as(Form::Apart, &[]).await
    }

    /// Starts everything in this form, regardless of the environment, with more flags.
    pub async fn start_as(form: Form, more: &[&str]) -> Result<Whole> {
        let more = more.iter().map(|flag| (*flag).to_owned()).collect();
        Whole::begin(form, TestSpace::new().await?, more).await
    }

    /// Starts everything on this space.
    pub async fn start_on(space: TestSpace) -> Result<Whole> {
        Whole::begin(Form::of_environment()?, space, Vec::new()).await
    }

    async fn begin(form: Form, space: TestSpace, more: Vec<String>) -> Result<Whole> {
        let data_dir = tempfile::tempdir()?;
        let config = settings(&space, &data_dir, &more)?;
        let kafka = config.kafka.clone();
        let services = Services::start(form, config).await?;
        let pool = pg::connect(&space.database_url, "test", 4).await?;
        let identity = kafka::prepare(&kafka, &pool).await?;
        let client = http_client::builder().timeout(ANSWER_MAX).build()?;
        let (addresses, database_url) = (services.addresses(), space.database_url.clone());
        Ok(Whole {
            form,
            addresses,
            kafka,
            pool,
            database_url,
            identity,
            client,
            services,
            data_dir,
            more,
            space,
        })
    }

    /// Stops everything and starts it again on the same space; it serves at other addresses then.
    pub async fn restart(self) -> Result<Whole> {
        let Whole { form, services, data_dir, more, space, .. } = self;
        services.stop().await?;
        let services = Services::start(form, settings(&space, &data_dir, &more)?).await?;
        let addresses = services.addresses();
        Ok(Whole { addresses, services, data_dir, more, space, ..self })
    }

    /// Folds the journal anew into another generation, which must equal the live one, and stops everything.
    ///
    /// Ends every live test.
    pub async fn replay_and_stop(self) -> Result<()> {
        self.ensure_replay_equals().await?;
        self.stop().await
    }

    /// Stops everything; for tests that have compared by themselves.
    pub async fn stop(self) -> Result<()> {
        self.pool.close().await;
        self.services.stop().await
    }

    async fn ensure_replay_equals(&self) -> Result<()> {
        for model in [Model::ReadModel, Model::Alerting] {
            self.ensure_model_replays(model).await?;
        }
        Ok(())
    }

    async fn ensure_model_replays(&self, model: Model) -> Result<()> {
        let fresh = Schema { model, generation: 2 };
        let live = Schema { model, generation: 1 };
        // The scheduler may append between the two reads.
        for _ in 0..5 {
            let ends = self.ends().await?;
            self.folded(live, &ends).await?;
            pg::create_generation(&self.pool, fresh).await?;
            let partitions = NonZeroU32::new(PARTITIONS.unsigned_abs()).context("partitions")?;
            match model {
                Model::ReadModel => {
                    self.fold(projector::Projector::new(projector::ReadModel, partitions), fresh, &ends)
                        .await?;
                }
                Model::Alerting => {
                    let nobody = Alerting::new(NotifyFrom::default());
                    self.fold(Evaluation::new(nobody, partitions), fresh, &ends).await?;
                }
            }
            let mut tx = pg::begin_read(&self.pool, fresh).await?;
            let differences = engine::compare::compare(&mut tx, live, fresh).await?;
            drop(tx);
            if self.ends().await? == ends {
                ensure!(
                    differences.is_empty(),
                    "a replay differs from the {}: {differences:#?}",
                    model.name()
                );
                return Ok(());
            }
            pg::drop_generation(&self.pool, fresh).await?;
        }
        anyhow::bail!("the journal does not come to rest")
    }

    async fn fold<W: Worker>(&self, worker: W, schema: Schema, ends: &[Position]) -> Result<()> {
        let source = Source { kafka: self.kafka.clone(), identity: self.identity, pool: self.pool.clone() };
        let options = ConsumeOptions::new("replay", schema, FOLD_VERSION);
        let shutdown = CancellationToken::new();
        Ok(consume::run_until(vec![worker], source, options, Status::default(), ends, shutdown).await?)
    }

    /// Returns the ends of the journal's partitions.
    pub async fn ends(&self) -> Result<Vec<Position>> {
        Ok(Ends::new(&self.kafka, self.identity)?.all().await?)
    }

    /// Waits until everything that the journal has now is projected.
    pub async fn all_projected(&self) -> Result<()> {
        let ends = self.ends().await?;
        self.folded(Schema { model: Model::ReadModel, generation: 1 }, &ends).await
    }

    /// Waits until everything that the journal has now is evaluated.
    pub async fn all_evaluated(&self) -> Result<()> {
        let ends = self.ends().await?;
        self.folded(Schema { model: Model::Alerting, generation: 1 }, &ends).await
    }

    async fn folded(&self, live: Schema, ends: &[Position]) -> Result<()> {
        let waiting = async {
            loop {
                let mut tx = pg::begin_read(&self.pool, live).await?;
                let reached: Vec<(i32, i64)> =
                    sqlx::query_as(r#"select "partition", next_offset from checkpoint"#)
                        .fetch_all(&mut *tx)
                        .await?;
                drop(tx);
                // Every partition begins with a genesis record, so it has a row once a worker has claimed it. Later
                // records may be folded too.
                let reaches =
                    |end: &Position| reached.iter().any(|at| at.0 == end.partition && at.1 >= end.offset);
                if ends.iter().all(reaches) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PROJECTED_MAX, waiting).await.context("the projection does not catch up")?
    }

    /// Waits until the services report that they are ready.
    pub async fn ready(&self) -> Result<()> {
        let waiting = async {
            for url in self.services.urls() {
                while self.client.get(format!("{url}/readyz")).send().await?.status() != 200 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PROJECTED_MAX, waiting).await.context("not ready")?
    }

    /// Returns the address of the console.
    pub fn console(&self) -> &str {
        self.addresses.reads()
    }

    /// Returns a caller with the operator's key.
    pub fn operator(&self) -> Caller {
        self.caller(Some(OPERATOR_KEY))
    }

    /// Returns a caller with this key, or none.
    pub fn caller(&self, key: Option<&str>) -> Caller {
        let key = key.map(str::to_owned);
        Caller::new(self.client.clone(), self.addresses.clone(), key)
    }

    /// Makes a key of a role for these accounts, and returns a caller with it.
    pub async fn keyed(&self, role: &str, accounts: &[&str], user: Option<&str>) -> Result<Caller> {
        let named = format!("{role} {accounts:?} {user:?}");
        let body = json!({"role": role, "accounts": accounts, "user_id": user, "name": named});
        let once = uuid::Uuid::new_v4().to_string();
        let created = self.operator().with("Idempotency-Key", &once).post("/v1/keys", body).await?;
        created.expect(201)?;
        Ok(self.caller(Some(created.body["secret"].as_str().context("a secret")?)))
    }
}
