//! The audit log's signer as a process: whatever is killed or restored, there is one history, and another is not signed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use platform::http_client;
use platform::kafka::{
    FetchLimits, Journal, KafkaOptions, LogIdentity, OnAssign, Poller, Position, Record, genesis_salt,
    read_partition,
};
use rdkafka::topic_partition_list::Offset;
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep};
use transparency_log::appender::Appender;
use transparency_log::checkpoint::Checkpoint;
use transparency_log::entry::{Content, Entry, KeyHasher};
use transparency_log::hash::Hash;
use transparency_log::key::{Kind, VerifierKey};
use transparency_log::key_file::LogKey;
use transparency_log::name::{KeyName, OriginBase};
use transparency_log::note::Note;

use crate::fleet::{Fleet, LOG_SEED, PARTITIONS, log_key};

const WAIT_MAX: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

/// Returns the log's origin, and its public key that follows from this seed.
fn identity(fleet: &Fleet, partition: i32, seed: u8) -> Result<(KeyName, VerifierKey)> {
    let base: OriginBase = "ledger.local/v1/audit/log".parse()?;
    let origin = base.origin(&fleet.identity.log_id.to_string(), partition)?;
    let key = LogKey::from_seed([seed; 32]).signer(&origin).verifier(Kind::Ed25519);
    Ok((origin, key))
}

/// Returns the root of a partition's journal at each size.
async fn roots(fleet: &Fleet, partition: i32) -> Result<Vec<Hash>> {
    let end = Journal::new(&fleet.kafka, fleet.identity)?.end(partition).await?.offset;
    let (mut log, mut filled, mut hasher) = (Appender::new(), Vec::new(), None);
    let mut roots = vec![log.head().root];
    let mut records = Box::pin(read_partition(&fleet.kafka, partition, 0, end));
    while let Some(record) = records.try_next().await? {
        let Record { position, key, value, appended_at } = record;
        if let Some(salt) = genesis_salt(key.as_deref(), value.as_deref().unwrap_or_default()) {
            hasher = Some(KeyHasher::new(&salt));
        }
        let hasher = hasher.as_ref().context("the genesis record comes first")?;
        let content = Content::Readable {
            key: key.map(|key| hasher.hash(&key)),
            value: value.map(|value| Hash::of(&value)),
        };
        let (offset, millis) =
            (u64::try_from(position.offset)?, u64::try_from(appended_at.micros() / 1_000)?);
        log.append(&Entry { offset, timestamp_ms: millis, content }, &mut filled);
        roots.push(log.head().root);
    }
    Ok(roots)
}

/// Reads all notes of the topic, in order per partition.
async fn notes(fleet: &Fleet) -> Result<Vec<Record>> {
    let topic = fleet.kafka.topics().checkpoints;
    let poller = Poller::new(&fleet.kafka.reader(&[])?, &topic, OnAssign::AwaitSeek)?;
    let ends = poller.ends((0..PARTITIONS).collect(), WAIT_MAX).await?;
    poller.assign((0..PARTITIONS).map(|partition| (partition, Offset::Beginning)).collect()).await?;
    let expected = usize::try_from(ends.iter().map(|end| end.offset).sum::<i64>())?;
    let (mut notes, deadline) = (Vec::new(), Instant::now() + WAIT_MAX);
    while notes.len() < expected {
        ensure!(Instant::now() < deadline, "{} of {expected} notes", notes.len());
        let limits = FetchLimits { records: 1_000, bytes: 1 << 24, wait: POLL };
        notes.extend(poller.fetch(limits).await?.records);
    }
    poller.close().await;
    Ok(notes)
}

