//! Check: whether work may begin, answered without changing anything.
//!
//! It sees what is projected; usage that is not projected yet can't be seen, and nothing is held for who asks.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use ledger_core::account::Core;
use ledger_core::credits::Credits;
use ledger_core::decide::{self, Beside, Decision, Refusal, Work};
use ledger_core::event::Clock;
use ledger_core::fold;
use ledger_core::id::{Id, Label};
use ledger_core::lot::Lot;
use ledger_core::time::Time;
use runtime::auth::Action;
use runtime::fold::lots_of;
use runtime::http::{Path, Problem};
use runtime::pg::{self, PgConnection};
use serde::Serialize;
use sqlx::types::Json as JsonColumn;

use crate::App;
use crate::asked::{self, Asked};

/// Whether it may begin, with the figures that say so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether it may.
    pub allowed: bool,
    /// Why not.
    pub code: Option<Refusal>,
    /// The same for the user who is refused.
    pub message: Option<String>,
    /// What the account may still spend.
    pub available: Credits,
    /// The limit that holds; null where there is none.
    pub limit: Option<Credits>,
    /// What counts toward it.
    pub used: Credits,
    /// What the user holds.
    pub held: Credits,
    /// When the next period begins.
    pub resets_at: Time,
}

/// `POST /v1/accounts/{account}/check`
pub async fn check(
    State(app): State<App>,
    asked: Asked,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Json<Answer>, Problem> {
    asked.require(Action::CheckAndHold, &account)?;
    let work: Work = asked::body(request).await?;
    // Waits for a projection that does not know the account yet; 404 where there is none.
    app.account(&account, None, asked.deadline).await?;
    let (user, now) = (work.user_id.clone(), asked.now);
    let standing = pg::read(&app.pool, app.waiter.schema(), move |connection| {
        Box::pin(async move { load(connection, &account, user.as_ref(), now).await })
    });
    let (core, beside) = standing.await?;
    let decision = decide::decide(&core, &work, &beside);
    Ok(Json(answer(&core, decision)))
}

const CORE: &str = "
    select core, exists (select from parked where parked.account_id = account.account_id)
    from account
    where account_id = $1
";

const USED: &str = "
    select feature, used::text
    from user_usage
    where account_id = $1 and period_index = $2 and user_id = $3
";

/// Loads an account rolled to now, and what its user has used in the period that is open then.
async fn load(
    connection: &mut PgConnection,
    account: &Id,
    user: Option<&Id>,
    now: Time,
) -> Result<(Core, Beside), Problem> {
    let row: Option<(JsonColumn<Core>, bool)> =
        sqlx::query_as(CORE).bind(account.as_str()).fetch_optional(&mut *connection).await?;
    let Some((JsonColumn(core), halted)) = row else {
        return Err(Problem::account_not_found(account.as_str()));
    };
    if halted {
        return Err(Problem::account_halted(account.as_str()));
    }
    let projected = core.period.index;
    let lots: Vec<Lot> = lots_of(&mut *connection, account).await.map_err(Problem::internal)?;
    let mut core = core.with_lots(lots);
    if core.clock == Clock::Live {
        fold::roll_to(&mut core, now);
    }
    let mut beside = Beside::default();
    if let Some(user) = user.filter(|_| core.period.index == projected) {
        let rows: Vec<(String, String)> = sqlx::query_as(USED)
            .bind(account.as_str())
            .bind(projected)
            .bind(user.as_str())
            .fetch_all(connection)
            .await?;
        beside.counted = counted(&core, &rows)?;
    }
    Ok((core, beside))
}

/// Returns what counts of a user's usage by feature; '' is usage of no feature.
fn counted(core: &Core, rows: &[(String, String)]) -> Result<Credits, Problem> {
    let (mut all, mut by_feature) = (Credits::ZERO, BTreeMap::new());
    for (feature, used) in rows {
        let used = pg::credits_of(used)?;
        all = all.plus(used).map_err(Problem::internal)?;
        if !feature.is_empty() {
            by_feature.insert(Label::new(feature).map_err(Problem::internal)?, used);
        }
    }
    Ok(core.counted(all, &by_feature))
}

fn answer(core: &Core, decision: Decision) -> Answer {
    let message = decision.message(core);
    let Decision { refusal, available, limit, used, held, resets_at, .. } = decision;
    Answer { allowed: refusal.is_none(), code: refusal, message, available, limit, used, held, resets_at }
}
