//! Listening, and the texts of what can go wrong with sockets.

use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, ToSocketAddrs};

use sansq_core::log::Level;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::log::Program;

/// A listener that is open and accepts nothing yet.
#[derive(Debug)]
pub struct Listener {
    /// The socket, non-blocking.
    pub socket: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Listener {
    /// Listens on `host:port`; without a host on every interface.
    ///
    /// # Errors
    /// The operating system's reason, in the reference's words around it.
    pub fn open(address: &str) -> io::Result<Self> {
        let socket = listen(address)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }
}

/// Listens on `host:port`; without a host on every interface.
///
/// # Errors
/// The operating system's reason, in the reference's words around it.
fn listen(address: &str) -> io::Result<TcpListener> {
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
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The pauses between tries to accept that fail.
#[derive(Debug)]
pub struct AcceptPause(Duration);

impl AcceptPause {
    /// The first one is short.
    pub const fn new() -> Self {
        Self(ACCEPT_PAUSE_MIN)
    }

    /// How long to leave the listener alone after `error`, which is logged; `None` to go on at once.
    pub fn after(&mut self, error: &io::Error, program: Program, name: &str) -> Option<Duration> {
        // That one connection was gone before it was accepted.
        if error.kind() == ErrorKind::ConnectionAborted {
            return None;
        }
        // Out of descriptors, most likely: they come back when connections end.
        let (pause, text) = (self.0, error_text(error));
        let line = format_args!("{name}: failed to accept - {text}, again in {pause:?}");
        program.log(Level::Error, line);
        self.0 = (2 * pause).min(ACCEPT_PAUSE_MAX);
        Some(pause)
    }
}

impl Default for AcceptPause {
    fn default() -> Self {
        Self::new()
    }
}

/// Batching is done above TCP, and a peer that vanished is noticed although nothing is sent to it.
pub fn set_options<'a>(socket: impl Into<SockRef<'a>>) {
    let socket = socket.into();
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    // A socket that refuses them works all the same.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// The error as the reference would put it: no capital, no number.
pub fn error_text(error: &io::Error) -> String {
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
    fn a_listener_that_fails_is_left_alone_for_longer_each_time() {
        let mut pause = AcceptPause::new();
        let mut after = |kind| pause.after(&io::Error::from(kind), Program::Nsqd, "TCP");
        // A connection that was gone before it was accepted says nothing about the listener.
        assert_eq!(after(ErrorKind::ConnectionAborted), None);
        let pauses = [(); 10].map(|()| after(ErrorKind::OutOfMemory));
        let millis = [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000];
        assert_eq!(pauses, millis.map(|millis| Some(Duration::from_millis(millis))));
    }

    #[test]
    fn no_host_is_every_interface() {
        let listener = listen(":0").unwrap();
        assert!(listener.local_addr().unwrap().ip().is_unspecified());
        assert!(listen(":nsq").is_err());
    }
}
