//! Stops: decides when a stream must send `stop`, because even the smallest work would now be refused.
//!
//! The rule is that of `check`: an account stops once nothing is available, a user once counted usage has reached the
//! limit. Each stop is sent once until work is allowed again.

use std::collections::{BTreeMap, BTreeSet};

use engine::tables::commitments::{self, AccountQuery, AccountStanding};
use ledger_core::account::Core;
use ledger_core::account::limit::Limits;
use ledger_core::policy::decide::{Decision, Refusal, Work};
use ledger_core::policy::hold::{ByFeature, Gate, UserFigures};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{Text, UserId};
use ledger_core::value::time::Time;
use platform::pg::columns;
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::PgConnection;

use crate::reading::Account;

/// Events per read whose users are checked; a stream that falls behind needs more reads.
const EVENTS_MAX: i64 = 2_000;
/// Stopped users that a stream remembers and checks again. A forgotten one is reported again when next seen.
const STOPPED_MAX: usize = 1_000;

/// Work must stop: for everyone, or for one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Stop {
    pub code: Refusal,
    /// Null for everyone.
    pub user_id: Option<UserId>,
    /// A sentence that can be shown to the user.
    #[schemars(with = "Option<Text>")]
    pub message: Option<String>,
    pub available: Credits,
    pub limit: Option<Credits>,
    /// The user's counted usage.
    pub used: Credits,
    /// Open holds of the user, or of the account.
    pub held: Credits,
    pub resets_at: Time,
}

/// The stops that were sent, and the position of the next read.
#[derive(Debug, Default)]
pub(crate) struct Stops {
    dry: bool,
    stopped: BTreeSet<UserId>,
    /// The last event whose user was checked; none before the first read, and after a change of limits.
    looked: Option<i64>,
    limits: Option<Limits>,
}

/// The result of one read, in one snapshot.
pub(crate) struct Look {
    pub held: Credits,
    now: Time,
    users: BTreeMap<UserId, UserFigures>,
    looked: i64,
    /// Whether there are more events than one read takes.
    pub more: bool,
}

pub(crate) struct Asking {
    after: Option<i64>,
    stopped: Vec<UserId>,
}

impl Stops {
    /// Returns the users that the next read must check.
    pub fn asking(&self) -> Asking {
        Asking { after: self.looked, stopped: self.stopped.iter().cloned().collect() }
    }

    /// Whether the next read is the first one, which needs no change as its cause.
    pub fn begins(&self) -> bool {
        self.looked.is_none()
    }

    /// Returns the stops to send after a read of an account with its lots.
    pub fn after(&mut self, core: &Core, look: Look) -> Vec<Stop> {
        // New limits may be exceeded by users without new events.
        let is_new = self.limits != core.limits && self.looked.is_some();
        self.limits = core.limits.clone();
        self.looked = (!is_new).then_some(look.looked);
        let mut gate = Gate::new(core, look.now, look.held);
        let mut stops = Vec::new();
        let dry = gate.check(&Work::default());
        if dry.refusal.is_some() && !self.dry {
            stops.push(stop(&gate, &dry, None, look.held));
        }
        self.dry = dry.refusal.is_some();
        if !is_limited(core) {
            // No user is checked, and every user may work again.
            self.stopped.clear();
        }
        for (user, figures) in look.users {
            stops.extend(self.after_user(&mut gate, core.period.index, user, figures));
        }
        stops
    }

    /// A user's own holds do not stop them: the work behind those holds may continue.
    fn after_user(
        &mut self,
        gate: &mut Gate<'_>,
        period_index: i64,
        user: UserId,
        figures: UserFigures,
    ) -> Option<Stop> {
        let held = figures.all_held();
        gate.with_user(user.clone(), UserFigures { held: ByFeature::new(), ..figures }, period_index);
        let decision = gate.check(&Work { user_id: Some(user.clone()), ..Work::default() });
        if decision.refusal != Some(Refusal::UserLimitReached) {
            self.stopped.remove(&user);
            return None;
        }
        if self.stopped.contains(&user) {
            return None;
        }
        if self.stopped.len() >= STOPPED_MAX {
            self.stopped.pop_first();
        }
        self.stopped.insert(user.clone());
        Some(stop(gate, &decision, Some(user), held))
    }
}

fn stop(gate: &Gate<'_>, decision: &Decision, user_id: Option<UserId>, held: Credits) -> Stop {
    Stop {
        code: decision.refusal.unwrap_or(Refusal::CreditsExhausted),
        user_id,
        message: decision.message(gate.core()),
        available: decision.available,
        limit: decision.limit,
        used: decision.used,
        held,
        resets_at: decision.resets_at,
    }
}

