//! Reads bodies within limits of size, time and memory, and only with an accepted content type.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use ledger_core::request;
use ledger_core::request::json::{self, Refused};
pub use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::problem::Problem;

/// Largest single record, in bytes.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;
/// Largest batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes of all bodies in memory at once; beyond that, requests get a 503.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Longest pause in the middle of a body.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for one whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes unpacked at once.
const UNPACK_BYTES: usize = 16 * 1024;

static BODY_MEMORY: Semaphore = Semaphore::const_new(BODIES_BYTES_MAX);

/// An accepted content type, and its largest body.
#[derive(Debug, Clone, Copy)]
pub struct Accepts {
    /// Media type in lower case, without parameters.
    pub media_type: &'static str,
    /// Largest body, in bytes.
    pub bytes_max: usize,
}

/// A body in memory; it counts against the process's memory for bodies until it is dropped.
#[derive(Debug)]
pub struct Payload {
    /// One of the accepted content types.
    pub media_type: &'static str,
    pub bytes: Bytes,
    _memory: Option<SemaphorePermit<'static>>,
}

impl Payload {
    /// Reads a body: 415 for another content type or none, 413 over its size, 408 if the client stalls.
    pub async fn read(request: Request, accepted: &[Accepts]) -> Result<Self, Problem> {
        let accepts = content_type(request.headers(), accepted)?;
        let coding = Coding::of(request.headers())?;
        refuse_declared_length(request.headers(), accepts.bytes_max)?;
        let payload = read_to_limit(request.into_body(), accepts, CHUNK_TIMEOUT).await?;
        match coding {
            Coding::Identity => Ok(payload),
            Coding::Gzip => {
                let unpacked = spawn_blocking(move || unpack(&payload, accepts));
                unpacked.await.map_err(Problem::internal)?
            }
        }
    }
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    fn of(headers: &HeaderMap) -> Result<Coding, Problem> {
        let Some(coding) = headers.get(header::CONTENT_ENCODING) else { return Ok(Coding::Identity) };
        let is = |name: &[u8]| coding.as_bytes().eq_ignore_ascii_case(name);
        if is(b"identity") {
            return Ok(Coding::Identity);
        }
        if is(b"gzip") || is(b"x-gzip") {
            return Ok(Coding::Gzip);
        }
        Err(Problem::unsupported_media_type("with Content-Encoding gzip or without"))
    }
}

/// Unpacks a body chunk by chunk, so that a small one that would become huge is refused before it does.
fn unpack(packed: &Payload, accepts: Accepts) -> Result<Payload, Problem> {
    let mut reader = MultiGzDecoder::new(&packed.bytes[..]);
    let mut bytes = BytesMut::new();
    let mut memory: Option<SemaphorePermit<'static>> = None;
    let mut chunk = vec![0; UNPACK_BYTES];
    loop {
        let read = reader.read(&mut chunk).map_err(|_| Problem::bad_request("the body is not gzip"))?;
        if read == 0 {
            return Ok(Payload { media_type: accepts.media_type, bytes: bytes.freeze(), _memory: memory });
        }
        if bytes.len() + read > accepts.bytes_max {
            return Err(Problem::too_large(accepts.bytes_max));
        }
        claim(&mut memory, read)?;
        bytes.extend_from_slice(&chunk[..read]);
    }
}

fn content_type(headers: &HeaderMap, accepted: &[Accepts]) -> Result<Accepts, Problem> {
    let named = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|media_type| media_type.trim().to_ascii_lowercase());
    let found = accepted.iter().find(|accepts| Some(accepts.media_type) == named.as_deref());
    match found {
        Some(accepts) => Ok(*accepts),
        None => {
            let types: Vec<_> = accepted.iter().map(|accepts| accepts.media_type).collect();
            Err(Problem::unsupported_media_type(&types.join(" or ")))
        }
    }
}

/// Refuses a body by its declared length, before reading a byte.
fn refuse_declared_length(headers: &HeaderMap, bytes_max: usize) -> Result<(), Problem> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    match declared {
        Some(bytes) if bytes > bytes_max as u64 => Err(Problem::too_large(bytes_max)),
        _ => Ok(()),
    }
}

