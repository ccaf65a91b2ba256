//! A TLS identity on loopback: a certificate for `localhost` that only clients trust whose `SSL_CERT_FILE` names it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto};

/// A certificate and the server settings that present it.
pub struct Identity {
    pub acceptor: TlsAcceptor,
    folder: TempDir,
}

impl Identity {
    pub fn new() -> Result<Identity> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(|error| anyhow!(error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("trusted.pem"), cert.pem())?;
        Ok(Identity { acceptor: TlsAcceptor::from(Arc::new(config)), folder })
    }

    /// The file that `SSL_CERT_FILE` may name.
    pub fn trusted(&self) -> PathBuf {
        self.folder.path().join("trusted.pem")
    }
}
