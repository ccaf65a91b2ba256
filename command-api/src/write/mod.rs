//! Write: stores a write with its id, appends it, waits for it, and answers.
//!
//! Usage takes another path ([`usage`]): its repeats are appended again, and the fold recognises them.

pub mod answer;
pub mod append;
pub mod effects;
pub mod first;
pub mod idempotency;
pub mod outbox;
pub mod outcome;
pub mod usage;
pub mod wait;

use engine::tables::own_limit;
use ledger_core::account::Core;
use ledger_core::account::limit::OwnLimit;
use ledger_core::account::setting::Setting;
use ledger_core::event::key::{ContentHash, content_hash};
use ledger_core::event::{Data, Event, derive, wire};
use ledger_core::fold::{Outcome, Reason};
use ledger_core::request::Body;
use ledger_core::value::id::{AccountId, EventId, GrantId, Label, Source};
use ledger_core::value::time::Time;
use platform::pg;
use platform::position::Position;
use tracing::warn;
use uuid::{NoContext, Timestamp, Uuid};
use web::http::{ETag, Problem};
use web::openapi::{Sent, Tagged};

use self::answer::{Written, Wrote};
use self::append::append;
use self::idempotency::{Kept, Name};
use self::outcome::{Identity, Progress};
use self::wait::{known_or_waiting, once_projected};
use crate::admission::Refusal;
use crate::admission::known_accounts::Account;
use crate::admission::ledger_time::{clock_is_live, recorded_at};
use crate::app::App;
use crate::request_context::{RequestContext, Waits};

/// Grants and payments share one id space.
const LOT_IDS: &str = "grant";
/// How often a setting is put behind one that came in between.
const TURNS_MAX: usize = 5;

#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub account: AccountId,
    pub kind: &'static str,
    /// The id within the kind.
    pub key: String,
    /// The event's producer, always one of the ledger's own.
    pub source: &'static str,
    pub event_id: EventId,
    pub data: Data,
}

impl Draft {
    /// A write whose event id is derived from its target.
    pub fn derived(account: &AccountId, kind: &'static str, event_id: EventId, data: Data) -> Draft {
        let key = event_id.to_string();
        Draft { account: account.clone(), kind, key, source: derive::API, event_id, data }
    }

    /// A write that creates a lot under the caller's id: a grant or a payment.
    pub fn lot(account: &AccountId, lot: &GrantId, data: Data) -> Draft {
        let (kind, key, event_id) = (LOT_IDS, lot.to_string(), lot.as_event());
        Draft { account: account.clone(), kind, key, source: derive::GRANTS, event_id, data }
    }

    /// A setting, which replaces the previous one.
    pub fn setting(account: &AccountId, kind: &'static str, data: Data, now: Time) -> Draft {
        let (account, key) = (account.clone(), String::new());
        Draft { account, kind, key, source: derive::API, event_id: new_id(now), data }
    }

    pub fn name(&self) -> Name {
        Name { account: self.account.to_string(), kind: self.kind, key: self.key.clone() }
    }

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

    /// Returns the write as it is stored and appended.
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

/// Returns a new UUIDv7 for a write without an id.
pub fn new_id(now: Time) -> EventId {
    let (seconds, micros) = (now.micros().div_euclid(1_000_000), now.micros().rem_euclid(1_000_000));
    let seconds = u64::try_from(seconds).unwrap_or_default();
    let nanos = u32::try_from(micros * 1_000).unwrap_or_default();
    let id = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, nanos));
    EventId::new(&id.to_string()).expect("a UUID is a well-formed event id")
}

/// Admits a write to an existing account, and returns the account with the recording time.
pub async fn admit<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    account: &AccountId,
) -> Result<(Account, Time), Problem> {
    let known = app.account(account, context.ledger_time, context.deadline).await?;
    let at = recorded_at(&known, context.ledger_time, context.now).ok_or_else(clock_is_live)?;
    Ok((known, at))
}

/// Admits a write that a closed account refuses.
pub async fn admit_open<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    account: &AccountId,
) -> Result<(Account, Time), Problem> {
    let (known, at) = admit(app, context, account).await?;
    if known.closed {
        return Err(Refusal::account_closed(account).problem());
    }
    Ok((known, at))
}

/// Admits a write that a closed account refuses, and returns the recording time.
pub async fn time_while_open<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    account: &AccountId,
) -> Result<Time, Problem> {
    admit_open(app, context, account).await.map(|(_, recorded_at)| recorded_at)
}

/// Admits a write to an existing account, and returns the recording time.
pub async fn time_for<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    account: &AccountId,
) -> Result<Time, Problem> {
    admit(app, context, account).await.map(|(_, recorded_at)| recorded_at)
}

