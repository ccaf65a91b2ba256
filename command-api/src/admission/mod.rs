//! Admission: judges, prices and stamps incoming usage, by one rule for HTTP and Kafka.
//!
//! Usage that a lagging projection may have refused is judged again once the projection has caught up. Usage that names
//! a hold settles it on admission, over HTTP and over Kafka.

pub mod admitted;
pub mod judge;
pub mod known_accounts;
pub mod ledger_time;
pub mod rate_cards;
pub mod recent_ids;
pub mod refusal;
pub mod resends;

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::future::join_all;
use ledger_core::event::{Data, Event, wire};
use ledger_core::request::Offer;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, Label, ReservationId};
use platform::pg;
use tokio::time::Instant;
use web::http::Problem;

pub use self::admitted::{Admitted, NamedHold};
pub use self::judge::{Form, Stamp};
use self::judge::{Seen, Terms, event, judge, record};
use self::known_accounts::KnownAccounts;
use self::refusal::{CONFLICT, too_large};
pub use self::refusal::{Certainty, Refusal};
use self::resends::note_resends;
use crate::app::App;
use crate::holds::request::{Answer, Ask, Fault, HOLD_ENDED, RESERVATION_NOT_FOUND, Request};

/// Events judged on the request's own task; a larger batch runs on a blocking thread.
const INLINE_EVENTS_MAX: usize = 32;

/// Usage, or why parsing or access control refused it.
pub type Offered = Result<Offer, Refusal>;
/// A record, or why the usage was refused.
pub type Verdict = Result<Admitted, Refusal>;

/// The progress of one item.
#[derive(Debug)]
enum State {
    Refused(Refusal),
    Ready(Admitted),
    /// Accepted; the hold that it names decides.
    SettlesHold(Box<Settling>),
    /// Refused, possibly because the projection lags.
    JudgeAgain(Box<Offer>, Refusal),
}

#[derive(Debug)]
struct Settling {
    offer: Offer,
    terms: Terms,
    /// The result if it settles no hold: its id is in the journal already, and it folds to a duplicate or a conflict.
    otherwise: Option<Verdict>,
}

impl State {
    fn of(offer: Offer, verdict: Verdict) -> State {
        match verdict {
            Ok(admitted) => State::Ready(admitted),
            Err(refusal) if refusal.certainty == Certainty::Doubtful => {
                State::JudgeAgain(Box::new(offer), refusal)
            }
            Err(refusal) => State::Refused(refusal),
        }
    }

    /// Judges usage by what is known about its account and its id.
    fn judged(offer: Offer, known: &KnownAccounts, stamp: &Stamp, seen: Seen) -> State {
        let account = known.get(&offer.account);
        let terms = match judge(&offer, account, stamp, seen) {
            Ok(terms) => terms,
            Err(refusal) => return State::of(offer, Err(refusal)),
        };
        if offer.usage.reservation_id.is_none() {
            return match record(offer, terms, &stamp.actor) {
                Ok(admitted) => State::Ready(admitted),
                Err(refusal) => State::Refused(refusal),
            };
        }
        let otherwise = seen.known.then(|| {
            // If it settles no hold, the hold does not determine its recording time.
            let terms = judge(&offer, account, stamp, Seen { not_before: None, ..seen })?;
            record(offer.clone(), terms, &stamp.actor)
        });
        State::SettlesHold(Box::new(Settling { offer, terms, otherwise }))
    }

    fn verdict(self, caught_up: bool) -> Verdict {
        match self {
            State::Ready(admitted) => Ok(admitted),
            State::Refused(refusal) => Err(refusal),
            State::JudgeAgain(_, refusal) if caught_up => {
                Err(Refusal { certainty: Certainty::Final, ..refusal })
            }
            // No item is in these states any more.
            State::JudgeAgain(..) | State::SettlesHold(_) => Err(Refusal::behind()),
        }
    }
}

/// Judges usage and makes its records, in order.
///
/// The projection must catch up by `deadline` where something seems absent; otherwise that item is refused as `behind`.
/// Errors come from Kafka or Postgres, and say nothing about the usage.
pub async fn admit(
    app: &App,
    offers: Vec<Offered>,
    stamp: Stamp,
    deadline: Instant,
) -> Result<Vec<Verdict>, Problem> {
    let accounts: BTreeSet<AccountId> =
        offers.iter().filter_map(|offer| Some(offer.as_ref().ok()?.account.clone())).collect();
    let known = app.known_accounts(&accounts, stamp.ledger_time).await?;
    let stamp = Arc::new(stamp);
    let mut states = judge_first_off_task(offers, known, Arc::clone(&stamp)).await?;
    states = settle(app, states, &stamp.actor).await?;
    let mut caught_up = true;
    if states.iter().any(|state| matches!(state, State::JudgeAgain(..))) {
        (states, caught_up) = judge_again(app, states, &stamp, deadline).await?;
    }
    let mut verdicts: Vec<Verdict> = states.into_iter().map(|state| state.verdict(caught_up)).collect();
    // A time that the caller set moves a test account's clock, whatever the usage comes to.
    if stamp.ledger_time.is_none() {
        note_resends(app, verdicts.iter_mut().filter_map(|verdict| verdict.as_mut().ok()).collect()).await;
    }
    Ok(verdicts)
}

