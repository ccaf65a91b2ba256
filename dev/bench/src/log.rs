//! Log: folding the journal into Postgres with the audit log, compared with the same fold without it.

use std::time::Instant;

use anyhow::Result;
use engine::consume::{self, ConsumeOptions, Source, Status};
use ledger_core::fold::FOLD_VERSION;
use platform::kafka::Journal;
use platform::pg::{self, Model, Schema};
use platform::shutdown::CancellationToken;
use serde_json::json;

use crate::environment::Environment;
use crate::load;
use crate::measured::Measured;
use crate::project::{ACCOUNTS, append, record};

/// Usage events in the journal.
const EVENTS: usize = 100_000;
/// Whether each fold keeps the log: a server that becomes slower or faster meanwhile favours neither. The first one warms
/// the server and does not count.
const FOLDS: [bool; 9] = [true, true, false, false, true, true, false, false, true];

/// Measures both on one server, each into generations of its own.
pub async fn run() -> Result<Measured> {
    let environment = Environment::new().await?;
    let measured = measure(&environment).await;
    environment.leave().await?;
    measured
}

async fn measure(environment: &Environment) -> Result<Measured> {
    let (pool, identity) = environment.prepare().await?;
    let journal = Journal::new(&environment.kafka, identity)?;
    let opened = (0..ACCOUNTS).map(|number| (load::account(number), load::opened(number)));
    append(&journal, opened.collect()).await?;
    append(&journal, (0..EVENTS).map(record).collect()).await?;
    let ends = journal.ends().await?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for (generation, keeps_log) in (1..).zip(FOLDS) {
        let schema = Schema { model: Model::ReadModel, generation };
        pg::create_generation(&pool, schema).await?;
        let source = Source { kafka: environment.kafka.clone(), identity, pool: pool.clone() };
        let workers = projector::lanes(identity, projector::LANES)?;
        let options = ConsumeOptions { keeps_log, ..ConsumeOptions::new("bench", schema, FOLD_VERSION) };
        let (start, token) = (Instant::now(), CancellationToken::new());
        consume::run_until(workers, source, options, Status::default(), &ends, token).await?;
        let seconds = start.elapsed().as_secs_f64();
        if generation > 1 {
            (if keeps_log { &mut with } else { &mut without }).push(seconds);
        }
        pg::drop_generation(&pool, schema).await?;
    }
    let rate = |seconds: &[f64]| (EVENTS * seconds.len()) as f64 / seconds.iter().sum::<f64>();
    Ok(Measured {
        more: json!({"events": EVENTS, "seconds_with": with, "seconds_without": without}),
        ..Measured::new(
            "log",
            "events/s",
            rate(&with),
            ("the same fold without the audit log, in turns", rate(&without)),
            "ratio 0.95",
        )
    })
}
