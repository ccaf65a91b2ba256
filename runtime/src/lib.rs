//! Runtime: the plumbing under the services, without a rule of the business.

pub mod clock;
pub mod pg;
pub mod position;
pub mod shutdown;
pub mod telemetry;
