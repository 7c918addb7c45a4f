//! Sockets of either kind, TCP or unix; accepting and connecting.

use core::fmt;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;

use mio::Token;

use sansq_core::nsqd::Peer;
use sansq_runtime::Program;
use sansq_runtime::listen::{AcceptPause, set_options};
use sansq_runtime::socket::{ListenSocket, Stream};
use smol::future::yield_now;
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::{AsyncToSocketAddrs, resolve};
use smol::{Async, Timer};

use crate::reactor::{Reactor, Readiness};

/// A connection, which its thread's reactor waits for.
pub(crate) struct Socket {
    kind: Kind,
    token: Token,
    readiness: Rc<Readiness>,
    reactor: Rc<Reactor>,
}

enum Kind {
    Tcp(mio::net::TcpStream),
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
    /// Taken out.
    None,
}

/// Calls the same method of whichever socket it is.
macro_rules! either {
    ($this:expr, $socket:ident => $call:expr) => {
        match $this {
            Kind::Tcp($socket) => $call,
            #[cfg(unix)]
            Kind::Unix($socket) => $call,
            Kind::None => Err(ErrorKind::NotConnected.into()),
        }
    };
}

impl Socket {
    /// Has `stream`, which does not block, waited for.
    ///
    /// # Errors
    /// If the operating system has no room for it.
    pub(crate) fn new(stream: Stream, reactor: &Rc<Reactor>) -> io::Result<Self> {
        let mut kind = match stream {
            Stream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Kind::Tcp(mio::net::TcpStream::from_std(stream))
            }
            #[cfg(unix)]
            Stream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Kind::Unix(mio::net::UnixStream::from_std(stream))
            }
        };
        let (token, readiness) = either!(&mut kind, socket => reactor.register(socket))?;
        Ok(Self { kind, token, readiness, reactor: Rc::clone(reactor) })
    }

    /// The socket alone.
    pub(crate) fn into_std(mut self) -> Option<Stream> {
        self.deregister();
        match core::mem::replace(&mut self.kind, Kind::None) {
            Kind::Tcp(socket) => Some(Stream::Tcp(socket.into())),
            #[cfg(unix)]
            Kind::Unix(socket) => Some(Stream::Unix(socket.into())),
            Kind::None => None,
        }
    }

    pub(crate) async fn readable(&self) {
        poll_fn(|context| self.readiness.poll_readable(context)).await;
    }

    pub(crate) async fn writable(&self) {
        poll_fn(|context| self.readiness.poll_writable(context)).await;
    }

    /// Reads what there is; also tells whether that was all. A short read says that the socket is empty, which saves
    /// the system call that would find that out.
    pub(crate) fn try_read(&self, room: &mut [u8]) -> io::Result<(usize, bool)> {
        let result = either!(&self.kind, socket => { let mut socket = socket; socket.read(room) });
        match result {
            Ok(count) => {
                let is_drained = SHORT_READ_IS_LAST && (1..room.len()).contains(&count);
                if is_drained {
                    self.readiness.note_drained();
                }
                Ok((count, is_drained))
            }
            Err(error) => {
                if error.kind() == ErrorKind::WouldBlock {
                    self.readiness.note_empty();
                }
                Err(error)
            }
        }
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.note_written(
            either!(&self.kind, socket => { let mut socket = socket; socket.write(bytes) }),
        )
    }

    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.note_written(
            either!(&self.kind, socket => { let mut socket = socket; socket.write_vectored(slices) }),
        )
    }

    fn note_written(&self, result: io::Result<usize>) -> io::Result<usize> {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.readiness.note_full();
        }
        result
    }

    /// Says that nothing more comes.
    pub(crate) fn shut_down_writing(&self) -> io::Result<()> {
        either!(&self.kind, socket => socket.shutdown(Shutdown::Write))
    }

    fn deregister(&mut self) {
        let reactor = &self.reactor;
        match &mut self.kind {
            Kind::Tcp(socket) => reactor.deregister(socket, self.token),
            #[cfg(unix)]
            Kind::Unix(socket) => reactor.deregister(socket, self.token),
            Kind::None => {}
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.readiness.poll_readable(context));
            match self.try_read(room) {
                Err(error) if is_passing(&error) => {}
                result => return Poll::Ready(result.map(|(count, _)| count)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.readiness.poll_writable(context));
            match self.try_write(bytes) {
                Err(error) if is_passing(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.readiness.poll_writable(context));
            match self.try_write_vectored(slices) {
                Err(error) if is_passing(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down_writing())
    }
}

/// Whether to try again, perhaps after a wait.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.deregister();
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("token", &self.token).finish_non_exhaustive()
    }
}

/// Waits for the next connection and sets its options. A failure is logged and does not end it.
pub(crate) async fn accept(
    listener: &Async<ListenSocket>,
    program: Program,
    name: &str,
) -> (Stream, Peer) {
    let mut pause = AcceptPause::new();
    loop {
        match next(listener).await {
            Ok((stream, peer)) => {
                if let Stream::Tcp(stream) = &stream {
                    set_options(stream);
                }
                // While more are waiting, this never waits; others must get their turn.
                yield_now().await;
                return (stream, peer);
            }
            Err(error) => {
                if let Some(time) = pause.after(&error, program, name) {
                    Timer::after(time).await;
                }
            }
        }
    }
}

async fn next(listener: &Async<ListenSocket>) -> io::Result<(Stream, Peer)> {
    loop {
        match listener.get_ref().accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => listener.readable().await?,
            accepted => return accepted,
        }
    }
}

/// Connects to the first of a host's addresses that takes it.
pub(crate) async fn connect(address: impl AsyncToSocketAddrs) -> io::Result<Async<TcpStream>> {
    let mut result = Err(ErrorKind::AddrNotAvailable.into());
    for candidate in resolve(address).await? {
        result = Async::<TcpStream>::connect(candidate).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Whether a read that does not fill its room took all there was, so that the reactor hears of more: so it is with
/// epoll, also if the peer's end of its stream comes with the bytes, which the reactor does not forget.
const SHORT_READ_IS_LAST: bool = cfg!(any(target_os = "linux", target_os = "android"));
