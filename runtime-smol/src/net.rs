//! Accepting and connecting, with smol's own reactor.

use core::net::{IpAddr, SocketAddr};
use core::task::{Context, Poll};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};

use bytes::BytesMut;
use sansq_core::nsqd::Peer;
use sansq_runtime::listen::set_options;
use sansq_runtime::runtime;
use sansq_runtime::socket::{ListenSocket, Stream, begin_to_connect};
use smol::Async;
use smol::future::yield_now;
use smol::net::resolve;

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