async fn read_to_limit(mut body: Body, accepts: Accepts, silence_max: Duration) -> Result<Payload, Problem> {
    let end = Instant::now() + BODY_TIMEOUT;
    let mut bytes = BytesMut::new();
    let mut memory: Option<SemaphorePermit<'static>> = None;
    loop {
        let patience = end.min(Instant::now() + silence_max);
        let Some(frame) = timeout_at(patience, body.frame()).await.map_err(|_| stalled())? else {
            break;
        };
        let frame = frame.map_err(|_| Problem::bad_request("the body broke off"))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if bytes.len() + chunk.len() > accepts.bytes_max {
            return Err(Problem::too_large(accepts.bytes_max));
        }
        claim(&mut memory, chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(Payload { media_type: accepts.media_type, bytes: bytes.freeze(), _memory: memory })
}

/// Reserves memory as it is filled, so that a declared length alone reserves nothing.
fn claim(memory: &mut Option<SemaphorePermit<'static>>, bytes: usize) -> Result<(), Problem> {
    let bytes = u32::try_from(bytes).map_err(|_| Problem::too_large(BATCH_BYTES_MAX))?;
    let more = BODY_MEMORY
        .try_acquire_many(bytes)
        .map_err(|_| Problem::unavailable("too many large bodies at once"))?;
    match memory {
        Some(held) => held.merge(more),
        None => *memory = Some(more),
    }
    Ok(())
}

fn stalled() -> Problem {
    let detail = "the body did not come in time";
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
}

/// Reads JSON: 400 if it is not JSON, 422 if it nests too deeply or repeats a name.
pub fn json_value(bytes: &[u8]) -> Result<Value, Problem> {
    json::read(bytes).map_err(|refused| match refused {
        Refused::NotJson(reason) => Problem::not_json(format!("the body is not JSON: {reason}")),
        Refused::Fields(errors) => Problem::invalid(errors),
    })
}

/// Reads a body of one record, strictly. Errors: every bad field.
pub async fn read_body<T: request::Body>(request: Request) -> Result<T, Problem> {
    let value = read_json(request, RECORD_BYTES_MAX).await?;
    request::read(value).map_err(Problem::invalid)
}

/// Reads a JSON body of at most `bytes_max` bytes.
pub async fn read_json(request: Request, bytes_max: usize) -> Result<Value, Problem> {
    let accepted = Accepts { media_type: "application/json", bytes_max };
    let payload = Payload::read(request, &[accepted]).await?;
    json_value(&payload.bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::http::Request;
    use ledger_core::event::Grant;

    use super::*;

    fn request(content_type: Option<&str>, body: impl Into<Body>) -> Request<Body> {
        let mut request = Request::new(body.into());
        if let Some(content_type) = content_type {
            let value = content_type.parse().expect("a header");
            request.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        request
    }

    async fn check(content_type: Option<&str>, body: impl Into<Body>, expected: (u16, &str)) {
        let refused = read_body::<Grant>(request(content_type, body)).await.map(|_| ()).expect_err("refused");
        assert_eq!((refused.status.as_u16(), refused.code), expected);
    }

    const JSON: Option<&str> = Some("application/json");

    #[tokio::test]
    async fn a_body_of_another_type_or_of_none_is_refused() {
        let grant = r#"{"grant_id":"g1","source":"promo","amount":"5"}"#;
        check(None, grant, (415, "unsupported_media_type")).await;
        check(Some("text/plain"), grant, (415, "unsupported_media_type")).await;
        let mut packed = request(JSON, grant);
        packed.headers_mut().insert(header::CONTENT_ENCODING, "br".parse().expect("a header"));
        let refused = read_body::<Grant>(packed).await.map(|_| ()).expect_err("refused");
        assert_eq!(refused.status, 415);
    }

    fn gzipped(bytes: &[u8]) -> Request<Body> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(bytes).expect("packed");
        let mut request = request(JSON, packer.finish().expect("packed"));
        request.headers_mut().insert(header::CONTENT_ENCODING, "gzip".parse().expect("a header"));
        request
    }

    #[tokio::test]
    async fn a_gzipped_body_is_unpacked_up_to_the_size_of_any_other() {
        let grant = br#"{"grant_id":"g1","source":"promo","amount":"5"}"#;
        let read = read_body::<Grant>(gzipped(grant)).await.expect("read");
        assert_eq!(read.grant_id.as_str(), "g1");
        let bomb = read_body::<Grant>(gzipped(&vec![b' '; 32 * 1024 * 1024])).await.expect_err("refused");
        assert_eq!((bomb.status.as_u16(), bomb.code), (413, "too_large"));
        let mut broken = gzipped(grant);
        *broken.body_mut() = Body::from("no gzip");
        let refused = read_body::<Grant>(broken).await.expect_err("refused");
        assert_eq!((refused.status.as_u16(), refused.code), (400, "bad_request"));
    }

    #[tokio::test]
    async fn a_content_type_may_have_parameters_and_capitals() {
        let grant = r#"{"grant_id":"g1","source":"promo","amount":"5"}"#;
        let request = request(Some("Application/JSON; charset=utf-8"), grant);
        let read = read_body::<Grant>(request).await.expect("read");
        assert_eq!(read.grant_id.as_str(), "g1");
    }

    #[tokio::test]
    async fn a_body_that_is_no_json_is_400_and_one_with_bad_fields_422() {
        check(JSON, "", (400, "not_json")).await;
        check(JSON, "{", (400, "not_json")).await;
        check(JSON, &b"\xff\xfe"[..], (400, "not_json")).await;
        check(JSON, "[]", (422, "invalid")).await;
        check(JSON, r#"{"grant_id":"g1"}"#, (422, "invalid")).await;
        check(JSON, "[[[[[[[[[[1]]]]]]]]]]", (422, "invalid")).await;
        check(JSON, r#"{"grant_id":"g1","source":"promo","amount":"5","amount":"500"}"#, (422, "invalid"))
            .await;
    }

    #[tokio::test]
    async fn a_body_over_its_size_is_refused_announced_or_not() {
        check(JSON, vec![b' '; RECORD_BYTES_MAX + 1], (413, "too_large")).await;
        let chunks = (0..70).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1024])));
        let unannounced = Body::from_stream(futures::stream::iter(chunks));
        check(JSON, unannounced, (413, "too_large")).await;
    }

    #[tokio::test]
    async fn a_client_that_stalls_is_let_go() {
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let record = Accepts { media_type: "application/json", bytes_max: 1 };
        let refused = read_to_limit(silent, record, Duration::from_millis(50)).await.expect_err("refused");
        assert_eq!((refused.status.as_u16(), refused.code), (408, "request_timeout"));
    }

    #[tokio::test]
    async fn memory_of_bodies_is_given_back() {
        let before = BODY_MEMORY.available_permits();
        let record = Accepts { media_type: "application/json", bytes_max: BATCH_BYTES_MAX };
        let body = vec![b' '; 1024 * 1024];
        let payload = Payload::read(request(JSON, body), &[record]).await.expect("read");
        assert_eq!(payload.bytes.len(), 1024 * 1024);
        assert!(BODY_MEMORY.available_permits() <= before - 1024 * 1024 + 200 * 1024);
    }
}
