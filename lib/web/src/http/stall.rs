//! Closes a connection whose peer does not read its response.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A peer that reads no byte for this long is gone.
pub(super) const STALL_MAX: Duration = Duration::from_secs(30);

/// Forwards everything, and fails a write that has been blocked for too long.
pub(super) struct Stall<C> {
    inner: C,
    stall_max: Duration,
    patience: Pin<Box<Sleep>>,
    stuck: bool,
}

impl<C> Stall<C> {
    pub(super) fn new(inner: C, stall_max: Duration) -> Self {
        Self { inner, stall_max, patience: Box::pin(sleep(stall_max)), stuck: false }
    }

    /// Starts the clock at the first write that blocks, and stops it at the next that does not.
    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = false;
            return written;
        }
        if !self.stuck {
            self.stuck = true;
            let end = Instant::now() + self.stall_max;
            self.patience.as_mut().reset(end);
        }
        ready!(self.patience.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Stall<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Stall<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.judge(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(context);
        self.judge(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (ours, _theirs) = duplex(8);
        let started = Instant::now();
        let failed = Stall::new(ours, SHORT).write_all(&[0; 100]).await.expect_err("stuck");
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn a_slow_peer_is_served_however_long_it_takes() {
        let (ours, mut theirs) = duplex(8);
        let writing = tokio::spawn(async move { Stall::new(ours, SHORT).write_all(&[0; 80]).await });
        let mut bytes = [0; 8];
        for _ in 0..10 {
            sleep(SHORT / 4).await;
            theirs.read_exact(&mut bytes).await.expect("bytes");
        }
        writing.await.expect("ended").expect("written");
    }
}
