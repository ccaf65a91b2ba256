//! The console: what people see of the ledger, as pages over the API.
//!
//! It is a client of the API and nothing else: each page reads and writes through the API's routes with the key of
//! whoever is signed in. So roles, quotas, checks and figures are the API's.

mod access;
mod account;
mod api;
mod app;
mod assets;
mod build;
mod chart;
mod cookie;
mod embed;
mod errors;
mod files;
mod form;
mod format;
mod icons;
mod layout;
mod live;
mod login;
mod lots;
mod pages;
mod seal;
mod sign_in;
mod typed;
mod visit;

pub use access::not_found_page;
pub use app::ConsoleConfig;
pub use build::build;
pub use sign_in::SignInLinks;
