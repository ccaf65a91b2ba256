//! Swallow: a TCP proxy that goes silent without closing anything, as a lost host or a forgotten NAT entry does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A proxy in front of one server. While it swallows, every byte is taken and none passed on; a connection that has lost
/// bytes stays silent for good, later ones are served again.
#[derive(Debug)]
pub struct Swallow {
    /// Where clients connect to, as host:port.
    pub address: String,
    swallowing: Arc<AtomicBool>,
}

impl Swallow {
    /// Starts a proxy for a server at host:port.
    pub async fn start(server: &str) -> Result<Swallow> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let swallowing = Arc::new(AtomicBool::new(false));
        let (server, switch) = (server.to_owned(), Arc::clone(&swallowing));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server.clone(), Arc::clone(&switch)));
            }
        });
        Ok(Swallow { address, swallowing })
    }

    /// Starts a proxy for the Postgres of this URL; returns it with the URL that leads through it.
    pub async fn postgres(url: &str) -> Result<(Swallow, String)> {
        let (_, rest) = url.split_once('@').context("a user in the database URL")?;
        let (server, _) = rest.split_once('/').context("a database in the URL")?;
        let proxy = Swallow::start(server).await?;
        let through = url.replace(server, &proxy.address);
        Ok((proxy, through))
    }

    pub fn swallow(&self, on: bool) {
        self.swallowing.store(on, Ordering::SeqCst);
    }
}

async fn relay(mut client: TcpStream, server: String, swallowing: Arc<AtomicBool>) -> Result<()> {
    client.set_nodelay(true)?;
    let mut server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let mut deaf = false;
    loop {
        let (bytes, to) = tokio::select! {
            read = client.read(&mut up) => (&up[..read?], &mut server),
            read = server.read(&mut down) => (&down[..read?], &mut client),
        };
        if bytes.is_empty() {
            return Ok(());
        }
        deaf = deaf || swallowing.load(Ordering::SeqCst);
        if !deaf {
            to.write_all(bytes).await?;
        }
    }
}
