//! Why an event can't be folded now.

use crate::fold::pages::Missing;
use crate::value::credits::Credits;
use crate::value::id::AccountId;

/// Why `apply` has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Pages have to be loaded first: load them all and call again with the same arguments.
    #[error("pages are missing: {0:?}")]
    Missing(Vec<Missing>),
    /// The account's sums no longer give its balance: its state was corrupt, or the fold is wrong. Core and pages are to be
    /// thrown away, and nothing made from them may be stored.
    #[error("account {account} does not conserve credits: its sums give {booked}, its lots {settled}")]
    NotConserved {
        account: AccountId,
        /// The balance that the sums of all entries give.
        booked: Credits,
        /// What remains in lots, less overdraft.
        settled: Credits,
    },
}

impl From<Missing> for Error {
    fn from(missing: Missing) -> Self {
        Error::Missing(vec![missing])
    }
}
