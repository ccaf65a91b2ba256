//! Caller: one HTTP/1.1 connection that sends one request after the other.
//!
//! It does little besides, so that on a small machine the benchmark measures the server and not a client library.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::environment::KEY;

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

pub struct Caller {
    stream: TcpStream,
    host: String,
    answer: Vec<u8>,
}

impl Caller {
    /// Connects to `http://host:port`.
    pub async fn connect(url: &str) -> Result<Caller> {
        let host = url.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        Ok(Caller { stream, host, answer: Vec::with_capacity(4_096) })
    }

    /// Posts JSON and returns the status.
    pub async fn post(&mut self, path: &str, body: &str) -> Result<u16> {
        let (host, length) = (&self.host, body.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the server closed the connection");
            ensure!(self.answer.len() < ANSWER_BYTES_MAX, "an answer is too long");
            if let Some(status) = self.complete()? {
                return Ok(status);
            }
        }
    }

    /// Returns the last answer, for an error message.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.answer).into_owned()
    }

    /// Returns the status once the whole answer is there.
    fn complete(&self) -> Result<Option<u16>> {
        let Some(head) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&self.answer[..head])?;
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let length = length.context("an answer without content-length")?;
        if self.answer.len() < head + 4 + length {
            return Ok(None);
        }
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.context("an answer without status").map(Some)
    }
}
