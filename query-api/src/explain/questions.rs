//! Questions: a figure at a state, a line of the ledger, an event, a firing or a decision.

use ledger_core::event::Basis;
use ledger_core::policy::alert;
use ledger_core::policy::decide::Refusal;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{EventId, Source};
use ledger_core::value::time::Time;
use platform::position::Position;
use sqlx::{PgConnection, Row};
use web::http::Problem;

use super::figures;
use super::levels::{self, Cursor, Level};
use super::node::{Figure, Kind, Node, Part, minus};
use super::reader::Reader;
use crate::as_of::{self, At};
use crate::http::alerts::FiringView;
use crate::http::decisions::Made;
use crate::http::events;
use crate::reading::Account;

/// Explains a figure as it is, or as it stood.
pub(crate) async fn figure(
    connection: &mut PgConnection,
    account: &Account,
    (figure, user): (Figure, Option<&str>),
    as_of: Option<Time>,
) -> Result<Node, Problem> {
    let mut reader = match At::asked(account, as_of)? {
        Some(at) => Reader::past(connection, account, at).await?,
        None => Reader::present(connection, account, as_of.is_none()).await?,
    };
    figures::explain(&mut reader, figure, user).await
}

/// Goes on where an answer before ended, in the state that it explained. `own` is the only user whose usage is shown.
pub(crate) async fn rest(
    connection: &mut PgConnection,
    account: &Account,
    (at, level, after): Cursor,
    own: Option<&str>,
) -> Result<Node, Problem> {
    let is_own =
        |level: &Level| matches!(level, Level::Usage { user: Some(user), .. } if Some(user.as_str()) == own);
    if own.is_some() && !is_own(&level) {
        return Err(Problem::forbidden());
    }
    if at.time > account.core.ledger_time || !as_of::is_since_opening(connection, account, at).await? {
        return Err(levels::bad_cursor());
    }
    let mut reader = Reader::past(connection, account, at).await?;
    levels::go_on(&mut reader, &level, after).await
}

/// Explains a line of the ledger.
pub(crate) async fn entry(
    connection: &mut PgConnection,
    account: &Account,
    entry_id: &str,
) -> Result<Node, Problem> {
    let unknown = || Problem::not_found("entry_not_found", format!("entry {entry_id} does not exist"));
    let (offset, seq) = place_of(account, entry_id).ok_or_else(unknown)?;
    let mut reader = Reader::present(connection, account, false).await?;
    levels::entry(&mut reader, offset, seq).await?.ok_or_else(unknown)
}

fn place_of(account: &Account, entry_id: &str) -> Option<(i64, i32)> {
    let (position, seq) = entry_id.rsplit_once(':')?;
    let position: Position = position.parse().ok()?;
    (position.partition == account.position.partition).then_some((position.offset, seq.parse().ok()?))
}

/// Explains an event: usage by its price lines, any other by the lines of the ledger that it booked.
pub(crate) async fn event(
    connection: &mut PgConnection,
    account: &Account,
    (event_id, source): (&EventId, Option<&Source>),
    own: Option<&str>,
) -> Result<Node, Problem> {
    let source = match source {
        Some(source) => source.as_str().to_owned(),
        None => events::only_source(connection, account, event_id).await?,
    };
    let row = sqlx::query(
        r#"select "offset", type, user_id, false as is_refused
             from event
            where account_id = $1
              and event_id = $2
              and source = $3
            union all
           (select "offset", type, data->>'user_id', true
              from refused
             where account_id = $1
               and event_id = $2
               and source = $3
             order by "offset"
             limit 1)
            order by is_refused
            limit 1"#,
    )
    .bind(account.id())
    .bind(event_id.as_str())
    .bind(&source)
    .fetch_optional(&mut *connection)
    .await?;
    let row = row.ok_or_else(|| events::not_found(event_id))?;
    let (user, event_type): (Option<&str>, &str) = (row.try_get("user_id")?, row.try_get("type")?);
    if own.is_some() && own != user {
        return Err(Problem::forbidden());
    }
    let (offset, is_refused): (i64, bool) = (row.try_get("offset")?, row.try_get("is_refused")?);
    let is_usage = event_type == "ledger.usage.recorded.v1";
    let kind = if is_usage { Kind::Usage } else { Kind::Entry };
    let nothing = Node {
        event_id: Some(event_id.clone()),
        position: Some(Position { partition: account.position.partition, offset }),
        ..Node::new(kind, Credits::ZERO)
    };
    if is_refused {
        return Ok(nothing);
    }
    let mut reader = Reader::present(connection, account, false).await?;
    if is_usage {
        return levels::usage(&mut reader, offset).await;
    }
    let mut entries = levels::entries_of(&mut reader, offset).await?;
    if entries.len() == 1 {
        return Ok(entries.remove(0));
    }
    let part = Part { children: entries, rest: None };
    Node { amount: Some(part.sum()?), ..nothing }.explained_by(part)
}

