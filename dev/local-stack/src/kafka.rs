//! Kafka of the local stack: a single node that is broker and controller, on loopback.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sys::signal::Signal;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext};

use crate::data_dir::{Ports, write_whole};
use crate::process::{Identity, Plan, Process, stop_left_behind};
use crate::programs;

/// A first start on a busy small machine took 20 s; twice that and some.
const READY_MAX: Duration = Duration::from_secs(90);
const FORMAT_MAX: Duration = Duration::from_secs(60);
const PROBE_MAX: Duration = Duration::from_secs(2);
/// How long a broker that was named in the settings may take to answer.
const REACH_MAX: Duration = Duration::from_secs(5);
const MAIN_CLASS: &str = "kafka.Kafka";
const FORMAT_CLASS: &str = "kafka.tools.StorageTool";

/// One stack's Kafka: its paths, port and programs.
#[derive(Debug, Clone)]
pub(crate) struct Kafka {
    pub folder: PathBuf,
    pub log: PathBuf,
    pub java: PathBuf,
    pub jars: PathBuf,
    pub ports: Ports,
    /// Besides the one that everybody on this machine may connect to.
    pub listeners: Vec<Listener>,
    /// On top of the usual ones.
    pub extra_settings: Vec<(String, String)>,
}

/// A further way to connect to our Kafka, on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Such as `SECURE`; settings of one listener begin with `listener.name.secure.`.
    pub name: String,
    /// PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    pub protocol: &'static str,
    pub port: u16,
}

impl Kafka {
    /// Returns the words by which the running process of a data directory is known.
    pub(crate) fn identity(data_dir: &Path) -> Identity {
        Identity { program: MAIN_CLASS, path: settings_file(&Self::folder_in(data_dir)) }
    }

    pub(crate) fn folder_in(data_dir: &Path) -> PathBuf {
        data_dir.join("kafka")
    }

    pub(crate) fn brokers(&self) -> String {
        brokers_at(self.ports.kafka)
    }

    /// Adopts a broker left running if it runs as we would run it, else starts one; returns when it answers.
    pub(crate) async fn start(&self) -> Result<Process> {
        match self.take_over().await? {
            Some(process) => Ok(process),
            None => self.start_anew().await,
        }
    }

    async fn take_over(&self) -> Result<Option<Process>> {
        let plan = self.plan();
        let Some(found) = plan.identity.find() else { return Ok(None) };
        let settings = fs::read_to_string(settings_file(&self.folder));
        let as_planned =
            found.arguments.ends_with(&plan.arguments) && settings.is_ok_and(|text| text == self.settings());
        let mut left_behind = Process::adopt(plan, &found);
        if as_planned && self.wait(&mut left_behind).await.is_ok() {
            return Ok(Some(left_behind));
        }
        left_behind.stop().await?;
        Ok(None)
    }

    async fn start_anew(&self) -> Result<Process> {
        // No other user may read the journal.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .with_context(|| format!("cannot create {}", self.folder.display()))?;
        write_whole(Path::new(&settings_file(&self.folder)), self.settings().as_bytes(), 0o644)?;
        self.format_once().await?;
        let mut process = Process::start(self.plan())?;
        self.wait(&mut process).await?;
        Ok(process)
    }

    async fn wait(&self, process: &mut Process) -> Result<()> {
        let brokers = self.brokers();
        process.wait_until_ready(READY_MAX, || answers(brokers.clone(), Vec::new(), PROBE_MAX)).await
    }

    /// Formats the empty log directory with a cluster id; a marker file shows that this has finished.
    async fn format_once(&self) -> Result<()> {
        let marker = self.folder.join("formatted");
        if marker.exists() {
            return Ok(());
        }
        self.clear_interrupted_format().await?;
        let cluster = new_cluster_id();
        let mut command = tokio::process::Command::new(&self.java);
        command
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-cp", &self.class_path(), FORMAT_CLASS, "format", "-t", &cluster, "-c"])
            .arg(settings_file(&self.folder))
            .current_dir(&self.folder);
        let log = self.folder.join("format.log");
        programs::run("Kafka's storage tool", command, &log, FORMAT_MAX).await?;
        write_whole(&marker, cluster.as_bytes(), 0o644)
    }

    /// Without the marker no broker has ever written here, so whatever a killed start left is useless.
    async fn clear_interrupted_format(&self) -> Result<()> {
        let identity = Identity { program: FORMAT_CLASS, path: settings_file(&self.folder) };
        stop_left_behind(&identity).await?;
        let log_dir = self.log_dir();
        if log_dir.exists() {
            fs::remove_dir_all(&log_dir).with_context(|| format!("cannot remove {}", log_dir.display()))?;
        }
        Ok(())
    }

