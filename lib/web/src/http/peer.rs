//! Peers: who is at the other end of a connection, and how many idle connections each may keep.
//!
//! A connection is idle while it serves no request, so also while a request's head comes in. A peer that opens more
//! than its share loses the one that has been idle longest: others at its address still get a connection.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// Groups of an IPv6 address that name a network; one owner has all addresses in it.
const V6_NETWORK_GROUPS: usize = 4;

/// The other end of a connection: an IPv4 address, or the network of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(IpAddr);

impl Peer {
    pub fn of(address: IpAddr) -> Peer {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let mut groups = v6.segments();
                groups[V6_NETWORK_GROUPS..].fill(0);
                Peer(IpAddr::from(groups))
            }
            v4 @ IpAddr::V4(_) => Peer(v4),
        }
    }
}

/// The idle connections of all peers.
pub(super) struct IdleConnections {
    most_per_peer: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By peer and by when they became idle; peers without any are missing.
    idle: HashMap<Peer, BTreeMap<u64, CancellationToken>>,
    turns: u64,
}

impl IdleConnections {
    pub fn new(most_per_peer: usize) -> Arc<Self> {
        Arc::new(Self { most_per_peer, state: Mutex::default() })
    }

    /// Adds a connection, idle at first; `close` is cancelled when it has to go.
    pub fn connect(self: &Arc<Self>, peer: Peer, close: CancellationToken) -> Connection {
        let connection = Connection { all: Arc::clone(self), peer, close, place: Mutex::new(None) };
        connection.rest();
        connection
    }
}

/// One connection, which leaves when it is dropped.
pub(super) struct Connection {
    all: Arc<IdleConnections>,
    peer: Peer,
    close: CancellationToken,
    /// Where it stands among the idle ones; none while it serves a request.
    place: Mutex<Option<u64>>,
}

impl Connection {
    /// Marks it as serving a request until the guard is dropped.
    pub fn work(self: &Arc<Self>) -> Working {
        self.leave();
        Working(Arc::clone(self))
    }

    fn rest(&self) {
        let mut state = self.all.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.turns += 1;
        let turn = state.turns;
        let idle = state.idle.entry(self.peer).or_default();
        idle.insert(turn, self.close.clone());
        if idle.len() > self.all.most_per_peer
            && let Some((_, oldest)) = idle.pop_first()
        {
            oldest.cancel();
        }
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
    }

    fn leave(&self) {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(turn) = place else { return };
        let mut state = self.all.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(idle) = state.idle.get_mut(&self.peer) {
            idle.remove(&turn);
            if idle.is_empty() {
                state.idle.remove(&self.peer);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Held while a connection serves a request.
pub(super) struct Working(Arc<Connection>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// A response's body: its connection is at work until it has been sent.
pub(super) struct Sending<B> {
    pub body: B,
    pub _working: Working,
}

impl<B: Body + Unpin> Body for Sending<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_of_a_network_are_one_peer() {
        let peer = |text: &str| Peer::of(text.parse().expect("an address"));
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::9"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
    }

    #[test]
    fn a_peer_with_too_many_idle_connections_loses_the_oldest() {
        let all = IdleConnections::new(2);
        let [noisy, other] = ["192.0.2.1", "192.0.2.2"].map(|ip| Peer::of(ip.parse().expect("an address")));
        let tokens: Vec<CancellationToken> = (0..5).map(|_| CancellationToken::new()).collect();
        let closed = || -> Vec<bool> { tokens.iter().map(CancellationToken::is_cancelled).collect() };
        let connect = |peer, at: usize| Arc::new(all.connect(peer, tokens[at].clone()));
        let first = connect(noisy, 0);
        let working = first.work();
        let mut connections = vec![connect(noisy, 1), connect(noisy, 2), connect(other, 3)];
        assert_eq!(closed(), [false; 5], "one is at work");
        connections.push(connect(noisy, 4));
        assert_eq!(closed(), [false, true, false, false, false]);
        drop(working);
        assert_eq!(closed(), [false, true, true, false, false]);
        drop((first, connections));
        assert!(all.state.lock().expect("whole").idle.is_empty());
    }
}
