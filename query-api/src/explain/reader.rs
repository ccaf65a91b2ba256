//! Reader: one snapshot of an account, and the state of it that an answer explains.

use engine::tables::commitments;
use ledger_core::account::Core;
use ledger_core::value::credits::Credits;
use sqlx::PgConnection;
use web::http::Problem;

use crate::as_of::{self, At};
use crate::past_rows::{self, Bounds};
use crate::reading::{self, Account};

/// What the levels of an answer are read from.
pub(crate) struct Reader<'a> {
    pub connection: &'a mut PgConnection,
    pub account: &'a Account,
    pub at: At,
    /// The account in that state, with its lots.
    pub core: Core,
    /// Open holds; none in the past.
    pub held: Credits,
    /// Where the rows of the period are that is open in that state.
    pub bounds: Bounds,
}

impl<'a> Reader<'a> {
    /// Reads the present.
    pub async fn present(
        connection: &'a mut PgConnection,
        account: &'a Account,
        with_holds: bool,
    ) -> Result<Self, Problem> {
        let core = reading::whole(connection, account).await?;
        let held = match with_holds {
            true => commitments::held(connection, &account.core.account, Vec::new()).await?.0,
            false => Credits::ZERO,
        };
        let reader = Self::of(connection, account, At::present(account), core).await?;
        Ok(Self { held, ..reader })
    }

    /// Reads a state between the opening and the present.
    pub async fn past(
        connection: &'a mut PgConnection,
        account: &'a Account,
        at: At,
    ) -> Result<Self, Problem> {
        let core = as_of::core_at(connection, account, at).await?;
        Self::of(connection, account, at, core).await
    }

    async fn of(
        connection: &'a mut PgConnection,
        account: &'a Account,
        at: At,
        core: Core,
    ) -> Result<Self, Problem> {
        let bounds = past_rows::bounds(connection, account, core.period.starts_at, at).await?;
        Ok(Self { connection, account, at, core, held: Credits::ZERO, bounds })
    }
}
