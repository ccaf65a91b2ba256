//! Intake: usage on its way into the journal, judged, priced and stamped; one rule for HTTP and Kafka.
//!
//! Two passes: what the first refuses because the projection may lag is judged again from one that has caught up. Usage
//! that names a hold settles it on the way, wherever it comes in.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::future::join_all;
use ledger_core::credits::Credits;
use ledger_core::door::{self, FieldError, Offer};
use ledger_core::event::{Clock, Data, Event, Line};
use ledger_core::fold::CROSSINGS_MAX;
use ledger_core::id::{EventId, Id, Label, Source};
use ledger_core::key::{ContentHash, content_hash};
use ledger_core::time::Time;
use ledger_core::wire;
use runtime::http::Problem;
use runtime::pg;
use runtime::position::Position;
use tokio::time::Instant;

use crate::app::App;
use crate::book::{Account, Book};
use crate::holds::{
    Answer, Ask, Fault, HOLD_ENDED, Landed, RESERVATION_NOT_FOUND, Request, Settled, no_reservation,
};

/// Events judged on the request's own task; more go to a thread for long work.
const INLINE_EVENTS_MAX: usize = 32;

/// Usage ready to be appended.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// The journal's key.
    pub account: Id,
    /// The caller's id.
    pub id: EventId,
    /// The record.
    pub bytes: Vec<u8>,
    /// What becomes of the hold that it names.
    pub hold: Named,
}

/// What becomes of the hold that usage names.
#[derive(Debug, Clone, PartialEq)]
pub enum Named {
    /// It names none.
    None,
    /// It settles it.
    Settles(Settles),
    /// Nothing: the usage's id stands in the journal already, and there is no such hold.
    Absent,
    /// Nothing: the usage's id stands in the journal already, and it did not settle this hold.
    Other,
}

impl Named {
    /// Returns how the hold is settled, where it is.
    pub fn settles(&self) -> Option<&Settles> {
        match self {
            Named::Settles(settles) => Some(settles),
            Named::None | Named::Absent | Named::Other => None,
        }
    }
}

/// How usage settles a hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Settles {
    /// The hold.
    pub reservation: Id,
    /// The usage's producer.
    pub source: Source,
    /// What its producer sent.
    pub content: ContentHash,
    /// What the hold held.
    pub held: Credits,
    /// What the usage charges beyond that.
    pub over_hold: Credits,
    /// Where the journal has it from before.
    pub position: Option<Position>,
}

impl Admitted {
    /// Notes where the journal has it, if it settles a hold.
    pub async fn landed(&self, app: &App, position: Position) {
        let Some(settles) = self.hold.settles() else { return };
        let landed = Landed {
            reservation: settles.reservation.clone(),
            event_id: self.id.clone(),
            source: settles.source.clone(),
            position,
        };
        app.holds.tell(&self.account, Ask::Landed(landed)).await;
    }
}

/// Whether a refusal would stand before a projection that has caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It stands.
    Final,
    /// It may come from a projection that lags.
    Doubtful,
}

/// Why usage is not taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Stable code.
    pub code: &'static str,
    /// The reason in words.
    pub detail: String,
    /// Each bad field, where fields are the reason.
    pub errors: Vec<FieldError>,
    /// Whether it stands.
    pub certainty: Certainty,
}

/// The projection has not caught up in time to say whether something is absent.
pub const BEHIND: &str = "behind";
/// The record would be longer than the journal takes.
pub const TOO_LARGE: &str = "too_large";
/// No such account.
pub const ACCOUNT_NOT_FOUND: &str = "account_not_found";
/// A recording time was given for an account that keeps its own.
pub const CLOCK_IS_LIVE: &str = "clock_is_live";
/// The recording time would move a test clock over more than one move may cross.
pub const CLOCK_JUMP: &str = "clock_jump";
/// The hold is settled by this id with other content.
pub const CONFLICT: &str = "conflict";
/// The key does not reach the account.
pub const FORBIDDEN: &str = "forbidden";

/// Codes that refuse an item by their own name; every other field error makes it `invalid`.
const OWN_CODES: [&str; 3] = ["too_new", "too_old", "unpriced_usage"];

