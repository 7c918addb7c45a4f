//! Clients that write bytes: told what to write step by step, or bent on doing harm.

use core::time::Duration;
use std::collections::VecDeque;

use bytes::BytesMut;
use sansq_core::name::{ChannelName, TopicName};

use super::{Client, Context, Gone, nsqd_address};
use crate::chance::Chance;
use crate::net::LinkId;

/// What a [`Raw`] client does next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Writes these bytes, and connects before that if it is not connected.
    Send(Vec<u8>),
    /// Waits for so long.
    Wait(Duration),
    /// Waits until what was read since the last step of this kind ends with these bytes.
    Expect(Vec<u8>),
    /// Reads on, or not.
    Read(bool),
    /// Closes the connection.
    Close,
    /// Ends the connection with a reset.
    Reset,
}

/// Carries out steps on one connection to one nsqd, one after the other.
#[derive(Debug)]
pub struct Raw {
    node: usize,
    steps: VecDeque<Step>,
    link: Option<LinkId>,
    read: Vec<u8>,
    waits: bool,
    is_polite: bool,
}

impl Raw {
    /// A client of nsqd `node`. `is_polite`: it is not to be refused.
    pub fn new(node: usize, steps: Vec<Step>, is_polite: bool) -> Self {
        Self { node, steps: steps.into(), link: None, read: Vec::new(), waits: false, is_polite }
    }

    fn go_on(&mut self, context: &mut Context<'_>) {
        while !self.waits
            && let Some(step) = self.steps.front()
        {
            match step {
                Step::Send(bytes) => {
                    let link =
                        *self.link.get_or_insert_with(|| context.dial(&nsqd_address(self.node)));
                    context.write(link, bytes);
                }
                Step::Wait(time) => {
                    self.waits = true;
                    context.wake(*time, 0);
                }
                Step::Expect(end) if self.read.ends_with(end) => self.read.clear(),
                Step::Expect(_) => return,
                Step::Read(reads) => {
                    if let Some(link) = self.link {
                        context.set_reading(link, *reads);
                    }
                }
                Step::Close | Step::Reset => {
                    let is_reset = *step == Step::Reset;
                    if let Some(link) = self.link.take() {
                        if is_reset { context.reset(link) } else { context.close(link) }
                    }
                }
            }
            self.steps.pop_front();
        }
    }
}

impl Client for Raw {
    fn started(&mut self, context: &mut Context<'_>) {
        self.go_on(context);
    }

    fn input(&mut self, _: LinkId, input: &mut BytesMut, context: &mut Context<'_>) {
        self.read.extend_from_slice(input);
        input.clear();
        self.go_on(context);
    }

    fn closed(&mut self, _: LinkId, _: Gone, context: &mut Context<'_>) {
        self.link = None;
        self.go_on(context);
    }

    fn woken(&mut self, _: u64, context: &mut Context<'_>) {
        self.waits = false;
        self.go_on(context);
    }

    fn crashed(&mut self, context: &mut Context<'_>) {
        (self.link, self.waits) = (None, false);
        self.go_on(context);
    }

    fn check_done(&self) -> Result<(), String> {
        match self.steps.front() {
            Some(step) if self.is_polite => Err(format!("is not done with {step:?}")),
            _ => Ok(()),
        }
    }

    fn is_polite(&self) -> bool {
        self.is_polite
    }
}

/// Harms as it can, until the calm: garbage, commands that are cut short, lengths that never come,
/// subscribers that do not read, and connections that are held or dropped.
#[derive(Debug)]
pub struct Hostile {
    topic: TopicName,
    channel: ChannelName,
    links: Vec<LinkId>,
}

impl Hostile {
    /// One that harms all nsqds, and takes messages of this channel when it can.
    pub const fn new(topic: TopicName, channel: ChannelName) -> Self {
        Self { topic, channel, links: Vec::new() }
    }

    fn harm(&mut self, context: &mut Context<'_>) {
        if context.is_calm() {
            return;
        }
        let again = context.rng.within(HARM_EVERY_MAX);
        context.wake(again, 0);
        let node = context.rng.below(context.nsqds() as u64) as usize;
        let link = context.dial(&nsqd_address(node));
        let mut bytes = b"  V2".to_vec();
        match context.rng.below(8) {
            0 => bytes.clear(),
            1 => bytes = garbage(context),
            2 => bytes.extend(garbage(context)),
            3 => bytes.extend_from_slice(b"PUB t0\n\x7f\xff\xff\xff"),
            4 => bytes.extend_from_slice(b"MPUB t0\n\0\0\0\x10\x7f\xff\xff\xff\0"),
            5 => bytes.extend_from_slice(b"IDENTIFY\n\0\0\0\x10{\"heart"),
            6 => bytes.extend(core::iter::repeat_n(*b"NOP\n", 2000).flatten()),
            _ => {
                let (topic, channel) = (&self.topic, &self.channel);
                bytes.extend_from_slice(format!("SUB {topic} {channel}\nRDY 5\n").as_bytes());
                context.set_reading(link, false);
            }
        }
        context.write(link, &bytes);
        self.links.push(link);
        if self.links.len() > LINKS_MAX {
            let at = context.rng.below(self.links.len() as u64) as usize;
            let link = self.links.swap_remove(at);
            if context.rng.percent(50) { context.reset(link) } else { context.close(link) }
        }
    }
}

fn garbage(context: &mut Context<'_>) -> Vec<u8> {
    let len = context.rng.between(1, 300);
    (0..len).map(|_| context.rng.next_u64() as u8).collect()
}

impl Client for Hostile {
    fn started(&mut self, context: &mut Context<'_>) {
        context.wake(Duration::ZERO, 0);
    }

    fn closed(&mut self, link: LinkId, _: Gone, _: &mut Context<'_>) {
        self.links.retain(|at| *at != link);
    }

    fn woken(&mut self, _: u64, context: &mut Context<'_>) {
        self.harm(context);
    }

    fn calm(&mut self, context: &mut Context<'_>) {
        for link in self.links.drain(..) {
            context.close(link);
        }
    }

    fn crashed(&mut self, context: &mut Context<'_>) {
        self.links.clear();
        self.started(context);
    }

    fn is_polite(&self) -> bool {
        false
    }
}

/// The longest between two of its deeds.
const HARM_EVERY_MAX: Duration = Duration::from_secs(2);

/// How many connections it holds.
const LINKS_MAX: usize = 8;
