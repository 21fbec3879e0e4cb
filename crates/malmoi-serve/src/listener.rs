//! Connections that cannot be held open by saying nothing, or by saying it very slowly.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

/// A TCP listener with a bound on open connections and on the time that the head of a request may take.
#[derive(Debug)]
pub struct BoundedListener {
    inner: TcpListener,
    places: Arc<Semaphore>,
    head_time: Duration,
}

impl BoundedListener {
    /// Wraps a listener.
    pub fn new(inner: TcpListener, connections: usize, head_time: Duration) -> Self {
        Self {
            inner,
            places: Arc::new(Semaphore::new(connections.max(1))),
            head_time,
        }
    }
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // Beyond the bound, connections wait in the system's queue.
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.expect("never closed");
        let (stream, address) = Listener::accept(&mut self.inner).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        (
            Connection::new(stream, self.head_time, Some(place)),
            address,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// The address of the client.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub SocketAddr);

impl Connected<IncomingStream<'_, BoundedListener>> for Client {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A head is expected; so many bytes of its end `\r\n\r\n` have been seen.
    Head(usize),
    /// A body is read (which has a deadline of its own) or an answer is worked on.
    Busy,
}

/// A connection with a deadline on the head of each request.
#[derive(Debug)]
pub struct Connection {
    inner: TcpStream,
    head_time: Duration,
    phase: Phase,
    deadline: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn new(inner: TcpStream, head_time: Duration, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            inner,
            head_time,
            phase: Phase::Head(0),
            deadline: Box::pin(sleep_until(Instant::now() + head_time)),
            _place: place,
        }
    }

    fn seen(&mut self, bytes: &[u8]) {
        if let Phase::Head(matched) = self.phase {
            self.phase = after(matched, bytes);
        }
    }

    /// What was written belongs to an answer: the next head is due from now on.
    fn answered(&mut self) {
        self.phase = Phase::Head(0);
        let due = Instant::now() + self.head_time;
        self.deadline.as_mut().reset(due);
    }
}

/// How much of the end of a head has been seen after more bytes.
fn after(mut matched: usize, bytes: &[u8]) -> Phase {
    const END: &[u8; 4] = b"\r\n\r\n";
    for &byte in bytes {
        matched = match byte {
            byte if byte == END[matched] => matched + 1,
            b'\r' => 1,
            _ => 0,
        };
        if matched == END.len() {
            return Phase::Busy;
        }
    }
    Phase::Head(matched)
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if read.is_ready() {
            self.seen(&buffer.filled()[before..]);
        }
        // A trickle of bytes does not move the deadline.
        if matches!(self.phase, Phase::Head(_)) && self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if written.is_ready() {
            self.answered();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        if written.is_ready() {
            self.answered();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_across_pieces() {
        assert_eq!(after(0, b"GET / HTTP/1.1\r\nhost: a\r\n"), Phase::Head(2));
        assert_eq!(after(2, b"\r"), Phase::Head(3));
        assert_eq!(after(3, b"\nbody"), Phase::Busy);
        assert_eq!(after(0, b"\r\r\n\r\n"), Phase::Busy);
        assert_eq!(after(0, b"\r\n\rx"), Phase::Head(0));
    }
}
