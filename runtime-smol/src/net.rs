//! Listening, accepting, and the texts of what can go wrong with that.

use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};

use sansq_core::log::Level;
use smol::{Async, Timer};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::log::Program;

/// Listens on `host:port`; without a host on every interface.
///
/// # Errors
/// The operating system's reason, in the reference's words around it.
pub(crate) fn listen(address: &str) -> io::Result<TcpListener> {
    let listen = || -> io::Result<TcpListener> {
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for candidate in resolve(address)? {
            result = listen_on(candidate);
            if result.is_ok() {
                break;
            }
        }
        result
    };
    listen().map_err(|error| {
        let text = error_text(&error);
        let text = format!("listen ({address}) failed - listen tcp {address}: bind: {text}");
        io::Error::new(error.kind(), text)
    })
}

fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let Some(port) = address.strip_prefix(':') else {
        return Ok(address.to_socket_addrs()?.collect());
    };
    let port = port.parse().map_err(|_| io::Error::new(ErrorKind::InvalidInput, "invalid port"))?;
    // The first takes IPv4 as well; the second is for hosts without IPv6.
    Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), ([0, 0, 0, 0], port).into()])
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    // A restart takes the port over although connections of the last run are still in TIME_WAIT.
    // Windows would let two live servers share the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Waits for the next connection and sets its options. A failure is logged and does not end it.
pub(crate) async fn accept(
    listener: &Async<TcpListener>,
    program: Program,
    name: &str,
) -> (Async<TcpStream>, SocketAddr) {
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                set_options(&socket);
                return (socket, address);
            }
            // That one connection was gone before it was accepted.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Out of descriptors, most likely: they come back when connections end.
                let text = error_text(&error);
                let line = format_args!("{name}: failed to accept - {text}, again in {pause:?}");
                program.log(Level::Error, line);
                Timer::after(pause).await;
                pause = (2 * pause).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
}

/// Batching is done above TCP, and a peer that vanished is noticed although nothing is sent to it.
fn set_options(socket: &Async<TcpStream>) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    // A socket that refuses them works all the same.
    let _ = socket.get_ref().set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// The error as the reference would put it: no capital, no number.
pub(crate) fn error_text(error: &io::Error) -> String {
    if error.kind() == ErrorKind::TimedOut {
        return String::from("i/o timeout");
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Connections that the kernel completes ahead of `accept`: enough for every client of a restarted
/// broker to come back at once. The kernel has a limit of its own below it.
const BACKLOG: i32 = 4096;

const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// As Go's net package sets it for every connection it accepts.
const KEEPALIVE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let taken = listen("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(&address.to_string()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert_eq!(
            error.to_string(),
            format!(
                "listen ({address}) failed - listen tcp {address}: bind: address already in use"
            )
        );
    }

    #[test]
    fn no_host_is_every_interface() {
        let listener = listen(":0").unwrap();
        assert!(listener.local_addr().unwrap().ip().is_unspecified());
        assert!(listen(":nsq").is_err());
    }
}
