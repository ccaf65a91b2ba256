//! Runtime: the plumbing under the services, without a rule of the business.

pub mod auth;
pub mod clock;
pub mod consume;
pub mod failpoint;
pub mod fold;
pub mod holds;
pub mod http;
pub mod kafka;
pub mod outbox;
pub mod payment;
pub mod pg;
pub mod position;
pub mod shutdown;
pub mod telemetry;
pub mod waiter;
