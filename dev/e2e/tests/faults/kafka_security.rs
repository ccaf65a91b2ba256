//! Kafka with TLS, logins and rights: every service runs under the rights that docs/kafka-acls.txt gives it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use local_stack::testing::shared_stack;
use local_stack::testing::wire::{Acl, Wire};
use local_stack::{Listener, Stack, StackOptions, TestSpace};
use platform::http_client;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureProducer, FutureRecord};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::client::{CREDITS, write};
use crate::fleet::{self, Fleet};

const WAIT_MAX: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);
/// How soon a login that has ended is refused.
const LOG_IN_AGAIN_MS: &str = "4000";

/// An authority, and what it has signed, as files that Kafka and its clients read.
struct Certificates {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Result<Certificates> {
        let folder = tempfile::tempdir()?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("authority of {}", folder.path().display()));
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key)?.pem())?;
        Ok(Certificates { folder, issuer: Issuer::new(params, key) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a certificate of this name for loopback, and returns the file that has its key too.
    fn sign(&self, name: &str) -> Result<PathBuf> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let path = self.path(&format!("{name}.pem"));
        fs::write(&path, format!("{}{}", key.serialize_pem(), certificate.pem()))?;
        Ok(path)
    }
}

/// A broker that everybody in this test may reach in three ways: `PLAINTEXT` with every right, by password, by certificate.
struct Secured {
    stack: Stack,
    by_password: String,
    by_certificate: String,
    certificates: Certificates,
    _folder: TempDir,
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Secured {
    async fn start() -> Result<Secured> {
        let certificates = Certificates::new()?;
        let (password_port, certificate_port) = (free_port()?, free_port()?);
        let folder = tempfile::tempdir()?;
        let listener = |name: &str, protocol, port| Listener { name: name.to_owned(), protocol, port };
        let options = StackOptions {
            data_dir: folder.path().join("data"),
            database_url: Some(shared_stack().await?.database_url),
            kafka_listeners: vec![
                listener("LOGIN", "SASL_SSL", password_port),
                listener("TLS", "SSL", certificate_port),
            ],
            kafka_settings: settings(&certificates.sign("broker")?, &certificates.path("ca.pem")),
            ..StackOptions::default()
        };
        Ok(Secured {
            stack: Stack::start(options, |_| {}).await?,
            by_password: format!("127.0.0.1:{password_port}"),
            by_certificate: format!("127.0.0.1:{certificate_port}"),
            certificates,
            _folder: folder,
        })
    }

    /// Returns the environment of a service that logs in by password.
    fn logs_in(&self, mechanism: &str, name: &str) -> Vec<(String, String)> {
        env(&[
            ("KAFKA_BROKERS", &self.by_password),
            ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("KAFKA_SASL_MECHANISM", mechanism),
            ("KAFKA_SASL_USERNAME", name),
            ("KAFKA_SASL_PASSWORD", &password(name)),
            ("KAFKA_SSL_CA_LOCATION", &self.certificates.path("ca.pem").display().to_string()),
        ])
    }

    /// Returns the environment of a service that shows a certificate.
    fn shows_certificate(&self, name: &str) -> Result<Vec<(String, String)>> {
        let (own, authority) = (self.certificates.sign(name)?, self.certificates.path("ca.pem"));
        let (own, authority) = (own.display(), authority.display());
        let config =
            format!("ssl.certificate.location={own};ssl.key.location={own}\nssl.ca.location={authority}");
        Ok(env(&[
            ("KAFKA_BROKERS", &self.by_certificate),
            ("KAFKA_SECURITY_PROTOCOL", "SSL"),
            ("KAFKA_CONFIG", &config),
        ]))
    }

    fn producer(&self, name: &str) -> Result<FutureProducer> {
        Ok(ClientConfig::new()
            .set("bootstrap.servers", &self.by_password)
            .set("security.protocol", "SASL_SSL")
            .set("sasl.mechanism", "SCRAM-SHA-256")
            .set("sasl.username", name)
            .set("sasl.password", password(name))
            .set("ssl.ca.location", self.certificates.path("ca.pem").display().to_string())
            .set("compression.codec", "zstd")
            .set("message.timeout.ms", "20000")
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Critical)
            .create()?)
    }
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn password(name: &str) -> String {
    format!("the secret of {name}")
}

fn settings(broker: &Path, authority: &Path) -> Vec<(String, String)> {
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let plain = format!(
        "org.apache.kafka.common.security.plain.PlainLoginModule required user_ledger-projector=\"{}\";",
        password("ledger-projector")
    );
    env(&[
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "false"),
        // Who comes over the plain listener is nobody in particular, and here the one who sets all up.
        ("super.users", "User:ANONYMOUS"),
        ("listener.name.login.sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"),
        ("listener.name.login.plain.sasl.jaas.config", &plain),
        ("listener.name.login.scram-sha-256.sasl.jaas.config", scram),
        ("listener.name.login.scram-sha-512.sasl.jaas.config", scram),
        ("listener.name.login.scram-sha-512.connections.max.reauth.ms", LOG_IN_AGAIN_MS),
        ("listener.name.tls.ssl.client.auth", "required"),
        ("listener.name.tls.ssl.principal.mapping.rules", "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT"),
        ("ssl.keystore.type", "PEM"),
        ("ssl.keystore.location", &broker.display().to_string()),
        ("ssl.truststore.type", "PEM"),
        ("ssl.truststore.location", &authority.display().to_string()),
    ])
}

