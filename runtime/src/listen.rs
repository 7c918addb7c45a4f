//! Listening, and the texts of what can go wrong with sockets.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use sansq_core::log::Level;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::log::Program;
use crate::socket::{Address, ListenSocket};

/// A listener that is open and accepts nothing yet.
#[derive(Debug)]
pub struct Listener {
    /// The socket, non-blocking.
    pub socket: ListenSocket,
    /// Where it listens.
    pub address: Address,
    /// The file of a unix socket, which goes when this is dropped.
    pub file: Option<SocketFile>,
}

impl Listener {
    /// Listens for `what` on `host:port`, without a host on every interface; or on the unix socket
    /// at a path (nsqd-protocol.md section 1), which is what has no port and looks like a path.
    ///
    /// # Errors
    /// A [`ListenError`].
    pub fn open(what: Listens, address: &str) -> io::Result<Self> {
        match kind(address) {
            AddressKind::Path => Self::open_unix(what, address),
            AddressKind::Port => Self::open_tcp(what, address),
            AddressKind::Neither => Err(ListenError::neither(what, address, true)),
        }
    }

    /// Listens on `host:port`; without a host on every interface.
    ///
    /// # Errors
    /// A [`ListenError`].
    pub fn open_tcp(what: Listens, address: &str) -> io::Result<Self> {
        if kind(address) != AddressKind::Port {
            return Err(ListenError::neither(what, address, false));
        }
        let socket = listen(address).map_err(|error| refused(what, address, "tcp", &error))?;
        let address = Address::Tcp(socket.local_addr()?);
        Ok(Self { socket: ListenSocket::Tcp(socket), address, file: None })
    }

    fn open_unix(what: Listens, path: &str) -> io::Result<Self> {
        let (socket, file) = SocketFile::listen(path.as_ref())
            .map_err(|error| refused(what, path, "unix", &error))?;
        let socket = ListenSocket::Unix(socket);
        Ok(Self { socket, address: Address::Unix(path.into()), file: Some(file) })
    }
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listens {
    /// nsqd's clients.
    Clients,
    /// nsqd's HTTP API.
    Http,
    /// nsqd's HTTP API over TLS.
    Https,
    /// nsqds, at nsqlookupd.
    Nsqds,
    /// nsqlookupd's HTTP API.
    LookupHttp,
}

impl Listens {
    /// NSQ's port for it.
    pub const fn port(self) -> u16 {
        match self {
            Self::Clients => 4150,
            Self::Http => 4151,
            Self::Https => 4152,
            Self::Nsqds => 4160,
            Self::LookupHttp => 4161,
        }
    }
}

/// An address can't be listened on.
#[derive(Debug)]
pub struct ListenError {
    /// What the listener was to be for.
    pub what: Listens,
    /// What the operating system's reason means here, if that is not plain.
    pub help: Option<&'static str>,
    /// What is wrong, in the reference's words around the operating system's reason.
    text: String,
}

impl ListenError {
    /// The error for an address of neither form, with what may have been meant.
    fn neither(what: Listens, address: &str, may_be_path: bool) -> io::Error {
        let meant = with_port(address, what.port());
        let mut text =
            format!("listen ({address}) failed - it has to be host:port, such as {meant}");
        if may_be_path {
            let path = if address.is_empty() { "nsqd.sock" } else { address };
            text += &format!(", or the path of a unix socket, with a slash, such as ./{path}");
        }
        io::Error::new(ErrorKind::InvalidInput, Self { what, help: None, text })
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl core::error::Error for ListenError {}

/// What an address without a port may have been meant to be.
fn with_port(address: &str, port: u16) -> String {
    if let Ok(port) = address.parse::<u16>() {
        return format!(":{port}");
    }
    let host = address.trim_start_matches('[').split(']').next().unwrap_or_default();
    if let Ok(ip) = host.parse::<Ipv6Addr>() {
        return format!("[{ip}]:{port}");
    }
    let host = host.trim_end_matches(':');
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    // What is no name either is left out: what is suggested has to work.
    if host.chars().all(is_name) { format!("{host}:{port}") } else { format!(":{port}") }
}

/// What an address says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AddressKind {
    /// The path of a unix socket.
    Path,
    /// A host and a port.
    Port,
    Neither,
}

/// By Go's rules whatever has no host and port is a path; most often that is a port forgotten, so
/// that here it has to look like a path too.
fn kind(address: &str) -> AddressKind {
    let has_port = match address.strip_prefix('[') {
        Some(rest) => rest.split_once(']').is_some_and(|(host, port)| {
            !host.contains('[')
                && port.starts_with(':')
                && port.matches([':', '[', ']']).count() == 1
        }),
        None => address.matches(':').count() == 1 && !address.contains(['[', ']']),
    };
    if has_port {
        AddressKind::Port
    } else if address.contains(std::path::is_separator) || address.ends_with(".sock") {
        AddressKind::Path
    } else {
        AddressKind::Neither
    }
}

fn refused(what: Listens, address: &str, network: &str, error: &io::Error) -> io::Error {
    let reason = error_text(error);
    let text = format!("listen ({address}) failed - listen {network} {address}: bind: {reason}");
    io::Error::new(error.kind(), ListenError { what, help: help(error.kind(), network), text })
}

/// What the operating system's reason means here.
fn help(reason: ErrorKind, network: &str) -> Option<&'static str> {
    Some(match (reason, network) {
        (ErrorKind::AddrInUse, "tcp") => "another program has this port",
        (ErrorKind::AddrInUse, _) => "there is another server or file at this path",
        (ErrorKind::AddrNotAvailable, _) => "no interface of this host has this address",
        (ErrorKind::NotFound, "unix") => "its folder has to exist",
        (ErrorKind::PermissionDenied, "tcp") => "ports below 1024 need a permission",
        (ErrorKind::PermissionDenied, _) => "its folder has to be writable",
        _ => return None,
    })
}

/// The file of a unix socket. It is removed when this is dropped, if it is still the same.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number.
    id: (u64, u64),
}

