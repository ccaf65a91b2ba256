//! Serves HTTP/1.1 with limits on headers, time and connections, and drains at shutdown.
//!
//! Not `axum::serve`, which limits none of them. HTTP/2 is left to the proxy that ends TLS: it needs TLS for
//! negotiation, and its streams would bypass the limit on connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use metrics::{counter, gauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::peer::{IdleConnections, Peer, Sending};
use super::stall::{STALL_MAX, Stall};
use platform::telemetry;

/// Longest head of a request, in bytes: many times our longest path and key.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Read buffer of a connection, in bytes; times the number of connections, it bounds their memory.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Time for a whole head, and so also the longest idle time of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for running requests to end; the whole stop must stay under 10 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// The part of all connections that one peer may keep idle.
const IDLE_PER_PEER: usize = 4;
/// Pause after a failed accept, usually because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the recorder is cleaned up; otherwise unscraped metrics accumulate.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Where to listen and how much to take.
#[derive(Debug, Clone, clap::Args)]
pub struct HttpConfig {
    /// Address to serve HTTP on.
    #[arg(long, env = "LEDGER_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Most connections at once; further ones wait to be accepted.
    #[arg(long, env = "LEDGER_CONNECTIONS", default_value_t = 4096)]
    pub connections: usize,
    /// Origins of pages that may read with member tokens, as https://app.example.com,https://…; none: no page may
    #[arg(long, env = "LEDGER_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub allowed_origins: Vec<String>,
}

/// Serves until `shutdown`, then stops accepting and lets running requests end, for 8 s at most.
///
/// The router should come from [`super::finish`].
pub async fn serve(
    router: Router,
    listener: TcpListener,
    connections_max: usize,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    info!(%address, "serving");
    let mut server = Server::new(router, connections_max);
    let slots = Arc::clone(&server.slots);
    let mut upkeep = interval(METRICS_UPKEEP);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            ((stream, address), slot) = accept(&slots, &listener) => server.take(stream, address, slot),
            Some(_) = server.connections.join_next() => server.report(),
            _ = upkeep.tick() => if let Ok(recorder) = telemetry::metrics() { recorder.run_upkeep() },
        }
    }
    drop(listener);
    server.drain(DRAIN_TIMEOUT).await;
    info!(%address, "stopped serving");
    Ok(())
}

/// Listens on an address. Errors: which address is taken and how to choose another.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = "choose another address with --listen or LEDGER_LISTEN";
        io::Error::new(error.kind(), format!("can't listen on {address} ({error}): {advice}"))
    })
}

struct Server {
    router: Router,
    slots: Arc<Semaphore>,
    idle: Arc<IdleConnections>,
    graceful: GracefulShutdown,
    connections: JoinSet<()>,
}

impl Server {
    fn new(router: Router, connections_max: usize) -> Self {
        Self {
            router,
            slots: Arc::new(Semaphore::new(connections_max.clamp(1, Semaphore::MAX_PERMITS))),
            idle: IdleConnections::new((connections_max / IDLE_PER_PEER).max(1)),
            graceful: GracefulShutdown::new(),
            connections: JoinSet::new(),
        }
    }

    fn take(&mut self, stream: TcpStream, address: SocketAddr, slot: OwnedSemaphorePermit) {
        let router = self.router.clone();
        let watcher = self.graceful.watcher();
        let (idle, peer) = (Arc::clone(&self.idle), Peer::of(address.ip()));
        self.connections.spawn(async move {
            converse(stream, router, watcher, idle, peer).await;
            drop(slot);
        });
        self.report();
    }

    fn report(&self) {
        gauge!("ledger_http_connections").set(self.connections.len() as f64);
    }

    async fn drain(mut self, time_max: Duration) {
        let graceful = self.graceful;
        let ended = async {
            graceful.shutdown().await;
            while self.connections.join_next().await.is_some() {}
        };
        if timeout(time_max, ended).await.is_err() {
            warn!(connections = self.connections.len(), "cut off what did not end in time");
        }
        self.connections.shutdown().await;
    }
}

