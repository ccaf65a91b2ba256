//! Arguments: what to verify, and whose checkpoints count.

use clap::Args;
use platform::kafka::KafkaOptions;

use super::against::AgainstArguments;
use super::trust::TrustArguments;
use crate::connection::Connection;

/// What to verify.
#[derive(Debug, Clone, Args)]
pub struct Verify {
    /// The journal's Kafka.
    #[command(flatten)]
    pub kafka: KafkaOptions,
    /// The ledger's Postgres, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The local stack, where a service is not named.
    #[command(flatten)]
    pub connection: Connection,
    /// Whose checkpoints count.
    #[command(flatten)]
    pub trust: TrustArguments,
    /// A ledger over HTTP.
    #[command(flatten)]
    pub against: AgainstArguments,
    /// Most rows that are named of each table that differs
    #[arg(long, default_value_t = 1_000)]
    pub samples: u32,
    /// Prints the result as JSON
    #[arg(long)]
    pub json: bool,
}
