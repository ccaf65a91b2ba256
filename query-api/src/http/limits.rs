//! Limits: the settings as they stand, and the users with a limit of their own.

use std::ops::Bound;

use axum::extract::State;
use axum::response::Response;
use ledger_core::account::Core;
use ledger_core::account::limit::Limits;
use ledger_core::account::setting::Setting;
use ledger_core::event::{Limit as UserLimit, Recipients, SetLimits};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{Label, UserId};
use platform::position::AtLeast;
use serde::{Deserialize, Serialize};
use web::http::{Path, Problem, Query};

use crate::access::Whole;
use crate::app::App;
use crate::http::settings;
use crate::list::{self, Limit, Page};

/// Limits with their defaults filled in, without the users' own: any number of users may have one.
#[derive(Serialize)]
pub(crate) struct LimitsView {
    enabled: bool,
    default_limit: Option<Credits>,
    excluded_features: Vec<Label>,
    notify: Recipients,
    /// How many users have a limit of their own.
    own_limits: usize,
}

impl From<&Limits> for LimitsView {
    fn from(limits: &Limits) -> Self {
        Self {
            enabled: limits.enabled,
            default_limit: limits.default_limit,
            excluded_features: limits.excluded_features.iter().cloned().collect(),
            notify: limits.notify.clone(),
            own_limits: limits.custom.len(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsQuery {
    at_least: Option<AtLeast>,
}

/// `GET /v1/accounts/{account}/limits`
///
/// Limits that were never set count as on, without a default.
pub(crate) async fn one(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<LimitsQuery>,
) -> Result<Response, Problem> {
    let view = |core: &Core| {
        let never_set = || LimitsView::from(&Limits::of(&SetLimits::default(), None));
        Ok(core.limits.as_ref().map_or_else(never_set, LimitsView::from))
    };
    settings::one(&app, account, query.at_least, Setting::Limits, view).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsersQuery {
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

#[derive(Serialize)]
struct OwnLimit {
    user_id: UserId,
    /// An amount, or `unlimited`.
    limit: UserLimit,
}

/// `GET /v1/accounts/{account}/limits/users`
pub(crate) async fn users(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<UsersQuery>,
) -> Result<Response, Problem> {
    let after: Option<UserId> = list::decode(query.cursor.as_deref())?;
    let view = |core: &Core| Ok(page(core.limits.as_ref(), after.as_ref(), query.limit));
    settings::one(&app, account, query.at_least, Setting::UserLimits, view).await
}

#[derive(Deserialize)]
pub(crate) struct UserPath {
    user: UserId,
}

/// `GET /v1/accounts/{account}/limits/users/{user}`
pub(crate) async fn user(
    State(app): State<App>,
    Whole(account): Whole,
    Path(UserPath { user }): Path<UserPath>,
    Query(query): Query<LimitsQuery>,
) -> Result<Response, Problem> {
    let view = |core: &Core| {
        let own = core.limits.as_ref().and_then(|limits| limits.custom.get(&user));
        let unknown = || {
            let detail = format!("user {user} of account {} has no limit of their own", core.account);
            Problem::not_found("user_limit_unknown", detail)
        };
        Ok(OwnLimit { user_id: user.clone(), limit: *own.ok_or_else(unknown)? })
    };
    settings::one(&app, account, query.at_least, Setting::UserLimit(&user), view).await
}

fn page(limits: Option<&Limits>, after: Option<&UserId>, limit: Limit) -> Page<OwnLimit> {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let rows = usize::try_from(limit.rows_to_ask()).unwrap_or(usize::MAX);
    let own =
        limits.into_iter().flat_map(|limits| limits.custom.range::<UserId, _>((start, Bound::Unbounded)));
    let own = own.take(rows).map(|(user, limit)| OwnLimit { user_id: user.clone(), limit: *limit });
    Page::cut(own.collect(), limit, |own| own.user_id.clone())
}
