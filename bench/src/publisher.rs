//! A publishing connection: keeps a window of PUB or MPUB commands under way.

use core::sync::atomic::Ordering;
use std::collections::VecDeque;

use mio::net::TcpStream as Socket;
use sansq_core::protocol::frame::HEARTBEAT;

use super::commands::Commands;
use super::flow::Flow;
use super::link::{Filled, Frame, Link};
use super::run::Run;
use super::schedule::Schedule;
use super::worker::{Next, Peer};
use super::{BenchError, BenchOptions};

/// One connection, its commands, and when they are due.
#[derive(Debug)]
pub(super) struct Publisher {
    link: Link<Socket>,
    commands: Commands,
    schedule: Schedule,
    batch: u64,
    size: u64,
    /// When each command under way was due, oldest first. Its length is limited by the window.
    under_way: VecDeque<u64>,
    window: usize,
    is_open_loop: bool,
    owes_nop: bool,
}

impl Publisher {
    pub(super) fn new(
        link: Link<Socket>,
        options: &BenchOptions,
        commands: Commands,
        schedule: Schedule,
    ) -> Self {
        let window = options.window() as usize;
        Self {
            link,
            commands,
            schedule,
            batch: options.batch.into(),
            size: options.size.into(),
            under_way: VecDeque::with_capacity(window),
            window,
            is_open_loop: options.rate.is_some(),
            owes_nop: false,
        }
    }

    /// Has what is due sent, as far as there is room. Nothing is due for a run that failed.
    fn send(&mut self, run: &Run, now: u64, flow: &mut Flow) -> Result<(), BenchError> {
        while self.under_way.len() < self.window
            && let Some(due) = self.schedule.take(now)
        {
            self.commands.push(due);
            self.under_way.push_back(due);
            if self.is_open_loop && run.counts(due) {
                flow.lag.saturating_record(now.saturating_sub(due));
            }
        }
        loop {
            let unsent = self.commands.unsent();
            if unsent.is_empty() {
                break;
            }
            let sent = self.link.send(unsent)?;
            self.commands.advance(sent);
            if sent == 0 {
                break;
            }
        }
        // Four bytes into an empty buffer are taken whole, or not at all.
        if self.owes_nop && self.commands.unsent().is_empty() && self.commands.is_between() {
            self.owes_nop = self.link.send(b"NOP\n")? == 0;
        }
        self.link.flush().map(drop)
    }

    fn take_answers(&mut self, run: &Run, now: u64, flow: &mut Flow) -> Result<(), BenchError> {
        let mut answered = 0;
        while let Some(frame) = self.link.next()? {
            match frame {
                Frame::Response(HEARTBEAT) => self.owes_nop = true,
                Frame::Response(_) => {
                    let due = self.under_way.pop_front().ok_or(BenchError::Malformed)?;
                    if run.counts(due) {
                        flow.record(now.saturating_sub(due), 1);
                    }
                    answered += self.batch;
                }
                Frame::Error(error) => return Err(BenchError::refused(error)),
                Frame::Message(_) => return Err(BenchError::Malformed),
            }
        }
        if answered > 0 {
            run.published.fetch_add(answered, Ordering::Relaxed);
            run.add(flow, answered, answered * self.size, now);
        }
        Ok(())
    }
}

impl Peer for Publisher {
    fn socket(&mut self) -> &mut Socket {
        self.link.stream_mut()
    }

    fn start(&mut self, run: &Run, flow: &mut Flow) -> Result<(), BenchError> {
        self.send(run, run.now(), flow)
    }

    fn handle_ready(
        &mut self,
        readable: bool,
        run: &Run,
        flow: &mut Flow,
    ) -> Result<Next, BenchError> {
        let filled = if readable { self.link.fill()? } else { Filled::Nothing };
        let now = run.now();
        if filled != Filled::Nothing {
            self.take_answers(run, now, flow)?;
        }
        self.send(run, now, flow)?;
        if self.under_way.is_empty() && self.schedule.is_over(now) {
            return Ok(Next::Done);
        }
        Ok(if filled == Filled::Some { Next::More } else { Next::Wait })
    }

    fn due(&self) -> Option<u64> {
        // Without room there is nothing to do before an answer comes.
        if self.under_way.len() < self.window { self.schedule.due() } else { None }
    }

    fn is_over(&self, run: &Run, now: u64) -> bool {
        run.has_failed() || self.under_way.is_empty() && self.schedule.is_over(now)
    }

    fn give_up(&mut self, run: &Run, now: u64, flow: &mut Flow) -> bool {
        if self.is_open_loop && now > run.end.saturating_add(run.patience()) {
            flow.unsent += (self.schedule.missed(now) + self.under_way.len() as u64) * self.batch;
            return true;
        }
        false
    }

    fn waits_for_answer(&self) -> bool {
        !self.under_way.is_empty()
    }
}
