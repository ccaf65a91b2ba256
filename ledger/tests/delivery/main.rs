//! Delivery against a real Postgres and Kafka, a mail server that speaks SMTP and a receiver that speaks HTTP.

mod identity;
mod mails;
mod place;
mod published;
mod receiver;
mod server;
mod webhooks;
