//! How long a connection may keep us waiting: without a request, with half a head, or with an
//! answer that it does not read. Bodies have their own time, where they are read.

use super::Limits;
use axum::body::Body;
use hyper::body::{Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// What a connection is doing. Its socket and its handler share it.
#[derive(Clone, Debug, Default)]
pub struct Phase(Arc<AtomicU8>);

/// Between requests.
const IDLE: u8 = 0;
/// Some of a head has arrived.
const HEAD: u8 = 1;
/// A request is being answered: it is our turn.
const BUSY: u8 = 2;

impl Phase {
    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    /// A whole head has arrived.
    pub fn begin(&self) -> Answered {
        self.set(BUSY);
        Answered(self.clone())
    }
}

/// Held until the last byte of the answer was handed over.
pub struct Answered(Phase);

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.set(IDLE);
    }
}

impl Answered {
    pub fn with(self, body: Body) -> Body {
        Body::new(Watched { body, _answered: self })
    }
}

struct Watched {
    body: Body,
    _answered: Answered,
}

impl hyper::body::Body for Watched {
    type Data = <Body as hyper::body::Body>::Data;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket whose other end must not be too slow.
pub struct Patient {
    socket: TcpStream,
    limits: Arc<Limits>,
    phase: Phase,
    deadline: Pin<Box<Sleep>>,
    /// The phase that the deadline is for.
    armed: Option<u8>,
    /// Since when nothing could be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    pub fn new(socket: TcpStream, limits: Arc<Limits>) -> (Patient, Phase) {
        let phase = Phase::default();
        let deadline = Box::pin(sleep(Duration::ZERO));
        let shared = phase.clone();
        (Patient { socket, limits, phase, deadline, armed: None, stalled: None }, shared)
    }

    /// Nothing to read: ready when that has been so for too long.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let phase = self.phase.get();
        if phase == BUSY {
            self.armed = None;
            return Poll::Pending;
        }
        if self.armed != Some(phase) {
            let config = self.limits.config();
            let within =
                if phase == HEAD { config.header_timeout() } else { config.idle_timeout() };
            self.deadline.as_mut().reset(Instant::now() + within);
            self.armed = Some(phase);
        }
        ready!(self.deadline.as_mut().poll(cx));
        if phase == HEAD {
            super::Refused::Slow.count();
        }
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "nothing came from the client"))
    }

    fn poll_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let idle = || self.limits.config().idle_timeout();
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(idle())));
        ready!(stalled.as_mut().poll(cx));
        super::Refused::Slow.count();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.socket).poll_read(cx, buffer) {
            Poll::Ready(done) => {
                if this.phase.get() == IDLE && buffer.filled().len() > before {
                    this.phase.set(HEAD);
                    this.armed = None;
                }
                Poll::Ready(done)
            }
            Poll::Pending => this.poll_deadline(cx).map(Err),
        }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.poll_stalled(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, parts);
        this.poll_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