/// Explains a firing by its figure at that moment. Where several things happened at one instant, the figure may have
/// moved on by its end: the rest says by how much.
pub(crate) async fn firing(
    connection: &mut PgConnection,
    account: &Account,
    firing: &FiringView,
) -> Result<Node, Problem> {
    let (offset, _) = firing.cursor;
    let own: bool = sqlx::query_scalar(
        r#"select exists (select from event where account_id = $1 and "offset" = $2 and event_id = $3)"#,
    )
    .bind(account.id())
    .bind(offset)
    .bind(firing.event_id.as_str())
    .fetch_one(&mut *connection)
    .await?;
    // What time alone did fires before the event that it is booked with.
    let through = if own { offset } else { offset - 1 };
    let mut reader = Reader::past(connection, account, At { time: firing.fired_at, through }).await?;
    let node = Node {
        event_id: Some(firing.event_id.clone()),
        position: Some(Position { partition: account.position.partition, offset }),
        ..Node::new(Kind::Firing, firing.figure)
    };
    let user = firing.subject.as_str();
    let (figure, user) = match firing.kind {
        alert::Kind::OrgAlert => {
            let alert = firing.alert_id.as_ref().and_then(|alert| reader.core.org_alerts.get(alert));
            let Some(alert) = alert else { return Ok(node) };
            (of_basis(alert.basis), None)
        }
        alert::Kind::UserAlert => (Figure::Used, Some(user)),
        alert::Kind::UserLimitReached => (Figure::Counted, Some(user)),
        alert::Kind::CreditBalanceLow => (Figure::CreditBalance, None),
        alert::Kind::CreditBalanceDepleted | alert::Kind::CreditsAvailableAgain => (Figure::Settled, None),
        // Its figure is the amount of the attempt.
        alert::Kind::CreditAutoRechargeTriggered | alert::Kind::CreditPurchaseFailed => return Ok(node),
    };
    let explained = figures::explain(&mut reader, figure, user).await?;
    node.explained_in_part(vec![explained])
}

const fn of_basis(basis: Basis) -> Figure {
    match basis {
        Basis::PercentUsed => Figure::PercentUsed,
        Basis::AbsoluteUsed => Figure::Used,
        Basis::PercentRemaining => Figure::PercentRemaining,
        Basis::AbsoluteRemaining => Figure::Settled,
    }
}

/// Explains a decision by the figure that it was made from: what counted of the user where the limit refused it, what
/// was available otherwise.
pub(crate) async fn decision(
    connection: &mut PgConnection,
    account: &Account,
    made: &Made,
) -> Result<Node, Problem> {
    let time = made.decided_at.clamp(account.core.opened_at, account.core.ledger_time);
    let mut reader = Reader::past(connection, account, At { time, through: made.offset }).await?;
    let decision = &made.decision;
    let position = Some(Position { partition: account.position.partition, offset: made.offset });
    if decision.refusal == Some(Refusal::UserLimitReached) {
        let reached = decision.used.plus(decision.held).map_err(Problem::internal)?;
        let counted = figures::explain(&mut reader, Figure::Counted, made.user_id.as_deref()).await?;
        let held = Node::new(Kind::Held, decision.held);
        let node = Node { position, ..Node::new(Kind::Decision, reached) };
        return node.explained_in_part(vec![counted, held]);
    }
    let settled = figures::explain(&mut reader, Figure::Settled, None).await?;
    let held = minus(decision.settled, decision.available)?;
    let node = Node { position, ..Node::new(Kind::Decision, decision.available) };
    node.explained_in_part(figures::available_of(settled, held).children)
}
