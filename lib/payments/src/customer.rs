//! The customer whose payment methods may be charged for an account, in `control.payment_customer`.
//!
//! Payment methods are no secrets: any admin can name any of them. Only those of the account's own customer are charged.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use sqlx::{PgConnection, PgExecutor};

use ledger_core::value::id::AccountId;

/// Longest id of a customer, in bytes.
const BYTES_MAX: usize = 256;

/// A customer at the payment provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerId(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a customer's id is 1 to 256 bytes without spaces and control characters")]
pub struct BadCustomerId;

impl CustomerId {
    pub fn new(text: &str) -> Result<CustomerId, BadCustomerId> {
        let fits = (1..=BYTES_MAX).contains(&text.len());
        let is_bare = !text.chars().any(|c| c.is_whitespace() || c.is_control());
        if fits && is_bare { Ok(CustomerId(text.to_owned())) } else { Err(BadCustomerId) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CustomerId {
    type Err = BadCustomerId;

    fn from_str(text: &str) -> Result<CustomerId, BadCustomerId> {
        CustomerId::new(text)
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for CustomerId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// The owner of a payment method, as the provider names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// No money moves, so it is everybody's: the sandbox's plain methods.
    Everybody,
    /// No customer has it.
    Nobody,
    Customer(CustomerId),
}

/// Why a payment method may not be charged for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTheirs {
    #[error("the account has no customer at the payment provider yet: a checkout or the operator sets one")]
    NoCustomer,
    #[error("belongs to another customer of the payment provider")]
    Foreign,
    #[error("belongs to no customer of the payment provider: attach it first")]
    Unattached,
}

impl NotTheirs {
    /// Returns the code of a bad field.
    pub fn code(self) -> &'static str {
        match self {
            NotTheirs::NoCustomer => "no_payment_customer",
            NotTheirs::Foreign => "of_another_customer",
            NotTheirs::Unattached => "unattached",
        }
    }
}

/// Checks that a method of this owner may be charged for an account with this customer.
pub fn authorize(owner: &Owner, customer: Option<&CustomerId>) -> Result<(), NotTheirs> {
    match (owner, customer) {
        (Owner::Everybody, _) => Ok(()),
        (Owner::Customer(_) | Owner::Nobody, None) => Err(NotTheirs::NoCustomer),
        (Owner::Nobody, Some(_)) => Err(NotTheirs::Unattached),
        (Owner::Customer(owner), Some(customer)) if owner == customer => Ok(()),
        (Owner::Customer(_), Some(_)) => Err(NotTheirs::Foreign),
    }
}

/// Returns the customer of an account.
pub async fn find(
    executor: impl PgExecutor<'_>,
    account: &AccountId,
) -> Result<Option<CustomerId>, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "select customer_id from control.payment_customer where account_id = $1",
        account.as_str()
    );
    let found: Option<String> = found.fetch_optional(executor).await?;
    found.map(|id| CustomerId::new(&id).map_err(|error| sqlx::Error::Decode(error.into()))).transpose()
}

/// Sets the customer of an account, or removes it.
pub async fn set(
    connection: &mut PgConnection,
    account: &AccountId,
    customer: Option<&CustomerId>,
    by: &str,
) -> Result<(), sqlx::Error> {
    let Some(customer) = customer else {
        let gone =
            sqlx::query!("delete from control.payment_customer where account_id = $1", account.as_str());
        return gone.execute(connection).await.map(drop);
    };
    sqlx::query!(
        "insert into control.payment_customer (account_id, customer_id, set_by, set_at)
         values ($1, $2, $3, clock_timestamp())
         on conflict (account_id) do update
         set customer_id = excluded.customer_id,
             set_by      = excluded.set_by,
             set_at      = excluded.set_at",
        account.as_str(),
        customer.as_str(),
        by
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Sets the customer of an account that has none.
pub async fn set_first(
    connection: &mut PgConnection,
    account: &AccountId,
    customer: &CustomerId,
    by: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into control.payment_customer (account_id, customer_id, set_by, set_at)
         values ($1, $2, $3, clock_timestamp())
         on conflict (account_id) do nothing",
        account.as_str(),
        customer.as_str(),
        by
    )
    .execute(connection)
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customer(id: &str) -> CustomerId {
        CustomerId::new(id).expect("an id")
    }

    #[test]
    fn only_the_methods_of_the_accounts_customer_are_charged() {
        let (ours, theirs) = (customer("cus_ours"), customer("cus_theirs"));
        let of = |id: &CustomerId| Owner::Customer(id.clone());
        assert_eq!(authorize(&of(&ours), Some(&ours)), Ok(()));
        assert_eq!(authorize(&of(&theirs), Some(&ours)), Err(NotTheirs::Foreign));
        assert_eq!(authorize(&of(&theirs), None), Err(NotTheirs::NoCustomer));
        assert_eq!(authorize(&Owner::Nobody, Some(&ours)), Err(NotTheirs::Unattached));
        assert_eq!(authorize(&Owner::Nobody, None), Err(NotTheirs::NoCustomer));
        assert_eq!(authorize(&Owner::Everybody, None), Ok(()));
    }

    #[test]
    fn a_customers_id_is_one_word() {
        assert!(CustomerId::new("cus_NffrFeUfNV2Hib").is_ok());
        for bad in ["", "cus 1", "cus\n1", &"x".repeat(257)] {
            assert!(CustomerId::new(bad).is_err(), "{bad:?}");
        }
    }
}
