//! Limits: the settings as they stand, and the users with a limit of their own.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;
use engine::tables::own_limit;
use ledger_core::account::Core;
use ledger_core::account::limit::{Limits, OwnLimit as StoredLimit};
use ledger_core::account::setting::Setting;
use ledger_core::event::{Limit as UserLimit, Recipients, SetLimits};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{Label, UserId};
use ledger_core::value::time::Time;
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use web::http::{ETag, Path, Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Format, Now, Record, Tagged};
use crate::app::App;
use crate::as_of::{self, At};
use crate::http::settings;
use crate::list::{self, Limit, Page};
use crate::past_rows;
use crate::reading::{self, Account};

/// Limits with their defaults filled in, without the users' own: any number of users may have one.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Limits")]
pub(crate) struct LimitsView {
    enabled: bool,
    default_limit: Option<Credits>,
    excluded_features: Vec<Label>,
    notify: Recipients,
    /// How many users have a limit of their own.
    own_limits: i64,
}

impl LimitsView {
    pub(crate) fn of(limits: &Limits, own_limits: i64) -> Self {
        Self {
            enabled: limits.enabled,
            default_limit: limits.default_limit,
            excluded_features: limits.excluded_features.iter().cloned().collect(),
            notify: limits.notify.clone(),
            own_limits,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsQuery {
    /// Shows the limits as they stood at this ledger time, from at most 1,000,000 events.
    as_of: Option<Time>,
    at_least: Option<AtLeast>,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/limits", one)
            .named("getLimits", "Returns what each user may use in a period.")
            .says("Limits that were never set are on, without a default. Users' own limits are a list of their own.")
            .refuses(&["history_too_long"]),
        get("/v1/accounts/{account}/limits/users", users)
            .named("listUserLimits", "Lists the users with a limit of their own, by id.")
            .says(
                "A user's own limit wins over the default. The `ETag` changes with any of them. Answers with CSV if \
                 `Accept` prefers `text/csv`.",
            )
            .refuses(&["history_too_long"]),
        answer::csv(get("/v1/accounts/{account}/limits/users.csv", users))
            .named("exportUserLimits", "Lists the users with a limit of their own as CSV, by id."),
        get("/v1/accounts/{account}/limits/users/{user}", user)
            .named("getUserLimit", "Returns one user's own limit.")
            .says("A user without one has the default.")
            .refuses(&["user_limit_unknown"]),
    ]
}

/// `GET /v1/accounts/{account}/limits`
///
/// Limits that were never set count as on, without a default.
async fn one(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<LimitsQuery>,
) -> Result<Tagged<Now<LimitsView>>, Problem> {
    let read = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(async move {
            let past = Past::asked(connection, account, query.as_of).await?;
            let (core, own_limits) = match &past {
                Some(past) => (&past.core, i64::try_from(past.own.len()).unwrap_or(i64::MAX)),
                None => (&account.core, own_limit::count(connection, &account.core.account).await?),
            };
            let never_set = || Limits::of(&SetLimits::default(), None);
            let limits = core.limits.clone().unwrap_or_else(never_set);
            Ok((LimitsView::of(&limits, own_limits), Setting::Limits.content(core, None)))
        })
    });
    let (reflects, (view, content)) = read.await?;
    settings::shown(&reflects, view, &content)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsersQuery {
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Shows the limits as they stood at this ledger time, from at most 1,000,000 events.
    as_of: Option<Time>,
    at_least: Option<AtLeast>,
}

/// Limits at an instant, with those that users had of their own.
struct Past {
    core: Core,
    own: BTreeMap<UserId, UserLimit>,
}

impl Past {
    async fn asked(
        connection: &mut PgConnection,
        account: &Account,
        as_of: Option<Time>,
    ) -> Result<Option<Self>, Problem> {
        let Some(at) = At::asked(account, as_of)? else { return Ok(None) };
        let core = as_of::core_at(connection, account, at).await?;
        let own = past_rows::own_limits(connection, account, &core, at).await?;
        Ok(Some(Self { core, own }))
    }

    fn own_after(&self, after: Option<&UserId>) -> Vec<(UserId, UserLimit)> {
        let own = self.own.iter().filter(|(user, _)| Some(*user) > after);
        own.map(|(user, limit)| (user.clone(), *limit)).collect()
    }

    fn stored(&self, user: &UserId) -> Option<StoredLimit> {
        let series = self.core.limits.as_ref()?.series;
        self.own.get(user).map(|limit| StoredLimit { series, limit: *limit })
    }
}

#[derive(Serialize, JsonSchema)]
struct OwnLimit {
    user_id: UserId,
    /// An amount, or `unlimited`.
    limit: UserLimit,
}

const HEADER: [&str; 2] = ["user_id", "limit"];

impl Record for OwnLimit {
    fn values(&self) -> Vec<String> {
        vec![self.user_id.to_string(), self.limit.to_string()]
    }
}

/// `GET /v1/accounts/{account}/limits/users`
async fn users(
    State(app): State<App>,
    Whole(account): Whole,
    headers: HeaderMap,
    Query(query): Query<UsersQuery>,
) -> Result<Tagged<Now<Page<OwnLimit>>>, Problem> {
    let format = Format::of(&headers);
    let after: Option<UserId> = list::decode(query.cursor.as_deref())?;
    let read = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(async move {
            let past = Past::asked(connection, account, query.as_of).await?;
            let core = past.as_ref().map_or(&account.core, |past| &past.core);
            let own = match (&past, &core.limits) {
                (Some(past), _) => past.own_after(after.as_ref()),
                (None, Some(limits)) => {
                    let of = (&core.account, limits);
                    own_limit::in_force(connection, of, after.as_ref(), query.limit.rows_to_ask()).await?
                }
                (None, None) => Vec::new(),
            };
            let own = own.into_iter().map(|(user_id, limit)| OwnLimit { user_id, limit }).collect();
            let page = Page::cut(own, query.limit, |own: &OwnLimit| own.user_id.clone());
            Ok((page, Setting::UserLimits.content(core, None)))
        })
    });
    let (reflects, (page, content)) = read.await?;
    let answer = answer::page(&reflects, &format, &HEADER, page)?;
    Ok(web::openapi::Tagged(answer, Some(ETag::of(&content)?)))
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct UserPath {
    user: UserId,
}

/// `GET /v1/accounts/{account}/limits/users/{user}`
async fn user(
    State(app): State<App>,
    Whole(account): Whole,
    Path(UserPath { user }): Path<UserPath>,
    Query(query): Query<LimitsQuery>,
) -> Result<Tagged<Now<OwnLimit>>, Problem> {
    let read = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(async move {
            let past = Past::asked(connection, account, query.as_of).await?;
            let core = past.as_ref().map_or(&account.core, |past| &past.core);
            let stored = match &past {
                Some(past) => past.stored(&user),
                None => own_limit::named(connection, &core.account, &[user.as_str()]).await?.remove(&user),
            };
            let stored = stored.as_ref();
            let own = core.limits.as_ref().and_then(|limits| limits.own(stored));
            let unknown = || {
                let detail = format!("user {user} of account {} has no limit of their own", core.account);
                Problem::not_found("user_limit_unknown", detail)
            };
            let limit = own.ok_or_else(unknown)?;
            let content = Setting::UserLimit(&user).content(core, stored);
            Ok((OwnLimit { user_id: user.clone(), limit }, content))
        })
    });
    let (reflects, (view, content)) = read.await?;
    settings::shown(&reflects, view, &content)
}
