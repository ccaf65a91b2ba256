//! Delivery against a real Postgres and Kafka, a mail server that speaks SMTP and a receiver that speaks HTTP.

#[path = "../whole/mod.rs"]
mod whole;

mod identity;
mod invitations;
mod mails;
mod place;
mod published;
mod receiver;
mod server;
mod webhooks;
