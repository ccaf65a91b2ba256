//! Delivery against a real Postgres and Kafka, a mail server that speaks SMTP and a receiver that speaks HTTP.

local_stack::shared_test_stack!();

mod fixture;
mod identity;
mod mails;
mod process;
mod published;
mod receiver;
#[allow(dead_code, reason = "tests of the whole ledger use more of it")]
mod server;
mod shares;
mod webhooks;
