//! Sending statistics to statsd over UDP, on a thread of its own: to find out where a host is may
//! take the time of many turns.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use sansq_core::log::{Level, OneLine};
use sansq_core::nsqd::StatsdAction;
use sansq_core::nsqd::http::Memory;

use crate::log::Program;

/// The way to statsd. Dropping it waits for a moment until what was handed over is sent.
#[derive(Debug)]
pub struct StatsdSender {
    memory: Option<fn() -> Memory>,
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    /// `None` while it is dropped.
    work: Option<SyncSender<Work>>,
    /// Disconnected when the thread has ended.
    end: Receiver<()>,
}

#[derive(Debug)]
enum Work {
    Begin(Box<str>),
    Send(Bytes),
}

impl StatsdSender {
    /// A sender that has nothing to do yet. `memory` measures the process's memory.
    pub const fn new(memory: Option<fn() -> Memory>) -> Self {
        Self { memory, thread: None }
    }

    /// Carries out one of [`Actions::statsd`](sansq_core::nsqd::Actions::statsd), without waiting.
    /// The memory is what [`StatsdAction::Measure`] asks for.
    ///
    /// While statsd's name is looked up, up to [`WAITING_MAX`] datagrams wait; more are lost.
    pub fn carry_out(&mut self, action: StatsdAction) -> Option<Memory> {
        let work = match action {
            StatsdAction::Measure => {
                return Some(self.memory.map(|measure| measure()).unwrap_or_default());
            }
            StatsdAction::Begin(address) => Work::Begin(address),
            StatsdAction::Send(packet) => Work::Send(packet),
        };
        if self.thread.is_none() {
            self.thread = Thread::start().ok();
        }
        if let Some(Thread { work: Some(sender), .. }) = &self.thread {
            let _ = sender.try_send(work);
        }
        None
    }
}

impl Thread {
    fn start() -> io::Result<Self> {
        let (work, queue) = sync_channel(WAITING_MAX);
        let (alive, end) = sync_channel(0);
        thread::Builder::new().name("nsqd-statsd".into()).spawn(move || {
            let _alive: SyncSender<()> = alive;
            send(&queue);
        })?;
        Ok(Self { work: Some(work), end })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.work = None;
        // Comes back with an error: the thread says nothing, it only ends.
        let _ = self.end.recv_timeout(END_TIME);
    }
}

fn send(queue: &Receiver<Work>) {
    let mut socket = None;
    for work in queue {
        match work {
            Work::Begin(address) => {
                socket = connect(&address).ok();
                let address = OneLine(&address);
                if socket.is_some() {
                    Program::Nsqd.info(format_args!("STATSD: pushing stats to {address}"));
                } else {
                    Program::Nsqd.log(
                        Level::Error,
                        format_args!("failed to create UDP socket to statsd({address})"),
                    );
                }
            }
            Work::Send(packet) => {
                if let Some(socket) = &socket {
                    // Whether somebody listens is not ours to know.
                    let _ = socket.send(&packet);
                }
            }
        }
    }
}

/// A socket that sends to `host:port`; without a host to this machine.
fn connect(address: &str) -> io::Result<UdpSocket> {
    let candidates: Vec<SocketAddr> = match address.strip_prefix(':') {
        Some(port) => (Ipv4Addr::LOCALHOST, port.parse().map_err(|_| ErrorKind::InvalidInput)?)
            .to_socket_addrs()?
            .collect(),
        None => address.to_socket_addrs()?.collect(),
    };
    let mut result = Err(ErrorKind::AddrNotAvailable.into());
    for candidate in candidates {
        let any: SocketAddr = match candidate {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(candidate)?;
            Ok(socket)
        });
        if socket.is_ok() {
            return socket;
        }
        result = socket;
    }
    result
}

/// Datagrams that wait for the thread.
pub const WAITING_MAX: usize = 1024;

/// How long the end of a server waits for the last datagrams.
const END_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_arrive_in_order_and_the_last_ones_at_the_end() {
        let statsd = UdpSocket::bind("127.0.0.1:0").unwrap();
        statsd.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let port = statsd.local_addr().unwrap().port();
        let mut sender =
            StatsdSender::new(Some(|| Memory { heap_objects: 1, ..Memory::default() }));
        let measured = sender.carry_out(StatsdAction::Measure);
        assert_eq!(measured.map(|memory| memory.heap_objects), Some(1));
        assert!(sender.thread.is_none());
        for (address, packet) in [
            ("nobody.invalid:1".into(), "lost"),
            (format!("127.0.0.1:{port}"), "a"),
            (format!(":{port}"), "b"),
        ] {
            assert_eq!(sender.carry_out(StatsdAction::Begin(address.into())), None);
            assert_eq!(sender.carry_out(StatsdAction::Send(packet.into())), None);
        }
        drop(sender);
        for packet in ["a", "b"] {
            let mut buffer = [0; 10];
            let count = statsd.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], packet.as_bytes());
        }
    }
}
