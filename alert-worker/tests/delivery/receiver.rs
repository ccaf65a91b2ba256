//! A receiver of webhooks that keeps every call and gives the answers that a test sets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use standardwebhooks::Webhook;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::identity::Identity;

/// Longer than anything here takes.
const WAIT_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

impl Call {
    /// Returns whether the secret signed the call, checked by the signature scheme's own library.
    pub fn verifies(&self, secret: &str) -> bool {
        Webhook::new(secret).is_ok_and(|webhook| webhook.verify(&self.body, &self.headers).is_ok())
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub header: Option<(&'static str, String)>,
    pub body: String,
}

impl Answer {
    pub fn of(status: u16) -> Answer {
        Answer { status, header: None, body: String::new() }
    }

    pub fn with(self, name: &'static str, value: impl Into<String>) -> Answer {
        Answer { header: Some((name, value.into())), ..self }
    }

    pub fn saying(self, body: impl Into<String>) -> Answer {
        Answer { body: body.into(), ..self }
    }
}

#[derive(Default)]
struct Book {
    calls: Vec<Call>,
    answers: VecDeque<Answer>,
}

/// Stops when dropped.
pub struct Receiver {
    pub address: SocketAddr,
    book: Arc<Mutex<Book>>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    /// Answers these in order, then 204.
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Ok(Receiver::serve(listener.local_addr()?, listener, answers))
    }

    /// Speaks TLS, and answers 204.
    pub async fn start_tls(identity: &Identity) -> Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Receiver::serve(address, TlsListener { listener, acceptor: identity.acceptor.clone() }, []))
    }

    fn serve<L: Listener<Addr = SocketAddr>>(
        address: SocketAddr,
        listener: L,
        answers: impl IntoIterator<Item = Answer>,
    ) -> Receiver {
        let book = Book { calls: Vec::new(), answers: answers.into_iter().collect() };
        let book = Arc::new(Mutex::new(book));
        let router = Router::new().fallback(take).with_state(Arc::clone(&book));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Receiver { address, book, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks/ledger?team=1", self.address)
    }

    /// Its URL by the name on its certificate.
    pub fn tls_url(&self) -> String {
        format!("https://localhost:{}/hooks/ledger", self.address.port())
    }

    pub fn calls(&self) -> Vec<Call> {
        lock(&self.book).calls.clone()
    }

    /// Waits until it has received this many calls.
    pub async fn wait_for(&self, calls: usize) -> Result<Vec<Call>> {
        let end = Instant::now() + WAIT_MAX;
        while self.calls().len() < calls {
            ensure!(Instant::now() < end, "called {} times, not {calls}", self.calls().len());
            sleep(Duration::from_millis(10)).await;
        }
        Ok(self.calls())
    }
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn take(
    State(book): State<Arc<Mutex<Book>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut book = lock(&book);
    let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    book.calls.push(Call { method, path, headers, body, at: Instant::now() });
    let answer = book.answers.pop_front().unwrap_or_else(|| Answer::of(204));
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body).into_response();
    if let Some((name, value)) = answer.header {
        let value = HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static(""));
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}
