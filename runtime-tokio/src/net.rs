//! tokio's sockets.

use core::task::{Context, Poll};
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;

use bytes::BytesMut;
use sansq_core::nsqd::Peer;
use sansq_runtime::runtime;
use sansq_runtime::socket::{ListenSocket, Stream, peer};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A connection.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// On a port.
    Tcp(TcpListener),
    /// On a file.
    Unix(UnixListener),
}

/// Calls the same method of whichever socket it is.
macro_rules! either {
    ($this:expr, $socket:ident => $call:expr) => {
        match $this {
            Self::Tcp($socket) => $call,
            Self::Unix($socket) => $call,
        }
    };
}

impl Socket {
    pub(crate) fn from_std(stream: Stream) -> io::Result<Self> {
        match stream {
            Stream::Tcp(stream) => TcpStream::from_std(stream).map(Self::Tcp),
            Stream::Unix(stream) => UnixStream::from_std(stream).map(Self::Unix),
        }
    }

    pub(crate) fn into_std(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(socket) => socket.into_std().map(Stream::Tcp),
            Self::Unix(socket) => socket.into_std().map(Stream::Unix),
        }
    }
}

impl runtime::Socket for Socket {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => socket.poll_read_ready(context))
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => socket.poll_write_ready(context))
    }

    /// A short read says that the socket is empty; tokio is told, or it would not wait for more.
    /// That is right only while the runtime looks at its sockets on this very thread: what another
    /// thread heard of in between would be forgotten.
    fn try_read(&self, input: &mut BytesMut) -> io::Result<(usize, bool)> {
        let room = input.capacity() - input.len();
        let count = either!(self, socket => socket.try_read_buf(input))?;
        let is_all = SHORT_READ_IS_LAST && count < room;
        if is_all && count > 0 {
            let empty = || Err::<(), _>(ErrorKind::WouldBlock.into());
            let _ = either!(self, socket => socket.try_io(Interest::READABLE, empty));
        }
        Ok((count, is_all))
    }

    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match parts {
            [part] => either!(self, socket => socket.try_write(part)),
            _ => either!(self, socket => socket.try_write_vectored(parts)),
        }
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        either!(self, socket => SockRef::from(socket).shutdown(Shutdown::Write))
    }
}

/// A connection that was dialled, on whatever runtime the program has.
#[derive(Debug)]
pub struct Dialled(pub(crate) TcpStream);

impl runtime::Socket for Dialled {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(context)
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(context)
    }

    fn try_read(&self, input: &mut BytesMut) -> io::Result<(usize, bool)> {
        Ok((self.0.try_read_buf(input)?, false))
    }

    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        SockRef::from(&self.0).shutdown(Shutdown::Write)
    }
}

impl Listener {
    pub(crate) fn from_std(socket: ListenSocket) -> io::Result<Self> {
        match socket {
            ListenSocket::Tcp(socket) => TcpListener::from_std(socket).map(Self::Tcp),
            ListenSocket::Unix(socket) => UnixListener::from_std(socket).map(Self::Unix),
        }
    }
}

impl runtime::Listener for Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                Ok((Stream::Tcp(socket.into_std()?), peer(address)))
            }
            Self::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok((Stream::Unix(socket.into_std()?), Peer::Unix))
            }
        }
    }
}

/// Whether a read that does not fill its room took all there was, so that the reactor hears of
/// more: so it is with epoll.
const SHORT_READ_IS_LAST: bool = cfg!(any(target_os = "linux", target_os = "android"));
