//! A client of protocol V2 that does what it is told.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

/// How long a read may take before the test fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Client {
    socket: TcpStream,
}

/// What the server sends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Frame {
    Response(Vec<u8>),
    Error(String),
    Message(Message),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Message {
    pub(super) attempts: u16,
    pub(super) id: String,
    pub(super) body: Vec<u8>,
}

impl Client {
    /// Connects and says the magic word.
    pub(super) fn new(address: SocketAddr) -> Self {
        let mut client = Self::silent(address);
        client.send(b"  V2");
        client
    }

    /// Connects.
    pub(super) fn silent(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// Another handle of the same connection, for another thread.
    pub(super) fn split(&self) -> Self {
        Self { socket: self.socket.try_clone().unwrap() }
    }

    /// Waits for a byte, and leaves it unread.
    pub(super) fn await_byte(&self) {
        assert!(self.socket.peek(&mut [0]).is_ok());
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends, if the server still takes it.
    pub(super) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    /// Sends nothing more.
    pub(super) fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// The next frame, heartbeats included.
    pub(super) fn any_frame(&mut self) -> Frame {
        let mut head = [0; 8];
        self.socket.read_exact(&mut head).unwrap();
        let size = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        let mut payload = vec![0; size - 4];
        self.socket.read_exact(&mut payload).unwrap();
        match head[4..] {
            [0, 0, 0, 0] => Frame::Response(payload),
            [0, 0, 0, 1] => Frame::Error(String::from_utf8(payload).unwrap()),
            [0, 0, 0, 2] => Frame::Message(Message {
                attempts: u16::from_be_bytes([payload[8], payload[9]]),
                id: String::from_utf8(payload[10..26].to_vec()).unwrap(),
                body: payload[26..].to_vec(),
            }),
            _ => panic!("no such frame type: {head:?}"),
        }
    }

    /// The next frame that is no heartbeat; heartbeats are answered.
    pub(super) fn frame(&mut self) -> Frame {
        loop {
            let frame = self.any_frame();
            if frame != Frame::Response(b"_heartbeat_".to_vec()) {
                return frame;
            }
            self.send("NOP\n");
        }
    }

    pub(super) fn expect_ok(&mut self) {
        assert_eq!(self.frame(), Frame::Response(b"OK".to_vec()));
    }

    pub(super) fn expect_error(&mut self, text: &str) {
        assert_eq!(self.frame(), Frame::Error(text.to_owned()));
    }

    pub(super) fn message(&mut self) -> Message {
        match self.frame() {
            Frame::Message(message) => message,
            frame @ (Frame::Response(_) | Frame::Error(_)) => panic!("no message: {frame:?}"),
        }
    }

    /// The next frame, unless the connection ends first.
    pub(super) fn try_frame(&mut self) -> Option<Frame> {
        self.socket.peek(&mut [0]).ok().filter(|count| *count > 0)?;
        Some(self.any_frame())
    }

    /// Everything up to the end of the connection, unless it is a reset.
    pub(super) fn try_rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.socket.read_to_end(&mut rest).map(|_| rest)
    }

    /// Everything up to the end of the connection.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.socket.read_to_end(&mut rest).unwrap();
        rest
    }

    /// The end of the connection, without anything before it.
    pub(super) fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.socket.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, b""),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }

    pub(super) fn identify(&mut self, json: &str) {
        self.send(with_body("IDENTIFY", json.as_bytes()));
        self.expect_ok();
    }

    pub(super) fn publish(&mut self, topic: &str, body: &[u8]) {
        self.send(publish(topic, body));
        self.expect_ok();
    }

    pub(super) fn subscribe(&mut self, topic: &str, channel: &str, ready: usize) {
        self.send(format!("SUB {topic} {channel}\nRDY {ready}\n"));
        self.expect_ok();
    }

    pub(super) fn finish(&mut self, message: &Message) {
        self.send(format!("FIN {}\n", message.id));
    }
}

/// A command with a body.
pub(super) fn with_body(line: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{line}\n").into_bytes();
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

pub(super) fn publish(topic: &str, body: &[u8]) -> Vec<u8> {
    with_body(&format!("PUB {topic}"), body)
}