/// Writes once: a repeat gets the first answer, other content under the same name a conflict.
///
/// `admission` returns the recording time of a new write, or refuses it; a repeat skips it.
pub async fn once<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    draft: Draft,
    admission: impl Future<Output = Result<Time, Problem>>,
) -> Result<Wrote, Problem> {
    let name = draft.name();
    let content = content_of(&draft)?;
    let kept = match idempotency::find(&app.pool, &name).await? {
        Some(kept) => kept,
        None => {
            let new = draft.recorded(admission.await?, context.actor()?)?;
            idempotency::keep(app, &name, &new).await?
        }
    };
    if kept.content != content {
        let differs = first::differs_from_kept(&kept.event, &draft.data);
        return Err(Problem::conflict("this was sent before, with other content").with("differs", differs));
    }
    let position = match kept.position {
        Some(position) => position,
        None => {
            let position = append(app, &draft.account, &kept.event).await?;
            let noted = idempotency::acknowledge(app, &name, &kept.event_id, position).await;
            note_failure(noted);
            position
        }
    };
    let progress = settle(app, context.waits(), &draft, &kept, position).await;
    if progress.1 == Progress::Folded(Outcome::Rejected(Reason::AccountNotOpen)) {
        note_failure(idempotency::forget(app, &name, &kept.event_id).await);
    }
    Ok(answer(&draft, &kept, progress))
}

/// Writes a setting from a body that replaces the whole setting. The caller has checked that the key may do it.
pub async fn whole_setting<T: Body>(
    app: &App,
    context: &RequestContext,
    account: &AccountId,
    sent: Sent<T>,
    kind: &'static str,
    data: fn(T) -> Data,
) -> Result<Tagged<Wrote>, Problem> {
    let body: T = sent.read().await?;
    let draft = Draft::setting(account, kind, data(body), context.now);
    setting(app, context, draft, time_while_open(app, context, account)).await
}

/// Writes a setting: one equal to the last accepted gets that one's answer, any other becomes a new event.
pub async fn setting<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    draft: Draft,
    admission: impl Future<Output = Result<Time, Problem>>,
) -> Result<Tagged<Wrote>, Problem> {
    let put = put_setting(app, context, &draft, admission).await?;
    answer_setting(app, &draft, put).await
}

/// Like [`setting`], for a caller that composes the answer.
pub async fn put_setting<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    draft: &Draft,
    admission: impl Future<Output = Result<Time, Problem>>,
) -> Result<(Kept, Position, Progress), Problem> {
    let name = draft.name();
    let content = content_of(draft)?;
    let last = idempotency::find(&app.pool, &name).await?.filter(|last| last.content == content);
    if let Some(last) = last {
        let (position, progress) = append_setting(app, context, draft, &name, &last).await?;
        // A rejected setting is not in force, so it becomes a new event.
        if !matches!(progress, Progress::Folded(Outcome::Rejected(_))) {
            return Ok((last, position, progress));
        }
    }
    let recorded_at = admission.await?;
    put_new_setting(app, context, draft, recorded_at).await
}

/// Writes a setting as a new event, whatever the last one was.
pub async fn setting_each_time<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    draft: Draft,
    recorded_at: Time,
) -> Result<Tagged<Wrote>, Problem> {
    let put = put_new_setting(app, context, &draft, recorded_at).await?;
    answer_setting(app, &draft, put).await
}

async fn put_new_setting<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    draft: &Draft,
    recorded_at: Time,
) -> Result<(Kept, Position, Progress), Problem> {
    let name = draft.name();
    let new = draft.recorded(recorded_at, context.actor()?)?;
    take_turn(app, context, draft, &name, &new).await?;
    let (position, progress) = append_setting(app, context, draft, &name, &new).await?;
    Ok((new, position, progress))
}

/// Answers a setting that was written, with its ETag where it is in force.
async fn answer_setting(
    app: &App,
    draft: &Draft,
    (kept, position, progress): (Kept, Position, Progress),
) -> Result<Tagged<Wrote>, Problem> {
    let response = answer(draft, &kept, (position, progress.clone()));
    mark(app, draft, &progress, response).await
}

/// Stores a setting as the next after the last one, if that is still in the state that the caller has read.
///
/// The settings of one name form a chain: each is in the journal before the next is stored, whichever process puts it there. So
/// of two callers who have read the same state, the one who comes second finds the other's setting: 412.
async fn take_turn<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    draft: &Draft,
    name: &Name,
    new: &Kept,
) -> Result<(), Problem> {
    for _ in 0..TURNS_MAX {
        let last = idempotency::find(&app.pool, name).await?;
        if let Some(last) = last.as_ref().filter(|last| last.position.is_none()) {
            let position = append(app, &draft.account, &last.event).await?;
            idempotency::acknowledge(app, name, &last.event_id, position).await?;
        }
        if let Some(setting) = Setting::of(&draft.data) {
            require_unchanged(app, context, &draft.account, setting).await?;
        }
        if idempotency::replace(app, name, last.as_ref(), new).await? {
            return Ok(());
        }
    }
    Err(Problem::unavailable("too many change this setting at once"))
}

