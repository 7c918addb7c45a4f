//! A consuming connection: takes messages, and finishes them in batches.

use sansq_core::name::TopicName;
use sansq_core::protocol::frame::{CLOSE_WAIT, HEARTBEAT};

use super::connection::{Connection, Frame, refused};
use super::{BenchError, BenchOptions, Flow, Mode, STAMP, Shared};

/// One connection past its SUB.
#[derive(Debug)]
pub(super) struct Consumer {
    connection: Connection,
    mode: Mode,
    rdy: u32,
    marker: [u8; 8],
    /// FINs (and NOPs) to send after the bytes at hand are worked off.
    output: Vec<u8>,
}

/// What came in one read.
#[derive(Debug, Default)]
struct Taken {
    messages: u64,
    bytes: u64,
    /// Whether the server has confirmed CLS.
    closed: bool,
}

impl Consumer {
    pub(super) fn subscribe(
        mut connection: Connection,
        options: &BenchOptions,
        topic: TopicName,
        marker: u64,
    ) -> Result<Self, BenchError> {
        connection.send(format!("SUB {topic} {}\n", options.channel).as_bytes())?;
        connection.expect_ok()?;
        Ok(Self {
            connection,
            mode: options.mode,
            rdy: options.rdy,
            marker: marker.to_be_bytes(),
            output: Vec::with_capacity(OUTPUT_LEN),
        })
    }

    /// Consumes until the run is over, then leaves in good order.
    pub(super) fn run(mut self, shared: &Shared) -> Result<Flow, BenchError> {
        let mut flow = Flow::default();
        self.connection.send(format!("RDY {}\n", self.rdy).as_bytes())?;
        loop {
            let filled = self.connection.fill()?;
            let now = shared.clock.nanos();
            if filled > 0 {
                let taken = self.take(now, &mut flow)?;
                shared.note_received(taken.messages, now);
                self.flush()?;
            }
            let over = match self.mode {
                Mode::Both => shared.is_delivered(now),
                Mode::Pub | Mode::Sub => shared.is_dry(now),
            };
            if over || shared.has_failed() {
                self.leave(shared, &mut flow);
                return Ok(flow);
            }
        }
    }

    /// Stops the flow and finishes what is already under way, so that the server has nothing to send
    /// again. The server may close at any point of this.
    fn leave(&mut self, shared: &Shared, flow: &mut Flow) {
        if self.connection.send(b"RDY 0\nCLS\n").is_err() {
            return;
        }
        let since = shared.clock.nanos();
        while self.connection.fill().is_ok() {
            let now = shared.clock.nanos();
            let Ok(taken) = self.take(now, flow) else { return };
            if self.flush().is_err() || taken.closed || now.saturating_sub(since) > LEAVE {
                return;
            }
        }
    }

    fn take(&mut self, now: u64, flow: &mut Flow) -> Result<Taken, BenchError> {
        let mut taken = Taken::default();
        // Messages of one MPUB have the same stamp and mostly come together.
        let (mut stamp, mut stamped) = (0, 0);
        while let Some(frame) = self.connection.next()? {
            let message = match frame {
                Frame::Message(message) => message,
                Frame::Response(HEARTBEAT) => {
                    self.output.extend(b"NOP\n");
                    continue;
                }
                Frame::Response(response) => {
                    taken.closed |= response == CLOSE_WAIT;
                    continue;
                }
                Frame::Error(error) => return Err(refused(error)),
            };
            let (Some(id), Some(body)) = (message.get(10..26), message.get(26..)) else {
                return Err(BenchError::Malformed);
            };
            self.output.extend(b"FIN ");
            self.output.extend(id);
            self.output.push(b'\n');
            taken.messages += 1;
            taken.bytes += body.len() as u64;
            if let Some(sent) = stamp_of(body, &self.marker) {
                if sent != stamp {
                    flow.record(now.saturating_sub(stamp), stamped);
                    (stamp, stamped) = (sent, 0);
                }
                stamped += 1;
            }
        }
        flow.record(now.saturating_sub(stamp), stamped);
        flow.add(taken.messages, taken.bytes, now);
        Ok(taken)
    }

    fn flush(&mut self) -> Result<(), BenchError> {
        if !self.output.is_empty() {
            self.connection.send(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }
}

/// When the body was published, if this run did it.
fn stamp_of(body: &[u8], marker: &[u8; 8]) -> Option<u64> {
    let stamp = body.get(..STAMP)?.strip_prefix(marker)?;
    stamp.first_chunk().map(|nanos| u64::from_be_bytes(*nanos))
}

/// FINs of a full read of small messages; it grows beyond if a server packs them tighter.
const OUTPUT_LEN: usize = 64 * 1024;
/// How long a server may go on sending after CLS.
const LEAVE: u64 = 1_000_000_000;
