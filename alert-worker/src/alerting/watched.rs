//! Watched: what the evaluation keeps with the core of an account.

use ledger_core::policy::alert::{Users, Watch};

/// Kept with a core.
#[derive(Debug, Default)]
pub struct Watched {
    /// What has fired, and which versions the thresholds are of.
    pub watch: Watch,
    /// The users that a batch touches; empty between batches.
    pub users: Users,
}