/// 412 if the caller names another state of the setting than the one that it is in.
pub async fn require_unchanged<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    account: &AccountId,
    setting: Setting<'_>,
) -> Result<(), Problem> {
    let Some(if_match) = &context.if_match else { return Ok(()) };
    app.require_caught_up(account, context.deadline).await?;
    let (core, own) = projected(app, account, setting).await?;
    if let Some(list) = setting.list()
        && if_match.allows(&ETag::of(&list.content(&core, None))?)
    {
        return Ok(());
    }
    if_match.require(&ETag::of(&setting.content(&core, own.as_ref()))?)
}

/// Adds the ETag of a setting to its answer, if it has been applied.
pub async fn mark(
    app: &App,
    draft: &Draft,
    progress: &Progress,
    answer: Wrote,
) -> Result<Tagged<Wrote>, Problem> {
    let is_applied = matches!(progress, Progress::Folded(Outcome::Applied | Outcome::Duplicate));
    if let Some(setting) = Setting::of(&draft.data).filter(|_| is_applied) {
        let (core, own) = projected(app, &draft.account, setting).await?;
        return Ok(Tagged(answer, Some(ETag::of(&setting.content(&core, own.as_ref()))?)));
    }
    Ok(Tagged(answer, None))
}

/// Returns an account as it is projected, and the user's own limit where the setting is one.
async fn projected(
    app: &App,
    account: &AccountId,
    setting: Setting<'_>,
) -> Result<(Core, Option<OwnLimit>), Problem> {
    let (name, user) = (account.clone(), setting.limited_user().cloned());
    let (core, own): (Option<String>, _) = pg::read(&app.pool, app.waiter.schema(), |connection| {
        Box::pin(async move {
            let core = sqlx::query_scalar("select core::text from account where account_id = $1");
            let core = core.bind(name.as_str()).fetch_optional(&mut *connection).await?;
            let Some(user) = user else { return Ok::<_, sqlx::Error>((core, None)) };
            let own = own_limit::named(connection, &name, &[user.as_str()]).await?;
            Ok((core, own.get(&user).copied()))
        })
    })
    .await?;
    let missing = || Problem::account_not_found(account.as_str());
    Ok((serde_json::from_str(&core.ok_or_else(missing)?).map_err(Problem::internal)?, own))
}

async fn append_setting<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    draft: &Draft,
    name: &Name,
    kept: &Kept,
) -> Result<(Position, Progress), Problem> {
    let position = match kept.position {
        Some(position) => position,
        None => {
            let position = append(app, &draft.account, &kept.event).await?;
            note_failure(idempotency::acknowledge(app, name, &kept.event_id, position).await);
            position
        }
    };
    let repeat = kept.position.is_some();
    if repeat && !context.waits() {
        // The caller does not wait, but the lookup is needed: the answer must not repeat a rejected setting.
        let found = find(app, draft, kept, position).await;
        return Ok(known_or_waiting(found.map(Some), (position, Progress::Waiting)));
    }
    Ok(settle(app, context.waits(), draft, kept, position).await)
}

/// Writes a new event each time, under an id that no request repeats: a write that the fold will refuse, or one that
/// counts every time.
pub async fn untracked<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    draft: Draft,
    recorded_at: Time,
) -> Result<Wrote, Problem> {
    let record = draft.recorded(recorded_at, context.actor()?)?;
    let position = append(app, &draft.account, &record.event).await?;
    let progress = settle(app, context.waits(), &draft, &record, position).await;
    Ok(answer(&draft, &record, progress))
}

fn content_of(draft: &Draft) -> Result<Vec<u8>, Problem> {
    // Time and actor are not part of the content.
    let anybody = Label::new("anybody").map_err(Problem::internal)?;
    let ContentHash(content) = content_hash(&draft.event(Time::MIN, anybody)?);
    Ok(content.to_vec())
}

/// Logs a failure to record the position: the journal has the write, and a repeat appends only one more record.
fn note_failure(noted: Result<(), sqlx::Error>) {
    if let Err(error) = noted {
        warn!(%error, "what the journal acknowledged could not be noted");
    }
}

/// Waits, if requested, until the write is projected, and finds its outcome.
async fn settle(
    app: &App,
    waits: bool,
    draft: &Draft,
    kept: &Kept,
    position: Position,
) -> (Position, Progress) {
    let found = once_projected(app, waits, &[position], find(app, draft, kept, position)).await;
    known_or_waiting(found, (position, Progress::Waiting))
}

/// Finds the outcome of a write by its identity, or by its position if the fold does not remember the identity.
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
        let position = Position { offset: first.offset, ..position };
        return Ok((position, Progress::Folded(first.outcome)));
    }
    let mut progress = outcome::progress(&app.pool, schema, &[(draft.account.clone(), position)]).await?;
    Ok((position, progress.pop().unwrap_or(Progress::Waiting)))
}

fn answer(draft: &Draft, kept: &Kept, (position, progress): (Position, Progress)) -> Wrote {
    Written::answer(draft.account.as_str(), &kept.event_id, position, &progress)
}
