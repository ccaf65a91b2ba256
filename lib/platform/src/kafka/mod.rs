//! Kafka: the journal and the other topics.

mod appender;
mod dead_letter;
mod delivery;
mod ends;
mod error;
mod genesis;
mod ingress;
mod journal;
mod options;
mod poller;
mod prepare;
mod read;
mod record;
mod safety;

pub use appender::{Appender, RECORD_BYTES_MAX};
pub use dead_letter::DeadLetter;
pub use delivery::AppendError;
pub use ends::Ends;
pub use error::Error;
pub use genesis::genesis_of;
pub use ingress::IngressConsumer;
pub use journal::Journal;
pub use options::{KafkaOptions, LogIdentity, Topics};
pub use poller::{Change, FetchLimits, Fetched, OnAssign, Poller};
pub use prepare::{existing, prepare};
pub use read::read_partition;
pub use record::{Record, leaf_hash};
pub use safety::{Unsafe, safety};

pub use crate::position::Position;
