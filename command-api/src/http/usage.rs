//! Usage: the fast path for one event or a batch, as CloudEvents or plain JSON.
//!
//! Before the append only the accounts are read, and ids that this process saw lately: a resend that is not recognised is
//! appended, and folds to `duplicate` or `conflict`.

use std::fmt;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use ledger_core::event::Usage;
use ledger_core::event::field_error::FieldError;
use ledger_core::fold::Outcome as FoldOutcome;
use ledger_core::request::{self, Offer, PlainUsage, UsageEvent};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, EventId};
use platform::position::Position;
use schemars::JsonSchema;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use web::auth::{Action, Principal};
use web::http::{Accepts, BATCH_BYTES_MAX, Path, Payload, Problem, RECORD_BYTES_MAX};
use web::openapi::{Answers, Operation, Route, Sent, post};

use crate::admission::refusal::{self, FORBIDDEN};
use crate::admission::{self, Admitted, Form, Offered, Refusal, Stamp, Verdict};
use crate::app::App;
use crate::request_context::{RequestContext, timed};
use crate::write::answer::{Written, Wrote};
use crate::write::first::{Earlier, earlier};
use crate::write::outcome::{Outcome, Progress};
use crate::write::usage::{append_all, append_and_answer, outcomes};

pub const BATCH_EVENTS_MAX: usize = 10_000;
/// Bodies up to this size are parsed on the request's own task; larger ones on a blocking thread.
const INLINE_BYTES_MAX: usize = 32 * 1024;

/// The parser's error code for text that is not JSON.
const NOT_JSON: &str = "not_json";

const ONE: Accepts = Accepts { media_type: "application/cloudevents+json", bytes_max: RECORD_BYTES_MAX };
/// One event or a batch.
const EITHER: Accepts = Accepts { media_type: "application/json", bytes_max: BATCH_BYTES_MAX };
/// The data of an event in binary mode.
const DATA: Accepts = Accepts { media_type: "application/json", bytes_max: RECORD_BYTES_MAX };
const BATCH: Accepts =
    Accepts { media_type: "application/cloudevents-batch+json", bytes_max: BATCH_BYTES_MAX };

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/events", events)
            .named("recordEvents", "Records usage as CloudEvents: one, or a batch.")
            .says(
                "By producers. A batch has at most 10,000 events and 8 MiB; each item has a result of its own, in order. \
                 Good items are recorded whatever the others are. Sending the whole again is always safe. In binary mode \
                 the attributes come as headers (`ce-id` and so on), and the body is the data.",
            )
            .refuses(&["too_new", "too_old", "unpriced_usage"])
            .with(timed)
            .with(|operation| {
                let one = operation.schemas.of_request::<UsageEvent>();
                operation.takes(ONE.media_type, one);
                let batch = operation.schemas.of_request::<UsageBatch>();
                operation.takes(BATCH.media_type, batch);
            }),
        post("/v1/accounts/{account}/usage", plain)
            .named("recordUsage", "Records usage of one account as plain JSON.")
            .says("By producers. The same usage again is recorded again and folds to a duplicate: it is charged once.")
            .refuses(&["too_new", "too_old", "unpriced_usage"])
            .with(timed),
    ]
}

/// `POST /v1/events`
async fn events(
    State(app): State<App>,
    context: RequestContext,
    sent: Sent<AnyUsage>,
) -> Result<Recorded, Problem> {
    context.principal.require_role(Action::UsageWrite)?;
    let request = sent.into_request();
    let binary = binary_mode(request.headers());
    let accepted: &[Accepts] = if binary.is_some() { &[DATA] } else { &[ONE, BATCH, EITHER] };
    let payload = Payload::read(request, accepted).await?;
    let is_array = payload.bytes.trim_ascii_start().starts_with(b"[");
    if binary.is_none()
        && (payload.media_type == BATCH.media_type || payload.media_type == EITHER.media_type && is_array)
    {
        return batch(&app, &context, payload).await.map(Recorded::Batch);
    }
    if payload.bytes.len() > RECORD_BYTES_MAX {
        return Err(Problem::too_large(RECORD_BYTES_MAX));
    }
    let offer = match binary {
        Some(attributes) => request::read_offer(&with_data(attributes, &payload.bytes)?),
        None => request::read_offer(&payload.bytes),
    };
    let offer = offer.map_err(unreadable)?;
    context.require(Action::UsageWrite, &offer.account)?;
    one(&app, &context, offer, Form::CloudEvent).await.map(Recorded::One)
}

