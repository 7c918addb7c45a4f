//! A client's connection: frames in, commands out, blocking.

use core::time::Duration;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use sansq_core::protocol::frame::HEARTBEAT;

use super::BenchError;

/// One connection, past its IDENTIFY.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// What of `input` has been read and not yet been taken.
    start: usize,
    end: usize,
}

/// A frame of the server (nsqd-protocol.md section 3).
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Frame<'a> {
    Error(&'a [u8]),
    Message(&'a [u8]),
    Response(&'a [u8]),
}

impl Connection {
    /// Connects and identifies. Heartbeats stay on: a consumer has to have them.
    pub(super) fn open(address: &str) -> Result<Self, BenchError> {
        let failed = |error| BenchError::Io("connecting", error);
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(TICK)).map_err(failed)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT)).map_err(failed)?;
        let mut connection = Self { stream, input: vec![0; INPUT_LEN], start: 0, end: 0 };

        let body = concat!(
            r#"{"client_id":"sansq-bench","user_agent":"sansq/"#,
            env!("CARGO_PKG_VERSION"),
            r#""}"#
        );
        let mut hello = b"  V2IDENTIFY\n".to_vec();
        hello.extend((body.len() as u32).to_be_bytes());
        hello.extend(body.as_bytes());
        connection.send(&hello)?;
        connection.expect_ok()?;
        Ok(connection)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        self.stream.write_all(bytes).map_err(|error| BenchError::Io("sending", error))
    }

    /// Waits for the answer to the one command that is under way.
    pub(super) fn expect_ok(&mut self) -> Result<(), BenchError> {
        let asked = Instant::now();
        loop {
            match self.next()? {
                Some(Frame::Response(HEARTBEAT)) => self.send(b"NOP\n")?,
                Some(Frame::Response(_)) => return Ok(()),
                Some(Frame::Error(error)) => return Err(refused(error)),
                Some(Frame::Message(_)) => return Err(BenchError::Malformed),
                None if asked.elapsed() > WRITE_TIMEOUT => return Err(BenchError::Stalled),
                None => {
                    self.fill()?;
                }
            }
        }
    }

    /// Reads what is there, or waits for it a little; the number of bytes, 0 if none came.
    pub(super) fn fill(&mut self) -> Result<usize, BenchError> {
        self.make_room();
        match self.stream.read(&mut self.input[self.end..]) {
            Ok(0) => Err(BenchError::Io("receiving", ErrorKind::UnexpectedEof.into())),
            Ok(read) => {
                self.end += read;
                Ok(read)
            }
            Err(error) if NOTHING_YET.contains(&error.kind()) => Ok(0),
            Err(error) => Err(BenchError::Io("receiving", error)),
        }
    }

    /// Takes the next frame out of what was read; `None` if it is not complete.
    pub(super) fn next(&mut self) -> Result<Option<Frame<'_>>, BenchError> {
        let Some((size, rest)) = self.input[self.start..self.end].split_first_chunk() else {
            return Ok(None);
        };
        let size = u32::from_be_bytes(*size) as usize;
        if !(4..=FRAME_MAX).contains(&size) {
            return Err(BenchError::Malformed);
        }
        let Some(frame) = rest.get(..size) else { return Ok(None) };
        self.start += 4 + size;
        match frame.split_first_chunk() {
            Some(([0, 0, 0, 0], payload)) => Ok(Some(Frame::Response(payload))),
            Some(([0, 0, 0, 1], payload)) => Ok(Some(Frame::Error(payload))),
            Some(([0, 0, 0, 2], payload)) => Ok(Some(Frame::Message(payload))),
            _ => Err(BenchError::Malformed),
        }
    }

    /// Moves what is left, which is less than a frame, to the front; grows the buffer if a frame is
    /// larger than it.
    fn make_room(&mut self) {
        self.input.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.input.len() {
            self.input.resize(2 * self.end, 0);
        }
    }
}

pub(super) fn refused(error: &[u8]) -> BenchError {
    BenchError::Refused(String::from_utf8_lossy(error).into_owned())
}

/// What a read that waited long enough ends with, by platform.
const NOTHING_YET: [ErrorKind; 3] =
    [ErrorKind::Interrupted, ErrorKind::TimedOut, ErrorKind::WouldBlock];
/// How long a read waits before its thread looks around.
const TICK: Duration = Duration::from_millis(50);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A thousand messages of the default size: fewer system calls gain nothing measurable.
const INPUT_LEN: usize = 256 * 1024;
/// Above any max-msg-size in use; a larger one means that the peer speaks something else.
const FRAME_MAX: usize = 256 * 1024 * 1024;