impl Refusal {
    /// Refuses for one reason that is not a field's.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Refusal {
        let (detail, errors) = (detail.into(), Vec::new());
        Refusal { code, detail, errors, certainty: Certainty::Final }
    }

    /// Refuses for bad fields.
    pub fn invalid(errors: Vec<FieldError>) -> Refusal {
        let own = OWN_CODES.into_iter().find(|own| errors.iter().any(|error| error.code == *own));
        let code = own.unwrap_or("invalid");
        let parts: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.field, error.detail)).collect();
        Refusal { code, detail: parts.join("; "), errors, certainty: Certainty::Final }
    }

    fn field(field: String, code: &str, detail: impl Into<String>) -> Refusal {
        Refusal::invalid(vec![FieldError::new(field, code, detail)])
    }

    fn doubtful(self) -> Refusal {
        Refusal { certainty: Certainty::Doubtful, ..self }
    }

    fn account_not_found(account: &Id) -> Refusal {
        Refusal::new(ACCOUNT_NOT_FOUND, format!("account {account} does not exist")).doubtful()
    }

    fn reservation_not_found(account: &Id, reservation: &Id) -> Refusal {
        Refusal::new(RESERVATION_NOT_FOUND, no_reservation(account, reservation))
    }

    /// Answers a request whose only event is refused.
    pub fn problem(self) -> Problem {
        let Refusal { code, detail, errors, .. } = self;
        match code {
            ACCOUNT_NOT_FOUND | RESERVATION_NOT_FOUND => Problem::not_found(code, detail),
            CLOCK_IS_LIVE | HOLD_ENDED | CONFLICT => Problem::conflicting(code, detail),
            FORBIDDEN => Problem::forbidden(),
            TOO_LARGE => Problem::too_large(wire::RECORD_BYTES_MAX),
            BEHIND => Problem::behind(detail),
            _ => Problem { errors, ..Problem::unprocessable(code, detail) },
        }
    }

    fn behind() -> Refusal {
        Refusal::new(BEHIND, "the projection is behind the journal: send it again").doubtful()
    }
}

/// How the usage was written, which decides what its fields are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A CloudEvent, with the usage under `data`.
    CloudEvent,
    /// Plain JSON for one account.
    Plain,
}

impl Form {
    fn time(self) -> String {
        match self {
            Form::CloudEvent => "time".into(),
            Form::Plain => "occurred_at".into(),
        }
    }

    fn data(self, field: &str) -> String {
        match self {
            Form::CloudEvent => format!("data.{field}"),
            Form::Plain => field.to_owned(),
        }
    }
}

/// What the ledger adds to usage as it takes it in.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Who sent it.
    pub actor: Label,
    /// Time by this service's clock.
    pub now: Time,
    /// The recording time that the caller gave, for test accounts.
    pub ledger_time: Option<Time>,
    /// How it was written.
    pub form: Form,
}

impl Stamp {
    /// Returns the time that a write to this account is recorded at; none where the caller may not give one.
    pub fn recorded_at(&self, account: &Account) -> Option<Time> {
        recorded_at(account, self.ledger_time, self.now)
    }
}

/// Says what a test clock's move is held to.
pub fn clock_jump_detail() -> String {
    format!("one move of a test clock crosses at most {CROSSINGS_MAX} boundaries, lot starts and lot ends")
}

/// Returns the time that a write is recorded at: the service's clock for live accounts, for test accounts the
/// caller's or else the account's own, which stands still. None: a time was given for a live account.
pub fn recorded_at(account: &Account, given: Option<Time>, now: Time) -> Option<Time> {
    match (account.clock, given) {
        (Clock::Live, None) => Some(now),
        (Clock::Live, Some(_)) => None,
        (Clock::Test, given) => Some(given.unwrap_or(account.ledger_time)),
    }
}

/// What usage offered will be recorded with.
#[derive(Debug, Clone, PartialEq)]
struct Terms {
    recorded_at: Time,
    /// Lines and their sum; none where the caller gave the credits.
    priced: Option<(Vec<Line>, Credits)>,
}