async fn judge_first_off_task(
    offers: Vec<Offered>,
    known: KnownAccounts,
    stamp: Arc<Stamp>,
) -> Result<Vec<State>, sqlx::Error> {
    if offers.len() <= INLINE_EVENTS_MAX {
        return Ok(judge_first(offers, &known, &stamp));
    }
    let looking = tokio::task::spawn_blocking(move || judge_first(offers, &known, &stamp));
    // Fails only when the process is ending.
    looking.await.map_err(|_| sqlx::Error::WorkerCrashed)
}

fn judge_first(offers: Vec<Offered>, known: &KnownAccounts, stamp: &Stamp) -> Vec<State> {
    let states = offers.into_iter().map(|offer| match offer {
        Ok(offer) => State::judged(offer, known, stamp, Seen::default()),
        Err(refusal) => State::Refused(refusal),
    });
    states.collect()
}

/// Judges doubtful refusals again after the projection has caught up; returns whether it has.
async fn judge_again(
    app: &App,
    states: Vec<State>,
    stamp: &Stamp,
    deadline: Instant,
) -> Result<(Vec<State>, bool), Problem> {
    let doubtful: Vec<&Offer> = states.iter().filter_map(doubtful).collect();
    let accounts: BTreeSet<AccountId> = doubtful.iter().map(|offer| offer.account.clone()).collect();
    let caught_up = app.catch_up(&accounts, deadline).await;
    let known = app.known_accounts(&accounts, stamp.ledger_time).await?;
    let mut seen = seen(app, &doubtful).await?.into_iter();
    let again = states.into_iter().map(|state| match state {
        State::JudgeAgain(offer, _) => State::judged(*offer, &known, stamp, seen.next().unwrap_or_default()),
        clear @ (State::Refused(_) | State::Ready(_) | State::SettlesHold(_)) => clear,
    });
    let states = settle(app, again.collect(), &stamp.actor).await?;
    Ok((states, caught_up))
}

fn doubtful(state: &State) -> Option<&Offer> {
    match state {
        State::JudgeAgain(offer, _) => Some(offer),
        State::Refused(_) | State::Ready(_) | State::SettlesHold(_) => None,
    }
}

/// Settles all the holds that the usage names in one batch.
async fn settle(app: &App, states: Vec<State>, actor: &Label) -> Result<Vec<State>, Problem> {
    if !states.iter().any(|state| matches!(state, State::SettlesHold(_))) {
        return Ok(states);
    }
    let settling = states.into_iter().map(|state| async move {
        match state {
            State::SettlesHold(settling) => settle_one(app, *settling, actor).await,
            state @ (State::Refused(_) | State::Ready(_) | State::JudgeAgain(..)) => Ok(state),
        }
    });
    join_all(settling).await.into_iter().collect()
}

async fn settle_one(app: &App, settling: Settling, actor: &Label) -> Result<State, Problem> {
    let Settling { offer, terms, otherwise } = settling;
    let verdict = settled(app, offer.clone(), terms, actor).await?;
    let verdict = match (verdict, otherwise) {
        (Err(refusal), Some(otherwise)) => {
            let hold = match refusal.code {
                RESERVATION_NOT_FOUND => NamedHold::Absent,
                _ => NamedHold::Other,
            };
            otherwise.map(|admitted| Admitted { hold, ..admitted })
        }
        (verdict, _) => verdict,
    };
    Ok(State::of(offer, verdict))
}

async fn settled(app: &App, offer: Offer, terms: Terms, actor: &Label) -> Result<Verdict, Problem> {
    let Some(reservation) = offer.usage.reservation_id.clone() else {
        return Ok(record(offer, terms, actor));
    };
    let event = event(offer, terms, actor);
    let bytes = longest(&event);
    if bytes > wire::RECORD_BYTES_MAX {
        return Ok(Err(too_large(bytes)));
    }
    let (account, id, source) = (event.account.clone(), event.id.clone(), event.source.clone());
    let ask = Ask::Settle(reservation, Box::new(event));
    let request = Request { account: account.clone(), at: None, actor: actor.clone(), ask };
    Ok(match app.holds.ask(request).await {
        Ok(Answer::Settling(settled, bytes)) => {
            Ok(Admitted { account, id, source, bytes, hold: NamedHold::Settles(settled), first: None })
        }
        Ok(_) => return Err(Problem::internal("settling was answered otherwise")),
        Err(Fault::AccountAbsent) => Err(Refusal::account_not_found(&account)),
        Err(Fault::HoldAbsent(reservation)) => {
            Err(Refusal::reservation_not_found(&account, &reservation).doubtful())
        }
        Err(Fault::Problem(problem)) if problem.status.is_server_error() => return Err(problem),
        // Usage of this id may be folded already: then this one is recorded, and folds to a duplicate or a conflict.
        Err(Fault::Problem(problem)) if matches!(problem.code, CONFLICT | HOLD_ENDED) => {
            Err(Refusal::new(problem.code, problem.detail).doubtful())
        }
        Err(Fault::Problem(problem)) => Err(Refusal::new(problem.code, problem.detail)),
    })
}

