//! Own: what the stream of a member sends: the own standing, and none of the account's figures.

use engine::tables::commitments::{self, AccountQuery};
use ledger_core::account::Core;
use ledger_core::event::Unit;
use ledger_core::policy::balance::{Balance, Status};
use ledger_core::policy::decide::Work;
use ledger_core::policy::hold::{ByFeature, Gate, UserFigures};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{Text, UserId};
use ledger_core::value::time::Time;
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::PgConnection;

use crate::reading::{self, Account};

/// What one user has used of the own limit in the open period, and whether work may begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Standing {
    pub user_id: UserId,
    pub unit: Unit,
    /// Usage of the period minus its reversals.
    pub used: Credits,
    /// The part that counts toward the limit.
    pub counted: Credits,
    /// Open holds of the user.
    pub held: Credits,
    /// Null if no limit applies.
    pub limit: Option<Credits>,
    /// Whether counted usage has reached the limit.
    pub blocked: bool,
    /// The account's.
    pub status: Status,
    /// Why the smallest work would be refused now, as a sentence for the user; null if it would not.
    #[schemars(with = "Option<Text>")]
    pub message: Option<String>,
    pub resets_at: Time,
}

/// Reads a user's standing, in one snapshot.
pub(crate) async fn read(
    connection: &mut PgConnection,
    account: &Account,
    user: UserId,
) -> Result<Standing, sqlx::Error> {
    let core = reading::whole(connection, account).await?;
    let asked = AccountQuery {
        account: core.account.clone(),
        period_index: core.period.index,
        at: None,
        users: vec![user.clone()],
    };
    let mut standings = commitments::standings(connection, &[asked]).await?;
    // The account was read in the same snapshot.
    let mut found = standings.accounts.remove(&core.account).ok_or(sqlx::Error::RowNotFound)?;
    let figures = found.users.remove(&user).unwrap_or_default();
    Ok(standing(&core, found.now, found.held, user, figures))
}

fn standing(core: &Core, now: Time, all_held: Credits, user_id: UserId, figures: UserFigures) -> Standing {
    let (held, limit) = (figures.all_held(), core.limit_of(figures.own_limit.as_ref()));
    let sum = |sum: Credits, used: &Credits| sum.plus(*used).expect("the fold keeps sums in range");
    let used = figures.used.values().fold(Credits::ZERO, sum);
    let by_feature = figures.used.iter().filter_map(|(feature, used)| Some((feature.as_ref()?, used)));
    let counted = core.counted(used, by_feature);
    let mut gate = Gate::new(core, now, all_held);
    // As for `stop`: the work behind the own holds may continue.
    gate.with_user(user_id.clone(), UserFigures { held: ByFeature::new(), ..figures }, core.period.index);
    let decision = gate.check(&Work { user_id: Some(user_id.clone()), ..Work::default() });
    Standing {
        user_id,
        unit: core.unit,
        used,
        counted,
        held,
        limit,
        blocked: limit.is_some_and(|limit| counted >= limit),
        status: Balance::of(core, all_held).status,
        message: decision.refusal.and_then(|_| decision.message(gate.core())),
        resets_at: decision.resets_at,
    }
}