impl SocketFile {
    /// Listens at `path`, with the permissions that the process's umask leaves. A socket that a
    /// dead server left there is replaced: nobody answers at it.
    fn listen(path: &Path) -> io::Result<(UnixListener, Self)> {
        let socket = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path) => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        // The standard library asks for a backlog of 128.
        SockRef::from(&socket).listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let id = file_id(path)?;
        Ok((socket, Self { path: path.into(), id }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if file_id(&self.path).is_ok_and(|id| id == self.id) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Whether there is a socket at `path` that nobody listens on.
fn is_stale(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn listen(address: &str) -> io::Result<TcpListener> {
    let mut result = Err(ErrorKind::AddrNotAvailable.into());
    for candidate in resolve(address)? {
        result = listen_on(candidate);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let everywhere = |port: &str| -> io::Result<Vec<SocketAddr>> {
        let invalid = |_| io::Error::new(ErrorKind::InvalidInput, "invalid port");
        let port = port.parse().map_err(invalid)?;
        // The first takes IPv4 as well; the second is for hosts without IPv6.
        Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()])
    };
    // In Go, "every IPv4 interface" is every interface, too.
    match address.strip_prefix(':').or_else(|| address.strip_prefix("0.0.0.0:")) {
        Some(port) => everywhere(port),
        None => Ok(address.to_socket_addrs()?.collect()),
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    // A restart takes the port over although connections of the last run are still in TIME_WAIT.
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

    /// How long to leave the listener alone after `error`, which is logged; `None` to go on at
    /// once.
    pub fn after(&mut self, error: &io::Error, program: Program, name: &str) -> Option<Duration> {
        // That one connection was gone before it was accepted.
        if error.kind() == ErrorKind::ConnectionAborted {
            return None;
        }
        // Out of descriptors, most likely: they come back when connections end.
        let (pause, text) = (self.0, error_text(error));
        program.log(
            Level::Error,
            format_args!("{name}: failed to accept - {text}, again in {pause:?}"),
        );
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
        let error = Listener::open(Listens::Http, &address.to_string()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert_eq!(
            error.to_string(),
            format!(
                "listen ({address}) failed - listen tcp {address}: bind: address already in use"
            )
        );
        let error = error.get_ref().unwrap().downcast_ref::<ListenError>().unwrap();
        let help = Some("another program has this port");
        assert_eq!((error.what, error.help), (Listens::Http, help));
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
        for address in [":0", "0.0.0.0:0"] {
            let listener = listen(address).unwrap();
            assert!(listener.local_addr().unwrap().ip().is_unspecified());
        }
        assert!(listen(":nsq").is_err());
    }

    #[test]
    fn what_has_no_port_is_a_path_if_it_looks_like_one() {
        use AddressKind::{Neither, Path, Port};
        for (address, expected) in [
            ("127.0.0.1:4150", Port),
            (":0", Port),
            ("host:", Port),
            ("[::1]:4150", Port),
            ("/run/a:b", Port),
            ("/run/nsqd.sock", Path),
            ("./nsqd", Path),
            ("nsqd.sock", Path),
            ("/run/a:b:c", Path),
            ("localhost", Neither),
            ("4150", Neither),
            ("::1", Neither),
            ("a:b:c", Neither),
            ("[::1]", Neither),
            ("[::1]4150", Neither),
            ("", Neither),
        ] {
            assert_eq!(kind(address), expected, "{address}");
        }
    }

    #[test]
    fn an_address_without_a_port_is_refused_with_what_may_be_meant() {
        for (address, meant) in [
            (
                "localhost",
                "localhost:4150, or the path of a unix socket, with a slash, such as ./localhost",
            ),
            ("4150", ":4150, or the path"),
            ("::1", "[::1]:4150, or"),
            ("[::1", "[::1]:4150, or"),
            ("[::1]", "[::1]:4150, or"),
            ("[::1]4150", "[::1]:4150, or"),
            ("[::", "[::]:4150, or"),
            ("::1]:4150", "[::1]:4150, or"),
            ("[localhost", "localhost:4150, or"),
            ("[localhost]", "localhost:4150, or"),
            ("a:b:c", ":4150, or"),
            ("[a[b", ":4150, or"),
            ("[", ":4150, or"),
            ("", ":4150, or the path of a unix socket, with a slash, such as ./nsqd.sock"),
        ] {
            let error = Listener::open(Listens::Clients, address).unwrap_err().to_string();
            let start =
                format!("listen ({address}) failed - it has to be host:port, such as {meant}");
            assert!(error.starts_with(&start), "{error}");
            let (meant, _) = meant.split_once(',').unwrap();
            assert_eq!(kind(meant), AddressKind::Port, "{meant}");
        }
        let error = Listener::open_tcp(Listens::Nsqds, "/run/nsqlookupd").unwrap_err().to_string();
        assert!(error.ends_with("such as :4160"), "{error}");
        let error = Listener::open_tcp(Listens::Nsqds, "host").unwrap_err().to_string();
        assert_eq!(error, "listen (host) failed - it has to be host:port, such as host:4160");
    }

    #[test]
    fn a_socket_left_by_a_dead_server_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nsqd.sock");
        let text = path.to_str().unwrap();
        // What the standard library opens, it does not remove.
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::open(Listens::Clients, text).unwrap();
        assert_eq!((listener.address.to_string().as_str(), listener.address.port()), (text, None));
        let error = Listener::open(Listens::Clients, text).unwrap_err().to_string();
        let reason =
            format!("listen ({text}) failed - listen unix {text}: bind: address already in use");
        assert_eq!(error, reason);
        drop(listener);
        assert!(!path.exists());

        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::open(Listens::Clients, text).is_err());
        std::fs::remove_file(&path).unwrap();
        let listener = Listener::open(Listens::Clients, text).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(listener);
        assert!(path.exists());
    }
}
