//! Levels: the children of a node, a part at a time.

use ledger_core::account::Core;
use ledger_core::account::lot::Lot;
use ledger_core::event::{Line, LotSource, derive};
use ledger_core::fold::{LotChanges, Moment, Observer};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::EventId;
use platform::pg::{self, columns};
use platform::position::Position;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};
use web::http::Problem;

use super::node::{CHILDREN_MAX, Figure, Kind, Node, Part, minus};
use super::reader::Reader;
use crate::as_of::{self, At, Onlooker};
use crate::list;
use crate::past_rows::{is_reversed, is_usage};

/// The children of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// Lines of the ledger since the period's opening.
    Entries(Booked),
    /// Purchases and top-ups since the account's opening.
    Additions,
    /// What drew from paid lots since the last snapshot.
    Spendings,
    /// Usage of the period.
    Usage { user: Option<String>, counted: bool },
    /// Open lots.
    Lots { of: LotsOf },
    /// What a line of the ledger changed.
    Changes { offset: i64, seq: i32 },
}

/// What is summed of the period's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Booked {
    /// The amounts of all of them.
    Settled,
    /// The amounts of those that count as added.
    Added,
    /// What they changed in the overdraft.
    Overdraft,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LotsOf {
    Payments,
    Rollover,
}

/// A place among the children of a level: offset and order in it, or only how many come before.
pub(crate) type Place = (i64, i32);

/// What a cursor says: the state that is explained, a level, and the place after which it goes on.
pub(crate) type Cursor = (At, Level, Place);

/// Returns the first children of a level, `room` at most; `after` is the place where an answer before ended.
pub(crate) async fn read(
    reader: &mut Reader<'_>,
    level: &Level,
    after: Option<Place>,
    room: usize,
) -> Result<Part, Problem> {
    let skipped = usize::try_from(after.unwrap_or_default().0).unwrap_or_default();
    let at = reader.at;
    let cursor = |reached: usize| list::encode(&(at, level, numbered(reached)));
    match level {
        Level::Entries(booked) => {
            let rows = entries_since(reader, *booked);
            lines_of(reader, level, &rows, (after, room)).await
        }
        Level::Additions => {
            let rows = additions(reader);
            lines_of(reader, level, &rows, (after, room)).await
        }
        Level::Usage { user, counted } => {
            usage_of(reader, level, (user.as_deref(), *counted), (after, room)).await
        }
        Level::Lots { of } => {
            let nodes = lots_of(&reader.core, *of).map(lot_node).collect();
            Part::cut(nodes, skipped, cursor)
        }
        Level::Spendings => Part::cut(spendings(reader).await?, skipped, cursor),
        Level::Changes { offset, seq } => {
            let found = entry_at(reader, *offset, *seq).await?;
            let (_, changes) = found.ok_or_else(bad_cursor)?;
            Part::cut(changes, skipped, cursor)
        }
    }
}

/// Returns the statements of the lines of the period since its opening, those of the ledger and those of usage: their
/// rows have `"offset"`, `seq`, `type`, `amount`, `event_id`, `lots` and `overdraft`. `$1` is the account, `$2` the
/// state's time, `$3` the period's start, `$4` the id of the reset that began it.
fn entries_since(reader: &Reader<'_>, booked: Booked) -> Vec<String> {
    let (bounds, at) = (reader.bounds, reader.at);
    let period = reader.core.period.index;
    let which = match booked {
        Booked::Settled | Booked::Overdraft => String::new(),
        // Expiry within the period does not lower the maximum, and neither does what usage takes and its reversal
        // returns.
        Booked::Added => format!(
            r#"and en.type <> 'expired'
               and not (en.type = 'reversed'
                        and exists (select
                                      from event as reversal
                                      join event as usage
                                        on usage.account_id = reversal.account_id
                                       and usage.event_id = reversal.data->>'event_id'
                                       and usage.source = reversal.data->>'source'
                                     where reversal.account_id = en.account_id
                                       and reversal."offset" = en."offset"
                                       and reversal.type = 'ledger.usage.reversed.v1'
                                       and usage.period_index = {period}))"#
        ),
    };
    let lines = format!(
        r#"select en."offset", en.seq, en.type, en.amount, en.event_id, en.lots::text as lots, en.overdraft
             from entry as en
            where en.account_id = $1
              and en."offset" > {}
              and en."offset" <= {}
              and en.recorded_at >= $3
              and en.recorded_at <= $2
              and not (en.event_id = $4 and en.type in ('expired', 'rolled_out', 'rolled_in', 'adjusted'))
              and {}
              {which}"#,
        bounds.after,
        bounds.last,
        has_come(at),
    );
    let usage = format!(
        r#"select e."offset", e.entry_seq as seq, 'consumed' as type, -e.credits as amount, e.event_id,
                  coalesce(e.lots::text, '[]') as lots, coalesce(e.line_end - e.line_start, 0) as overdraft
             from event as e
            where {}
              and e.ledger_time >= $3
              and $4::text is not null"#,
        is_usage(bounds, at)
    );
    match booked {
        Booked::Settled => vec![lines, usage],
        Booked::Added => vec![lines],
        Booked::Overdraft => [lines, usage].map(|rows| overdraft_of(&rows)).into(),
    }
}