/// Reads the rights that the operations page gives, for topics and groups of another prefix.
fn documented_rights(prefix: &str) -> Result<Vec<Acl>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kafka-acls.txt");
    let mut rights = Vec::new();
    for line in fs::read_to_string(path)?.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [principal, resource, name, operations] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("no right: {line}");
        };
        for operation in operations.split(',') {
            rights.push(Acl {
                principal: format!("User:{principal}"),
                resource: resource.to_owned(),
                name: name.replace("ledger.", prefix),
                operation: operation.to_owned(),
            });
        }
    }
    Ok(rights)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_run_by_tls_and_logins_with_the_documented_rights_and_no_others() -> Result<()> {
    let alone = fleet::alone().await;
    let secured = Secured::start().await?;
    let mut wire = Wire::connect(&secured.stack.kafka_brokers).await?;
    let space =
        TestSpace::within(secured.stack.kafka_brokers.clone(), secured.stack.database_url.clone()).await?;
    wire.create_acls(&documented_rights(&space.topic_prefix)?).await?;
    for name in ["ledger-command-api", "ledger-query-api", "producer"] {
        wire.set_login(name, Some(&password(name))).await?;
    }
    let mut fleet = Fleet::start_on(alone, space, &[]).await?;
    fleet.set_env("command-api", secured.logs_in("SCRAM-SHA-512", "ledger-command-api"));
    fleet.set_env("projector", secured.logs_in("PLAIN", "ledger-projector"));
    fleet.set_env("alert-worker", secured.shows_certificate("ledger-alert-worker")?);
    fleet.set_env("query-api", secured.logs_in("SCRAM-SHA-256", "ledger-query-api"));
    let services = ["command-api", "projector", "alert-worker", "query-api"];
    for service in services {
        fleet.launch(service, None)?;
    }
    for service in services {
        fleet.ready(service).await?;
    }

    let client = http_client::builder().timeout(WAIT_MAX).build()?;
    let body =
        json!({"account_id": "acme", "clock": "live", "plan": {"cycle": "monthly", "allowance": "100"}});
    write(&fleet, &client, Method::POST, "/v1/accounts", &body).await?;
    a_producer_writes_usage_and_nothing_else(&secured, &fleet).await?;
    who_is_not_known_or_not_trusted_is_told(&secured, &mut fleet, &mut wire).await?;
    a_login_that_ends_is_unready_until_it_is_mended(&secured, &mut fleet, &mut wire).await?;

    fleet.verify(2).await?;
    drop(fleet);
    secured.stack.stop().await
}

fn usage(id: &str) -> String {
    json!({
        "specversion": "1.0", "id": id, "source": "/faults", "type": "ledger.usage.recorded.v1", "subject": "acme",
        "time": platform::clock::now().to_string(), "data": {"credits": CREDITS, "user_id": "ana"}
    })
    .to_string()
}

