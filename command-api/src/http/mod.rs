//! HTTP: one resource per file; a handler parses, decides, writes and answers.

pub mod accounts;
pub mod adjustments;
pub mod check;
pub mod clock;
pub mod contacts;
pub mod erasures;
pub mod grants;
pub mod hold_requests;
pub mod keys;
pub mod member_tokens;
pub mod notifications;
pub mod plan;
pub mod rate_cards;
pub mod reservations;
pub mod reversals;
pub mod settings;
pub mod usage;
pub mod webhook_tests;
