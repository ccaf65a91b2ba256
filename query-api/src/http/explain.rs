//! Explain: how a figure, a line of the ledger, an event, a firing or a decision came about.

use axum::extract::State;
use ledger_core::value::id::{AccountId, EventId, Source};
use ledger_core::value::time::Time;
use platform::position::{AtLeast, Position};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Seen;
use crate::answer::{self, Answer, Now};
use crate::app::App;
use crate::explain::levels::Cursor;
use crate::explain::node::{Figure, Node};
use crate::explain::questions;
use crate::http::alerts::{self, FiringView};
use crate::http::decisions;
use crate::list;
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainQuery {
    /// A figure of the balance; with `user`, what that user `used`, or what of it `counted` toward the limit.
    figure: Option<Figure>,
    /// With `used` and `counted`: whose usage.
    user: Option<String>,
    /// With a figure: as it stood at this ledger time, without holds.
    as_of: Option<Time>,
    /// A line of the account's ledger, by its `entry_id`.
    entry: Option<String>,
    event: Option<EventId>,
    /// With an event: the producer, where several have sent this id.
    source: Option<Source>,
    /// What fired, by its `firing_id`.
    firing: Option<String>,
    /// Why work was refused or allowed, by the decision's `id`.
    decision: Option<String>,
    /// The `next_cursor` of a node's `rest`, with the same question. Shows the children that follow, in the state
    /// that the answer before explained; the node's amount is that of the rest.
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Explanation")]
struct Explanation {
    /// The instant that was asked for; null is the present.
    as_of: Option<Time>,
    tree: Node,
}

/// What is to be explained.
enum Question {
    Figure(Figure),
    Entry(String),
    Event(EventId),
    Firing(String),
    Decision(String),
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/explain", explain)
            .named("getExplanation", "Returns how a figure came about, as a tree whose amounts add up at every level.")
            .says(
                "Takes exactly one of `figure`, `entry`, `event`, `firing` and `decision`. A node's amount is the sum of \
                 its children and its rest; of a `ratio`, 100 times the first child through the second. A level has 50 \
                 children at most. Members see their own usage: `figure=used`, `figure=counted` and their events.",
            )
            .refuses(&[
                "entry_not_found",
                "event_not_found",
                "firing_not_found",
                "decision_not_found",
                "ambiguous_event",
            ]),
    ]
}

impl ExplainQuery {
    /// Returns the one question. Problems: 422 where there is none, or several, or what has no meaning with it.
    fn question(&self) -> Result<Question, Problem> {
        let asked = [
            self.figure.map(|figure| ("figure", Question::Figure(figure))),
            self.entry.clone().map(|entry| ("entry", Question::Entry(entry))),
            self.event.clone().map(|event| ("event", Question::Event(event))),
            self.firing.clone().map(|firing| ("firing", Question::Firing(firing))),
            self.decision.clone().map(|decision| ("decision", Question::Decision(decision))),
        ];
        let mut asked = asked.into_iter().flatten();
        let none = "exactly one of figure, entry, event, firing and decision is required";
        let (_, question) = asked.next().ok_or_else(|| Problem::bad_field("figure", "required", none))?;
        if let Some((second, _)) = asked.next() {
            return Err(Problem::bad_field(second, "not_allowed", "is a second question"));
        }
        self.check_details(&question)?;
        Ok(question)
    }

    fn check_details(&self, question: &Question) -> Result<(), Problem> {
        let is_users = matches!(question, Question::Figure(Figure::Used | Figure::Counted));
        let refused = [
            ("user", self.user.is_some() && !is_users, "goes with the figures used and counted"),
            ("as_of", self.as_of.is_some() && !matches!(question, Question::Figure(_)), "goes with a figure"),
            (
                "source",
                self.source.is_some() && !matches!(question, Question::Event(_)),
                "goes with an event",
            ),
        ];
        match refused.into_iter().find(|(_, is_refused, _)| *is_refused) {
            Some((field, _, why)) => Err(Problem::bad_field(field, "not_allowed", why)),
            None => Ok(()),
        }
    }
}

