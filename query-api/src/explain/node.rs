//! Nodes: the tree of an answer.

use ledger_core::event::LotSource;
use ledger_core::fold::EntryType;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{EventId, GrantId, Slug};
use platform::position::Position;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use web::http::Problem;

/// A figure that can be explained: those of the balance, and what of a user's usage counts toward the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "named as in the balance")]
pub(crate) enum Figure {
    Settled,
    Held,
    Available,
    CreditBalance,
    Overdraft,
    Allowance,
    Rollover,
    PeriodMaximum,
    Used,
    /// A user's usage that counts toward the limit.
    Counted,
    PercentUsed,
    PercentRemaining,
    LifetimeAdded,
    LifetimeSpent,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ExplainedKind")]
pub(crate) enum Kind {
    Figure,
    /// What was carried in: into the period, or from before the events that follow.
    Opening,
    /// A line of the account's ledger, or an event's lines together.
    Entry,
    Usage,
    /// A lot, or what a line changed in it.
    Lot,
    /// A price line of usage.
    Line,
    /// What lots could not cover.
    Overdraft,
    Held,
    Firing,
    Decision,
}

/// How the amount follows from the children and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ExplainedBy")]
pub(crate) enum Operation {
    Sum,
    /// 100 x the first child ÷ the second.
    Ratio,
    /// The sum, or 0 if that is below 0.
    Min0,
}

/// The children that are not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedRest")]
pub(crate) struct Rest {
    pub count: i64,
    pub amount: Credits,
    /// Shows them when given as `cursor`; null where there is nothing to show.
    #[schemars(with = "Option<ledger_core::value::schema::Cursor>")]
    pub next_cursor: Option<String>,
}

/// An amount with what it consists of.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Explained")]
pub(crate) struct Node {
    pub kind: Kind,
    /// Null only for a percentage of nothing.
    #[schemars(extend("nullable" = true))]
    pub amount: Option<Credits>,
    pub operation: Operation,
    pub children: Vec<Node>,
    pub rest: Option<Rest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figure: Option<Figure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_id: Option<String>,
    /// Of an entry, its type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub entry_type: Option<EntryType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_id: Option<GrantId>,
    /// Of a lot, where it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<LotSource>,
    /// Of a price line, the name of what was priced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Slug>,
    /// Of a price line, how much of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<Credits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_credits: Option<Credits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per: Option<Credits>,
}

impl Node {
    pub fn new(kind: Kind, amount: Credits) -> Self {
        Self {
            kind,
            amount: Some(amount),
            operation: Operation::Sum,
            children: Vec::new(),
            rest: None,
            figure: None,
            entry_id: None,
            entry_type: None,
            event_id: None,
            position: None,
            grant_id: None,
            source: None,
            quantity: None,
            units: None,
            unit_credits: None,
            per: None,
        }
    }

    pub fn figure(figure: Figure, amount: Credits) -> Self {
        Self { figure: Some(figure), ..Node::new(Kind::Figure, amount) }
    }

    /// Returns the percentage that the first figure is of the second; null if that is 0 or less.
    pub fn ratio(figure: Figure, first: Node, second: Node) -> Self {
        let amount = first.amount.zip(second.amount).and_then(|(part, whole)| part.percent_of(whole));
        Self {
            amount,
            operation: Operation::Ratio,
            children: vec![first, second],
            ..Self::figure(figure, Credits::ZERO)
        }
    }

    /// Gives the node what its amount consists of.
    ///
    /// Problems: an error of ours where that does not add up to the amount.
    pub fn explained_by(self, part: Part) -> Result<Self, Problem> {
        let sum = part.sum()?;
        if self.amount != Some(sum) {
            let (kind, figure, amount) = (self.kind, self.figure, self.amount);
            let detail = format!("{kind:?} {figure:?} of {amount:?} is explained by {sum}");
            return Err(Problem::internal(detail));
        }
        Ok(Self { children: part.children, rest: part.rest, ..self })
    }

    /// Gives the node what is known of its amount, and makes the rest what is not.
    pub fn explained_in_part(self, children: Vec<Node>) -> Result<Self, Problem> {
        let known = Part { children, rest: None };
        let left = minus(self.amount.unwrap_or_default(), known.sum()?)?;
        let rest = (!left.is_zero()).then_some(Rest { count: 0, amount: left, next_cursor: None });
        Ok(Self { children: known.children, rest, ..self })
    }
}

/// Most children of a node in one answer.
pub(crate) const CHILDREN_MAX: usize = 50;

/// Some of a node's children, and the sum of those after them.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub children: Vec<Node>,
    pub rest: Option<Rest>,
}

impl Part {
    /// Cuts the children of a level that were read whole, from a place in their order.
    pub fn cut(nodes: Vec<Node>, after: usize, cursor: impl Fn(usize) -> String) -> Result<Self, Problem> {
        let count = nodes.len();
        let mut left = nodes.into_iter().skip(after);
        let children: Vec<Node> = left.by_ref().take(CHILDREN_MAX).collect();
        let reached = after + children.len();
        let hidden: Vec<Node> = left.collect();
        if hidden.is_empty() {
            return Ok(Self { children, rest: None });
        }
        let amount = Self { children: hidden, rest: None }.sum()?;
        let next_cursor = Some(cursor(reached));
        let hidden = i64::try_from(count - reached).unwrap_or(i64::MAX);
        Ok(Self { children, rest: Some(Rest { count: hidden, amount, next_cursor }) })
    }

    /// Cuts the first children of a level of which the count and the sum are known.
    pub fn first_of(
        children: Vec<Node>,
        (count, sum): (i64, Credits),
        cursor: impl FnOnce() -> Option<String>,
    ) -> Result<Self, Problem> {
        let shown = i64::try_from(children.len()).unwrap_or(i64::MAX);
        let part = Self { children, rest: None };
        let amount = minus(sum, part.sum()?)?;
        if count == shown {
            return Ok(part);
        }
        let rest = Rest { count: count - shown, amount, next_cursor: cursor() };
        Ok(Self { rest: Some(rest), ..part })
    }

    /// Returns what the children and the rest add up to.
    pub fn sum(&self) -> Result<Credits, Problem> {
        let mut sum = self.rest.as_ref().map_or(Credits::ZERO, |rest| rest.amount);
        for child in &self.children {
            sum = sum.plus(child.amount.unwrap_or_default()).map_err(Problem::internal)?;
        }
        Ok(sum)
    }
}

pub(crate) fn minus(a: Credits, b: Credits) -> Result<Credits, Problem> {
    a.minus(b).map_err(Problem::internal)
}
