//! A blocking socket with a thread that reads it, and the clock that the machines are driven by.

use core::time::Duration;
use std::io::{self, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use sansq_core::client::ConnectionOptions;
use sansq_core::time::{self, Now, UnixNanos};

use crate::args::host_name;

/// What a reading thread reports.
#[derive(Debug)]
pub(super) enum Happening {
    /// The connection is made; this half of it is for writing.
    Connected(TcpStream),
    /// It could not be made.
    Failed(String),
    /// These bytes came.
    Bytes(BytesMut),
    /// It is over, and why if it was not closed in order. Nothing follows.
    Closed(Option<String>),
}

/// Events that wait for the main thread. Then the reading threads wait, and the sockets' windows close.
pub(super) const EVENTS_MAX: usize = 16;

/// Connects to `address` and reads on a thread of its own, which ends with the connection or when
/// nobody listens any more.
pub(super) fn open<E: Send + 'static>(
    address: String,
    timeout: Duration,
    events: SyncSender<E>,
    wrap: impl Fn(Happening) -> E + Send + 'static,
) {
    let name = format!("read {address}");
    let spawned = thread::Builder::new().name(name).spawn(move || {
        let send = |happening| events.send(wrap(happening)).is_ok();
        let connected =
            connect(&address, timeout).and_then(|socket| Ok((socket.try_clone()?, socket)));
        match connected {
            Ok((writer, reader)) => {
                if send(Happening::Connected(writer)) {
                    read(reader, send);
                }
            }
            Err(error) => {
                send(Happening::Failed(format!("{address}: {error}")));
            }
        }
    });
    // Without a thread nothing is reported; the machine's own deadline then ends the attempt.
    drop(spawned);
}

fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut result = Err(io::Error::other("the name has no address"));
    for address in address.to_socket_addrs()? {
        result = TcpStream::connect_timeout(&address, timeout);
        if result.is_ok() {
            break;
        }
    }
    let socket = result?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn read(mut socket: TcpStream, send: impl Fn(Happening) -> bool) {
    let mut buffer = vec![0; READ_LEN];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => {
                send(Happening::Closed(None));
                return;
            }
            Ok(count) => {
                if !send(Happening::Bytes(BytesMut::from(&buffer[..count]))) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                send(Happening::Closed(Some(error.to_string())));
                return;
            }
        }
    }
}

/// How a tool introduces itself.
pub(super) fn connection_options() -> ConnectionOptions {
    let hostname = host_name();
    let client_id = hostname.split('.').next().unwrap_or_default().to_owned();
    ConnectionOptions { client_id, hostname, ..ConnectionOptions::default() }
}

/// Bytes of one read.
const READ_LEN: usize = 64 * 1024;

/// Both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Now {
        let nanos = u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            instant: time::Instant::from_nanos(nanos),
            unix: UnixNanos(i64::try_from(unix.as_nanos()).unwrap_or(i64::MAX)),
        }
    }

    /// How long from now to `deadline`; an hour if there is none.
    pub(super) fn until(self, deadline: Option<time::Instant>) -> Duration {
        let now = self.now().instant;
        deadline.map_or(Duration::from_secs(3600), |at| at.saturating_since(now))
    }
}