/// The prefix of the headers that carry an event's attributes.
const ATTRIBUTE: &str = "ce-";

/// Returns the attributes of an event in binary mode, whose body is its data; none for other requests.
fn binary_mode(headers: &HeaderMap) -> Option<serde_json::Map<String, Value>> {
    headers.contains_key("ce-specversion").then(|| {
        let named = headers.iter().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix(ATTRIBUTE)?;
            Some((name.to_owned(), Value::from(attribute(value.as_bytes()))))
        });
        named.collect()
    })
}

/// Decodes a header: percent-encoded UTF-8, as the binding of CloudEvents to HTTP has it.
fn attribute(value: &[u8]) -> String {
    let hex = |at: usize| value.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        match (value[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            (byte, _, _) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Makes an event in structured mode of one in binary mode.
fn with_data(attributes: serde_json::Map<String, Value>, data: &[u8]) -> Result<Vec<u8>, Problem> {
    // Only checked to be JSON here: the reader refuses its bad fields.
    let data: &RawValue = serde_json::from_slice(data)
        .map_err(|error| Problem::not_json(format!("the body is not JSON: {error}")))?;
    let mut attributes = attributes;
    attributes.remove("data");
    let event = serde_json::to_string(&attributes).map_err(Problem::internal)?;
    let open = event.strip_suffix('}').unwrap_or(&event);
    Ok(format!("{open},\"data\":{data}}}").into_bytes())
}

/// `POST /v1/accounts/{account}/usage`
async fn plain(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<PlainUsage>,
) -> Result<Wrote, Problem> {
    context.require(Action::UsageWrite, &account)?;
    let value = sent.value().await?;
    let offer = request::read_plain_usage(&account, value).map_err(Problem::invalid)?;
    one(&app, &context, offer, Form::Plain).await
}

/// Distinguishes a body that is not JSON from an invalid event.
fn unreadable(errors: Vec<FieldError>) -> Problem {
    match errors.iter().find(|error| error.code == NOT_JSON) {
        Some(error) => Problem::not_json(format!("the body is not JSON: {}", error.detail)),
        None => Problem::invalid(errors),
    }
}

fn stamp(context: &RequestContext, form: Form) -> Result<Stamp, Problem> {
    Ok(Stamp { actor: context.actor()?, now: context.now, ledger_time: context.ledger_time, form })
}

async fn one(app: &App, context: &RequestContext, offer: Offer, form: Form) -> Result<Wrote, Problem> {
    let mut verdicts =
        admission::admit(app, vec![Ok(offer)], stamp(context, form)?, context.deadline).await?;
    let verdict = verdicts.pop().ok_or_else(|| Problem::internal("usage without a verdict"))?;
    let admitted = verdict.map_err(Refusal::problem)?;
    append_and_answer(app, admitted, form, context.usage_waits()).await
}

async fn batch(
    app: &App,
    context: &RequestContext,
    payload: Payload,
) -> Result<(StatusCode, BatchAnswer), Problem> {
    let (ids, offers) = read_off_task(payload, context.principal.clone()).await?;
    let stamp = stamp(context, Form::CloudEvent)?;
    let verdicts = admission::admit(app, offers, stamp, context.deadline).await?;
    let (mut items, admitted) = sort(ids, verdicts);
    let positions = append_all(app, &admitted).await?;
    let waits = context.usage_waits();
    let progress = outcomes(app, &admitted, &positions, waits).await;
    let records: Vec<(&[u8], &Progress)> =
        admitted.iter().zip(&progress).map(|(one, progress)| (one.bytes.as_slice(), progress)).collect();
    let earlier = earlier(&app.pool, app.waiter.schema(), &records, Form::CloudEvent).await;
    set_outcomes(&mut items, &positions, &progress, earlier);
    let known = progress.iter().all(|one| matches!(one, Progress::Folded(_)));
    let complete = waits && progress.len() == positions.len() && known;
    let status = if complete { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, BatchAnswer::of(items)))
}

type Read = (Vec<Option<EventId>>, Vec<Offered>);

async fn read_off_task(payload: Payload, principal: Principal) -> Result<Read, Problem> {
    if payload.bytes.len() <= INLINE_BYTES_MAX {
        return read_batch(&payload.bytes, &principal);
    }
    let read = tokio::task::spawn_blocking(move || read_batch(&payload.bytes, &principal));
    read.await.map_err(Problem::internal)?
}

/// Parses a batch item by item: a bad item is refused, and the others continue.
fn read_batch(bytes: &[u8], principal: &Principal) -> Result<Read, Problem> {
    let items = split(bytes)?;
    let mut ids = Vec::with_capacity(items.len());
    let mut offers = Vec::with_capacity(items.len());
    for item in items {
        let offer = read_item(item, principal);
        ids.push(match &offer {
            Ok(offer) => Some(offer.id.clone()),
            Err(_) => id_of(item),
        });
        offers.push(offer);
    }
    Ok((ids, offers))
}

fn read_item(item: &RawValue, principal: &Principal) -> Offered {
    let bytes = item.get().as_bytes();
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(refusal::too_large(bytes.len()));
    }
    let offer = request::read_offer(bytes).map_err(Refusal::invalid)?;
    if !principal.may(Action::UsageWrite, offer.account.as_str()) {
        return Err(Refusal::new(FORBIDDEN, "this key may not do that"));
    }
    Ok(offer)
}

/// Returns the id in a refused item, if it has one.
fn id_of(item: &RawValue) -> Option<EventId> {
    #[derive(Deserialize)]
    struct Named {
        id: EventId,
    }
    serde_json::from_str::<Named>(item.get()).ok().map(|named| named.id)
}

/// The unparsed items of a JSON array.
struct Items<'a>(Vec<&'a RawValue>);