/// Waits for a free slot and then for a connection; while full, connections wait in the system's backlog.
async fn accept(
    slots: &Arc<Semaphore>,
    listener: &TcpListener,
) -> ((TcpStream, SocketAddr), OwnedSemaphorePermit) {
    let slot = Arc::clone(slots).acquire_owned().await.expect("the slots are never closed");
    loop {
        match listener.accept().await {
            Ok(accepted) => return (accepted, slot),
            Err(error) => {
                warn!(%error, "can't accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(
    stream: TcpStream,
    router: Router,
    watcher: Watcher,
    idle: Arc<IdleConnections>,
    peer: Peer,
) {
    // Responses are small and written whole: Nagle's algorithm would only delay them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX);
    let close = CancellationToken::new();
    let place = Arc::new(idle.connect(peer, close.clone()));
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let working = place.work();
        request.extensions_mut().insert(peer);
        let answering = routes.call(request);
        async move {
            let response = answering.await?;
            Ok::<_, Infallible>(response.map(|body| Sending { body, _working: working }))
        }
    });
    let connection = http.serve_connection(TokioIo::new(Stall::new(stream, STALL_MAX)), service);
    let mut connection = pin!(watcher.watch(connection));
    tokio::select! {
        ended = connection.as_mut() => if let Err(error) = ended {
            debug!(%error, "connection ended early");
        },
        () = close.cancelled() => {
            counter!("ledger_http_idle_connections_closed_total").increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::super::finish;
    use super::*;

    struct Running {
        address: SocketAddr,
        stop: CancellationToken,
        ended: JoinHandle<io::Result<()>>,
    }

    async fn start(router: Router, connections_max: usize) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let ended = tokio::spawn(serve(finish(router), listener, connections_max, stop.clone()));
        Running { address, stop, ended }
    }

    async fn send(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        // A server that refuses early may close before it has read everything.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    fn hello() -> Router {
        Router::new().route("/", get(|| async { "hello" }))
    }

    #[tokio::test]
    async fn it_serves() {
        let server = start(hello(), 10).await;
        assert!(send(server.address, ASK).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_head_of_a_megabyte_is_refused_and_others_are_served() {
        let server = start(hello(), 10).await;
        let mut head = b"GET / HTTP/1.1\r\nhost: x\r\nx-big: ".to_vec();
        head.resize(1024 * 1024, b'a');
        let refused = send(server.address, &head).await;
        assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
        let mut many = b"GET / HTTP/1.1\r\nhost: x\r\n".to_vec();
        for at in 0..HEADERS_MAX + 1 {
            many.extend(format!("x-{at}: 1\r\n").bytes());
        }
        many.extend(b"\r\n");
        assert!(send(server.address, &many).await.starts_with("HTTP/1.1 431"));
        assert!(send(server.address, ASK).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_their_turn() {
        let slow = hello().route("/slow", get(std::future::pending::<&str>));
        let server = start(slow, 2).await;
        let ask = || send(server.address, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n");
        let busy = [tokio::spawn(ask()), tokio::spawn(ask())];
        // Let both be accepted before the third comes.
        sleep(Duration::from_millis(100)).await;
        let mut third = tokio::spawn(send(server.address, ASK));
        assert!(timeout(Duration::from_millis(200), &mut third).await.is_err(), "served beyond the limit");
        busy.iter().for_each(JoinHandle::abort);
        assert!(third.await.expect("ended").ends_with("hello"));
    }

    #[tokio::test]
    async fn whoever_keeps_many_idle_connections_loses_them_and_shuts_nobody_out() {
        let server = start(hello(), 8).await;
        let mut idle = Vec::new();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(server.address).await.expect("connected");
            // Some have sent a part of a head.
            stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
            idle.push(stream);
        }
        let served = timeout(Duration::from_secs(5), send(server.address, ASK)).await;
        assert!(served.expect("in time").ends_with("hello"));
        let mut gone = Vec::new();
        timeout(Duration::from_secs(5), idle[0].read_to_end(&mut gone)).await.expect("closed").ok();
    }

    #[tokio::test]
    async fn a_stop_lets_what_is_under_way_end_and_takes_nothing_new() {
        static SERVED: AtomicUsize = AtomicUsize::new(0);
        let slow = Router::new().route(
            "/",
            get(|| async {
                sleep(Duration::from_millis(500)).await;
                SERVED.fetch_add(1, Ordering::Relaxed);
                "late"
            }),
        );
        let server = start(slow, 10).await;
        let under_way = tokio::spawn(send(server.address, ASK));
        sleep(Duration::from_millis(100)).await;
        server.stop.cancel();
        assert!(under_way.await.expect("ended").ends_with("late"));
        server.ended.await.expect("ended").expect("stopped");
        assert_eq!(SERVED.load(Ordering::Relaxed), 1);
        assert!(TcpStream::connect(server.address).await.is_err());
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_an_idle_connection() {
        let server = start(hello(), 10).await;
        let _idle = TcpStream::connect(server.address).await.expect("connected");
        sleep(Duration::from_millis(50)).await;
        let asked = Instant::now();
        server.stop.cancel();
        server.ended.await.expect("ended").expect("stopped");
        assert!(asked.elapsed() < DRAIN_TIMEOUT / 2);
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off() {
        let endless = Router::new().route("/", get(std::future::pending::<&str>));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut server = Server::new(endless, 10);
        let address = listener.local_addr().expect("bound");
        let under_way = tokio::spawn(send(address, ASK));
        let ((stream, address), slot) = accept(&server.slots, &listener).await;
        server.take(stream, address, slot);
        sleep(Duration::from_millis(100)).await;
        server.drain(Duration::from_millis(100)).await;
        assert_eq!(under_way.await.expect("ended"), "");
    }
}
