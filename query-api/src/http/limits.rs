//! Limits: the settings as they stand, and the users with a limit of their own.

use axum::extract::State;
use axum::http::HeaderMap;
use engine::tables::own_limit;
use ledger_core::account::limit::Limits;
use ledger_core::account::setting::Setting;
use ledger_core::event::{Limit as UserLimit, Recipients, SetLimits};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{Label, UserId};
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use web::http::{ETag, Path, Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Format, Now, Record, Tagged};
use crate::app::App;
use crate::http::settings;
use crate::list::{self, Limit, Page};
use crate::reading;

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
    at_least: Option<AtLeast>,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/limits", one)
            .named("getLimits", "Returns what each user may use in a period.")
            .says("Limits that were never set are on, without a default. Users' own limits are a list of their own."),
        get("/v1/accounts/{account}/limits/users", users)
            .named("listUserLimits", "Lists the users with a limit of their own, by id.")
            .says(
                "A user's own limit wins over the default. The `ETag` changes with any of them. Answers with CSV if \
                 `Accept` prefers `text/csv`.",
            ),
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
    let read = reading::of(&app, account, query.at_least, |connection, account| {
        Box::pin(async move {
            let own_limits = own_limit::count(connection, &account.core.account).await?;
            let never_set = || Limits::of(&SetLimits::default(), None);
            let limits = account.core.limits.clone().unwrap_or_else(never_set);
            Ok((LimitsView::of(&limits, own_limits), Setting::Limits.content(&account.core, None)))
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
    at_least: Option<AtLeast>,
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
            let core = &account.core;
            let own = match &core.limits {
                Some(limits) => {
                    let of = (&core.account, limits);
                    own_limit::in_force(connection, of, after.as_ref(), query.limit.rows_to_ask()).await?
                }
                None => Vec::new(),
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
            let core = &account.core;
            let stored = own_limit::named(connection, &core.account, &[user.as_str()]).await?;
            let stored = stored.get(&user);
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
