//! Stream: server-sent events of one account: its balance on every change, its firings, and when work must stop; for a
//! member the own standing instead.
//!
//! An interrupted stream can continue: the event id of each firing is its cursor, and a client sends the last one it
//! saw as `Last-Event-ID`. Balances and stops need none: the first read finds the current state.

pub(crate) mod holding;
mod own;
mod stops;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt, stream};
use ledger_core::policy::balance::Balance;
use ledger_core::value::id::{AccountId, UserId};
use platform::position::Position;
use serde::Serialize;
use sqlx::PgConnection;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;
use web::auth::{Principal, Ticket};
use web::http::{ACCOUNT_HALTED, Problem, header};
use web::openapi::{Route, get};
use web::quota::Slot;

use self::holding::{Following, HOLDING_POLL, Mark};
use self::own::Standing;
use self::stops::{Stop, Stops};
use crate::access::Seen;
use crate::answer::{Now, Reflects};
use crate::app::{App, STREAMS_MAX};
use crate::http::alerts::{self, Cursor, FiringView};
use crate::reading::{self, Account};

const FIRINGS_MAX: usize = 100;
/// Shortest pause between two reads of an account for one stream, however fast its partition moves.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two reads, whatever the notifications.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Pause between two lines that only keep the connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Longest life of a stream; its client comes again and continues after the last event that it saw.
const LIFE_MAX: Duration = Duration::from_secs(60 * 60);
/// The header with the id of the last event that a client saw.
const LAST_EVENT_ID: &str = "last-event-id";

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/stream", stream)
            .named("followAccount", "Sends the balance on every change, firings, and when work must stop, as server-sent events.")
            .says(
                "`balance` has the fields of `BalanceNow`. `firing` has those of `Firing`, and an id: a client that sends \
                 the last one as `Last-Event-ID` continues after it. `stop` has those of `StopNow`: from now on the \
                 smallest work would be refused, for everybody when nothing is available, or for a user whose counted \
                 usage has reached the limit. Each stop is sent once until work is allowed again. The first events tell \
                 the present state. Members get none of these but `standing`, on every change, with the fields of \
                 `StandingNow`: their own usage and limit, and whether they may begin work.",
            )
            .with(|operation| {
                operation.header::<String>("Last-Event-ID", false, "The id of the last firing that the client saw.");
                operation.schemas.of_answer::<FiringView>();
                operation.schemas.of_answer::<Now<Balance>>();
                operation.schemas.of_answer::<Now<Stop>>();
                operation.schemas.of_answer::<Now<Standing>>();
            }),
    ]
}

