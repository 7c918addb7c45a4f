//! Listens in on a connection of an nsqd: the commands that it has decoded, the frames that it
//! sends.
//!
//! The parser of commands is not the core's, on purpose: what the core makes of the bytes is judged
//! by what the bytes say.

use core::time::Duration;

use bytes::{Buf, BytesMut};
use sansq_core::client::frame::{self, Frame};
use sansq_core::name::{ChannelName, TopicName};

use crate::model::{MessageNumber, number_of};

/// A command that concerns a subscription, or a publish. Others are of no interest here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    Finish([u8; 16]),
    /// PUB, MPUB or DPUB of these messages.
    Publish(TopicName, Vec<MessageNumber>),
    Ready(u32),
    Requeue([u8; 16], Duration),
    Subscribe(TopicName, ChannelName),
    Touch([u8; 16]),
}

/// One connection's tap.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    /// Everything that was given to the shard and that it has not taken yet.
    given: BytesMut,
    /// What it took and what is not a whole command yet.
    taken: BytesMut,
    has_magic: bool,
    /// From now on every command is a line.
    is_subscribed: bool,
    /// After CLS, RDY has no effect.
    is_closing: bool,
    sent: BytesMut,
}

impl Tap {
    /// How much of `bytes`, which come next, to give to the shard at once.
    pub(crate) fn piece_len(&self, bytes: &[u8]) -> usize {
        let line_end = bytes.iter().position(|byte| *byte == b'\n');
        line_end.filter(|_| self.is_subscribed).map_or(bytes.len(), |end| end + 1)
    }

    /// Bytes are added to the shard's input.
    pub(crate) fn give(&mut self, bytes: &[u8]) {
        self.given.extend_from_slice(bytes);
    }

    /// The shard has left the last `left` bytes of its input: tells the commands in what it took.
    pub(crate) fn take(&mut self, left: usize) -> Vec<Heard> {
        let taken = self.given.len().saturating_sub(left);
        let taken = self.given.split_to(taken);
        self.taken.extend_from_slice(&taken);
        let mut heard = Vec::new();
        if !self.has_magic && self.taken.len() >= 4 {
            self.has_magic = true;
            self.taken.advance(4);
        }
        while self.has_magic
            && let Some(end) = self.taken.iter().position(|byte| *byte == b'\n')
        {
            let line = String::from_utf8_lossy(&self.taken[..end]).into_owned();
            let words: Vec<_> = line.split(' ').collect();
            let has_body = matches!(words[0], "IDENTIFY" | "AUTH" | "PUB" | "MPUB" | "DPUB");
            if has_body {
                let Some(len) = self.taken.get(end + 1..end + 5) else { break };
                let len = u32::from_be_bytes([len[0], len[1], len[2], len[3]]) as usize;
                if self.taken.len() < end + 5 + len {
                    break;
                }
                let body = &self.taken[end + 5..end + 5 + len];
                heard.extend(hear_publish(&words, body));
                self.taken.advance(end + 5 + len);
            } else {
                self.taken.advance(end + 1);
                self.is_closing |= words[0] == "CLS";
                self.is_subscribed |= words[0] == "SUB";
                heard.extend(hear(&words).filter(|heard| !self.ignores(heard)));
            }
        }
        heard
    }

    /// Bytes that the shard sends: tells the frames in them. `Err` if they are none.
    pub(crate) fn sent(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, frame::FrameError> {
        self.sent.extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = frame::decode(&mut self.sent, FRAME_SIZE_MAX)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    const fn ignores(&self, heard: &Heard) -> bool {
        self.is_closing && matches!(heard, Heard::Ready(_))
    }
}

fn hear(words: &[&str]) -> Option<Heard> {
    let id = |at: usize| words.get(at)?.as_bytes().try_into().ok();
    match words[0] {
        "FIN" => Some(Heard::Finish(id(1)?)),
        "RDY" => Some(Heard::Ready(words.get(1)?.parse().ok()?)),
        "REQ" => {
            let millis = words.get(2)?.parse().ok()?;
            Some(Heard::Requeue(id(1)?, Duration::from_millis(millis)))
        }
        "SUB" => {
            let (topic, channel) = (words.get(1)?, words.get(2)?);
            Some(Heard::Subscribe(TopicName::new(topic).ok()?, ChannelName::new(channel).ok()?))
        }
        "TOUCH" => Some(Heard::Touch(id(1)?)),
        _ => None,
    }
}

fn hear_publish(words: &[&str], body: &[u8]) -> Option<Heard> {
    let messages = match words[0] {
        "PUB" | "DPUB" => number_of(body).into_iter().collect(),
        "MPUB" => {
            let mut messages = Vec::new();
            let mut rest = body.get(4..)?;
            while let Some((len, tail)) = rest.split_first_chunk() {
                let body = tail.get(..u32::from_be_bytes(*len) as usize)?;
                messages.extend(number_of(body));
                rest = &tail[body.len()..];
            }
            messages
        }
        _ => return None,
    };
    Some(Heard::Publish(TopicName::new(words.get(1)?).ok()?, messages))
}

/// No body of a simulation is near it.
const FRAME_SIZE_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_heard_when_they_are_taken_and_not_before() {
        let mut tap = Tap::default();
        tap.give(b"  V2IDENTIFY\n\0\0\0\x02{\nSUB t c\nRDY 5\nFIN 0123456789abcdef\nREQ 0123456789abcdef 20\nCLS\nRDY 1\n");
        let all = tap.given.len();
        assert_eq!(tap.take(all - 10), []);
        let (topic, channel) = (TopicName::new("t").unwrap(), ChannelName::new("c").unwrap());
        let id = *b"0123456789abcdef";
        assert_eq!(
            tap.take(0),
            [
                Heard::Subscribe(topic, channel),
                Heard::Ready(5),
                Heard::Finish(id),
                Heard::Requeue(id, Duration::from_millis(20)),
            ]
        );
    }
}