/// Checks that whatever was signed, by the keys of these seeds, is of the journal as it is; returns the greatest size of
/// each partition.
pub async fn one_history(fleet: &Fleet, seeds: &[u8]) -> Result<BTreeMap<i32, u64>> {
    let (mut greatest, mut texts) = (BTreeMap::new(), BTreeMap::new());
    let notes = notes(fleet).await?;
    for partition in 0..PARTITIONS {
        let roots = roots(fleet, partition).await?;
        let keys: Result<Vec<VerifierKey>> =
            seeds.iter().map(|seed| Ok(identity(fleet, partition, *seed)?.1)).collect();
        let (keys, mut before) = (keys?, 0);
        for note in notes.iter().filter(|note| note.position.partition == partition) {
            ensure!(note.key.as_deref() == Some(partition.to_string().as_bytes()), "{note:?}");
            let note = Note::parse(note.value_bytes())?;
            let Checkpoint { origin, head } = Checkpoint::open(&note, &keys)?;
            ensure!(origin == identity(fleet, partition, LOG_SEED)?.0, "{origin}");
            ensure!(head.size >= before, "size {} of partition {partition} after {before}", head.size);
            let root = roots.get(usize::try_from(head.size)?).context("signed more than the journal has")?;
            ensure!(*root == head.root, "another root of partition {partition} at size {}", head.size);
            texts.insert((partition, head.size), note.text().to_owned());
            before = head.size;
            greatest.insert(partition, head.size);
        }
    }
    let served = "select partition, size, note from control.log_checkpoint";
    let served: Vec<(i32, i64, String)> = sqlx::query_as(served).fetch_all(&fleet.pool).await?;
    for (partition, size, note) in served {
        let text = texts.get(&(partition, size.cast_unsigned()));
        ensure!(
            text.is_some_and(|text| note.starts_with(text)),
            "partition {partition} serves size {size}, which the topic does not have"
        );
    }
    Ok(greatest)
}

/// Appends records, which are no events: the log has them all the same.
async fn append(kafka: &KafkaOptions, log: LogIdentity, records: usize) -> Result<()> {
    let records: Vec<(String, String)> =
        (0..records).map(|n| (format!("account-{n}"), format!("no event {n}"))).collect();
    for outcome in Journal::new(kafka, log)?.append_all(&records).await {
        outcome?;
    }
    Ok(())
}

/// Waits until everything in the journal is covered by a checkpoint, but of these partitions.
async fn all_is_signed(fleet: &Fleet, but: &[i32]) -> Result<()> {
    let ends = Journal::new(&fleet.kafka, fleet.identity)?.ends().await?;
    let read = "select partition, max(size) from control.log_checkpoint group by partition";
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let signed: Vec<(i32, i64)> = sqlx::query_as(read).fetch_all(&fleet.pool).await?;
        let signed: BTreeMap<i32, i64> = signed.into_iter().collect();
        // Without transactions there are no holes: the size is the end.
        let is_signed =
            |end: &Position| but.contains(&end.partition) || signed.get(&end.partition) == Some(&end.offset);
        if ends.iter().all(is_signed) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "signed {signed:?} of {ends:?}");
        sleep(POLL).await;
    }
}

