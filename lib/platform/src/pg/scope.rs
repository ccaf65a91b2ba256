//! Scope: the accounts whose rows a read may see, as the database itself enforces for the reading service's login.

use ledger_core::value::id::AccountId;

/// The accounts of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    Account(AccountId),
    Accounts(Vec<AccountId>),
    /// For operators and auditors, and for what is about no account.
    All,
}

impl Scope {
    /// Returns the value of `ledger.account`: an id has no space, no quote and no star.
    pub(super) fn setting(&self) -> String {
        match self {
            Scope::Account(account) => account.to_string(),
            Scope::Accounts(accounts) => accounts.iter().map(AccountId::as_str).collect::<Vec<_>>().join(" "),
            Scope::All => "*".to_owned(),
        }
    }
}
