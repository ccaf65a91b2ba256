//! Submit: a write that carries an id of its own, on its way into the journal: kept, appended, waited for, answered.
//!
//! Usage goes another way (`usage`): its repeats are appended again, and the fold tells them.

use axum::extract::Request;
use axum::response::Response;
use ledger_core::door::Body;
use ledger_core::event::{Data, Event};
use ledger_core::fold::{Outcome, Reason};
use ledger_core::id::{EventId, Id, Label, Source};
use ledger_core::key::{ContentHash, content_hash};
use ledger_core::time::Time;
use ledger_core::{derive, wire};
use runtime::auth::Action;
use runtime::failpoint;
use runtime::http::Problem;
use runtime::kafka::AppendError;
use runtime::position::Position;
use tracing::warn;
use uuid::{NoContext, Timestamp, Uuid};

use crate::answer::Written;
use crate::app::App;
use crate::asked::{self, Asked, Waits};
use crate::book::Account;
use crate::idempotency::{self, Kept, Name};
use crate::intake;
use crate::outcome::{self, Identity, Progress};

/// A write before it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The account.
    pub account: Id,
    /// Its id space.
    pub kind: &'static str,
    /// Its name there.
    pub key: String,
    /// The event's producer: one of ours.
    pub source: &'static str,
    /// The event's id.
    pub event_id: EventId,
    /// What it says.
    pub data: Data,
}

impl Draft {
    /// A write of the API whose event id follows from what it is about.
    pub fn derived(account: &Id, kind: &'static str, event_id: EventId, data: Data) -> Draft {
        let key = event_id.to_string();
        Draft { account: account.clone(), kind, key, source: derive::API, event_id, data }
    }

    /// A setting: what is sent replaces what was sent before.
    pub fn setting(account: &Id, kind: &'static str, data: Data, now: Time) -> Draft {
        let (account, key) = (account.clone(), String::new());
        Draft { account, kind, key, source: derive::API, event_id: new_id(now), data }
    }

    /// Returns its name among the writes of its account.
    pub fn name(&self) -> Name {
        Name { account: self.account.to_string(), kind: self.kind, key: self.key.clone() }
    }

    /// Returns the event that it makes.
    pub fn event(&self, recorded_at: Time, actor: Label) -> Result<Event, Problem> {
        Ok(Event {
            id: self.event_id.clone(),
            source: Source::new(self.source).map_err(Problem::internal)?,
            account: self.account.clone(),
            occurred_at: recorded_at,
            recorded_at,
            actor,
            data: self.data.clone(),
        })
    }

    /// Returns the write as it is kept and appended.
    pub fn recorded(&self, recorded_at: Time, actor: Label) -> Result<Kept, Problem> {
        let event = self.event(recorded_at, actor)?;
        let bytes = wire::encode(&event);
        if bytes.len() > wire::RECORD_BYTES_MAX {
            return Err(Problem::too_large(wire::RECORD_BYTES_MAX));
        }
        let ContentHash(content) = content_hash(&event);
        let (content, event_id) = (content.to_vec(), event.id.to_string());
        Ok(Kept { content, event_id, event: bytes, position: None })
    }
}

/// Returns a new id for what has none of its own: a UUIDv7.
pub fn new_id(now: Time) -> EventId {
    let (seconds, micros) = (now.micros().div_euclid(1_000_000), now.micros().rem_euclid(1_000_000));
    let seconds = u64::try_from(seconds).unwrap_or_default();
    let nanos = u32::try_from(micros * 1_000).unwrap_or_default();
    let id = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, nanos));
    EventId::new(&id.to_string()).expect("a UUID is a well-formed event id")
}

/// Lets a write to an existing account in, and returns the account with the time that the write is recorded at.
pub async fn admit<Q: Waits>(app: &App, asked: &Asked<Q>, account: &Id) -> Result<(Account, Time), Problem> {
    let known = app.account(account, asked.ledger_time, asked.deadline).await?;
    let recorded_at = intake::recorded_at(&known, asked.ledger_time, asked.now).ok_or_else(clock_is_live)?;
    Ok((known, recorded_at))
}

