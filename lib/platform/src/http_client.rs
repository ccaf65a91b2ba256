//! HTTP clients: trust the certificate authorities of this machine, use ring for TLS, and follow no redirects.

use std::sync::{Arc, LazyLock};

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// Loaded once: a machine has about 150 authorities.
static TLS: LazyLock<ClientConfig> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let mut config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
});

/// Starts a client; ignores proxies in the environment.
///
/// Every client of the workspace starts here: reqwest is built without a crypto provider of its own, and panics
/// without one.
pub fn builder() -> ClientBuilder {
    Client::builder().tls_backend_preconfigured(TLS.clone()).redirect(Policy::none()).no_proxy()
}

/// Builds a client without limits of its own.
pub fn plain() -> Client {
    builder().build().expect("a client without settings of the caller's can be built")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_encrypts_without_a_provider_of_the_process() {
        // Nothing listens on port 1: the client gets as far as the connection.
        let refused = plain().get("https://127.0.0.1:1/").send().await.expect_err("nobody listens");
        assert!(refused.is_connect(), "{refused:?}");
    }
}
