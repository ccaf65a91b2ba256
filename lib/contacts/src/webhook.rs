//! Webhooks: calls the address of an account, signed by the Standard Webhooks scheme.
//!
//! One connection per call, to the address that was checked: without pool, proxy or redirect.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ledger_core::value::time::Time;
use platform::pg::{self, PgPool};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use url::Host;

pub use hyper::StatusCode;

pub use crate::failure::Failure;
pub use crate::target::Target;

/// Timeout of one call, from resolving the name to the end of the answer.
const CALL_TIME_MAX: Duration = Duration::from_secs(15);
/// Timeout of connecting to one address.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(4);
/// Bytes read of an answer, which is used only as the reason of a refusal.
const ANSWER_BYTES_MAX: usize = 4 * 1024;
/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Characters of an answer that are kept as the reason.
const ANSWER_CHARS_MAX: usize = 200;

/// Which addresses may be called.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct WebhookConfig {
    /// Lets webhooks call private addresses, and by plain http: for trials, and where all admins are trusted
    #[arg(long, env = "LEDGER_WEBHOOK_ALLOW_PRIVATE", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub webhook_allow_private: bool,
}

/// The URL of an account's webhook, and the secrets that sign its calls.
#[derive(Clone, PartialEq, Eq)]
pub struct Hook {
    pub url: String,
    /// The current secret, and during a rotation also the previous one.
    pub secrets: Vec<String>,
}

/// Reads the current webhook of an account.
pub async fn hook_of(pool: &PgPool, account: &str) -> Result<Option<Hook>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select webhook_url as "url!", webhook_secret as "secret!",
                  case when webhook_secret_old_until > clock_timestamp() then webhook_secret_old end as old_secret
           from control.contacts
           where account_id = $1 and webhook_url is not null"#,
        account,
    )
    .fetch_optional(pg::bounded(pool))
    .await?;
    Ok(row.map(|row| Hook {
        url: row.url,
        secrets: std::iter::once(row.secret).chain(row.old_secret).collect(),
    }))
}

/// What is sent; the receiver tells repeats by the id.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub id: &'a str,
    pub body: &'a str,
}

/// What the receiver answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// The beginning of the body; empty if the call was accepted.
    pub said: String,
    /// The pause that it requests before the next call.
    pub after: Option<Duration>,
}

/// Calls webhooks.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    allow_private: bool,
}

impl Client {
    /// Trusts the certificate authorities of this machine.
    pub fn new(config: WebhookConfig) -> anyhow::Result<Client> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client { tls: TlsConnector::from(Arc::new(tls)), allow_private: config.webhook_allow_private })
    }

    /// Returns where a webhook is, if its URL may be called.
    pub fn target(&self, hook: &Hook) -> Result<Target, Failure> {
        Target::of(&hook.url, self.allow_private)
    }

    /// Calls a webhook, once.
    pub async fn call(
        &self,
        target: &Target,
        secrets: &[String],
        message: Message<'_>,
        now: Time,
    ) -> Result<Answer, Failure> {
        match timeout(CALL_TIME_MAX, self.call_now(target, secrets, message, now)).await {
            Ok(called) => called,
            Err(_) => Err(Failure::retry("the webhook did not answer in time")),
        }
    }

    async fn call_now(
        &self,
        target: &Target,
        secrets: &[String],
        message: Message<'_>,
        now: Time,
    ) -> Result<Answer, Failure> {
        let request = request(target, secrets, message, now)?;
        let stream = connect(&target.addresses(self.allow_private).await?).await?;
        if !target.is_tls {
            return exchange(stream, request, now).await;
        }
        let stream =
            self.tls.connect(server_name(&target.host)?, stream).await.map_err(|error| {
                Failure::retry(format!("{} is not who it should be: {error}", target.host))
            })?;
        exchange(stream, request, now).await
    }
}

/// Connects to the first address that accepts.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut reasons = Vec::new();
    for address in addresses {
        match timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => reasons.push(format!("{address} can't be reached: {error}")),
            Err(_) => reasons.push(format!("{address} can't be reached in time")),
        }
    }
    Err(Failure::retry(reasons.join("; ")))
}