/// Lets a write to an existing account in, and returns the time that it is recorded at.
pub async fn time_for<Q: Waits>(app: &App, asked: &Asked<Q>, account: &Id) -> Result<Time, Problem> {
    admit(app, asked, account).await.map(|(_, recorded_at)| recorded_at)
}

/// 409: a time was given for an account whose clock is live.
pub fn clock_is_live() -> Problem {
    let detail = "this account's clock is live: its time can't be given or moved";
    Problem::conflicting(intake::CLOCK_IS_LIVE, detail)
}

/// Writes once: a repeat gets the first answer, other content under the same name a conflict.
///
/// `admission` says at which time a new write is recorded, or refuses it; a repeat is past it already.
pub async fn once<Q: Waits>(
    app: &App,
    asked: &Asked<Q>,
    draft: Draft,
    admission: impl Future<Output = Result<Time, Problem>>,
) -> Result<Response, Problem> {
    let name = draft.name();
    let content = content_of(&draft)?;
    let kept = match idempotency::find(&app.pool, &name).await? {
        Some(kept) => kept,
        None => {
            let new = draft.recorded(admission.await?, asked.actor()?)?;
            idempotency::keep(&app.pool, &name, &new).await?
        }
    };
    if kept.content != content {
        return Err(Problem::conflict("this was sent before, with other content"));
    }
    let position = match kept.position {
        Some(position) => position,
        None => {
            let position = append(app, &draft.account, &kept).await?;
            let noted = idempotency::acknowledge(&app.pool, &name, &kept.event_id, position).await;
            note_failure(noted);
            position
        }
    };
    let progress = settle(app, asked.waits(), &draft, &kept, position).await;
    if progress.1 == Progress::Folded(Outcome::Rejected(Reason::AccountNotOpen)) {
        note_failure(idempotency::forget(&app.pool, &name, &kept.event_id).await);
    }
    Ok(answer(&draft, &kept, progress))
}

/// Writes a setting by one of its admins, whose body is the whole of it.
pub async fn whole_setting<T: Body>(
    app: &App,
    asked: &Asked,
    account: &Id,
    request: Request,
    kind: &'static str,
    data: fn(T) -> Data,
) -> Result<Response, Problem> {
    asked.require(Action::Settings, account)?;
    let body: T = asked::body(request).await?;
    let draft = Draft::setting(account, kind, data(body), asked.now);
    setting(app, asked, draft, time_for(app, asked, account)).await
}

/// Writes a setting: what equals the last accepted gets its answer, everything else is a new event.
pub async fn setting<Q: Waits>(
    app: &App,
    asked: &Asked<Q>,
    draft: Draft,
    admission: impl Future<Output = Result<Time, Problem>>,
) -> Result<Response, Problem> {
    let name = draft.name();
    let content = content_of(&draft)?;
    let last = idempotency::find(&app.pool, &name).await?.filter(|last| last.content == content);
    if let Some(last) = last {
        let progress = put_setting(app, asked, &draft, &name, &last).await?;
        // What was rejected is not in force: it is tried again as a new event.
        if !matches!(progress.1, Progress::Folded(Outcome::Rejected(_))) {
            return Ok(answer(&draft, &last, progress));
        }
    }
    let new = draft.recorded(admission.await?, asked.actor()?)?;
    let new = idempotency::replace(&app.pool, &name, &new).await?;
    let progress = put_setting(app, asked, &draft, &name, &new).await?;
    Ok(answer(&draft, &new, progress))
}

async fn put_setting<Q: Waits>(
    app: &App,
    asked: &Asked<Q>,
    draft: &Draft,
    name: &Name,
    kept: &Kept,
) -> Result<(Position, Progress), Problem> {
    let position = match kept.position {
        Some(position) => position,
        None => {
            let position = append(app, &draft.account, kept).await?;
            note_failure(idempotency::acknowledge_setting(&app.pool, name, kept, position).await);
            position
        }
    };
    let repeat = kept.position.is_some();
    if repeat && !asked.waits() {
        // Without waiting, but not without looking: the answer must not repeat a setting that was rejected.
        return Ok(look(app, draft, kept, position).await);
    }
    Ok(settle(app, asked.waits(), draft, kept, position).await)
}

