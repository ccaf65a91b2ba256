//! The audit log's private keys, and the names under which they sign.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use platform::kafka::LogIdentity;
use transparency_log::key::{Kind, SignerKey};
use transparency_log::key_file::{LogKey, parse};
use transparency_log::name::{KeyName, OriginBase};

/// What the origins of the logs begin with, unless an operator names it.
const ORIGIN: &str = "ledger.local/v1/audit/log";
/// Longest time in seconds until something new is signed, by default.
const CHECKPOINT_SECONDS: u64 = 10;

/// How the audit log is signed.
#[derive(Debug, Clone, clap::Args)]
pub struct SigningConfig {
    /// Files with the private keys of the audit log, comma separated: all sign
    #[arg(long, env = "LEDGER_LOG_KEY_FILE", value_delimiter = ',')]
    pub log_key_file: Vec<PathBuf>,
    /// What the audit log's origins begin with: a URL without scheme, which never changes after the first start
    #[arg(long, env = "LEDGER_LOG_ORIGIN", default_value = ORIGIN)]
    pub log_origin: OriginBase,
    /// Seconds until a checkpoint of what was written is published, at most
    #[arg(
        long,
        env = "LEDGER_CHECKPOINT_SECONDS",
        default_value_t = CHECKPOINT_SECONDS,
        value_parser = clap::value_parser!(u64).range(1..=3_600)
    )]
    pub checkpoint_seconds: u64,
}

impl Default for SigningConfig {
    fn default() -> Self {
        Self {
            log_key_file: Vec::new(),
            log_origin: ORIGIN.parse().expect("the default is an origin"),
            checkpoint_seconds: CHECKPOINT_SECONDS,
        }
    }
}

impl SigningConfig {
    /// Returns the named files; an empty name is none.
    pub fn key_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.log_key_file.iter().filter(|file| !file.as_os_str().is_empty())
    }
}

/// One partition's log, and the keys that sign for it.
pub(super) struct LogSigner {
    pub partition: i32,
    pub origin: KeyName,
    pub keys: Vec<SignerKey>,
}

impl LogSigner {
    /// Returns the public keys, as they are published.
    pub fn vkeys(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.verifier(Kind::Ed25519).to_string()).collect()
    }
}

/// Reads the key files, and derives each partition's keys. Errors: there are none, or one can't be used.
pub(super) fn signers(config: &SigningConfig, identity: LogIdentity) -> anyhow::Result<Vec<LogSigner>> {
    let mut keys: Vec<LogKey> = Vec::new();
    for file in config.key_files() {
        let read = read(file).with_context(|| format!("the audit log's key file {}", file.display()))?;
        keys.extend(read);
    }
    ensure!(
        !keys.is_empty(),
        "LEDGER_LOG_KEY_FILE is not set: the audit log needs a private key, as \
         `openssl genpkey -algorithm ed25519 -out log.key` makes it"
    );
    let log_id = identity.log_id.to_string();
    let signer = |partition| {
        let origin = config.log_origin.origin(&log_id, partition)?;
        Ok(LogSigner { partition, keys: keys.iter().map(|key| key.signer(&origin)).collect(), origin })
    };
    (0..identity.partitions).map(signer).collect()
}

fn read(file: &Path) -> anyhow::Result<Vec<LogKey>> {
    let text = std::fs::read_to_string(file).context("can't be read")?;
    Ok(parse(&text)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use uuid::Uuid;

    use super::*;

    const IDENTITY: LogIdentity = LogIdentity { log_id: Uuid::from_u128(7), partitions: 2 };

    fn check(files: &[&str]) -> Result<Vec<Vec<String>>, String> {
        let files: Vec<tempfile::NamedTempFile> = files
            .iter()
            .map(|text| {
                let mut file = tempfile::NamedTempFile::new().expect("a file");
                file.write_all(text.as_bytes()).expect("written");
                file
            })
            .collect();
        let log_key_file = files.iter().map(|file| file.path().to_owned()).collect();
        let config = SigningConfig { log_key_file, ..SigningConfig::default() };
        let signers = signers(&config, IDENTITY).map_err(|error| format!("{error:#}"))?;
        Ok(signers.iter().map(LogSigner::vkeys).collect())
    }

    #[test]
    fn every_key_of_every_file_signs_for_every_partition_by_a_key_of_its_own() {
        let pem = |seed| LogKey::from_seed([seed; 32]).to_pem().to_string();
        let vkeys = check(&[&pem(1), &format!("{}{}", pem(2), pem(3))]).expect("keys");
        assert_eq!(vkeys.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
        let origin = "ledger.local/v1/audit/log/00000000-0000-0000-0000-000000000007";
        assert!(vkeys[1].iter().all(|vkey| vkey.starts_with(&format!("{origin}/1+"))), "{vkeys:?}");
        let mut all = vkeys.concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn without_a_key_nothing_starts() {
        assert!(check(&[]).expect_err("none").contains("LEDGER_LOG_KEY_FILE"));
        assert!(check(&["no key"]).expect_err("none").contains("no PKCS#8 private key"));
        let config = SigningConfig {
            log_key_file: vec!["".into(), "/no/such/file".into()],
            ..SigningConfig::default()
        };
        let error = signers(&config, IDENTITY).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains("/no/such/file"), "{error}");
    }
}
