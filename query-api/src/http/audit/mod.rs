//! Audit: the journal as stored, and the transparency log over it: tiles, checkpoints and proofs.

mod checkpoints;
pub(crate) mod events;
mod leaf;
mod log;
mod proofs;
mod published;
mod reader;

use web::openapi::Route;

use crate::app::App;

pub(crate) fn routes() -> Vec<Route<App>> {
    [events::routes(), log::routes(), checkpoints::routes(), proofs::routes()].into_iter().flatten().collect()
}
