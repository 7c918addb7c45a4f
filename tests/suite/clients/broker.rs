//! A broker that does as it is told, on a thread of its own.

use core::net::IpAddr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use super::super::client::PATIENCE;

pub(super) struct Broker {
    listener: TcpListener,
}

/// One connection to it.
pub(super) struct Peer {
    socket: BufReader<TcpStream>,
}

impl Broker {
    /// Runs `script` on a thread; returns its address too.
    pub(super) fn run<T: Send + 'static>(
        script: impl FnOnce(Self) -> T + Send + 'static,
    ) -> (String, JoinHandle<T>) {
        let broker = Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() };
        let address = broker.listener.local_addr().unwrap().to_string();
        (address, thread::spawn(|| script(broker)))
    }

    /// The next connection, which has said IDENTIFY and had no answer to it yet.
    pub(super) fn accept_silently(&self) -> Peer {
        let (socket, _) = self.listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Peer { socket: BufReader::new(socket) };
        assert_eq!(peer.command(), "  V2IDENTIFY");
        peer.body();
        peer
    }

    /// The next connection, behind the answer to IDENTIFY.
    pub(super) fn accept(&self) -> Peer {
        let mut peer = self.accept_silently();
        peer.ok();
        peer
    }
}

impl Peer {
    /// Where it comes from.
    pub(super) fn address(&self) -> IpAddr {
        self.socket.get_ref().peer_addr().unwrap().ip()
    }

    /// The next line; empty at the end.
    pub(super) fn command(&mut self) -> String {
        let mut line = String::new();
        self.socket.read_line(&mut line).unwrap();
        String::from(line.trim_end())
    }

    /// The body that follows.
    pub(super) fn body(&mut self) -> String {
        let mut len = [0; 4];
        self.socket.read_exact(&mut len).unwrap();
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        self.socket.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// The body of the next PUB.
    pub(super) fn publish(&mut self) -> String {
        assert_eq!(self.command(), "PUB topic");
        self.body()
    }

    pub(super) fn ok(&mut self) {
        self.frame(0, b"OK");
    }

    pub(super) fn frame(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = (payload.len() as u32 + 4).to_be_bytes().to_vec();
        frame.extend([0, 0, 0, kind]);
        frame.extend(payload);
        self.socket.get_mut().write_all(&frame).unwrap();
    }
}