/// Returns the statement of what lines changed in the overdraft.
fn overdraft_of(rows: &str) -> String {
    format!(
        r#"select "offset", seq, type, overdraft as amount, event_id, '[]' as lots, 0::numeric as overdraft
             from ({rows}) as line
            where overdraft <> 0"#
    )
}

/// Returns the statement's condition that line `en` belongs to a state: what time alone did, up to its instant, is
/// booked with whatever event came next.
fn has_come(at: At) -> String {
    if at.through == i64::MAX {
        return "true".to_owned();
    }
    format!(
        r#"(en."offset" <= {}
            or not exists (select
                             from event as own
                            where own.account_id = en.account_id
                              and own."offset" = en."offset"
                              and own.event_id = en.event_id))"#,
        at.through
    )
}

fn additions(reader: &Reader<'_>) -> Vec<String> {
    vec![format!(
        r#"select en."offset", en.seq, en.type, en.amount, en.event_id, en.lots::text as lots, en.overdraft
             from entry as en
            where en.account_id = $1
              and en.type in ('purchased', 'topped_up')
              and en."offset" <= {}
              and en.recorded_at <= $2
              and $3::timestamptz is not null
              and $4::text is not null"#,
        reader.bounds.last.min(reader.at.through)
    )]
}

/// Reads lines of the ledger, the newest first. Each statement gives a page in the order of its table's key, and the
/// newest of all are the page.
async fn lines_of(
    reader: &mut Reader<'_>,
    level: &Level,
    statements: &[String],
    (after, room): (Option<Place>, usize),
) -> Result<Part, Problem> {
    let (offset, seq) = after.unwrap_or((i64::MAX, i32::MAX));
    let behind = format!(r#"("offset", seq) < ({offset}, {seq})"#);
    let newest = format!(r#"order by "offset" desc, seq desc limit {room}"#);
    let pages =
        statements.iter().map(|rows| format!("(select * from ({rows}) as line where {behind} {newest})"));
    let page = format!(
        r#"select "offset", seq, type, amount::text, event_id, lots, overdraft::text
             from ({}) as line
             {newest}"#,
        pages.collect::<Vec<_>>().join(" union all ")
    );
    let amounts = statements.iter().map(|rows| format!("select amount from ({rows}) as line where {behind}"));
    let sums = format!(
        "select count(*) as count, coalesce(sum(amount), 0)::text as sum from ({}) as line",
        amounts.collect::<Vec<_>>().join(" union all ")
    );
    let found = lines_query(reader, page).await?;
    let total = total_of(&lines_query(reader, sums).await?)?;
    let last = found.last().map(place_of).transpose()?;
    let children: Result<Vec<Node>, Problem> = found.iter().map(|row| line_node(reader, row)).collect();
    Part::first_of(children?, total, || last.map(|last| list::encode(&(reader.at, level, last))))
}

async fn lines_query(reader: &mut Reader<'_>, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
    let core = &reader.core;
    sqlx::query(AssertSqlSafe(sql))
        .bind(reader.account.id())
        .bind(pg::timestamp(reader.at.time))
        .bind(pg::timestamp(core.period.starts_at))
        .bind(derive::reset_id(&core.account, core.period.index).as_str())
        .fetch_all(&mut *reader.connection)
        .await
}

fn total_of(rows: &[PgRow]) -> Result<(i64, Credits), sqlx::Error> {
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok((row.try_get("count")?, columns::amount(row, "sum")?))
}

fn place_of(row: &PgRow) -> Result<Place, sqlx::Error> {
    Ok((row.try_get("offset")?, row.try_get("seq")?))
}

/// Returns a line of the ledger with what it changed.
fn line_node(reader: &Reader<'_>, row: &PgRow) -> Result<Node, Problem> {
    let (offset, seq) = place_of(row)?;
    let (node, changes) = line_parts(reader, row)?;
    with_changes(reader.at, (offset, seq), node, changes)
}

fn with_changes(at: At, (offset, seq): Place, node: Node, changes: Vec<Node>) -> Result<Node, Problem> {
    if changes.is_empty() {
        return Ok(node);
    }
    let level = Level::Changes { offset, seq };
    node.explained_by(Part::cut(changes, 0, |reached| list::encode(&(at, &level, numbered(reached))))?)
}

/// Returns the place after so many children.
fn numbered(reached: usize) -> Place {
    (i64::try_from(reached).unwrap_or(i64::MAX), 0)
}

fn line_parts(reader: &Reader<'_>, row: &PgRow) -> Result<(Node, Vec<Node>), Problem> {
    let (offset, seq) = place_of(row)?;
    let position = Position { partition: reader.account.position.partition, offset };
    let node = Node {
        entry_id: Some(format!("{position}:{seq}")),
        entry_type: Some(columns::variant(row, "type")?),
        event_id: Some(columns::name(row, "event_id")?),
        position: Some(position),
        ..Node::new(Kind::Entry, columns::amount(row, "amount")?)
    };
    let changes: LotChanges = columns::json_of(row, "lots")?;
    let overdraft = columns::amount(row, "overdraft")?;
    let mut nodes: Vec<Node> = changes
        .into_iter()
        .map(|change| Node {
            grant_id: Some(change.grant_id),
            source: Some(change.source),
            ..Node::new(Kind::Lot, change.amount)
        })
        .collect();
    if !overdraft.is_zero() {
        nodes.push(Node::new(Kind::Overdraft, overdraft.negated()));
    }
    Ok((node, nodes))
}

/// Returns one line of the ledger and what it changed, if there is such a line.
async fn entry_at(
    reader: &mut Reader<'_>,
    offset: i64,
    seq: i32,
) -> Result<Option<(Node, Vec<Node>)>, Problem> {
    let rows = sqlx::query(
        r#"select "offset", seq, type, amount::text, event_id, lots::text as lots, overdraft::text
             from entry
            where account_id = $1
              and "offset" = $2
              and seq = $3
            union all
           select "offset", entry_seq, 'consumed', (-credits)::text, event_id, coalesce(lots::text, '[]'),
                  coalesce(line_end - line_start, 0)::text
             from event
            where account_id = $1
              and "offset" = $2
              and entry_seq = $3"#,
    )
    .bind(reader.account.id())
    .bind(offset)
    .bind(seq)
    .fetch_all(&mut *reader.connection)
    .await?;
    rows.first().map(|row| line_parts(reader, row)).transpose()
}

/// Returns one line of the ledger with its first changes, if there is such a line.
pub(crate) async fn entry(reader: &mut Reader<'_>, offset: i64, seq: i32) -> Result<Option<Node>, Problem> {
    let Some((node, changes)) = entry_at(reader, offset, seq).await? else { return Ok(None) };
    with_changes(reader.at, (offset, seq), node, changes).map(Some)
}

/// Returns the lines that an event booked itself, without those of the time before it.
pub(crate) async fn entries_of(reader: &mut Reader<'_>, offset: i64) -> Result<Vec<Node>, Problem> {
    let rows = sqlx::query(
        r#"select en."offset", en.seq, en.type, en.amount::text, en.event_id, en.lots::text as lots,
                  en.overdraft::text
             from entry as en
             join event as own
               on own.account_id = en.account_id
              and own."offset" = en."offset"
              and own.event_id = en.event_id
            where en.account_id = $1
              and en."offset" = $2
            order by en.seq"#,
    )
    .bind(reader.account.id())
    .bind(offset)
    .fetch_all(&mut *reader.connection)
    .await?;
    rows.iter().map(|row| line_node(reader, row)).collect()
}

/// Returns the sum of a user's usage, of the parts that count or of all.
pub(crate) async fn usage_sum(
    reader: &mut Reader<'_>,
    user: Option<&str>,
    counted: bool,
) -> Result<Credits, Problem> {
    let sql = format!(
        "select count(*) as count, coalesce(sum(e.credits), 0)::text as sum from event as e where {}",
        usage_rows(reader)
    );
    let rows = usage_query(reader, sql, user, counted).await?;
    Ok(total_of(&rows)?.1)
}

/// `$3` is a user or null, `$4` the features that do not count or null.
fn usage_rows(reader: &Reader<'_>) -> String {
    format!(
        "{}
         and e.period_index = {}
         and not coalesce({}, false)
         and ($3::text is null or e.user_id = $3)
         and ($4::text[] is null or coalesce(e.data->>'feature', '') <> all($4))",
        is_usage(reader.bounds, reader.at),
        reader.core.period.index,
        is_reversed(reader.bounds, reader.at),
    )
}

async fn usage_query(
    reader: &mut Reader<'_>,
    sql: String,
    user: Option<&str>,
    counted: bool,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let limits = reader.core.limits.as_ref().filter(|_| counted);
    let excluded: Option<Vec<String>> =
        limits.map(|limits| limits.excluded_features.iter().map(ToString::to_string).collect());
    sqlx::query(AssertSqlSafe(sql))
        .bind(reader.account.id())
        .bind(pg::timestamp(reader.at.time))
        .bind(user)
        .bind(excluded)
        .fetch_all(&mut *reader.connection)
        .await
}

/// Reads usage with its price lines, the newest first.
async fn usage_of(
    reader: &mut Reader<'_>,
    level: &Level,
    (user, counted): (Option<&str>, bool),
    (after, room): (Option<Place>, usize),
) -> Result<Part, Problem> {
    let (before, _) = after.unwrap_or((i64::MAX, 0));
    let rows = format!(r#"{} and e."offset" < {before}"#, usage_rows(reader));
    let page = format!(
        r#"select e."offset", e.event_id, e.credits::text, coalesce(e.data->>'lines', '[]') as lines
             from event as e
            where {rows}
            order by e."offset" desc
            limit {room}"#
    );
    let sums = format!(
        "select count(*) as count, coalesce(sum(e.credits), 0)::text as sum from event as e where {rows}"
    );
    let found = usage_query(reader, page, user, counted).await?;
    let total = total_of(&usage_query(reader, sums, user, counted).await?)?;
    let last: Option<i64> = found.last().map(|row| row.try_get("offset")).transpose()?;
    let mut children = Vec::with_capacity(found.len());
    for row in &found {
        children.push(usage_node(reader, row)?);
    }
    Part::first_of(children, total, || last.map(|last| list::encode(&(reader.at, level, (last, 0)))))
}

/// Returns a usage with its price lines. Whoever writes to the journal directly may have priced it otherwise: what its
/// lines do not explain is the rest.
fn usage_node(reader: &Reader<'_>, row: &PgRow) -> Result<Node, Problem> {
    let partition = reader.account.position.partition;
    let node = Node {
        event_id: Some(columns::name(row, "event_id")?),
        position: Some(Position { partition, offset: row.try_get("offset")? }),
        ..Node::new(Kind::Usage, columns::optional_amount(row, "credits")?.unwrap_or_default())
    };
    let lines: Vec<Line> = columns::json_of(row, "lines")?;
    let lines = lines.into_iter().map(|line| Node {
        quantity: Some(line.quantity),
        units: Some(line.amount.amount()),
        unit_credits: Some(line.unit_credits),
        per: Some(line.per),
        ..Node::new(Kind::Line, line.credits)
    });
    let lines: Vec<Node> = lines.take(CHILDREN_MAX).collect();
    if lines.is_empty() { Ok(node) } else { node.explained_in_part(lines) }
}

/// Returns a usage with its price lines; one that did not apply charged nothing.
pub(crate) async fn usage(reader: &mut Reader<'_>, offset: i64) -> Result<Node, Problem> {
    let row = sqlx::query(
        r#"select e."offset", e.event_id, e.credits::text,
                  case when e.credits is null then '[]' else coalesce(e.data->>'lines', '[]') end as lines
             from event as e
            where e.account_id = $1
              and e."offset" = $2"#,
    )
    .bind(reader.account.id())
    .bind(offset)
    .fetch_optional(&mut *reader.connection)
    .await?;
    usage_node(reader, &row.ok_or_else(|| Problem::internal("a usage is gone"))?)
}

fn lots_of(core: &Core, of: LotsOf) -> impl Iterator<Item = &Lot> {
    core.lots.iter().filter(move |lot| {
        !core.lots.is_waiting(&lot.grant_id)
            && match of {
                LotsOf::Payments => lot.is_paid(),
                LotsOf::Rollover => lot.source == LotSource::Rollover,
            }
    })
}

fn lot_node(lot: &Lot) -> Node {
    Node {
        grant_id: Some(lot.grant_id.clone()),
        source: Some(lot.source),
        ..Node::new(Kind::Lot, lot.remaining)
    }
}

/// Watches what draws from paid lots, or returns to them.
#[derive(Default)]
struct Spending {
    opening: Credits,
    spent: Credits,
    changes: Vec<(EventId, Credits, Credits)>,
}

impl Observer for Spending {
    fn after(&mut self, core: &Core, moment: &Moment<'_>) {
        if core.totals.spent != self.spent {
            self.changes.push((moment.event_id.clone(), self.spent, core.totals.spent));
            self.spent = core.totals.spent;
        }
    }
}

impl Onlooker for Spending {
    fn begins(&mut self, core: &Core) {
        self.opening = core.totals.spent;
        self.spent = core.totals.spent;
    }
}

/// Folds the events since the last snapshot again, at most 1,000, and returns what each spent, the newest first.
async fn spendings(reader: &mut Reader<'_>) -> Result<Vec<Node>, Problem> {
    let mut spending = Spending::default();
    as_of::refold_to(reader.connection, reader.account, reader.at, &mut spending).await?;
    let mut nodes = vec![Node::new(Kind::Opening, spending.opening)];
    for (event_id, before, after) in spending.changes.into_iter().rev() {
        let node = Node::new(Kind::Entry, minus(after, before)?);
        nodes.push(Node { event_id: Some(event_id), ..node });
    }
    Ok(nodes)
}

/// Returns the figure of a sum of the period's lines, beginning with what was carried in.
pub(crate) async fn since_opening(
    reader: &mut Reader<'_>,
    figure: Figure,
    amount: Credits,
    (booked, carried_in): (Booked, Option<Credits>),
) -> Result<Node, Problem> {
    let level = Level::Entries(booked);
    let mut part = read(reader, &level, None, CHILDREN_MAX - 1).await?;
    let opening = match carried_in {
        Some(carried_in) => carried_in,
        None => minus(amount, part.sum()?)?,
    };
    part.children.insert(0, Node::new(Kind::Opening, opening));
    Node::figure(figure, amount).explained_by(part)
}

/// Refuses a cursor that no answer has given.
pub(crate) fn bad_cursor() -> Problem {
    Problem::bad_field("cursor", "bad_cursor", "is not a cursor of this account's explanations")
}

/// Goes on with a level where an answer before ended: what it shows adds up to the rest of that answer.
pub(crate) async fn go_on(reader: &mut Reader<'_>, level: &Level, after: Place) -> Result<Node, Problem> {
    let part = read(reader, level, Some(after), CHILDREN_MAX).await?;
    let amount = part.sum()?;
    let node = match level {
        Level::Entries(Booked::Settled) => Node::figure(Figure::Settled, amount),
        Level::Entries(Booked::Added) => Node::figure(Figure::PeriodMaximum, amount),
        Level::Entries(Booked::Overdraft) => Node::figure(Figure::Overdraft, amount),
        Level::Additions => Node::figure(Figure::LifetimeAdded, amount),
        Level::Spendings => Node::figure(Figure::LifetimeSpent, amount),
        Level::Usage { counted: true, .. } => Node::figure(Figure::Counted, amount),
        Level::Usage { counted: false, .. } => Node::figure(Figure::Used, amount),
        Level::Lots { of: LotsOf::Payments } => Node::figure(Figure::CreditBalance, amount),
        Level::Lots { of: LotsOf::Rollover } => Node::figure(Figure::Rollover, amount),
        Level::Changes { offset, seq } => {
            let known = entry_at(reader, *offset, *seq).await?;
            let (node, _) = known.ok_or_else(bad_cursor)?;
            Node { amount: Some(amount), ..node }
        }
    };
    node.explained_by(part)
}