/// Writes something new each time, under an id that nobody asks for again: what the fold will refuse, or what counts
/// however often it is said.
pub async fn untracked<Q: Waits>(
    app: &App,
    asked: &Asked<Q>,
    draft: Draft,
    recorded_at: Time,
) -> Result<Response, Problem> {
    let record = draft.recorded(recorded_at, asked.actor()?)?;
    let position = append(app, &draft.account, &record).await?;
    let progress = settle(app, asked.waits(), &draft, &record, position).await;
    Ok(answer(&draft, &record, progress))
}

fn content_of(draft: &Draft) -> Result<Vec<u8>, Problem> {
    // Neither time nor actor is content.
    let anybody = Label::new("anybody").map_err(Problem::internal)?;
    let ContentHash(content) = content_hash(&draft.event(Time::MIN, anybody)?);
    Ok(content.to_vec())
}

async fn append(app: &App, account: &Id, record: &Kept) -> Result<Position, Problem> {
    failpoint::hit("api.before_append");
    let position = app.journal.append(account.as_str(), record.event.clone()).await.map_err(not_appended)?;
    failpoint::hit("api.after_append");
    Ok(position)
}

/// 503 where the journal can't take it, or may have and did not say so; the same again does no harm.
pub fn not_appended(error: AppendError) -> Problem {
    warn!(%error, "append failed");
    match error {
        AppendError::Unknown(_) => {
            Problem::unavailable("the journal did not acknowledge in time: send the same again")
        }
        AppendError::Busy => Problem::unavailable("the journal can't take it now: send the same again"),
        AppendError::Refused(reason) => Problem::internal(reason),
    }
}

/// The journal has the write: that a note of it failed costs a repeat one more record, and the caller nothing.
fn note_failure(noted: Result<(), sqlx::Error>) {
    if let Err(error) = noted {
        warn!(%error, "what the journal acknowledged could not be noted");
    }
}

/// Waits until the write is projected where that is asked, and finds what it came to.
async fn settle(
    app: &App,
    wait: bool,
    draft: &Draft,
    kept: &Kept,
    position: Position,
) -> (Position, Progress) {
    let waited = wait && app.waiter.wait_for(position, app.waiter.deadline()).await;
    if !waited {
        return (position, Progress::Waiting);
    }
    look(app, draft, kept, position).await
}

/// Finds what a write came to by its identity, and by its place where the fold does not remember it.
async fn look(app: &App, draft: &Draft, kept: &Kept, position: Position) -> (Position, Progress) {
    let found = find(app, draft, kept, position).await;
    found.unwrap_or_else(|error| {
        // It is stored: an answer without outcome is true, a refusal would not be.
        warn!(%error, "outcome could not be read");
        (position, Progress::Waiting)
    })
}

async fn find(
    app: &App,
    draft: &Draft,
    kept: &Kept,
    position: Position,
) -> Result<(Position, Progress), sqlx::Error> {
    let schema = app.waiter.schema();
    let identity = Identity {
        account: &draft.account,
        id: &kept.event_id,
        source: draft.source,
        content: &kept.content,
    };
    if let Some(first) = outcome::first(&app.pool, schema, &identity).await? {
        if !first.same_content {
            return Ok((position, Progress::Folded(Outcome::Conflict)));
        }
        let place = Position { offset: first.offset, ..position };
        return Ok((place, Progress::Folded(first.outcome)));
    }
    let mut progress = outcome::progress(&app.pool, schema, &[(draft.account.clone(), position)]).await?;
    Ok((position, progress.pop().unwrap_or(Progress::Waiting)))
}

fn answer(draft: &Draft, kept: &Kept, (position, progress): (Position, Progress)) -> Response {
    Written::answer(draft.account.as_str(), &kept.event_id, position, &progress)
}
