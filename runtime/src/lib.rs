//! Runtime: the plumbing under the services, without a rule of the business.

pub mod position;