const TOO_MANY_ITEMS: &str = "too many items";

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() == BATCH_EVENTS_MAX {
                        return Err(serde::de::Error::custom(TOO_MANY_ITEMS));
                    }
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        from.deserialize_seq(Reader)
    }
}

fn split(bytes: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    match serde_json::from_slice::<Items<'_>>(bytes) {
        Ok(Items(items)) if items.is_empty() => {
            Err(Problem::bad_field("body", "empty", "holds at least one event"))
        }
        Ok(Items(items)) => Ok(items),
        Err(error) if error.to_string().starts_with(TOO_MANY_ITEMS) => {
            let detail = format!("at most {BATCH_EVENTS_MAX} events");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail))
        }
        Err(error) if error.is_data() && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() => {
            Err(Problem::bad_field("body", "wrong_type", "must be a JSON array"))
        }
        Err(error) => Err(Problem::not_json(format!("the body is not JSON: {error}"))),
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "BatchItem")]
pub struct Item {
    pub index: usize,
    /// Null if the item has no readable id.
    pub id: Option<EventId>,
    /// `accepted` or `refused`.
    #[schemars(with = "ItemResult")]
    pub result: &'static str,
    /// The journal position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// The outcome, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<FoldOutcome>")]
    pub outcome: Option<&'static str>,
    /// Why the item was refused or rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// In a conflict, the fields that differ from the first event of this id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
    /// The usage that had charged the same call.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<EventId>")]
    pub duplicate_of: Option<String>,
    /// What it charges above the hold that it settles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_hold: Option<Credits>,
}