async fn execute(fleet: &Fleet, statement: &str) -> Result<()> {
    let statement = statement.replace("{schema}", &fleet.live().await?.to_string());
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&fleet.pool).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_amid_folding_and_signing_leave_one_history() -> Result<()> {
    let mut fleet = Fleet::start(&["projector", "projector.2"]).await?;
    let (kafka, log) = (fleet.kafka.clone(), fleet.identity);
    let load = tokio::spawn(async move {
        loop {
            append(&kafka, log, 40).await?;
            sleep(Duration::from_millis(200)).await;
        }
        #[expect(unreachable_code, reason = "names the type of the errors")]
        anyhow::Ok(())
    });
    for (name, failpoint) in [
        ("projector", "projector.before_commit:3"),
        ("projector.2", "projector.after_commit:3"),
        ("projector", "signing.before_publish:3"),
        ("projector.2", "signing.after_publish:3"),
    ] {
        fleet.kill(name)?;
        fleet.launch(name, Some(failpoint))?;
        fleet.aborted(name, WAIT_MAX).await?;
        fleet.launch(name, None)?;
        fleet.ready(name).await?;
    }
    load.abort();
    all_is_signed(&fleet, &[]).await?;
    let greatest = one_history(&fleet, &[LOG_SEED]).await?;
    ensure!(greatest.len() == PARTITIONS.unsigned_abs() as usize, "{greatest:?}");
    let head = "select count(*) from control.log_head join control.log_checkpoint using (size)";
    let heads: i64 = sqlx::query_scalar(head).fetch_one(&fleet.pool).await?;
    ensure!(heads >= i64::from(PARTITIONS), "{heads} heads are published");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_what_was_signed_goes_on_with_the_same_history() -> Result<()> {
    let mut fleet = Fleet::start(&["projector"]).await?;
    append(&fleet.kafka, fleet.identity, 3_000).await?;
    all_is_signed(&fleet, &[]).await?;
    let before = one_history(&fleet, &[LOG_SEED]).await?;
    fleet.stop_all().await?;
    // As restored from a backup of before the first checkpoint, without the generations.
    execute(
        &fleet,
        "delete from control.log_checkpoint; delete from control.log_head; delete from control.log_key;
         drop schema {schema} cascade",
    )
    .await?;
    fleet.launch("projector", None)?;
    fleet.ready("projector").await?;
    append(&fleet.kafka, fleet.identity, 40).await?;
    all_is_signed(&fleet, &[]).await?;
    let after = one_history(&fleet, &[LOG_SEED]).await?;
    ensure!(
        before.iter().all(|(partition, size)| after.get(partition) >= Some(size)),
        "{before:?} {after:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_history_is_not_signed_and_halts_its_partition() -> Result<()> {
    let mut fleet = Fleet::start(&["projector"]).await?;
    append(&fleet.kafka, fleet.identity, 300).await?;
    all_is_signed(&fleet, &[]).await?;
    let before = one_history(&fleet, &[LOG_SEED]).await?;
    fleet.stop_all().await?;
    let forked = 3;
    execute(
        &fleet,
        "update {schema}.log_tail set entries = set_byte(entries, 60, get_byte(entries, 60) # 1)
         where partition = 3",
    )
    .await?;
    fleet.launch("projector", None)?;
    fleet.ready("projector").await?;
    append(&fleet.kafka, fleet.identity, 300).await?;
    fleet.unready("projector", "partition 3 halted: the log has signed root").await?;
    all_is_signed(&fleet, &[forked]).await?;
    let after = one_history(&fleet, &[LOG_SEED]).await?;
    ensure!(after.get(&forked) == before.get(&forked), "partition 3 was signed at {:?}", after.get(&forked));
    let metrics = http_client::plain().get(format!("{}/metrics", fleet.url("projector")?)).send().await?;
    let metrics = metrics.text().await?;
    ensure!(metrics.contains("ledger_log_fork{partition=\"3\"} 1"), "no fork: {metrics}");
    ensure!(metrics.contains("ledger_log_fork{partition=\"2\"} 0"), "forks elsewhere: {metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn during_a_change_of_keys_both_sign() -> Result<()> {
    const NEXT: u8 = 9;
    let mut fleet = Fleet::start(&["projector"]).await?;
    append(&fleet.kafka, fleet.identity, 40).await?;
    all_is_signed(&fleet, &[]).await?;
    let (old, new) = (log_key(LOG_SEED)?, log_key(NEXT)?);
    let both = format!("{},{}", old.path().display(), new.path().display());
    let files = [(both, 2, [false, false]), (new.path().display().to_string(), 1, [true, false])];
    for (files, signatures, ended) in files {
        fleet.stop_all().await?;
        fleet.set_env("projector", vec![("LEDGER_LOG_KEY_FILE".to_owned(), files)]);
        fleet.launch("projector", None)?;
        fleet.ready("projector").await?;
        append(&fleet.kafka, fleet.identity, 40).await?;
        all_is_signed(&fleet, &[]).await?;
        let read = "select note from control.log_checkpoint where partition = 0 order by size desc limit 1";
        let note: String = sqlx::query_scalar(read).fetch_one(&fleet.pool).await?;
        let note = Note::parse(note.as_bytes())?;
        ensure!(note.signatures().len() == signatures, "{note}");
        let keys = [identity(&fleet, 0, LOG_SEED)?.1, identity(&fleet, 0, NEXT)?.1];
        ensure!(note.verify(&keys)?.len() == signatures, "{note}");
        for (key, ended) in keys.iter().zip(ended) {
            let has_ended = "select until is not null from control.log_key where vkey = $1";
            let has_ended: bool =
                sqlx::query_scalar(has_ended).bind(key.to_string()).fetch_one(&fleet.pool).await?;
            ensure!(has_ended == ended, "{key}");
        }
    }
    one_history(&fleet, &[LOG_SEED, NEXT]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_or_with_another_origin_the_projector_does_not_start() -> Result<()> {
    let mut fleet = Fleet::start(&["projector"]).await?;
    fleet.stop_all().await?;
    for (name, value) in [("LEDGER_LOG_KEY_FILE", ""), ("LEDGER_LOG_ORIGIN", "elsewhere.example/log")] {
        fleet.set_env("projector", vec![(name.to_owned(), value.to_owned())]);
        fleet.launch("projector", None)?;
        let status = fleet.ended("projector", WAIT_MAX).await?;
        ensure!(status.code().is_some_and(|code| code != 0), "{name}: {status}");
    }
    Ok(())
}
