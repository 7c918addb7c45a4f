//! Sockets of either kind, TCP or unix; accepting and connecting.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::task::{Context, Poll};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;

use bytes::BytesMut;
use mio::Token;
use sansq_core::nsqd::Peer;
use sansq_runtime::listen::set_options;
use sansq_runtime::runtime;
use sansq_runtime::socket::{ListenSocket, Stream, begin_to_connect};
use smol::Async;
use smol::future::yield_now;
use smol::net::resolve;

use crate::reactor::{Reactor, Readiness};

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
    pub(crate) fn new(stream: Stream, reactor: &Rc<Reactor>) -> io::Result<Self> {
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
    pub(crate) fn into_std(mut self) -> io::Result<Stream> {
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

/// A socket that listens. smol's reactor waits for it: most of a server's threads have none.
#[derive(Debug)]
pub struct Listener(Async<ListenSocket>);

impl Listener {
    pub(crate) fn new(socket: ListenSocket) -> io::Result<Self> {
        Async::new(socket).map(Self)
    }
}

impl runtime::Listener for Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        loop {
            match self.0.get_ref().accept() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.0.readable().await?,
                accepted => {
                    // While more are waiting, this never waits; others must get their turn.
                    yield_now().await;
                    return accepted;
                }
            }
        }
    }
}

/// A connection that was dialled, which smol's reactor waits for.
#[derive(Debug)]
pub struct Dialled(Async<TcpStream>);

impl Dialled {
    /// Connects to the first of the addresses of `host:port` that takes it.
    pub(crate) async fn connect(address: &str, from: Option<IpAddr>) -> io::Result<Self> {
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for candidate in resolve(address).await? {
            result = match from {
                None => Async::<TcpStream>::connect(candidate).await,
                Some(from) if candidate.is_ipv4() == from.is_ipv4() => {
                    connect_from(from, candidate).await
                }
                // One of the other kind of IP cannot be reached from there.
                Some(_) => continue,
            };
            if result.is_ok() {
                break;
            }
        }
        let socket = result?;
        set_options(socket.get_ref());
        Ok(Self(socket))
    }
}

async fn connect_from(local: IpAddr, target: SocketAddr) -> io::Result<Async<TcpStream>> {
    let socket = Async::new(begin_to_connect(target, local)?)?;
    socket.writable().await?;
    match socket.get_ref().take_error()? {
        Some(error) => Err(error),
        None => Ok(socket),
    }
}

impl runtime::Socket for Dialled {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(context)
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_writable(context)
    }

    fn try_read(&self, input: &mut BytesMut) -> io::Result<(usize, bool)> {
        let mut part = [0; PART_LEN];
        let room = PART_LEN.min(input.capacity() - input.len());
        let count = self.0.get_ref().read(&mut part[..room])?;
        input.extend_from_slice(&part[..count]);
        Ok((count, false))
    }

    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_ref().write_vectored(parts)
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        self.0.get_ref().shutdown(Shutdown::Write)
    }
}

/// Bytes that one read of a dialled connection takes at most.
const PART_LEN: usize = 16 * 1024;

/// Whether a read that does not fill its room took all there was, so that the reactor hears of more: so it is with
/// epoll, also if the peer's end of its stream comes with the bytes, which the reactor does not forget.
const SHORT_READ_IS_LAST: bool = cfg!(any(target_os = "linux", target_os = "android"));