fn is_limited(core: &Core) -> bool {
    core.limits.as_ref().is_some_and(|limits| limits.enabled)
}

/// Reads the open holds, and the figures of users who may have reached their limits since the last read.
pub(crate) async fn look(
    connection: &mut PgConnection,
    account: &Account,
    asking: Asking,
) -> Result<Look, sqlx::Error> {
    let core = &account.core;
    let limited = is_limited(core);
    let (mut users, mut looked) = (BTreeSet::new(), account.position.offset);
    let mut more = false;
    if limited {
        let seen = recent(connection, account, asking.after).await?;
        more = asking.after.is_some() && seen.len() >= usize::try_from(EVENTS_MAX).unwrap_or(usize::MAX);
        if let Some((last, _)) = seen.last().filter(|_| more) {
            looked = *last;
        }
        users.extend(seen.into_iter().filter_map(|(_, user)| user));
        if asking.after.is_none() {
            users.extend(holders(connection, account).await?);
        }
        users.extend(asking.stopped);
    }
    let asked = AccountQuery {
        account: core.account.clone(),
        period_index: core.period.index,
        at: None,
        users: users.into_iter().collect(),
    };
    let mut standings = commitments::standings(connection, &[asked]).await?;
    let standing = standings.accounts.remove(&core.account);
    // The account was read in the same snapshot.
    let AccountStanding { held, now, users, .. } = standing.ok_or(sqlx::Error::RowNotFound)?;
    Ok(Look { held, now, users, looked, more })
}

/// Returns users of the events after an offset, oldest first; at the first read, users of the last events.
async fn recent(
    connection: &mut PgConnection,
    account: &Account,
    after: Option<i64>,
) -> Result<Vec<(i64, Option<UserId>)>, sqlx::Error> {
    let order = if after.is_some() { "asc" } else { "desc" };
    let sql = format!(
        r#"select "offset", user_id
           from event
           where account_id = $1 and "offset" > $2
           order by "offset" {order}
           limit {EVENTS_MAX}"#
    );
    let rows: Vec<(i64, Option<String>)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(account.id())
        .bind(after.unwrap_or(-1))
        .fetch_all(connection)
        .await?;
    let parsed = |(offset, user): (i64, Option<String>)| {
        Ok((offset, user.as_deref().map(columns::parsed).transpose()?))
    };
    rows.into_iter().map(parsed).collect()
}

