//! Calls a payment provider's HTTP API, each call by a connection of its own.

use std::pin::pin;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use url::{Url, form_urlencoded};

use crate::config::SettingError;
use crate::provider::CALL_TIME_MAX;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Calls one API.
#[derive(Clone)]
pub(crate) struct Client {
    base: Url,
    authorization: String,
    tls: TlsConnector,
}

/// What the API answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Client {
    /// Trusts the certificate authorities that this machine trusts.
    pub fn new(base: &str, key: &str) -> Result<Client, SettingError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| SettingError::Tls(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client {
            base: Url::parse(base).map_err(|error| SettingError::BadUrl(error.to_string()))?,
            authorization: format!("Bearer {key}"),
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Sends a form, under an idempotency key where there is one. Errors: nobody knows what came of it.
    pub async fn post(
        &self,
        path: &str,
        key: Option<&str>,
        form: &[(&str, String)],
    ) -> Result<Answer, String> {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.call(Method::POST, path, key, form).await
    }

    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Answer, String> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        self.call(Method::GET, &path, None, String::new()).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        form: String,
    ) -> Result<Answer, String> {
        let exchange = self.exchange(method, path, key, form);
        timeout(CALL_TIME_MAX, exchange).await.map_err(|_| "no answer in time".to_owned())?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        form: String,
    ) -> Result<Answer, String> {
        let host = self.base.host_str().ok_or("the provider's address names no host")?.to_owned();
        let port = self.base.port_or_known_default().ok_or("the provider's address names no port")?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &host)
            .header(USER_AGENT, concat!("credit-ledger/", env!("CARGO_PKG_VERSION")))
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        let request = request.body(Full::new(Bytes::from(form))).map_err(|error| error.to_string())?;
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| error.to_string())?;
        if self.base.scheme() != "https" {
            return send(stream, request).await;
        }
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| error.to_string())?;
        send(stream, request).await
    }
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let mut connection = pin!(connection);
    let mut answered = pin!(async move {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        let body = serde_json::from_slice(&body).map_err(|error| format!("status {status}: {error}"))?;
        Ok(Answer { status, body })
    });
    let mut is_open = true;
    loop {
        tokio::select! {
            answered = &mut answered => return answered,
            // May end first: what it has received is still to be read, and what it has not is an error there.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}