/// `GET /v1/accounts/{account}/stream`
async fn stream(
    State(app): State<App>,
    seen: Seen,
    caller: Principal,
    ticket: Ticket,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let resumed: Option<String> = header(&headers, LAST_EVENT_ID)?;
    let full =
        || Problem::too_many_requests(format!("{STREAMS_MAX} streams at once, half of them of one key"));
    let slot = app.slots.streams.take(&caller.key_id).ok_or_else(full)?;
    let only = seen.user(None)?.map(|user| user.parse::<UserId>().map_err(Problem::internal)).transpose()?;
    let followed = Followed { account: seen.account, only };
    let follower = Follower::begin(app, followed, resumed.as_deref().and_then(cursor_of), slot).await?;
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    let events = events.take_until(until_ended(ticket));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Waits until a stream has to end: its key is revoked or expired, or it has lived long enough.
async fn until_ended(ticket: Ticket) {
    let _ = timeout(LIFE_MAX, ticket.ended()).await;
}

/// Whose figures a stream sends.
struct Followed {
    account: AccountId,
    /// The member who follows; none for those who see the account.
    only: Option<UserId>,
}

struct Follower {
    app: App,
    account: AccountId,
    only: Option<UserId>,
    partition: i32,
    sent: Option<String>,
    /// The last firing sent, or the last one at the start.
    fired: Cursor,
    stops: Stops,
    /// The mark of its holds before the last read.
    holding: Following,
    held: Mark,
    /// One read did not find everything.
    behind: bool,
    waiting: VecDeque<Event>,
    _slot: Slot,
}

impl Follower {
    async fn begin(
        app: App,
        Followed { account, only }: Followed,
        resumed: Option<Cursor>,
        slot: Slot,
    ) -> Result<Self, Problem> {
        let reflects = if only.is_some() {
            reading::of(&app, account.clone(), None, nothing).await?.0
        } else {
            evaluated(&app, &account).await?
        };
        let fired = resumed.unwrap_or((reflects.position.offset, i32::MAX));
        let partition = reflects.position.partition;
        let waiting = VecDeque::new();
        let holding = app.holding().follow(account.clone());
        let (stops, sent, held, behind) = (Stops::default(), None, None, false);
        Ok(Self {
            app,
            account,
            only,
            partition,
            sent,
            fired,
            stops,
            holding,
            held,
            behind,
            waiting,
            _slot: slot,
        })
    }

    /// Returns the next event; none when the service stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.app.stopping.is_cancelled() {
                return None;
            }
            let seen = self.progress();
            self.held = self.mark().await;
            if let Err(problem) = self.look().await {
                // The database is temporarily unavailable: the next read retries.
                debug!(account_id = %self.account, code = problem.code, "a stream could not look");
            }
            if self.waiting.is_empty() && !self.behind {
                self.wait_beyond(seen).await;
            }
        }
    }

    /// Returns the progress of both models in the account's partition.
    fn progress(&self) -> (i64, i64) {
        (self.app.waiter.next_offset(self.partition), self.app.alerted.next_offset(self.partition))
    }

    async fn look(&mut self) -> Result<(), Problem> {
        match self.only.clone() {
            Some(user) => self.look_at_own(user).await,
            None => self.look_at_account().await,
        }
    }

    async fn look_at_own(&mut self, user: UserId) -> Result<(), Problem> {
        let found = reading::of(&self.app, self.account.clone(), None, move |connection, account| {
            Box::pin(async move { Ok(own::read(connection, account, user).await?) })
        });
        let (reflects, standing) = found.await?;
        self.push_changed("standing", &reflects, standing)
    }

    async fn look_at_account(&mut self) -> Result<(), Problem> {
        self.behind = false;
        let asking = self.stops.asking();
        let account = self.account.clone();
        let found = reading::of(&self.app, account, None, |connection, account| {
            Box::pin(async move {
                let look = stops::look(connection, account, asking).await?;
                Ok((reading::whole(connection, account).await?, look))
            })
        });
        let (reflects, (core, look)) = found.await?;
        self.push_changed("balance", &reflects, Balance::of(&core, look.held))?;
        let more = look.more;
        for stop in self.stops.after(&core, look) {
            self.push("stop", Now { reflects: reflects.clone(), body: stop })?;
        }
        self.behind = more || self.stops.begins();
        let after = self.fired;
        let fired = reading::of_alerts_now(&self.app, self.account.clone(), move |connection, account| {
            Box::pin(async move { Ok(alerts::firings_after(connection, account, after, FIRINGS_MAX).await?) })
        });
        let (_, firings) = fired.await?;
        firings.into_iter().try_for_each(|firing| self.push_firing(&firing))
    }

    /// Sends a balance or a standing if one of its figures has changed.
    fn push_changed(&mut self, name: &str, reflects: &Reflects, body: impl Serialize) -> Result<(), Problem> {
        let figures = serde_json::to_string(&body).map_err(Problem::internal)?;
        if self.sent.as_ref() == Some(&figures) {
            return Ok(());
        }
        self.sent = Some(figures);
        self.push(name, Now { reflects: reflects.clone(), body })
    }

    fn push(&mut self, name: &str, body: impl Serialize) -> Result<(), Problem> {
        let event = Event::default().event(name).json_data(body).map_err(Problem::internal)?;
        self.waiting.push_back(event);
        Ok(())
    }

    fn push_firing(&mut self, firing: &FiringView) -> Result<(), Problem> {
        let (offset, seq) = firing.cursor;
        let event = Event::default().event("firing").id(format!("{offset}.{seq}")).json_data(firing);
        self.waiting.push_back(event.map_err(Problem::internal)?);
        self.fired = firing.cursor;
        Ok(())
    }

    /// Returns the mark of its holds; the previous one on a database error.
    async fn mark(&self) -> Mark {
        let marked = self.holding.mark(&self.app.pool, self.app.waiter.schema()).await;
        marked.unwrap_or_else(|_| self.held.clone())
    }

    /// Waits until either model has moved in the account's partition, its holds have changed, or a timeout.
    async fn wait_beyond(&self, (projected, alerted): (i64, i64)) {
        let look_again = Instant::now() + LOOK_AGAIN;
        let at = |offset| Position { partition: self.partition, offset };
        while Instant::now() < look_again {
            let until = Instant::now() + HOLDING_POLL;
            let moved = tokio::select! {
                moved = self.app.waiter.wait_for(at(projected), until) => moved,
                moved = self.app.alerted.wait_for(at(alerted), until) => moved,
                () = self.app.stopping.cancelled() => return,
            };
            if moved || self.mark().await != self.held {
                break;
            }
        }
        sleep(LOOK_PAUSE).await;
    }
}

/// Returns the state after which a stream sends firings; earlier ones are in the list of firings.
async fn evaluated(app: &App, account: &AccountId) -> Result<Reflects, Problem> {
    match reading::of_alerts(app, account.clone(), None, nothing).await {
        // Its balance flows on, unless the projector has halted it as well.
        Err(problem) if problem.code == ACCOUNT_HALTED => {
            Ok(reading::of(app, account.clone(), None, nothing).await?.0)
        }
        evaluated => Ok(evaluated?.0),
    }
}

/// Reads nothing but the state itself.
fn nothing<'c>(_: &'c mut PgConnection, _: &'c Account) -> BoxFuture<'c, Result<(), Problem>> {
    Box::pin(async { Ok(()) })
}

fn cursor_of(id: &str) -> Option<Cursor> {
    let (offset, seq) = id.split_once('.')?;
    Some((offset.parse().ok()?, seq.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_firing_reads_back_as_its_place() {
        for (id, cursor) in [("1041.0", Some((1041, 0))), ("7", None), ("x.1", None), ("", None)] {
            assert_eq!(cursor_of(id), cursor, "{id}");
        }
    }
}
