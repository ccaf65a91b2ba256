//! Settings of every Kafka client: how it connects, and whatever else an operator sets.

use std::convert::Infallible;

use clap::Args;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::error::Error;

/// What the ledger's correctness rests on, under each of its names: nobody else sets these.
const OURS: [&str; 29] = [
    // Which cluster: KAFKA_BROKERS.
    "bootstrap.servers",
    "metadata.broker.list",
    "test.mock.num.brokers",
    // An acknowledged record is on every in-sync replica, once and in order; after 10 s its outcome is unknown.
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "transactional.id",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "message.max.bytes",
    "delivery.report.only.error",
    "produce.offset.report",
    "partitioner",
    // A reader begins where it is assigned, reads only what is committed, and keeps its place itself.
    "group.id",
    "group.instance.id",
    "group.protocol",
    "partition.assignment.strategy",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "check.crcs",
    "enable.partition.eof",
    "allow.auto.create.topics",
    // How the client library itself is driven.
    "log.queue",
    "enabled_events",
    "opaque",
];

/// How clients connect to Kafka, besides the address; applied to every client of the process.
#[derive(Clone, Default, Args)]
pub struct ClientSettings {
    /// Any setting of librdkafka as key=value, several separated by line ends or `;`; `\n` and `\;` stand for a line end
    /// and a semicolon inside a value
    #[arg(long = "kafka-config", env = "KAFKA_CONFIG", hide_env_values = true, value_parser = read)]
    config: Option<Config>,
    /// How to connect: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
    #[arg(long = "kafka-security-protocol", env = "KAFKA_SECURITY_PROTOCOL")]
    security_protocol: Option<String>,
    /// How to log in: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
    #[arg(long = "kafka-sasl-mechanism", env = "KAFKA_SASL_MECHANISM")]
    sasl_mechanism: Option<String>,
    /// The login's name
    #[arg(long = "kafka-sasl-username", env = "KAFKA_SASL_USERNAME")]
    sasl_username: Option<String>,
    /// The login's password
    #[arg(long = "kafka-sasl-password", env = "KAFKA_SASL_PASSWORD", hide_env_values = true)]
    sasl_password: Option<String>,
    /// File or directory of the certificates that the brokers' are checked by; the system's without it
    #[arg(long = "kafka-ssl-ca-location", env = "KAFKA_SSL_CA_LOCATION")]
    ssl_ca_location: Option<String>,
}

/// The settings in `KAFKA_CONFIG`, or why they can't be used: the command line would quote them with their passwords.
#[derive(Clone, PartialEq, Eq)]
struct Config(Result<Vec<(String, String)>, String>);

impl ClientSettings {
    /// Returns the settings by librdkafka's names; those with a name of their own win over `KAFKA_CONFIG`.
    ///
    /// Errors: a sentence that names what can't be set.
    pub fn pairs(&self) -> Result<Vec<(String, String)>, String> {
        let named = [
            ("security.protocol", &self.security_protocol),
            ("sasl.mechanism", &self.sasl_mechanism),
            ("sasl.username", &self.sasl_username),
            ("sasl.password", &self.sasl_password),
            ("ssl.ca.location", &self.ssl_ca_location),
        ];
        let config = self.config.as_ref().map(|config| config.0.clone()).transpose();
        let mut pairs = config.map_err(|why| format!("KAFKA_CONFIG: {why}"))?.unwrap_or_default();
        for (key, value) in named {
            // An empty value is how compose files and shells say "unset".
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                pairs.push((key.to_owned(), value.clone()));
            }
        }
        Ok(pairs)
    }

    pub(super) fn apply(&self, config: &mut ClientConfig) -> Result<(), Error> {
        for (key, value) in self.pairs().map_err(Error::Refused)? {
            config.set(key, value);
        }
        Ok(())
    }

    /// Describes the connection without its secrets, such as `SASL_SSL, SCRAM-SHA-512 as ledger`.
    pub fn describe(&self) -> String {
        let pairs = match self.pairs() {
            Ok(pairs) => pairs,
            Err(why) => return why,
        };
        let find = |names: [&str; 2]| {
            let of = |(key, _): &&(String, String)| names.contains(&key.as_str());
            pairs.iter().rev().find(of).map(|(_, value)| value.as_str())
        };
        let protocol = find(["security.protocol", ""]).unwrap_or("plaintext").to_uppercase();
        let mut said = vec![protocol.clone()];
        if protocol.starts_with("SASL") {
            let mechanism = find(["sasl.mechanism", "sasl.mechanisms"]).unwrap_or("no mechanism");
            let name = find(["sasl.username", ""]).unwrap_or("nobody");
            said.push(format!("{mechanism} as {name}"));
        }
        if protocol.ends_with("SSL") {
            let authorities = find(["ssl.ca.location", "ssl.ca.pem"]).unwrap_or("the system");
            let authorities = if authorities.contains("-----BEGIN") { "KAFKA_CONFIG" } else { authorities };
            said.push(format!("trusting the certificates of {authorities}"));
        }
        let more = self.config.iter().flat_map(|config| config.0.iter().flatten());
        let more: Vec<&str> = more.map(|(key, _)| key.as_str()).collect();
        if !more.is_empty() {
            said.push(format!("KAFKA_CONFIG sets {}", more.join(" ")));
        }
        said.join(", ")
    }
}