fn server_name(host: &Host) -> Result<ServerName<'static>, Failure> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.clone()).map_err(Failure::park),
        Host::Ipv4(ip) => Ok(ServerName::from(std::net::IpAddr::V4(*ip))),
        Host::Ipv6(ip) => Ok(ServerName::from(std::net::IpAddr::V6(*ip))),
    }
}

/// Builds the call; the id is the same on every attempt, the time and the signatures are not.
fn request(
    target: &Target,
    secrets: &[String],
    message: Message<'_>,
    now: Time,
) -> Result<Request<Full<Bytes>>, Failure> {
    let seconds = now.micros().div_euclid(1_000_000);
    let signatures = signatures(secrets, message.id, seconds, message.body.as_bytes())?;
    Request::post(&target.path)
        .header(HOST, target.authority())
        .header(USER_AGENT, concat!("credit-ledger/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/cloudevents+json")
        .header(HEADER_WEBHOOK_ID, message.id)
        .header(HEADER_WEBHOOK_TIMESTAMP, seconds)
        .header(HEADER_WEBHOOK_SIGNATURE, signatures)
        .body(Full::new(Bytes::from(message.body.to_owned())))
        .map_err(Failure::park)
}

/// Signs with every secret: during a rotation the receiver may know either.
fn signatures(secrets: &[String], id: &str, seconds: i64, body: &[u8]) -> Result<String, Failure> {
    let sign = |secret: &String| Webhook::new(secret)?.sign(id, seconds, body);
    let signatures: Result<Vec<String>, _> = secrets.iter().map(sign).collect();
    // The error of a bad secret names the wrong byte of it, so it must not be logged.
    signatures.map(|all| all.join(" ")).map_err(|_| Failure::park("the webhook's secret can't sign"))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, now: Time) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| Failure::retry(format!("the webhook: {error}"));
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let mut connection = pin!(connection);
    let mut answered = pin!(async move {
        let answer = sender.send_request(request).await.map_err(failed)?;
        Ok(read(answer, now).await)
    });
    let mut is_open = true;
    loop {
        tokio::select! {
            answered = &mut answered => return answered,
            // May end first: the received part is still to be read, and a missing part causes an error there.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

/// A redirect is an answer as any other, and never followed.
async fn read(answer: Response<Incoming>, now: Time) -> Answer {
    let (status, after) = (answer.status(), retry_after(answer.headers(), now));
    let said = if status.is_success() { String::new() } else { reason_in(answer.into_body()).await };
    Answer { status, said, after }
}

async fn reason_in(body: Incoming) -> String {
    match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).chars().take(ANSWER_CHARS_MAX).collect(),
        Err(_) => String::new(),
    }
}

/// Reads the pause that the receiver requests: seconds, or a date.
fn retry_after(headers: &HeaderMap<HeaderValue>, now: Time) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = Time::from_chrono(DateTime::parse_from_rfc2822(text).ok()?.to_utc());
    Some(Duration::from_micros(u64::try_from(date.minus(now)).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    #[test]
    fn while_secrets_change_either_verifies() {
        let secrets = [NEW.to_owned(), OLD.to_owned()];
        let seconds = platform::clock::now().micros() / 1_000_000;
        let signed = signatures(&secrets, "n-1", seconds, b"{}").expect("signed");
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_WEBHOOK_ID, HeaderValue::from_static("n-1"));
        headers.insert(HEADER_WEBHOOK_TIMESTAMP, HeaderValue::from(seconds));
        headers.insert(HEADER_WEBHOOK_SIGNATURE, signed.parse().expect("a header"));
        let verifies =
            |secret: &str, body: &[u8]| Webhook::new(secret).expect("a secret").verify(body, &headers);
        assert!(verifies(OLD, b"{}").is_ok() && verifies(NEW, b"{}").is_ok());
        assert!(verifies(NEW, b"{ }").is_err(), "another body");
        assert!(verifies("whsec_AAAA", b"{}").is_err(), "another secret");
    }

    #[test]
    fn a_receiver_says_when_to_come_again_in_seconds_or_by_date() {
        let now = "2026-02-03T10:00:00Z".parse().expect("a time");
        let check = |text: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a header"));
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        };
        check("120", Some(120));
        check("Tue, 03 Feb 2026 10:01:00 GMT", Some(60));
        check("Tue, 03 Feb 2026 09:00:00 GMT", Some(0));
        check("soon", None);
        check("-5", None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
