//! Accepting and connecting.

use std::io::{self, ErrorKind};
use std::net::TcpStream;

use sansq_core::nsqd::Peer;
use sansq_runtime::Program;
use sansq_runtime::listen::{AcceptPause, set_options};
use sansq_runtime::socket::{ListenSocket, Stream};
use smol::future::yield_now;
use smol::net::{AsyncToSocketAddrs, resolve};
use smol::{Async, Timer};

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
