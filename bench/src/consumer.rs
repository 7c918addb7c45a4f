//! A consuming connection: takes messages, and finishes them in batches.

use mio::net::TcpStream as Socket;
use sansq_core::protocol::frame::{CLOSE_WAIT, HEARTBEAT};

use super::BenchError;
use super::commands::STAMP;
use super::flow::Flow;
use super::link::{Filled, Frame, Link};
use super::run::Run;
use super::worker::{Next, Peer};

/// One connection past its SUB.
#[derive(Debug)]
pub(super) struct Consumer {
    link: Link<Socket>,
    rdy: u32,
    marker: [u8; 8],
    /// Commands to send, FINs for the most part; so many bytes of it are sent. The RDY count limits
    /// it.
    output: Vec<u8>,
    sent: usize,
    /// Since when this connection is about to end: CLS was sent, and no message is to come any
    /// more.
    leaving: Option<u64>,
}

/// What came in one read.
#[derive(Debug, Default)]
struct Taken {
    messages: u64,
    bytes: u64,
    /// Whether the server has confirmed CLS.
    is_closed: bool,
}

impl Consumer {
    /// One that will ask for up to `rdy` messages at a time. Bodies with `marker` are of this run.
    pub(super) fn new(link: Link<Socket>, rdy: u32, marker: [u8; 8]) -> Self {
        let output = Vec::with_capacity(OUTPUT_LEN);
        Self { link, rdy, marker, output, sent: 0, leaving: None }
    }

    fn take(&mut self, run: &Run, now: u64, flow: &mut Flow) -> Result<Taken, BenchError> {
        let mut taken = Taken::default();
        // Messages of one MPUB have the same stamp and mostly come together.
        let (mut stamp, mut stamped) = (0, 0);
        while let Some(frame) = self.link.next()? {
            let message = match frame {
                Frame::Message(message) => message,
                Frame::Response(HEARTBEAT) => {
                    self.output.extend(b"NOP\n");
                    continue;
                }
                Frame::Response(response) => {
                    taken.is_closed |= response == CLOSE_WAIT;
                    continue;
                }
                Frame::Error(error) => return Err(BenchError::refused(error)),
            };
            let Some((head, body)) = message.split_first_chunk::<26>() else {
                return Err(BenchError::Malformed);
            };
            let mut finish = *b"FIN 0123456789abcdef\n";
            finish[4..20].copy_from_slice(&head[10..]);
            self.output.extend_from_slice(&finish);
            flow.redelivered += u64::from(head[8..10] != [0, 1]);
            taken.messages += 1;
            taken.bytes += body.len() as u64;
            if let Some(due) = stamp_of(body, &self.marker) {
                if due != stamp {
                    record(flow, run, stamp, stamped, now);
                    (stamp, stamped) = (due, 0);
                }
                stamped += 1;
            }
        }
        record(flow, run, stamp, stamped, now);
        Ok(taken)
    }

    /// Sends what is owed; whether all of it went.
    fn flush(&mut self) -> Result<bool, BenchError> {
        while self.sent < self.output.len() {
            let sent = self.link.send(&self.output[self.sent..])?;
            if sent == 0 {
                return Ok(false);
            }
            self.sent += sent;
        }
        self.output.clear();
        self.sent = 0;
        self.link.flush()
    }

    fn handle(&mut self, readable: bool, run: &Run, flow: &mut Flow) -> Result<Next, BenchError> {
        let filled = if readable { self.link.fill()? } else { Filled::Nothing };
        let mut is_closed = false;
        if filled != Filled::Nothing {
            let now = run.now();
            let taken = self.take(run, now, flow)?;
            if taken.messages > 0 {
                run.note_received(taken.messages, now);
                run.add(flow, taken.messages, taken.bytes, now);
            }
            is_closed = taken.is_closed;
        }
        let is_flushed = self.flush()?;
        if self.leaving.is_some() && is_closed && is_flushed {
            return Ok(Next::Done);
        }
        Ok(if filled == Filled::Some { Next::More } else { Next::Wait })
    }
}

impl Peer for Consumer {
    fn socket(&mut self) -> &mut Socket {
        self.link.stream_mut()
    }

    fn start(&mut self, _: &Run, _: &mut Flow) -> Result<(), BenchError> {
        self.output.extend(format!("RDY {}\n", self.rdy).as_bytes());
        self.flush().map(drop)
    }

    fn handle_ready(
        &mut self,
        readable: bool,
        run: &Run,
        flow: &mut Flow,
    ) -> Result<Next, BenchError> {
        match self.handle(readable, run, flow) {
            // The server may close at any point after CLS.
            Err(BenchError::Io(..)) if self.leaving.is_some() => Ok(Next::Done),
            result => result,
        }
    }

    fn due(&self) -> Option<u64> {
        None
    }

    fn is_over(&self, run: &Run, now: u64) -> bool {
        let too_long = |since| now.saturating_sub(since) > LEAVE;
        run.has_failed() || self.leaving.is_some_and(too_long)
    }

    fn leave(&mut self, now: u64) -> Result<(), BenchError> {
        // Messages under way come all the same; they are finished, so that the server has nothing
        // to send again.
        self.leaving = Some(now);
        self.output.extend(b"RDY 0\nCLS\n");
        match self.flush() {
            Err(BenchError::Io(..)) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The latency of `count` messages that were due at `due`, if that was while it counts.
fn record(flow: &mut Flow, run: &Run, due: u64, count: u64, now: u64) {
    if count > 0 && run.counts(due) {
        flow.record(now.saturating_sub(due), count);
    }
}

/// When the body was due, if this run published it.
fn stamp_of(body: &[u8], marker: &[u8; 8]) -> Option<u64> {
    let stamp = body.get(..STAMP)?.strip_prefix(marker)?;
    stamp.first_chunk().map(|nanos| u64::from_be_bytes(*nanos))
}

/// FINs of a full read of small messages; it grows beyond if a server packs them tighter.
const OUTPUT_LEN: usize = 32 * 1024;
/// How long a server may go on sending after CLS.
const LEAVE: u64 = 1_000_000_000;
