//! Notes: the checkpoints that were signed, from wherever they are kept: the auditor's files, the topic, and the table from
//! which they are served.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use platform::kafka::{Checkpoints, KafkaOptions, LogIdentity, Record};
use sqlx::PgPool;
use transparency_log::key::VerifierKey;

use super::finding::Finding;
use super::trust::{Judged, Keeper, Signed, Trust};

/// Returns the keys that the ledger itself lists; those that can't be read open nothing.
pub(super) async fn listed_keys(pool: &PgPool) -> Result<Vec<VerifierKey>> {
    let keys: Vec<String> =
        sqlx::query_scalar("select vkey from control.log_key order by partition, since, vkey")
            .fetch_all(pool)
            .await?;
    Ok(keys.iter().filter_map(|key| key.parse().ok()).collect())
}

/// Checkpoints while they are read.
pub(super) struct Notes<'a> {
    trust: &'a Trust,
    identity: LogIdentity,
    signed: Vec<Signed>,
    findings: Vec<Finding>,
}

impl<'a> Notes<'a> {
    pub fn new(trust: &'a Trust, identity: LogIdentity) -> Notes<'a> {
        Notes { trust, identity, signed: Vec::new(), findings: Vec::new() }
    }

    /// Takes a note that somebody kept: it is signed, or a finding, or says nothing.
    pub fn take(&mut self, file: &str, keeper: Keeper, note: &[u8]) {
        match self.trust.judge(file, keeper, note, self.identity) {
            Judged::Signed(one) => self.signed.push(one),
            Judged::Found(note) => self.findings.push(Finding::Note(note)),
            Judged::Unknown => {}
        }
    }

    pub fn take_files(&mut self, files: &[PathBuf]) -> Result<()> {
        for file in files {
            let note = fs::read(file).with_context(|| format!("{} can't be read", file.display()))?;
            self.take(&file.display().to_string(), Keeper::Auditor, &note);
        }
        Ok(())
    }

    /// Takes all that the topic of checkpoints has.
    pub async fn take_topic(&mut self, kafka: &KafkaOptions) -> Result<()> {
        let (topic, published) = (kafka.topics().checkpoints, Checkpoints::new(kafka, self.identity));
        let take = |record: Record| {
            self.take(&format!("{topic} {}", record.position), Keeper::Ledger, record.value_bytes());
        };
        let read = published.each(take).await;
        read.with_context(|| format!("{topic} can't be read"))
    }

    /// Takes all that the ledger has published.
    pub async fn take_published(&mut self, pool: &PgPool) -> Result<()> {
        let notes = "select partition, size, note from control.log_checkpoint order by partition, size";
        let mut notes = sqlx::query_as::<_, (i32, i64, String)>(notes).fetch(pool);
        while let Some((partition, size, note)) = notes.try_next().await? {
            let file = format!("control.log_checkpoint {partition}:{size}");
            self.take(&file, Keeper::Ledger, note.as_bytes());
        }
        Ok(())
    }

    /// Returns those that a trusted key has signed, and adds the findings.
    pub fn into_signed(self, findings: &mut Vec<Finding>) -> Vec<Signed> {
        findings.extend(self.findings);
        self.signed
    }
}
