//! Reads: what is read of one user.

use axum::http::StatusCode;
use ledger_core::value::time::{Day, Time};
use serde::Deserialize;

use super::decisions::{Decision, time_of};
use super::user::User;
use crate::account::{Account, path_of};
use crate::api::{Failure, List};
use crate::format::{Sum, Unit};
use crate::visit::{Fields, Visit, segment};

/// Decisions on a user's page.
pub(super) const DECISIONS: usize = 20;
pub(super) const MODELS: usize = 12;
pub(super) const FIRINGS: usize = 8;
pub(super) const MINUTE_SECONDS: i64 = 60;

/// What is read of one user.
pub(super) struct Read {
    pub(super) unit: Unit,
    /// None: a member's own page, who may not read the account.
    pub(super) account: Option<Account>,
    pub(super) figures: User,
    pub(super) days: Result<List<OnDay>, Failure>,
    pub(super) models: Result<List<OfModel>, Failure>,
    pub(super) decisions: Result<List<Decision>, Failure>,
    /// The decision that was asked about by its time.
    pub(super) asked: Option<Result<List<Decision>, Failure>>,
    pub(super) firings: Result<List<Firing>, Failure>,
    pub(super) own: Own,
    pub(super) default_limit: Option<Sum>,
}

#[derive(Deserialize)]
pub(super) struct OnDay {
    pub(super) day: Day,
    pub(super) credits: Sum,
    pub(super) events: u64,
}

#[derive(Deserialize)]
pub(super) struct OfModel {
    pub(super) model: Option<String>,
    pub(super) credits: Sum,
}

#[derive(Deserialize)]
pub(super) struct Firing {
    pub(super) kind: String,
    pub(super) threshold: Sum,
    pub(super) figure: Sum,
    pub(super) fired_at: Time,
}

/// A user's own limit with its tag; a text as the API has it, none where there is none.
#[derive(Default)]
pub(super) struct Own {
    pub(super) limit: Option<String>,
    pub(super) tag: String,
}

#[derive(Deserialize)]
pub(super) struct OwnLimit {
    pub(super) limit: String,
}

#[derive(Deserialize)]
pub(super) struct Limits {
    pub(super) enabled: bool,
    pub(super) default_limit: Option<Sum>,
}

pub(super) async fn read(visit: &Visit, id: &str, user: &str) -> Result<Read, Failure> {
    let (api, path, encoded) = (&visit.api, path_of(id), segment(user));
    let [figures, days, models, decisions] = reads(&path, user, visit.query.get("cursor"));
    let firings = format!("{path}/firings?limit={FIRINGS}&subject={encoded}");
    let (account, figures, days, models, decisions, firings, settings) = tokio::join!(
        of_account(visit, id),
        api.get::<List<User>>(&figures),
        api.get::<List<OnDay>>(&days),
        api.get::<List<OfModel>>(&models),
        api.get::<List<Decision>>(&decisions),
        of_staff(visit, &firings),
        limits(visit, &path, &encoded),
    );
    let account = account?;
    // Whoever may not see this user gets the page of that; a part that can't be read now is only a part.
    let days = match days {
        Err(failure) if failure.status == StatusCode::FORBIDDEN => return Err(failure),
        days => days,
    };
    let (own, default_limit) = settings;
    let found = figures?.items.into_iter().find(|found| found.user_id == user);
    let nothing = || User {
        user_id: user.to_owned(),
        used: Sum::ZERO,
        counted: Sum::ZERO,
        held: Sum::ZERO,
        limit: own.limit.as_deref().map_or(default_limit, |own| serde_json::from_value(own.into()).ok()),
        blocked: false,
    };
    let figures = found.unwrap_or_else(nothing);
    let asked = asked_about(visit, &path, user).await;
    let unit = account.as_ref().map_or(visit.who.own_unit(), |account| account.unit);
    Ok(Read { unit, account, figures, days, models, decisions, asked, firings, own, default_limit })
}

/// Returns the paths of a user's figures, days, models and decisions.
pub(super) fn reads(path: &str, user: &str, cursor: &str) -> [String; 4] {
    let link = |below: &str, pairs: &[(&str, &str)]| {
        let filled = pairs.iter().copied().filter(|(_, value)| !value.is_empty());
        format!("{path}/{below}{}", filled.collect::<Fields>().link())
    };
    let (models, decisions) = (MODELS.to_string(), DECISIONS.to_string());
    let current = ("period", "current");
    let by_model = [current, ("user", user), ("group_by", "model"), ("sort", "-credits"), ("limit", &models)];
    [
        link("users", &[("q", user), ("limit", "1")]),
        link("usage", &[current, ("user", user), ("group_by", "day"), ("limit", "500")]),
        link("usage", &by_model),
        link("decisions", &[("user", user), ("limit", &decisions), ("cursor", cursor)]),
    ]
}

pub(super) async fn of_account(visit: &Visit, id: &str) -> Result<Option<Account>, Failure> {
    if visit.who.is_member() { Ok(None) } else { visit.account(id).await.map(Some) }
}

/// Reads what members may not: for them it is empty.
pub(super) async fn of_staff(visit: &Visit, path: &str) -> Result<List<Firing>, Failure> {
    if visit.who.is_member() {
        return Ok(List { items: Vec::new(), next_cursor: None });
    }
    visit.api.get(path).await
}

/// Reads the own limit and the default one. Without them the page still has the limit in force.
pub(super) async fn limits(visit: &Visit, path: &str, user: &str) -> (Own, Option<Sum>) {
    if visit.who.is_member() {
        return (Own::default(), None);
    }
    let (own, all) = (format!("{path}/limits/users/{user}"), format!("{path}/limits"));
    let (own, all) = tokio::join!(visit.api.get_tagged::<OwnLimit>(&own), visit.api.get::<Limits>(&all));
    let own = own.map(|(own, tag)| Own { limit: Some(own.limit), tag }).unwrap_or_default();
    (own, all.ok().filter(|limits| limits.enabled).and_then(|limits| limits.default_limit))
}

/// Reads the last decision that was made by the time that was typed.
pub(super) async fn asked_about(
    visit: &Visit,
    path: &str,
    user: &str,
) -> Option<Result<List<Decision>, Failure>> {
    let at = time_of(visit.query.filled("at")?)?;
    let to = at.plus_seconds(MINUTE_SECONDS).to_string();
    let query: Fields = [("user", user), ("to", &to), ("limit", "1")].into_iter().collect();
    Some(visit.api.get(&format!("{path}/decisions{}", query.link())).await)
}