async fn a_producer_writes_usage_and_nothing_else(secured: &Secured, fleet: &Fleet) -> Result<()> {
    let producer = secured.producer("producer")?;
    let topics = fleet.kafka.topics();
    let send = async |topic: &str| {
        let value = usage("u1");
        let sent = producer.send(FutureRecord::to(topic).key("acme").payload(&value), WAIT_MAX).await;
        sent.map(drop).map_err(|(error, _)| error.rdkafka_error_code())
    };
    ensure!(send(&topics.usage).await == Ok(()), "a producer writes usage");
    for topic in [&topics.events, &topics.alerts, &topics.dead_letters] {
        let refused = send(topic).await;
        ensure!(refused == Err(Some(RDKafkaErrorCode::TopicAuthorizationFailed)), "{topic}: {refused:?}");
    }
    Ok(())
}

/// A service that can't connect is not ready and says why; one with a setting that can't be ends.
async fn who_is_not_known_or_not_trusted_is_told(
    secured: &Secured,
    fleet: &mut Fleet,
    wire: &mut Wire,
) -> Result<()> {
    let other = Certificates::new()?;
    let mut untrusting = secured.logs_in("PLAIN", "ledger-projector");
    untrusting.extend(env(&[("KAFKA_SSL_CA_LOCATION", &other.path("ca.pem").display().to_string())]));
    let mut unknown = secured.logs_in("SCRAM-SHA-256", "ledger-query-api");
    unknown.extend(env(&[("KAFKA_SASL_PASSWORD", "another one")]));
    // The projector's place is taken while it runs, so the same service is started a second time.
    fleet.set_env("projector", untrusting);
    fleet.launch("projector.2", None)?;
    fleet.kill("query-api")?;
    fleet.set_env("query-api", unknown);
    fleet.launch("query-api", None)?;
    await_reason(fleet, "projector.2", "certificate verify failed").await?;
    await_reason(fleet, "query-api", "Authentication failed").await?;
    fleet.kill("projector.2")?;
    // Mended at the broker: the service goes on by itself.
    wire.set_login("ledger-query-api", Some("another one")).await?;
    fleet.ready("query-api").await?;
    let mut reserved = secured.logs_in("PLAIN", "ledger-projector");
    reserved.extend(env(&[("KAFKA_CONFIG", "acks=1")]));
    fleet.set_env("projector", reserved);
    fleet.launch("projector.2", None)?;
    ensure!(!fleet.ended("projector.2", WAIT_MAX).await?.success(), "acks was taken");
    Ok(())
}

/// Waits until a service says that it is not ready, for this reason and without a password.
async fn await_reason(fleet: &Fleet, service: &str, reason: &str) -> Result<()> {
    let url = format!("{}/readyz", fleet.url(service)?);
    let client = http_client::plain();
    let deadline = Instant::now() + WAIT_MAX;
    let mut said = String::new();
    while !said.contains(reason) {
        ensure!(Instant::now() < deadline, "{service} is ready, or does not say {reason}: {said}");
        sleep(POLL).await;
        if let Ok(answer) = client.get(&url).send().await {
            said = if answer.status() == 503 { answer.text().await? } else { String::new() };
        }
    }
    ensure!(!said.contains("the secret of") && !said.contains("another one"), "{said}");
    Ok(())
}

async fn a_login_that_ends_is_unready_until_it_is_mended(
    secured: &Secured,
    fleet: &mut Fleet,
    wire: &mut Wire,
) -> Result<()> {
    let name = "ledger-command-api";
    wire.set_login(name, None).await?;
    await_reason(fleet, "command-api", "Authentication failed").await?;
    // What producers write meanwhile waits in Kafka.
    let producer = secured.producer("producer")?;
    let (topic, value) = (fleet.kafka.topics().usage, usage("u2"));
    let sent = producer.send(FutureRecord::to(&topic).key("acme").payload(&value), WAIT_MAX).await;
    sent.map_err(|(error, _)| error).context("the producer's login has not ended")?;
    wire.set_login(name, Some(&password(name))).await?;
    fleet.ready("command-api").await?;
    let deadline = Instant::now() + WAIT_MAX;
    let mut used = String::new();
    while used != "0.5" {
        ensure!(Instant::now() < deadline, "usage does not go on: {used}");
        sleep(POLL).await;
        let mut tx = platform::pg::begin_read(&fleet.pool, fleet.live().await?).await?;
        let read = sqlx::query_scalar("select coalesce(sum(used), 0)::text from user_usage");
        let sum: String = read.fetch_one(&mut *tx).await?;
        used = sum.trim_end_matches('0').to_owned();
    }
    Ok(())
}
