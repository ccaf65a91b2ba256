//! Account: what the head of every page of an account shows.

use ledger_core::value::time::Time;
use serde::Deserialize;

use crate::api::Failure;
use crate::format::{Sum, Unit};
use crate::visit::{Visit, segment};

/// An account, as far as pages share it.
#[derive(Debug, Clone, Deserialize)]
pub struct Account {
    pub account_id: String,
    pub name: Option<String>,
    pub unit: Unit,
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub clock: String,
    pub low_balance_threshold: Option<Sum>,
    /// The account's ledger time.
    pub recorded_at: Time,
    pub opened_at: Time,
    pub plan: Plan,
    pub period: Period,
    #[serde(default)]
    pub alerts_halted: Option<Halt>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Plan {
    pub name: Option<String>,
    pub cycle: String,
    pub timezone: String,
    pub allowance: Sum,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Period {
    pub index: i64,
    pub starts_at: Time,
    pub ends_at: Time,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Halt {
    pub halted_by: String,
    pub since: Time,
}

impl Account {
    /// Returns its name, or its id where it has none.
    pub fn title(&self) -> &str {
        self.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&self.account_id)
    }

    pub fn is_closed(&self) -> bool {
        self.status == "closed"
    }

    /// Returns whether its time moves by its events alone.
    pub fn has_test_clock(&self) -> bool {
        self.clock == "test"
    }

    /// Returns the time that is the account's present: its own on a test clock.
    pub fn now(&self, now: Time) -> Time {
        if self.has_test_clock() { self.recorded_at } else { now }
    }
}

/// The API's path of an account, to write what is below it behind.
pub fn path_of(account: &str) -> String {
    format!("/v1/accounts/{}", segment(account))
}

impl Visit {
    /// Reads the account of a page.
    pub async fn account(&self, account: &str) -> Result<Account, Failure> {
        self.api.get(&path_of(account)).await
    }
}