/// Shows no password: neither the one with a name of its own nor one in `KAFKA_CONFIG`.
impl std::fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

fn read(text: &str) -> Result<Config, Infallible> {
    Ok(Config(parse(text)))
}

fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for entry in entries(text) {
        let entry = entry.trim();
        if entry.is_empty() || entry.starts_with('#') {
            continue;
        }
        let (key, value) = entry.split_once('=').ok_or("each setting has the form key=value")?;
        let (key, value) = (key.trim(), value.trim());
        if OURS.contains(&key) {
            return Err(format!("the ledger sets {key} itself, and it can't be changed: remove it"));
        }
        let taken = ClientConfig::new().set(key, value).create_native_config();
        taken.map_err(|error| refusal(key, &error))?;
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

/// Returns librdkafka's reason without the value that it quotes, which may be a password.
fn refusal(key: &str, error: &KafkaError) -> String {
    let reason = error.to_string();
    if reason.contains("No such configuration property") {
        return format!("{key} is no setting of librdkafka");
    }
    format!("the value of {key} is not one that librdkafka takes")
}

/// Splits at line ends and semicolons; a backslash keeps a semicolon, and makes a line end of an `n`.
fn entries(text: &str) -> Vec<String> {
    let mut entries = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let kept = match (character, characters.peek()) {
            ('\n' | ';', _) => {
                entries.push(String::new());
                continue;
            }
            ('\\', Some(';')) => Some(';'),
            ('\\', Some('n')) => Some('\n'),
            _ => None,
        };
        if kept.is_some() {
            characters.next();
        }
        entries.last_mut().expect("never empty").push(kept.unwrap_or(character));
    }
    entries
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        client: ClientSettings,
    }

    fn read(arguments: &[&str]) -> ClientSettings {
        Command::try_parse_from(std::iter::once(&"ledger").chain(arguments)).expect("arguments").client
    }

    fn refused(config: &str) -> String {
        read(&["--kafka-config", config]).pairs().expect_err(config)
    }

    fn check(config: &str, expected: &[(&str, &str)]) {
        let pairs = read(&["--kafka-config", config]).pairs().expect(config);
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, expected, "{config}");
    }

    #[test]
    fn settings_are_separated_by_line_ends_and_semicolons() {
        check("", &[]);
        check("linger.ms=5;client.rack=a", &[("linger.ms", "5"), ("client.rack", "a")]);
        check("# ours\n linger.ms = 5 ;\n\nclient.rack=a\n", &[("linger.ms", "5"), ("client.rack", "a")]);
        check(r"client.rack=a\;b\nc=d\e", &[("client.rack", "a;b\nc=d\\e")]);
    }

    #[test]
    fn what_correctness_rests_on_is_refused_by_name() {
        for setting in [
            "acks=1",
            "request.required.acks=1",
            "enable.idempotence=false",
            "auto.offset.reset=latest",
            "isolation.level=read_uncommitted",
            "enable.auto.commit=true",
            "bootstrap.servers=elsewhere:9092",
            "group.id=mine",
        ] {
            let name = setting.split('=').next().expect("a name");
            let said = refused(setting);
            assert!(said.contains(&format!("the ledger sets {name} itself")), "{said}");
        }
    }

    #[test]
    fn every_setting_that_is_refused_is_one_of_librdkafka() {
        for name in OURS {
            let taken = ClientConfig::new().set(name, "").create_native_config();
            let unknown = taken.err().is_some_and(|error| error.to_string().contains("No such"));
            assert!(!unknown, "{name}");
        }
    }

    #[test]
    fn a_setting_that_is_none_is_named_and_its_value_is_not_shown() {
        for (setting, said) in [
            ("sasl.pasword=s3cret", "KAFKA_CONFIG: sasl.pasword is no setting of librdkafka"),
            (
                "security.protocol=s3cret",
                "KAFKA_CONFIG: the value of security.protocol is not one that librdkafka takes",
            ),
            ("alone", "KAFKA_CONFIG: each setting has the form key=value"),
        ] {
            assert_eq!(refused(setting), said);
        }
    }

    #[test]
    fn settings_with_names_of_their_own_win_and_no_password_is_shown() {
        let client = read(&[
            "--kafka-config",
            "security.protocol=ssl;sasl.password=s3cret-1;linger.ms=5",
            "--kafka-security-protocol",
            "SASL_SSL",
            "--kafka-sasl-mechanism",
            "SCRAM-SHA-512",
            "--kafka-sasl-username",
            "ledger",
            "--kafka-sasl-password",
            "s3cret-2",
            "--kafka-ssl-ca-location",
            "/etc/kafka/ca.pem",
        ]);
        let mut config = ClientConfig::new();
        client.apply(&mut config).expect("settings");
        assert_eq!(config.get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(config.get("sasl.password"), Some("s3cret-2"));
        assert_eq!(
            format!("{client:?}"),
            "SASL_SSL, SCRAM-SHA-512 as ledger, trusting the certificates of /etc/kafka/ca.pem, \
             KAFKA_CONFIG sets security.protocol sasl.password linger.ms"
        );
        assert_eq!(ClientSettings::default().describe(), "PLAINTEXT");
    }
}