impl Item {
    fn accepted(index: usize, id: Option<EventId>) -> Item {
        let (position, outcome, code, detail, over_hold) = (None, None, None, None, None);
        let (differs, duplicate_of) = (Vec::new(), None);
        Item {
            index,
            id,
            result: "accepted",
            position,
            outcome,
            code,
            detail,
            differs,
            duplicate_of,
            over_hold,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct BatchAnswer {
    items: Vec<Item>,
    accepted: usize,
    refused: usize,
}

/// Whether an item was taken.
#[derive(JsonSchema)]
#[schemars(rename = "BatchItemResult", rename_all = "snake_case")]
#[allow(dead_code, reason = "stands for its schema")]
enum ItemResult {
    Accepted,
    Refused,
}

/// The answer to usage in one of its forms.
pub enum Recorded {
    One(Wrote),
    Batch((StatusCode, BatchAnswer)),
}

impl IntoResponse for Recorded {
    fn into_response(self) -> Response {
        match self {
            Recorded::One(wrote) => wrote.into_response(),
            Recorded::Batch((status, answer)) => (status, axum::Json(answer)).into_response(),
        }
    }
}

impl Answers for Recorded {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers_json::<RecordedBody>(200, "Projected.");
        operation.answers_json::<RecordedBody>(202, "Stored, and not all projected yet.");
    }
}

/// The answer to one event, or to a batch.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "RecordedEvents")]
#[allow(dead_code, reason = "stands for its schema")]
enum RecordedBody {
    One(Box<Written>),
    Batch(BatchAnswer),
}

/// A batch of usage: 1 to 10,000 events.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "stands for its schema")]
pub struct UsageBatch(Vec<UsageEvent>);

/// Usage as an event, as a batch, or, in binary mode, as the data of an event.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "stands for its schema")]
pub enum AnyUsage {
    One(UsageEvent),
    Batch(UsageBatch),
    Data(Usage),
}

impl BatchAnswer {
    fn of(items: Vec<Item>) -> BatchAnswer {
        let accepted = items.iter().filter(|item| item.position.is_some()).count();
        BatchAnswer { accepted, refused: items.len() - accepted, items }
    }
}

/// Separates accepted items from refused ones, and returns the records to append.
fn sort(ids: Vec<Option<EventId>>, verdicts: Vec<Verdict>) -> (Vec<Item>, Vec<Admitted>) {
    let mut admitted = Vec::with_capacity(verdicts.len());
    let mut items = Vec::with_capacity(verdicts.len());
    for (index, (id, verdict)) in ids.into_iter().zip(verdicts).enumerate() {
        let mut item = Item::accepted(index, id);
        match verdict {
            Ok(one) => {
                item.over_hold = one.hold.settled().map(|settled| settled.over_hold);
                admitted.push(one);
            }
            Err(Refusal { code, detail, .. }) => {
                item.result = "refused";
                item.code = Some(code);
                item.detail = Some(detail);
            }
        }
        items.push(item);
    }
    (items, admitted)
}

/// Sets the positions, and the known outcomes, of accepted items.
fn set_outcomes(
    items: &mut [Item],
    positions: &[Position],
    progress: &[Progress],
    mut earlier: Vec<Earlier>,
) {
    let accepted = items.iter_mut().filter(|item| item.result == "accepted");
    for (nth, (item, position)) in accepted.zip(positions).enumerate() {
        item.position = Some(*position);
        let Some(Progress::Folded(outcome)) = progress.get(nth) else { continue };
        item.outcome = Some(outcome.as_str());
        if let Some(earlier) = earlier.get_mut(nth) {
            Earlier { differs: item.differs, duplicate_of: item.duplicate_of } = std::mem::take(earlier);
        }
        if let Outcome::Rejected(reason) = outcome {
            item.code = Some(reason.code());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger_core::value::id::Source;
    use web::auth::{Accounts, Role};

    const GOOD: &str = r#"{"specversion":"1.0","id":"e1","source":"/app","type":"ledger.usage.recorded.v1",
        "subject":"acme","time":"2026-02-03T10:00:00Z","data":{"credits":"1"}}"#;

    fn producer() -> Principal {
        let accounts = Accounts::Named(vec!["acme".to_owned()].into());
        Principal { key_id: "k".into(), role: Role::Producer, accounts, user_id: None }
    }

    fn check(body: &str, expected: &str) {
        let said = match read_batch(body.as_bytes(), &producer()) {
            Ok((ids, offers)) => {
                let items: Vec<String> = ids
                    .iter()
                    .zip(&offers)
                    .map(|(id, offer)| {
                        let id = id.as_ref().map_or("-", |id| id.as_str());
                        let result = offer.as_ref().map_or_else(|refusal| refusal.code, |_| "read");
                        format!("{id} {result}")
                    })
                    .collect();
                items.join(", ")
            }
            Err(problem) => format!("{} {}", problem.status.as_u16(), problem.code),
        };
        assert_eq!(said, expected, "{body}");
    }

    #[test]
    fn good_items_go_in_whatever_the_others_are() {
        let elsewhere = GOOD.replace("acme", "beta").replace("e1", "e2");
        let bad = GOOD.replace("\"1\"", "1").replace("e1", "e3");
        let deep = format!(r#"{{"id":"e4","data":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        let long = format!(r#"{{"id":"e5","data":"{}"}}"#, "x".repeat(RECORD_BYTES_MAX));
        check(
            &format!(r#"[{GOOD},{elsewhere},{bad},{deep},{long},7,{GOOD}]"#),
            "e1 read, e2 forbidden, e3 invalid, e4 invalid, e5 too_large, - invalid, e1 read",
        );
    }

    #[test]
    fn a_batch_is_an_array_of_1_to_10_000() {
        check("[]", "422 invalid");
        check("{}", "422 invalid");
        check("7", "422 invalid");
        check("[", "400 not_json");
        check("", "400 not_json");
        check(&format!("[{}7]", "7,".repeat(BATCH_EVENTS_MAX)), "413 too_large");
        let most = read_batch(format!("[{}7]", "7,".repeat(BATCH_EVENTS_MAX - 1)).as_bytes(), &producer());
        assert_eq!(most.map(|(ids, _)| ids.len()).ok(), Some(BATCH_EVENTS_MAX));
    }

    #[test]
    fn a_refused_item_names_every_bad_field() {
        let bad = GOOD.replace("\"1\"", "1").replace("2026-02-03T10:00:00Z", "soon");
        let (_, offers) = read_batch(format!("[{bad}]").as_bytes(), &producer()).expect("an array");
        let refusal = offers[0].as_ref().expect_err("refused");
        assert!(refusal.detail.contains("data.credits") && refusal.detail.contains("time"), "{refusal:?}");
    }

    #[test]
    fn results_stand_in_the_order_of_the_batch() {
        let id = |id: &str| EventId::new(id).ok();
        let admitted = Admitted {
            account: AccountId::new("acme").expect("an id"),
            id: id("b").expect("an id"),
            source: Source::new("/app").expect("a source"),
            bytes: vec![1],
            hold: admission::NamedHold::None,
            first: None,
        };
        let verdicts = vec![Err(Refusal::new(FORBIDDEN, "no")), Ok(admitted)];
        let (mut items, records) = sort(vec![id("a"), id("b")], verdicts);
        assert_eq!(records.len(), 1);
        set_outcomes(
            &mut items,
            &[Position { partition: 3, offset: 7 }],
            &[Progress::Folded(Outcome::Duplicate)],
            Vec::new(),
        );
        let answer = serde_json::to_value(BatchAnswer::of(items)).expect("JSON");
        let expected = serde_json::json!({
            "items": [
                {"index": 0, "id": "a", "result": "refused", "code": "forbidden", "detail": "no"},
                {"index": 1, "id": "b", "result": "accepted", "position": {"partition": 3, "offset": 7}, "outcome": "duplicate"},
            ],
            "accepted": 1, "refused": 1,
        });
        assert_eq!(answer, expected);
    }
}
