//! Accepting and connecting.

use core::net::SocketAddr;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};

use sansq_runtime::Program;
use sansq_runtime::listen::{AcceptPause, set_options};
use smol::future::yield_now;
use smol::net::{AsyncToSocketAddrs, resolve};
use smol::{Async, Timer};

/// Waits for the next connection and sets its options. A failure is logged and does not end it.
pub(crate) async fn accept(
    listener: &Async<TcpListener>,
    program: Program,
    name: &str,
) -> (Async<TcpStream>, SocketAddr) {
    let mut pause = AcceptPause::new();
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                set_options(&socket);
                // While more are waiting, `accept` never does; others must get their turn.
                yield_now().await;
                return (socket, address);
            }
            Err(error) => {
                if let Some(time) = pause.after(&error, program, name) {
                    Timer::after(time).await;
                }
            }
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
