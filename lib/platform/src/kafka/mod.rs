//! Kafka: the journal and the other topics.

mod appender;
mod blocking;
mod broker_clock;
mod client;
mod dead_letter;
mod delivery;
mod ends;
mod error;
mod genesis;
mod ingress;
mod journal;
mod options;
mod poller;
mod preflight;
mod prepare;
mod progress;
mod read;
mod reasons;
mod record;
mod safety;
mod taken;
mod topic_plan;
mod unreadable;

pub use appender::{Appender, RECORD_BYTES_MAX};
pub use broker_clock::BrokerClock;
pub use checkpoints::Checkpoints;
pub use client::ClientSettings;
pub use dead_letter::{DeadLetter, count_dead_letters, log_dead_letters};
pub use delivery::AppendError;
pub use ends::{Ends, shown_by};
pub use error::Error;
pub use genesis::{genesis_of, genesis_salt};
pub use ingress::IngressConsumer;
pub use journal::Journal;
pub use options::{KafkaOptions, LogIdentity, Topics};
pub use poller::{Change, FetchLimits, Fetched, OnAssign, Poller};
pub use preflight::{Preflight, Unsafe};
pub use prepare::{existing, prepare};
pub use progress::Progress;
pub use read::read_partition;
pub use record::{Record, leaf_hash};
pub use safety::safety;
pub use taken::{IngressRecord, Taken};
pub use unreadable::{Prober, Unreadable, is_unreadable};

pub use crate::position::Position;