/// The bytes that a fraction of a second adds to the recording time in a record.
const FRACTION_BYTES: usize = ".123456".len();

/// Returns the largest size in bytes that the record may reach when it settles a hold.
fn longest(event: &Event) -> usize {
    let mut longest = event.clone();
    if let Data::UsageRecorded(usage) = &mut longest.data {
        usage.held = Some(Credits::MAX_AMOUNT);
    }
    wire::encode(&longest).len() + FRACTION_BYTES
}

const SEEN: &str = "
    select exists (
               select from event
               where event.account_id = offer.account_id and event.event_id = offer.event_id
                 and event.source = offer.source) as known,
           hold.decided_at
    from unnest($1::text[], $2::text[], $3::text[], $4::text[]) with ordinality
         as offer (account_id, event_id, source, reservation_id, number)
    left join control.hold
         on hold.account_id = offer.account_id and hold.reservation_id = offer.reservation_id
    order by offer.number
";

#[derive(sqlx::FromRow)]
struct SeenRow {
    known: bool,
    decided_at: Option<DateTime<Utc>>,
}

/// Reads what is known about each usage and the hold that it names.
async fn seen(app: &App, offers: &[&Offer]) -> Result<Vec<Seen>, sqlx::Error> {
    let text = |of: fn(&Offer) -> &str| offers.iter().map(|offer| of(offer).to_owned()).collect::<Vec<_>>();
    // The empty string names no hold.
    let reservations = text(|offer| offer.usage.reservation_id.as_ref().map_or("", ReservationId::as_str));
    let accounts = text(|offer| offer.account.as_str());
    let ids = text(|offer| offer.id.as_str());
    let sources = text(|offer| offer.source.as_str());
    let rows: Vec<SeenRow> = pg::read(&app.pool, app.waiter.schema(), |connection| {
        Box::pin(async move {
            let query = sqlx::query_as(SEEN).bind(accounts).bind(ids).bind(sources).bind(reservations);
            query.fetch_all(connection).await
        })
    })
    .await?;
    let seen = |row: SeenRow| Seen { known: row.known, not_before: row.decided_at.map(pg::time_of) };
    Ok(rows.into_iter().map(seen).collect())
}

#[cfg(test)]
mod tests {
    use ledger_core::event::Clock;
    use ledger_core::request::read_offer;

    use super::known_accounts::Account;
    use super::*;

    fn offer(account: &str, data: &str) -> Offer {
        let event = format!(
            r#"{{"specversion":"1.0","id":"e1","source":"/app","type":"ledger.usage.recorded.v1","subject":"{account}",
            "time":"2026-02-03T10:00:00Z","data":{data}}}"#
        );
        read_offer(event.as_bytes()).expect("an offer")
    }

    #[test]
    fn the_first_judgement_keeps_the_order_and_remembers_what_is_doubtful() {
        let account = Account {
            clock: Clock::Live,
            ledger_time: "2026-01-01T00:00:00Z".parse().expect("a time"),
            rate_card: None,
            card: None,
            jumps: false,
            closed: false,
        };
        let known = KnownAccounts { accounts: [(AccountId::new("acme").expect("an id"), account)].into() };
        let stamp = Stamp {
            actor: Label::new("key_1").expect("a label"),
            now: "2026-02-03T10:00:00Z".parse().expect("a time"),
            ledger_time: None,
            form: Form::CloudEvent,
        };
        let offers = vec![
            Ok(offer("acme", r#"{"credits":"1"}"#)),
            Ok(offer("nobody", r#"{"credits":"1"}"#)),
            Err(Refusal::new("forbidden", "no")),
            Ok(offer("acme", r#"{"credits":"2"}"#)),
            Ok(offer("acme", r#"{"credits":"2","reservation_id":"r1"}"#)),
        ];
        let states = judge_first(offers, &known, &stamp);
        let said: Vec<String> = states
            .iter()
            .map(|state| match state {
                State::Ready(_) => "ready".to_owned(),
                State::Refused(refusal) => format!("refused {}", refusal.code),
                State::JudgeAgain(_, refusal) => format!("again {}", refusal.code),
                State::SettlesHold(_) => "settles".to_owned(),
            })
            .collect();
        assert_eq!(said, ["ready", "again account_not_found", "refused forbidden", "ready", "settles"]);
    }
}
