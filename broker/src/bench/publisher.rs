//! A publishing connection: keeps a window of PUB or MPUB commands under way.

use std::collections::VecDeque;

use core::sync::atomic::Ordering;

use sansq_core::name::TopicName;
use sansq_core::protocol::frame::HEARTBEAT;

use super::connection::{Connection, Frame, refused};
use super::{BenchError, BenchOptions, Flow, STALL, STAMP, Shared};

/// One connection and its commands, built once.
#[derive(Debug)]
pub(super) struct Publisher {
    connection: Connection,
    /// As many commands as the window holds, one behind the other.
    commands: Vec<u8>,
    /// Bytes of one command.
    command_len: usize,
    /// Where in a command the first body begins, and how far it is to the next one.
    first_body: usize,
    body_stride: usize,
    batch: u32,
    size: u32,
    /// When each command under way was sent, oldest first. Its length is limited by the window.
    sent: VecDeque<u64>,
    window: usize,
}

impl Publisher {
    pub(super) fn new(
        connection: Connection,
        options: &BenchOptions,
        topic: TopicName,
        marker: u64,
    ) -> Result<Self, BenchError> {
        let &BenchOptions { size, batch, window, .. } = options;
        let bodies = u64::from(batch) * (u64::from(size) + 4);
        let total = bodies.saturating_mul(u64::from(window));
        if total > COMMANDS_MAX {
            return Err(BenchError::CommandsTooLarge);
        }
        let mut command = Vec::new();
        if batch == 1 {
            command.extend(format!("PUB {topic}\n").as_bytes());
        } else {
            command.extend(format!("MPUB {topic}\n").as_bytes());
            command.extend((bodies as u32 + 4).to_be_bytes());
            command.extend(batch.to_be_bytes());
        }
        let first_body = command.len() + 4;
        let mut body = vec![b'x'; size as usize];
        if body.len() >= STAMP {
            body[..8].copy_from_slice(&marker.to_be_bytes());
        }
        for _ in 0..batch {
            command.extend(size.to_be_bytes());
            command.extend(&body);
        }
        Ok(Self {
            connection,
            command_len: command.len(),
            commands: command.repeat(window as usize),
            first_body,
            body_stride: 4 + size as usize,
            batch,
            size,
            sent: VecDeque::with_capacity(window as usize),
            window: window as usize,
        })
    }

    /// Publishes until the end of the run, then waits for the answers that are due.
    pub(super) fn run(mut self, shared: &Shared) -> Result<Flow, BenchError> {
        let mut flow = Flow::default();
        let mut heard = shared.clock.nanos();
        loop {
            let now = shared.clock.nanos();
            if now < shared.end && !shared.has_failed() {
                self.send(now)?;
            } else if self.sent.is_empty() {
                return Ok(flow);
            }
            if self.connection.fill()? == 0 {
                if shared.clock.nanos().saturating_sub(heard) > STALL {
                    return Err(BenchError::Stalled);
                }
                continue;
            }
            heard = shared.clock.nanos();
            let answered = self.take_answers(heard, &mut flow)?;
            shared.published.fetch_add(answered, Ordering::Relaxed);
        }
    }

    /// Fills the window, in one write.
    fn send(&mut self, now: u64) -> Result<(), BenchError> {
        let room = self.window - self.sent.len();
        if room == 0 {
            return Ok(());
        }
        let commands = &mut self.commands[..room * self.command_len];
        if self.size as usize >= STAMP {
            for command in commands.chunks_exact_mut(self.command_len) {
                let bodies = command[self.first_body..].chunks_mut(self.body_stride);
                bodies.for_each(|body| body[8..STAMP].copy_from_slice(&now.to_be_bytes()));
            }
        }
        self.sent.extend(core::iter::repeat_n(now, room));
        self.connection.send(commands)
    }

    /// The number of messages that were acknowledged.
    fn take_answers(&mut self, now: u64, flow: &mut Flow) -> Result<u64, BenchError> {
        let mut heartbeat = false;
        let mut answered = 0;
        while let Some(frame) = self.connection.next()? {
            match frame {
                Frame::Response(HEARTBEAT) => heartbeat = true,
                Frame::Response(_) => {
                    let sent = self.sent.pop_front().ok_or(BenchError::Malformed)?;
                    flow.record(now.saturating_sub(sent), 1);
                    answered += u64::from(self.batch);
                }
                Frame::Error(error) => return Err(refused(error)),
                Frame::Message(_) => return Err(BenchError::Malformed),
            }
        }
        if heartbeat {
            self.connection.send(b"NOP\n")?;
        }
        flow.add(answered, answered * u64::from(self.size), now);
        Ok(answered)
    }
}

/// Bytes of all commands of a connection: a gigabyte is far above what any server takes at once.
const COMMANDS_MAX: u64 = 1 << 30;
