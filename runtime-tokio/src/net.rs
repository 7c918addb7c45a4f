//! Sockets of either kind, TCP or unix, and accepting.

use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;

use bytes::BytesMut;
use sansq_core::nsqd::Peer;
use sansq_runtime::Program;
use sansq_runtime::listen::{AcceptPause, set_options};
use sansq_runtime::socket::{ListenSocket, Stream, peer};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

/// A connection.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// Calls the same method of whichever socket it is.
macro_rules! either {
    ($this:expr, $socket:ident => $call:expr) => {
        match $this {
            Self::Tcp($socket) => $call,
            #[cfg(unix)]
            Self::Unix($socket) => $call,
        }
    };
}

impl Socket {
    pub(crate) fn from_std(stream: Stream) -> io::Result<Self> {
        match stream {
            Stream::Tcp(stream) => TcpStream::from_std(stream).map(Self::Tcp),
            #[cfg(unix)]
            Stream::Unix(stream) => UnixStream::from_std(stream).map(Self::Unix),
        }
    }

    pub(crate) fn into_std(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(socket) => socket.into_std().map(Stream::Tcp),
            #[cfg(unix)]
            Self::Unix(socket) => socket.into_std().map(Stream::Unix),
        }
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        either!(self, socket => socket.readable().await)
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        either!(self, socket => socket.writable().await)
    }

    pub(crate) fn try_read_buf(&self, input: &mut BytesMut) -> io::Result<usize> {
        either!(self, socket => socket.try_read_buf(input))
    }

    /// Has the next [`readable`](Self::readable) wait although tokio does not know that the socket is empty.
    pub(crate) fn note_empty(&self) {
        let empty = || Err::<(), _>(ErrorKind::WouldBlock.into());
        let _ = either!(self, socket => socket.try_io(Interest::READABLE, empty));
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, socket => socket.try_write(bytes))
    }

    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, socket => socket.try_write_vectored(slices))
    }

    /// Says that nothing more comes.
    pub(crate) fn shut_down_writing(&self) -> io::Result<()> {
        either!(self, socket => SockRef::from(socket).shutdown(Shutdown::Write))
    }
}

impl Listener {
    pub(crate) fn from_std(socket: ListenSocket) -> io::Result<Self> {
        match socket {
            ListenSocket::Tcp(socket) => TcpListener::from_std(socket).map(Self::Tcp),
            #[cfg(unix)]
            ListenSocket::Unix(socket) => UnixListener::from_std(socket).map(Self::Unix),
        }
    }

    async fn next(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                set_options(&socket);
                Ok((Socket::Tcp(socket), peer(address)))
            }
            #[cfg(unix)]
            Self::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok((Socket::Unix(socket), Peer::Unix))
            }
        }
    }

    /// Waits for the next connection and sets its options. A failure is logged and does not end it.
    pub(crate) async fn accept(&self, program: Program, name: &str) -> (Socket, Peer) {
        let mut pause = AcceptPause::new();
        loop {
            match self.next().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    if let Some(time) = pause.after(&error, program, name) {
                        sleep(time).await;
                    }
                }
            }
        }
    }
}