/// Judges usage by what is known of it and of its account.
fn judge(offer: &Offer, account: Option<&Account>, stamp: &Stamp, seen: Seen) -> Result<Terms, Refusal> {
    let account = account.ok_or_else(|| Refusal::account_not_found(&offer.account))?;
    let recorded_at = stamp
        .recorded_at(account)
        .ok_or_else(|| Refusal::new(CLOCK_IS_LIVE, "Ledger-Time is for accounts on a test clock"))?;
    let recorded_at = seen.not_before.map_or(recorded_at, |decided_at| recorded_at.max(decided_at));
    if account.jumps {
        return Err(Refusal::new(CLOCK_JUMP, clock_jump_detail()).doubtful());
    }
    if seen.known {
        let priced =
            offer.usage.credits.is_none().then(|| price(offer, account, stamp.form).unwrap_or_default());
        return Ok(Terms { recorded_at, priced });
    }
    if let Some(error) = door::check_age(offer.occurred_at, recorded_at, &stamp.form.time()) {
        let refusal = Refusal::invalid(vec![error]);
        // A live account's clock does not lag; whether an old id is known may.
        let settled = account.clock == Clock::Live && refusal.code == "too_new";
        return Err(if settled { refusal } else { refusal.doubtful() });
    }
    if offer.usage.credits.is_some() {
        return Ok(Terms { recorded_at, priced: None });
    }
    let priced = price(offer, account, stamp.form)?;
    Ok(Terms { recorded_at, priced: Some(priced) })
}

fn price(offer: &Offer, account: &Account, form: Form) -> Result<(Vec<Line>, Credits), Refusal> {
    let unpriced =
        |detail: String| Refusal::field(form.data("quantities"), "unpriced_usage", detail).doubtful();
    let Some(card) = &account.card else {
        return Err(unpriced(match &account.rate_card {
            Some(card) => format!("rate card {card} is not published"),
            None => format!("neither credits are given nor has account {} a rate card", offer.account),
        }));
    };
    card.prices.price(&offer.usage, &card.name, card.version).map_err(|error| unpriced(error.to_string()))
}

/// Makes the event of usage that was judged good.
fn event(offer: Offer, terms: Terms, actor: &Label) -> Event {
    let Offer { id, source, account, occurred_at, mut usage } = offer;
    if let Some((lines, credits)) = terms.priced {
        usage.lines = Some(lines);
        usage.credits = Some(credits);
    }
    let (recorded_at, actor) = (terms.recorded_at, actor.clone());
    Event { id, source, account, occurred_at, recorded_at, actor, data: Data::UsageRecorded(usage) }
}

/// Makes the record of usage that was judged good.
fn record(offer: Offer, terms: Terms, actor: &Label) -> Result<Admitted, Refusal> {
    let event = event(offer, terms, actor);
    let bytes = wire::encode(&event);
    if bytes.len() > wire::RECORD_BYTES_MAX {
        return Err(too_large(bytes.len()));
    }
    Ok(Admitted { account: event.account, id: event.id, bytes, hold: Named::None })
}

/// Refuses a record for its length.
pub fn too_large(bytes: usize) -> Refusal {
    Refusal::new(
        TOO_LARGE,
        format!("a record has at most {} bytes, this one {bytes}", wire::RECORD_BYTES_MAX),
    )
}

/// Usage, or why it was refused already.
pub type Offered = Result<Offer, Refusal>;
/// A record, or why there is none.
pub type Verdict = Result<Admitted, Refusal>;

/// Judges usage and makes its records, in order.
///
/// By `deadline` the projection must have caught up where something seems to be absent; else that is refused as
/// `behind`. Errors are of the log or the database: nothing is said of the usage then.
pub async fn admit(
    app: &App,
    offers: Vec<Offered>,
    stamp: Stamp,
    deadline: Instant,
) -> Result<Vec<Verdict>, Problem> {
    let accounts: BTreeSet<Id> =
        offers.iter().filter_map(|offer| Some(offer.as_ref().ok()?.account.clone())).collect();
    let book = Book::read(app, &accounts, stamp.ledger_time).await?;
    let stamp = Arc::new(stamp);
    let (mut verdicts, mut doubtful, settling) =
        first_pass_off_task(offers, book, Arc::clone(&stamp)).await?;
    doubtful.extend(settle(app, settling, &stamp, &mut verdicts).await?);
    if !doubtful.is_empty() {
        second_pass(app, doubtful, &stamp, deadline, &mut verdicts).await?;
    }
    Ok(verdicts)
}