/// Returns users who may have work in progress.
async fn holders(connection: &mut PgConnection, account: &Account) -> Result<Vec<UserId>, sqlx::Error> {
    let sql = format!(
        "select distinct user_id
         from control.hold
         where account_id = $1 and state = 'held' and user_id is not null
         limit {EVENTS_MAX}"
    );
    let users: Vec<String> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(account.id()).fetch_all(connection).await?;
    users.iter().map(|user| columns::parsed(user)).collect()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use ledger_core::account::limit::OwnLimit;
    use ledger_core::account::lot::Lot;
    use ledger_core::event::{Limit, OpenAccount};
    use ledger_core::value::id::{Label, NameError};

    use super::*;

    const OPENED: Time = Time::from_micros(1_767_225_600_000_000);

    fn id<T: FromStr<Err = NameError>>(text: &str) -> T {
        text.parse().expect("an id")
    }

    fn credits(amount: &str) -> Credits {
        amount.parse().expect("an amount")
    }

    fn account(limits: &str) -> Core {
        let opening: OpenAccount =
            serde_json::from_str(r#"{"plan":{"cycle":"monthly","allowance":"10"}}"#).expect("a body");
        let mut core = Core::open(id("acme"), &opening, OPENED);
        core.limits = Some(Limits::of(&serde_json::from_str(limits).expect("limits"), None));
        let lot: Lot = serde_json::from_value(serde_json::json!({
            "grant_id": "g1", "source": "adjustment", "amount": "10", "remaining": "10", "lapsed": "0", "refunded": "0",
            "priority": 30, "effective_at": OPENED, "expires_at": null, "granted_at": OPENED, "voided_at": null,
            "event_id": "e", "payment_id": null, "reason": null, "offset": 1, "seq": 0,
        }))
        .expect("a lot");
        core.with_lots([lot])
    }

    /// Builds a read from text: all held credits, then users as `ana 5 of 2`: counted usage, and own holds.
    fn look(held: &str, users: &[(&str, &str, &str)]) -> Look {
        let figures = |used: &str, held: &str| UserFigures {
            used: ByFeature::from([(None, credits(used))]),
            held: ByFeature::from([(Some(Label::new("chat").expect("a label")), credits(held))]),
            own_limit: None,
        };
        let users = users.iter().map(|(user, used, held)| (id(user), figures(used, held))).collect();
        Look { held: credits(held), now: OPENED, users, looked: 1, more: false }
    }

    fn said(stops: &[Stop]) -> String {
        let one = |stop: &Stop| {
            let who = stop.user_id.as_ref().map_or("all", UserId::as_str);
            format!("{who} {}", stop.code.code())
        };
        stops.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn check(limits: &str, looks: Vec<(Look, &str)>) {
        let (core, mut stops) = (account(limits), Stops::default());
        for (n, (look, expected)) in looks.into_iter().enumerate() {
            assert_eq!(said(&stops.after(&core, look)), expected, "look {n}");
        }
    }

    #[test]
    fn an_account_is_stopped_once_until_it_opens_again() {
        check(
            "{}",
            vec![
                (look("9.9", &[]), ""),
                (look("10", &[]), "all credits_exhausted"),
                (look("11", &[]), ""),
                (look("3", &[]), ""),
                (look("10", &[]), "all credits_exhausted"),
            ],
        );
    }

    #[test]
    fn a_user_is_stopped_each_time_that_usage_reaches_the_limit() {
        check(
            r#"{"default_limit":"5"}"#,
            vec![
                (look("0", &[("ana", "4.9", "0")]), ""),
                (
                    look("0", &[("ana", "5", "0"), ("cy", "6", "0")]),
                    "ana user_limit_reached, cy user_limit_reached",
                ),
                (look("0", &[("ana", "7", "0")]), ""),
                (look("0", &[("ana", "4", "0")]), ""),
                (look("0", &[("ana", "5", "0")]), "ana user_limit_reached"),
            ],
        );
    }

    #[test]
    fn a_users_own_limit_stops_them_instead_of_the_default() {
        let with_own = |user: &str, limit: Limit| {
            let mut look = look("0", &[(user, "6", "0")]);
            for figures in look.users.values_mut() {
                figures.own_limit = Some(OwnLimit { series: 0, limit });
            }
            look
        };
        check(
            r#"{"default_limit":"5"}"#,
            vec![
                (with_own("bo", Limit::Unlimited), ""),
                (with_own("cy", Limit::At(Credits::whole(7))), ""),
                (with_own("cy", Limit::At(Credits::whole(6))), "cy user_limit_reached"),
            ],
        );
    }

    #[test]
    fn what_a_user_holds_does_not_stop_the_work_that_it_is_for() {
        check(r#"{"default_limit":"5"}"#, vec![(look("1", &[("ana", "4", "1")]), "")]);
    }

    #[test]
    fn a_stop_says_its_figures_and_a_sentence() {
        let mut stops = Stops::default();
        let stops = stops.after(&account(r#"{"default_limit":"5"}"#), look("2", &[("ana", "6", "2")]));
        let json = serde_json::to_value(&stops).expect("json");
        assert_eq!(
            json,
            serde_json::json!([{
                "code": "user_limit_reached", "user_id": "ana",
                "message": "You have used 6 of your 5 credits; your limit resets on 1 February.",
                "available": "8", "limit": "5", "used": "6", "held": "2", "resets_at": "2026-02-01T00:00:00Z",
            }])
        );
    }

    #[test]
    fn who_was_stopped_is_told_again_after_limits_were_off() {
        let mut stops = Stops::default();
        let over = || look("0", &[("ana", "6", "0")]);
        let mut after = |limits: &str, look: Look| said(&stops.after(&account(limits), look));
        assert_eq!(after(r#"{"default_limit":"5"}"#, over()), "ana user_limit_reached");
        assert_eq!(after(r#"{"default_limit":"5","enabled":false}"#, look("0", &[])), "");
        assert_eq!(after(r#"{"default_limit":"5"}"#, over()), "ana user_limit_reached");
        assert_eq!(after(r#"{"default_limit":"5"}"#, over()), "");
    }

    #[test]
    fn nobody_is_told_twice_however_many_are_stopped() {
        let (core, mut stops) = (account(r#"{"default_limit":"5"}"#), Stops::default());
        let all = || {
            let names: Vec<String> = (0..STOPPED_MAX).map(|n| format!("user-{n:04}")).collect();
            let users: Vec<_> = names.iter().map(|name| (name.as_str(), "6", "0")).collect();
            look("0", &users)
        };
        assert_eq!(stops.after(&core, all()).len(), STOPPED_MAX);
        assert_eq!(said(&stops.after(&core, all())), "");
    }

    #[test]
    fn other_limits_make_the_next_look_a_first_one() {
        let mut stops = Stops::default();
        stops.after(&account(r#"{"default_limit":"5"}"#), look("0", &[]));
        assert_eq!(stops.looked, Some(1));
        stops.after(&account(r#"{"default_limit":"4"}"#), look("0", &[]));
        assert_eq!(stops.looked, None);
    }
}
