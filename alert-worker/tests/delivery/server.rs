//! A mail server on loopback: as much of SMTP as a client sees, in the moods that tests need.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

use crate::identity::Identity;

/// Longer than anything here takes.
const WAIT_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Take,
    /// Accepts mails after a delay.
    TakeSlowly,
    /// Answers 451 to the recipient.
    RefuseForNow,
    /// Answers 550 to the recipient.
    RefuseForGood,
    /// Accepts the mail and closes the connection before it confirms.
    HangUpAfterData,
}

#[derive(Debug, Clone)]
pub struct Mail {
    pub from: String,
    pub to: String,
    /// Head and body, as the client wrote them.
    pub data: String,
}

impl Mail {
    /// Returns a header that fits on its line.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = self.data.split("\r\n\r\n").next()?;
        head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

#[derive(Debug)]
struct State {
    mood: Mood,
    mails: Vec<Mail>,
}

/// Stops when dropped.
pub struct MailServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    tls: Option<TlsAcceptor>,
    accepting: Option<JoinHandle<()>>,
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.accepting.iter().for_each(JoinHandle::abort);
    }
}

impl MailServer {
    pub async fn start(mood: Mood) -> Result<MailServer> {
        MailServer::start_as(mood, None).await
    }

    /// Speaks TLS from the first byte.
    pub async fn start_tls(mood: Mood, identity: &Identity) -> Result<MailServer> {
        MailServer::start_as(mood, Some(identity.acceptor.clone())).await
    }

    async fn start_as(mood: Mood, tls: Option<TlsAcceptor>) -> Result<MailServer> {
        let state = Arc::new(Mutex::new(State { mood, mails: Vec::new() }));
        let mut server = MailServer { address: ([127, 0, 0, 1], 0).into(), state, tls, accepting: None };
        server.come_up().await?;
        Ok(server)
    }

    /// Listens, at the address that it had before.
    pub async fn come_up(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.address = listener.local_addr()?;
        let (state, tls) = (Arc::clone(&self.state), self.tls.clone());
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&state), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => converse(tls.accept(stream).await?, state).await,
                        None => converse(stream, state).await,
                    }
                });
            }
        }));
        Ok(())
    }

    pub async fn go_down(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    pub fn feel(&self, mood: Mood) {
        lock(&self.state).mood = mood;
    }

    pub fn mails(&self) -> Vec<Mail> {
        lock(&self.state).mails.clone()
    }

    /// Waits until it has received this many mails.
    pub async fn wait_for(&self, mails: usize) -> Result<Vec<Mail>> {
        let end = Instant::now() + WAIT_MAX;
        while self.mails().len() < mails {
            ensure!(Instant::now() < end, "{} mails came, not {mails}", self.mails().len());
            sleep(Duration::from_millis(10)).await;
        }
        Ok(self.mails())
    }
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn converse(stream: impl Stream, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut from, mut to) = (String::new(), String::new());
    say(&mut stream, "220 mail.test ready").await?;
    loop {
        let line = read_line(&mut stream).await?;
        let mood = lock(&state).mood;
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "" => return Ok(()),
            "EHLO" => "250-mail.test\r\n250-8BITMIME\r\n250 SMTPUTF8",
            "MAIL" => {
                from = address(&line);
                "250 sender taken"
            }
            "RCPT" if mood == Mood::RefuseForNow => "451 try again later",
            "RCPT" if mood == Mood::RefuseForGood => "550 nobody of that name here",
            "RCPT" => {
                to = address(&line);
                "250 recipient taken"
            }
            "DATA" => {
                say(&mut stream, "354 go on").await?;
                let data = read_data(&mut stream).await?;
                if mood == Mood::TakeSlowly {
                    sleep(Duration::from_secs(1)).await;
                }
                lock(&state).mails.push(Mail { from: from.clone(), to: to.clone(), data });
                if mood == Mood::HangUpAfterData {
                    return Ok(());
                }
                "250 queued"
            }
            "RSET" | "NOOP" => "250 ok",
            "QUIT" => return say(&mut stream, "221 bye").await,
            _ => "500 what?",
        };
        say(&mut stream, answer).await?;
    }
}

async fn say(stream: &mut BufReader<impl Stream>, line: &str) -> std::io::Result<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await
}

async fn read_line(stream: &mut BufReader<impl Stream>) -> std::io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads up to the line with a single dot, and undoes the doubling of leading dots.
async fn read_data(stream: &mut BufReader<impl Stream>) -> std::io::Result<String> {
    let mut data = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == ".\r\n" {
            return Ok(data);
        }
        data.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}

/// Returns the text between the angle brackets.
fn address(line: &str) -> String {
    let inside = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inside.map(|(address, _)| address.to_owned()).unwrap_or_default()
}
