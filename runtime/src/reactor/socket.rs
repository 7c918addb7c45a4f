//! A client's connection, TCP or unix, which its thread's reactor waits for.

use core::fmt;
use core::task::{Context, Poll};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;

use bytes::BytesMut;
use mio::Token;

use super::{Reactor, Readiness};
use crate::runtime;
use crate::socket::Stream;

/// A connection, which its thread's reactor waits for.
pub struct Socket {
    kind: Kind,
    token: Token,
    readiness: Rc<Readiness>,
    reactor: Rc<Reactor>,
}

enum Kind {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
    /// Taken out.
    None,
}

/// Calls the same method of whichever socket it is.
macro_rules! either {
    ($this:expr, $socket:ident => $call:expr) => {
        match $this {
            Kind::Tcp($socket) => $call,
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
    pub fn new(stream: Stream, reactor: &Rc<Reactor>) -> io::Result<Self> {
        let mut kind = match stream {
            Stream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Kind::Tcp(mio::net::TcpStream::from_std(stream))
            }
            Stream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Kind::Unix(mio::net::UnixStream::from_std(stream))
            }
        };
        let (token, readiness) = either!(&mut kind, socket => reactor.register(socket))?;
        Ok(Self { kind, token, readiness, reactor: Rc::clone(reactor) })
    }

    /// The socket alone.
    pub fn into_std(mut self) -> io::Result<Stream> {
        self.deregister();
        match core::mem::replace(&mut self.kind, Kind::None) {
            Kind::Tcp(socket) => Ok(Stream::Tcp(socket.into())),
            Kind::Unix(socket) => Ok(Stream::Unix(socket.into())),
            Kind::None => Err(ErrorKind::NotConnected.into()),
        }
    }

    fn deregister(&mut self) {
        let reactor = &self.reactor;
        match &mut self.kind {
            Kind::Tcp(socket) => reactor.deregister(socket, self.token),
            Kind::Unix(socket) => reactor.deregister(socket, self.token),
            Kind::None => {}
        }
    }
}

impl runtime::Socket for Socket {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.readiness.poll_readable(context).map(Ok)
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.readiness.poll_writable(context).map(Ok)
    }

    /// A short read says that the socket is empty.
    fn try_read(&self, input: &mut BytesMut) -> io::Result<(usize, bool)> {
        let room = input.capacity() - input.len();
        // Room that was never written to can be read into only by unsafe code; so it takes a copy.
        let result: io::Result<_> = self.reactor.with_scratch(room, |scratch| {
            let count =
                either!(&self.kind, socket => { let mut socket = socket; socket.read(scratch) })?;
            input.extend_from_slice(&scratch[..count]);
            Ok((count, SHORT_READ_IS_LAST && (1..scratch.len()).contains(&count)))
        });
        match &result {
            Ok((_, true)) => self.readiness.note_drained(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readiness.note_empty(),
            _ => {}
        }
        result
    }

    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let result = either!(&self.kind, socket => {
            let mut socket = socket;
            match parts {
                [part] => socket.write(part),
                _ => socket.write_vectored(parts),
            }
        });
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.readiness.note_full();
        }
        result
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        either!(&self.kind, socket => socket.shutdown(Shutdown::Write))
    }
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

/// Whether a read that does not fill its room took all there was, so that the reactor hears of
/// more: so it is with epoll, also if the peer's end of its stream comes with the bytes, which the
/// reactor does not forget.
const SHORT_READ_IS_LAST: bool = cfg!(any(target_os = "linux", target_os = "android"));
