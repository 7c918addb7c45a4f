//! Sockets of either kind, TCP or unix, as the standard library has them.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sansq_core::nsqd::Peer;
use socket2::{Domain, Socket, Type};

/// Where a server listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The file of a unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The IP address and port, unless it is a unix socket.
    pub const fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The port, unless it is a unix socket.
    pub fn port(&self) -> Option<u16> {
        self.socket_addr().map(|address| address.port())
    }

    /// The file, if it is a unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// A socket that listens.
#[derive(Debug)]
pub enum ListenSocket {
    /// On a port.
    Tcp(TcpListener),
    /// On a file.
    Unix(UnixListener),
}

/// Calls the same method of whichever socket it is.
macro_rules! either {
    ($this:expr, $kind:ident, $socket:ident => $call:expr) => {
        match $this {
            $kind::Tcp($socket) => $call,
            $kind::Unix($socket) => $call,
        }
    };
}

impl Stream {
    /// Ends one direction, or both.
    ///
    /// # Errors
    /// The operating system's reason.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        either!(self, Self, socket => socket.shutdown(how))
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, Stream, socket => { let mut socket = socket; socket.read(buffer) })
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, Stream, socket => { let mut socket = socket; socket.write(bytes) })
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, Stream, socket => { let mut socket = socket; socket.write_vectored(slices) })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ListenSocket {
    /// Takes the next connection, with its peer.
    ///
    /// # Errors
    /// The operating system's reason, also that there is none now.
    pub fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept()?;
                Ok((Stream::Tcp(stream), peer(address)))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                Ok((Stream::Unix(stream), Peer::Unix))
            }
        }
    }
}

/// Begins to connect from `local` to `target`. The socket does not block; when it can be written
/// to, it is connected, or has an error to take.
///
/// # Errors
/// The operating system's reason; most come later.
pub fn begin_to_connect(target: SocketAddr, local: IpAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// The peer at `address`. A socket that listens for both kinds of IP shows IPv4 addresses within
/// IPv6.
pub const fn peer(address: SocketAddr) -> Peer {
    Peer::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, Self, socket => socket.as_fd())
    }
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, Self, socket => socket.as_fd())
    }
}
