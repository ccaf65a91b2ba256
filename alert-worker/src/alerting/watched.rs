//! Watched: the state that the evaluation keeps with the core of an account.

use ledger_core::policy::alert::{Users, Watch};

#[derive(Debug, Default)]
pub struct Watched {
    /// The firings so far, and the versions of their thresholds.
    pub watch: Watch,
    /// The users in a batch; empty between batches.
    pub users: Users,
}
