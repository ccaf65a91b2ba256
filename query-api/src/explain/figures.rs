//! Figures: what each figure of a balance consists of.

use ledger_core::policy::balance::Balance;
use ledger_core::value::credits::Credits;
use web::http::Problem;

use super::levels::{self, Booked, Level, LotsOf};
use super::node::{CHILDREN_MAX, Figure, Kind, Node, Operation, Part};
use super::reader::Reader;

/// Explains a figure; `user` is whose usage, for those of one user.
pub(crate) async fn explain(
    reader: &mut Reader<'_>,
    figure: Figure,
    user: Option<&str>,
) -> Result<Node, Problem> {
    let balance = Balance::of(&reader.core, reader.held);
    match figure {
        Figure::Settled => settled(reader).await,
        Figure::Held => Ok(Node::figure(figure, balance.held)),
        Figure::Allowance => Ok(Node::figure(figure, balance.allowance)),
        Figure::Available => {
            let settled = settled(reader).await?;
            let part = available_of(settled, balance.held);
            Node::figure(figure, balance.available).explained_by(part)
        }
        Figure::CreditBalance => {
            of_level(reader, figure, balance.credit_balance, Level::Lots { of: LotsOf::Payments }).await
        }
        Figure::Rollover => {
            of_level(reader, figure, balance.rollover, Level::Lots { of: LotsOf::Rollover }).await
        }
        Figure::Overdraft => {
            levels::since_opening(reader, figure, balance.overdraft, (Booked::Overdraft, None)).await
        }
        Figure::PeriodMaximum => maximum(reader).await,
        Figure::Used => used(reader, user, false).await,
        Figure::Counted => used(reader, user, true).await,
        Figure::PercentUsed => {
            let used = used(reader, None, false).await?;
            Ok(Node::ratio(figure, used, maximum(reader).await?))
        }
        Figure::PercentRemaining => {
            let settled = settled(reader).await?;
            let at_least_0 = Node {
                operation: Operation::Min0,
                children: vec![settled],
                ..Node::figure(Figure::Settled, balance.settled.max(Credits::ZERO))
            };
            Ok(Node::ratio(figure, at_least_0, maximum(reader).await?))
        }
        Figure::LifetimeAdded => of_level(reader, figure, balance.lifetime_added, Level::Additions).await,
        Figure::LifetimeSpent => of_level(reader, figure, balance.lifetime_spent, Level::Spendings).await,
    }
}

/// What is settled, less what is held.
pub(crate) fn available_of(settled: Node, held: Credits) -> Part {
    Part { children: vec![settled, Node::new(Kind::Held, held.negated())], rest: None }
}

async fn settled(reader: &mut Reader<'_>) -> Result<Node, Problem> {
    let (amount, carried_in) = (reader.core.settled(), reader.core.figures.carried_in);
    levels::since_opening(reader, Figure::Settled, amount, (Booked::Settled, Some(carried_in))).await
}

async fn maximum(reader: &mut Reader<'_>) -> Result<Node, Problem> {
    let figures = &reader.core.figures;
    let (amount, carried_in) = (figures.maximum(), figures.carried_in);
    levels::since_opening(reader, Figure::PeriodMaximum, amount, (Booked::Added, Some(carried_in))).await
}

async fn used(reader: &mut Reader<'_>, user: Option<&str>, counted: bool) -> Result<Node, Problem> {
    let (figure, amount) = match (user, counted) {
        (_, true) => (Figure::Counted, levels::usage_sum(reader, user, true).await?),
        (Some(_), false) => (Figure::Used, levels::usage_sum(reader, user, false).await?),
        (None, false) => (Figure::Used, reader.core.figures.used),
    };
    of_level(reader, figure, amount, Level::Usage { user: user.map(str::to_owned), counted }).await
}

async fn of_level(
    reader: &mut Reader<'_>,
    figure: Figure,
    amount: Credits,
    level: Level,
) -> Result<Node, Problem> {
    let part = levels::read(reader, &level, None, CHILDREN_MAX).await?;
    Node::figure(figure, amount).explained_by(part)
}