    fn log_dir(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn class_path(&self) -> String {
        format!("{}/*", self.jars.display())
    }

    fn plan(&self) -> Plan {
        let mut arguments: Vec<String> = [
            // Enough for hundreds of small topics; the page cache does the rest.
            "-Xms256m",
            "-Xmx768m",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            "-cp",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(self.class_path());
        arguments.push(MAIN_CLASS.to_owned());
        arguments.push(settings_file(&self.folder));
        Plan {
            name: "Kafka",
            program: self.java.clone(),
            arguments,
            identity: Identity { program: MAIN_CLASS, path: settings_file(&self.folder) },
            account: None,
            folder: self.folder.clone(),
            log: self.log.clone(),
            stop_signal: Signal::SIGTERM,
            crash_signal: Signal::SIGKILL,
        }
    }

    fn settings(&self) -> String {
        let Ports { kafka, kafka_controller, .. } = self.ports;
        let log_dir = self.log_dir();
        let more = |text: fn(&Listener) -> String| self.listeners.iter().map(text).collect::<String>();
        let listening = more(|it| format!(",{}://127.0.0.1:{}", it.name, it.port));
        let protocols = more(|it| format!(",{}:{}", it.name, it.protocol));
        let extra: String =
            self.extra_settings.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        format!(
            "# Written by `ledger` at every start; changes here are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{kafka_controller}
listeners=PLAINTEXT://127.0.0.1:{kafka},CONTROLLER://127.0.0.1:{kafka_controller}{listening}
advertised.listeners=PLAINTEXT://127.0.0.1:{kafka}{listening}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}
log.dirs={log_dir}

# The ledger creates its topics itself, and an acknowledged record must never be given up.
auto.create.topics.enable=false
unclean.leader.election.enable=false
default.replication.factor=1
min.insync.replicas=1

# One node and few groups: small internal topics, and no wait for more members.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0

# Taken from the heap at start; the default is 128 MB.
log.cleaner.dedupe.buffer.size=16777216
{extra}",
            log_dir = log_dir.display()
        )
    }
}

/// Returns what clients of a broker on this machine connect to.
pub(crate) fn brokers_at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn settings_file(folder: &Path) -> String {
    folder.join("server.properties").display().to_string()
}

/// Keeps why a client has no connection: a request that waits for one only times out.
#[derive(Default)]
struct Reason(Mutex<String>);

impl ClientContext for Reason {
    /// A Kafka that is still starting refuses connections: nothing to report.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_empty() || error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            reason.clone_into(&mut kept);
        }
    }
}

impl ConsumerContext for Reason {}

/// Succeeds when a broker answers and lists itself as alive.
async fn answers(brokers: String, client: Vec<(String, String)>, limit: Duration) -> Result<()> {
    // librdkafka's metadata call blocks; it has a limit of its own.
    tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("ssl.ca.location", "probe").set("log_level", "0").extend(client);
        config.set("bootstrap.servers", &brokers);
        let consumer: BaseConsumer<Reason> = config.create_with_context(Reason::default())?;
        let metadata = consumer.fetch_metadata(None, limit).map_err(|error| {
            while consumer.poll(Duration::from_millis(50)).is_some() {}
            let reason = consumer.context().0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if reason.is_empty() { anyhow::Error::from(error) } else { anyhow::Error::msg(reason) }
        })?;
        if metadata.brokers().is_empty() {
            bail!("no broker is up yet");
        }
        Ok(())
    })
    .await?
}

/// Checks a Kafka that the settings name.
pub(crate) async fn check_reachable(brokers: &str, client: &[(String, String)]) -> Result<()> {
    let answer = answers(brokers.to_owned(), client.to_vec(), REACH_MAX).await;
    answer.map_err(|reason| {
        anyhow::anyhow!(
            "KAFKA_BROKERS is set to {brokers}, but no Kafka answers there ({reason}): start it, or unset KAFKA_BROKERS and the ledger starts its own"
        )
    })
}

/// Returns a new cluster id: 16 random bytes in URL-safe base64, not beginning with a dash, which a command line would
/// take for an option.
fn new_cluster_id() -> String {
    loop {
        let id = URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4());
        if !id.starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_never_looks_like_an_option() {
        for _ in 0..1000 {
            let id = new_cluster_id();
            assert!(id.len() == 22 && !id.starts_with('-'), "{id}");
        }
    }

    #[tokio::test]
    async fn a_kafka_named_but_absent_is_one_clear_sentence() {
        let error = check_reachable("127.0.0.1:1", &[]).await;
        let sentence = error.expect_err("nothing listens there").to_string();
        assert!(sentence.contains("127.0.0.1:1"), "{sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
    }
}