/// `GET /v1/accounts/{account}/explain`
async fn explain(
    State(app): State<App>,
    seen: Seen,
    Query(query): Query<ExplainQuery>,
) -> Result<Answer<Now<Explanation>>, Problem> {
    let user = seen.user(query.user.clone())?;
    let own = (!seen.sees_account()).then(|| user.clone()).flatten();
    let question = query.question();
    if own.is_some() && !question.as_ref().is_ok_and(is_own) {
        return Err(Problem::forbidden());
    }
    let question = question?;
    let cursor: Option<Cursor> = list::decode(query.cursor.as_deref())?;
    if matches!(question, Question::Figure(Figure::Counted)) && user.is_none() {
        return Err(Problem::bad_field("user", "required", "is required with the figure counted"));
    }
    let fired = match &question {
        Question::Firing(id) if cursor.is_none() => Some(firing(&app, &seen.account, id).await?),
        Question::Firing(_)
        | Question::Figure(_)
        | Question::Entry(_)
        | Question::Event(_)
        | Question::Decision(_) => None,
    };
    // The alerts may be folded further than the balances.
    let reached = fired.as_ref().map(|(_, position)| AtLeast(*position));
    let at_least = latest(query.at_least, reached);
    let asked = Asked { question, user, own, cursor, fired: fired.map(|(fired, _)| fired) };
    let (as_of, source) = (query.as_of, query.source);
    let (reflects, tree) = reading::of(&app, seen.account, at_least, move |connection, account| {
        Box::pin(async move { asked.tree(connection, account, as_of, source.as_ref()).await })
    })
    .await?;
    answer::object(&reflects, Explanation { as_of, tree })
}

/// Returns the later of two positions; those of different partitions are refused where the first is checked.
fn latest(asked: Option<AtLeast>, reached: Option<AtLeast>) -> Option<AtLeast> {
    match (asked, reached) {
        (Some(AtLeast(asked)), Some(AtLeast(reached))) if asked < reached => Some(AtLeast(reached)),
        (Some(asked), _) => Some(asked),
        (None, reached) => reached,
    }
}

/// A question that this caller may ask.
struct Asked {
    question: Question,
    /// The only user whose usage is shown.
    user: Option<String>,
    /// The same, for a member.
    own: Option<String>,
    cursor: Option<Cursor>,
    fired: Option<FiringView>,
}

impl Asked {
    async fn tree(
        self,
        connection: &mut PgConnection,
        account: &Account,
        as_of: Option<Time>,
        source: Option<&Source>,
    ) -> Result<Node, Problem> {
        let own = self.own.as_deref();
        if let Some(cursor) = self.cursor {
            return questions::rest(connection, account, cursor, own).await;
        }
        match self.question {
            Question::Figure(figure) => {
                questions::figure(connection, account, (figure, self.user.as_deref()), as_of).await
            }
            Question::Entry(id) => questions::entry(connection, account, &id).await,
            Question::Event(id) => questions::event(connection, account, (&id, source), own).await,
            Question::Firing(id) => {
                let fired = self.fired.ok_or_else(|| unknown_firing(&id))?;
                questions::firing(connection, account, &fired).await
            }
            Question::Decision(id) => {
                let made = decisions::with_id(connection, account, &id).await?;
                let unknown =
                    || Problem::not_found("decision_not_found", format!("decision {id} is not kept"));
                questions::decision(connection, account, &made.ok_or_else(unknown)?).await
            }
        }
    }
}

/// Reads a firing from the alerts, and its position.
async fn firing(app: &App, account: &AccountId, id: &str) -> Result<(FiringView, Position), Problem> {
    let firing_id: Uuid = id.parse().map_err(|_| unknown_firing(id))?;
    let read = reading::of_alerts(app, account.clone(), None, move |connection, account| {
        Box::pin(async move {
            let found = alerts::with_id(connection, account, firing_id).await?;
            Ok(found.map(|firing| {
                let (offset, _) = firing.cursor;
                (firing, Position { partition: account.position.partition, offset })
            }))
        })
    });
    let (_, found) = read.await?;
    found.ok_or_else(|| unknown_firing(id))
}

fn unknown_firing(id: &str) -> Problem {
    Problem::not_found("firing_not_found", format!("firing {id} does not exist"))
}

/// Returns whether a member may ask this of the own usage.
fn is_own(question: &Question) -> bool {
    match question {
        Question::Figure(Figure::Used | Figure::Counted) | Question::Event(_) => true,
        Question::Figure(_) | Question::Entry(_) | Question::Firing(_) | Question::Decision(_) => false,
    }
}