/// Usage that was refused, perhaps because the projection lags, by its place.
type Doubtful = Vec<(usize, Offer)>;
/// Usage that was judged good and names a hold, by its place.
type Settling = Vec<(usize, Offer, Terms)>;

/// Settles the holds that usage names, and returns what names one that is not there: its id may be known all the same.
async fn settle(
    app: &App,
    settling: Settling,
    stamp: &Stamp,
    verdicts: &mut [Verdict],
) -> Result<Doubtful, Problem> {
    let asked = settling.into_iter().map(|(place, offer, terms)| async move {
        let verdict = settle_one(app, offer.clone(), terms, &stamp.actor).await;
        (place, offer, verdict)
    });
    let mut doubtful = Doubtful::new();
    for (place, offer, verdict) in join_all(asked).await {
        let verdict = verdict?;
        if verdict.as_ref().is_err_and(|refusal| refusal.certainty == Certainty::Doubtful) {
            doubtful.push((place, offer));
        }
        verdicts[place] = verdict;
    }
    Ok(doubtful)
}

async fn settle_one(app: &App, offer: Offer, terms: Terms, actor: &Label) -> Result<Verdict, Problem> {
    let Some(reservation) = offer.usage.reservation_id.clone() else {
        return Ok(record(offer, terms, actor));
    };
    let event = event(offer, terms, actor);
    let bytes = longest(&event);
    if bytes > wire::RECORD_BYTES_MAX {
        return Ok(Err(too_large(bytes)));
    }
    let (account, id, source) = (event.account.clone(), event.id.clone(), event.source.clone());
    let content = content_hash(&event);
    let ask = Ask::Settle(reservation.clone(), Box::new(event));
    let asked =
        app.holds.ask(Request { account: account.clone(), at: None, actor: actor.clone(), ask }).await;
    Ok(match asked {
        Ok(Answer::Settling(Settled { bytes, held, over_hold, position })) => {
            let settles = Settles { reservation, source, content, held, over_hold, position };
            Ok(Admitted { account, id, bytes, hold: Named::Settles(settles) })
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

/// What the fraction of a second adds to a record where the time that it is recorded at gets one.
const FRACTION_BYTES: usize = ".123456".len();

/// Returns how long the record of a usage that settles a hold may become.
fn longest(event: &Event) -> usize {
    let mut longest = event.clone();
    if let Data::UsageRecorded(usage) = &mut longest.data {
        usage.held = Some(Credits::MAX_AMOUNT);
    }
    wire::encode(&longest).len() + FRACTION_BYTES
}

async fn first_pass_off_task(
    offers: Vec<Offered>,
    book: Book,
    stamp: Arc<Stamp>,
) -> Result<(Vec<Verdict>, Doubtful, Settling), sqlx::Error> {
    if offers.len() <= INLINE_EVENTS_MAX {
        return Ok(first_pass(offers, &book, &stamp));
    }
    let pass = tokio::task::spawn_blocking(move || first_pass(offers, &book, &stamp));
    // Fails only when the process is ending.
    pass.await.map_err(|_| sqlx::Error::WorkerCrashed)
}

fn first_pass(offers: Vec<Offered>, book: &Book, stamp: &Stamp) -> (Vec<Verdict>, Doubtful, Settling) {
    let (mut doubtful, mut settling) = (Vec::new(), Vec::new());
    let mut verdicts = Vec::with_capacity(offers.len());
    for (place, offer) in offers.into_iter().enumerate() {
        let verdict = match offer {
            Err(refusal) => Err(refusal),
            Ok(offer) => match judge(&offer, book.get(&offer.account), stamp, Seen::default()) {
                Ok(terms) if offer.usage.reservation_id.is_some() => {
                    settling.push((place, offer, terms));
                    Err(Refusal::behind())
                }
                Ok(terms) => record(offer, terms, &stamp.actor),
                Err(refusal) => {
                    if refusal.certainty == Certainty::Doubtful {
                        doubtful.push((place, offer));
                    }
                    Err(refusal)
                }
            },
        };
        verdicts.push(verdict);
    }
    (verdicts, doubtful, settling)
}

async fn second_pass(
    app: &App,
    doubtful: Doubtful,
    stamp: &Stamp,
    deadline: Instant,
    verdicts: &mut [Verdict],
) -> Result<(), Problem> {
    let accounts: BTreeSet<Id> = doubtful.iter().map(|(_, offer)| offer.account.clone()).collect();
    let caught_up = app.catch_up(&accounts, deadline).await;
    let book = Book::read(app, &accounts, stamp.ledger_time).await?;
    let seen = seen(app, &doubtful).await?;
    let (mut settling, mut repeated) = (Settling::new(), Vec::new());
    for ((place, offer), seen) in doubtful.into_iter().zip(seen) {
        verdicts[place] = match judge(&offer, book.get(&offer.account), stamp, seen) {
            Ok(terms) if offer.usage.reservation_id.is_some() => {
                if seen.known {
                    // Where it settles nothing, its hold does not say when it is recorded.
                    let unheld = Seen { not_before: None, ..seen };
                    let plain = judge(&offer, book.get(&offer.account), stamp, unheld);
                    repeated
                        .push((place, plain.and_then(|terms| record(offer.clone(), terms, &stamp.actor))));
                }
                settling.push((place, offer, terms));
                continue;
            }
            Ok(terms) => record(offer, terms, &stamp.actor),
            Err(refusal) => Err(refusal),
        };
    }
    settle(app, settling, stamp, verdicts).await?;
    // What is known already and settles nothing is recorded all the same, and folds to a duplicate or a conflict.
    for (place, record) in repeated {
        if let Err(refusal) = &verdicts[place] {
            let hold = if refusal.code == RESERVATION_NOT_FOUND { Named::Absent } else { Named::Other };
            verdicts[place] = record.map(|admitted| Admitted { hold, ..admitted });
        }
    }
    for verdict in verdicts {
        if let Err(refusal) = verdict
            && refusal.certainty == Certainty::Doubtful
        {
            *refusal = if caught_up {
                Refusal { certainty: Certainty::Final, ..refusal.clone() }
            } else {
                Refusal::behind()
            };
        }
    }
    Ok(())
}

/// What is known of usage before it is judged.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Its id stands in the journal already: whatever it is now, it folds to a duplicate or a conflict and costs nothing.
    known: bool,
    /// When the hold that it names was last granted something: it is recorded no earlier.
    not_before: Option<Time>,
}

const SEEN: &str = "
    select exists (
               select from event
               where event.account_id = asked.account_id and event.event_id = asked.event_id
                 and event.source = asked.source),
           hold.decided_at
    from unnest($1::text[], $2::text[], $3::text[], $4::text[]) with ordinality
         as asked (account_id, event_id, source, reservation_id, place)
    left join control.hold
         on hold.account_id = asked.account_id and hold.reservation_id = asked.reservation_id
    order by asked.place
";

/// Looks each usage up, and the hold that it names.
async fn seen(app: &App, offers: &Doubtful) -> Result<Vec<Seen>, sqlx::Error> {
    let text =
        |of: fn(&Offer) -> &str| offers.iter().map(|(_, offer)| of(offer).to_owned()).collect::<Vec<_>>();
    // No hold has this name.
    let reservations = text(|offer| offer.usage.reservation_id.as_ref().map_or("", Id::as_str));
    let accounts = text(|offer| offer.account.as_str());
    let ids = text(|offer| offer.id.as_str());
    let sources = text(|offer| offer.source.as_str());
    let rows: Vec<(bool, Option<DateTime<Utc>>)> = pg::read(&app.pool, app.waiter.schema(), |connection| {
        Box::pin(async move {
            let query = sqlx::query_as(SEEN).bind(accounts).bind(ids).bind(sources).bind(reservations);
            query.fetch_all(connection).await
        })
    })
    .await?;
    let seen =
        |(known, decided_at): (bool, Option<_>)| Seen { known, not_before: decided_at.map(pg::time_of) };
    Ok(rows.into_iter().map(seen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cards::Card;
    use ledger_core::door::read_offer;

    const NOW: &str = "2026-02-03T10:00:00Z";

    fn offer(time: &str, data: &str) -> Offer {
        let event = format!(
            r#"{{"specversion":"1.0","id":"e1","source":"/app","type":"ledger.usage.recorded.v1","subject":"acme",
            "time":"{time}","data":{data}}}"#
        );
        read_offer(event.as_bytes()).expect("an offer")
    }

    fn account(clock: Clock, carded: bool) -> Account {
        let name = Id::new("std").expect("an id");
        let prices = r#"{"meters":[{"category":"c","prices":{"x":{"credits":"2","per":"1"}}}]}"#;
        let card =
            Card { name: name.clone(), version: 3, prices: serde_json::from_str(prices).expect("a card") };
        Account {
            clock,
            ledger_time: "2026-01-01T00:00:00Z".parse().expect("a time"),
            rate_card: carded.then_some(name),
            card: carded.then(|| Arc::new(card)),
            jumps: false,
        }
    }

    fn stamp(ledger_time: Option<&str>) -> Stamp {
        Stamp {
            actor: Label::new("key_1").expect("a label"),
            now: NOW.parse().expect("a time"),
            ledger_time: ledger_time.map(|time| time.parse().expect("a time")),
            form: Form::CloudEvent,
        }
    }

    fn said(outcome: Result<Terms, Refusal>) -> String {
        match outcome {
            Ok(Terms { priced: None, .. }) => "credits as given".into(),
            Ok(Terms { priced: Some((lines, credits)), .. }) => format!("{credits} in {} lines", lines.len()),
            Err(refusal) => format!("{} {:?}", refusal.code, refusal.certainty),
        }
    }

    #[test]
    fn usage_is_priced_by_credits_given_or_by_the_card() {
        let check = |data: &str, carded: bool, expected: &str| {
            let outcome =
                judge(&offer(NOW, data), Some(&account(Clock::Live, carded)), &stamp(None), Seen::default());
            assert_eq!(said(outcome), expected, "{data}");
        };
        check(r#"{"credits":"1"}"#, false, "credits as given");
        check(r#"{"credits":"0"}"#, false, "credits as given");
        check(r#"{"category":"c","quantities":{"x":2}}"#, true, "4 in 1 lines");
        check(r#"{"category":"c","quantities":{"x":2},"credits":"1"}"#, true, "credits as given");
        check(r#"{"category":"c","quantities":{"x":2}}"#, false, "unpriced_usage Doubtful");
        check(r#"{"category":"c","quantities":{"y":2}}"#, true, "unpriced_usage Doubtful");
        check("{}", true, "unpriced_usage Doubtful");
    }

    #[test]
    fn age_is_measured_from_the_recording_time() {
        let check = |clock: Clock, time: &str, given: Option<&str>, expected: &str| {
            let outcome = judge(
                &offer(time, r#"{"credits":"1"}"#),
                Some(&account(clock, false)),
                &stamp(given),
                Seen::default(),
            );
            assert_eq!(said(outcome), expected, "{time}");
        };
        check(Clock::Live, "2026-02-03T10:05:00Z", None, "credits as given");
        check(Clock::Live, "2026-02-03T10:05:01Z", None, "too_new Final");
        check(Clock::Live, "2025-12-01T00:00:00Z", None, "too_old Doubtful");
        check(Clock::Test, NOW, None, "too_new Doubtful");
        check(Clock::Test, NOW, Some(NOW), "credits as given");
        check(Clock::Live, NOW, Some(NOW), "clock_is_live Final");
    }

    #[test]
    fn a_known_id_is_taken_again_however_old_and_whatever_the_prices_are_now() {
        let seen = Seen { known: true, ..Seen::default() };
        let known = |time: &str, data: &str| {
            said(judge(&offer(time, data), Some(&account(Clock::Live, true)), &stamp(None), seen))
        };
        assert_eq!(known("2020-01-01T00:00:00Z", r#"{"credits":"1"}"#), "credits as given");
        assert_eq!(known(NOW, r#"{"category":"gone","quantities":{"x":1}}"#), "0 in 0 lines");
    }

    #[test]
    fn usage_that_names_a_hold_is_judged_by_the_time_of_the_hold() {
        let later = "2026-01-09T00:00:00Z";
        let of_hold = |decided_at: Option<&str>| {
            let not_before = decided_at.map(|time| time.parse().expect("a time"));
            let seen = Seen { not_before, ..Seen::default() };
            judge(&offer(later, r#"{"credits":"1"}"#), Some(&account(Clock::Test, false)), &stamp(None), seen)
        };
        assert_eq!(said(of_hold(None)), "too_new Doubtful");
        let terms = of_hold(Some(later)).expect("no newer than its hold");
        assert_eq!(terms.recorded_at.to_string(), later);
    }

    #[test]
    fn usage_may_not_move_a_test_clock_too_far() {
        let far = Account { jumps: true, ..account(Clock::Test, false) };
        let outcome =
            judge(&offer(NOW, r#"{"credits":"1"}"#), Some(&far), &stamp(Some(NOW)), Seen::default());
        assert_eq!(said(outcome), "clock_jump Doubtful");
    }

    #[test]
    fn a_record_carries_its_stamp_and_its_lines() {
        let priced = offer(NOW, r#"{"category":"c","quantities":{"x":2}}"#);
        let terms =
            judge(&priced, Some(&account(Clock::Live, true)), &stamp(None), Seen::default()).expect("good");
        let bytes = record(priced, terms, &stamp(None).actor).expect("a record").bytes;
        let event = wire::decode(&bytes).expect("an event");
        let Data::UsageRecorded(usage) = &event.data else { panic!("usage") };
        assert_eq!(event.recorded_at.to_string(), NOW);
        assert_eq!(event.actor.as_str(), "key_1");
        assert_eq!(usage.credits.map(|credits| credits.to_string()).as_deref(), Some("4"));
        assert_eq!(usage.lines.as_ref().map(|lines| lines[0].version), Some(3));
    }

    #[test]
    fn a_record_past_64_kib_is_refused() {
        let long = "x".repeat(wire::RECORD_BYTES_MAX);
        let large = offer(NOW, &format!(r#"{{"credits":"1","metadata":{{"k":"{long}"}}}}"#));
        let terms =
            judge(&large, Some(&account(Clock::Live, false)), &stamp(None), Seen::default()).expect("good");
        let refused = record(large, terms, &stamp(None).actor).expect_err("too large");
        assert_eq!(refused.code, "too_large");
    }

    #[test]
    fn one_pass_keeps_the_order_and_remembers_what_is_doubtful() {
        let book = Book { accounts: [(Id::new("acme").expect("an id"), account(Clock::Live, false))].into() };
        let unknown =
            Offer { account: Id::new("nobody").expect("an id"), ..offer(NOW, r#"{"credits":"1"}"#) };
        let offers = vec![
            Ok(offer(NOW, r#"{"credits":"1"}"#)),
            Ok(unknown),
            Err(Refusal::new("forbidden", "no")),
            Ok(offer(NOW, r#"{"credits":"2"}"#)),
            Ok(offer(NOW, r#"{"credits":"2","reservation_id":"r1"}"#)),
        ];
        let (verdicts, doubtful, settling) = first_pass(offers, &book, &stamp(None));
        let codes: Vec<&str> =
            verdicts.iter().map(|v| v.as_ref().map_or_else(|r| r.code, |_| "good")).collect();
        assert_eq!(codes, ["good", "account_not_found", "forbidden", "good", "behind"]);
        assert_eq!(doubtful.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1]);
        assert_eq!(settling.iter().map(|(place, ..)| *place).collect::<Vec<_>>(), [4]);
    }
}
