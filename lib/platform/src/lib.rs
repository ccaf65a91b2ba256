//! Platform: Postgres, Kafka, HTTP clients, clock, shutdown, telemetry and failpoints, as every service uses them.

pub mod clock;
pub mod failpoint;
pub mod heartbeat;
pub mod http_client;
pub mod kafka;
pub mod periodic;
pub mod pg;
pub mod position;
pub mod shutdown;
pub mod telemetry;
pub mod unready;
