//! Contacts: how the people and programs of an account are reached. Delivery and the routes that administrators use share
//! it.

mod failure;
pub mod people;
pub mod redelivery;
mod target;
pub mod webhook;
