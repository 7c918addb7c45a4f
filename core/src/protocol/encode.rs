//! The commands of protocol V2 as a client writes them, appended to a buffer (clients.md section
//! 1.8).
//!
//! One function per command, with NSQ's verb in full. Nothing here checks a server's limits:
//! whoever sends decides what is worth sending, and a test may want to send what the server must
//! refuse.

use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;

use crate::message::MESSAGE_ID_LEN;
use crate::name::{ChannelName, TopicName};
use crate::protocol::frame::MAGIC_V2;

/// Appends the magic.
pub fn magic(out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC_V2);
}

/// Appends `IDENTIFY` with its JSON body.
///
/// # Panics
/// If `body` is longer than an int32 can say.
pub fn identify(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"IDENTIFY\n");
    sized(body, out);
}

/// Appends `AUTH` with the secret.
///
/// # Panics
/// If `secret` is longer than an int32 can say.
pub fn auth(secret: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"AUTH\n");
    sized(secret, out);
}

/// Appends `SUB`.
pub fn subscribe(topic: &TopicName, channel: &ChannelName, out: &mut Vec<u8>) {
    out.extend_from_slice(b"SUB ");
    out.extend_from_slice(topic.as_bytes());
    out.push(b' ');
    out.extend_from_slice(channel.as_bytes());
    out.push(b'\n');
}

/// Appends `PUB`.
///
/// An empty `body` is sent as length 0, which a server refuses; it never puts the stream out of
/// step.
///
/// # Panics
/// If `body` is longer than an int32 can say.
pub fn publish(topic: &TopicName, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(topic.as_bytes());
    out.push(b'\n');
    sized(body, out);
}

/// Appends `DPUB`; `delay` is cut to whole milliseconds.
///
/// # Panics
/// If `body` is longer than an int32 can say.
pub fn publish_after(topic: &TopicName, delay: Duration, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"DPUB ");
    out.extend_from_slice(topic.as_bytes());
    out.push(b' ');
    decimal(millis(delay), out);
    out.push(b'\n');
    sized(body, out);
}

/// Appends `MPUB`.
///
/// # Panics
/// If the bodies together, or their number, are more than an int32 can say.
pub fn publish_many<B: AsRef<[u8]>>(topic: &TopicName, bodies: &[B], out: &mut Vec<u8>) {
    publish_list_header(topic, message_list_len(bodies), out);
    message_list(bodies, out);
}

/// Appends `MPUB` with a body that [`message_list`] has made.
///
/// # Panics
/// If `list` is longer than an int32 can say.
pub fn publish_list(topic: &TopicName, list: &[u8], out: &mut Vec<u8>) {
    publish_list_header(topic, list.len(), out);
    out.extend_from_slice(list);
}

/// Appends `MPUB` with `count` bodies; `len` is their [`message_list_len`].
///
/// # Panics
/// If `len`, `count` or a body's length is more than an int32 can say.
pub(crate) fn publish_batch<'a>(
    topic: &TopicName,
    len: usize,
    count: usize,
    bodies: impl Iterator<Item = &'a Bytes>,
    out: &mut Vec<u8>,
) {
    publish_list_header(topic, len, out);
    int32(count, out);
    for body in bodies {
        sized(body, out);
    }
}

/// Appends the body of an `MPUB`: the number of messages, then each with its length.
///
/// # Panics
/// If a body's length, or the number of bodies, is more than an int32 can say.
pub fn message_list<B: AsRef<[u8]>>(bodies: &[B], out: &mut Vec<u8>) {
    int32(bodies.len(), out);
    for body in bodies {
        sized(body.as_ref(), out);
    }
}

/// The length in bytes of what [`message_list`] appends.
pub fn message_list_len<B: AsRef<[u8]>>(bodies: &[B]) -> usize {
    bodies.iter().fold(4, |len, body| len.saturating_add(4).saturating_add(body.as_ref().len()))
}

/// Appends `RDY`.
pub fn ready(count: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"RDY ");
    decimal(u64::from(count), out);
    out.push(b'\n');
}

/// Appends `FIN`.
pub fn finish(id: &[u8; MESSAGE_ID_LEN], out: &mut Vec<u8>) {
    out.extend_from_slice(b"FIN ");
    out.extend_from_slice(id);
    out.push(b'\n');
}

/// Appends `REQ`; `delay` is cut to whole milliseconds.
pub fn requeue(id: &[u8; MESSAGE_ID_LEN], delay: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(b"REQ ");
    out.extend_from_slice(id);
    out.push(b' ');
    decimal(millis(delay), out);
    out.push(b'\n');
}

/// Appends `TOUCH`.
pub fn touch(id: &[u8; MESSAGE_ID_LEN], out: &mut Vec<u8>) {
    out.extend_from_slice(b"TOUCH ");
    out.extend_from_slice(id);
    out.push(b'\n');
}

/// Appends `CLS`.
pub fn close(out: &mut Vec<u8>) {
    out.extend_from_slice(b"CLS\n");
}

/// Appends `NOP`.
pub fn nop(out: &mut Vec<u8>) {
    out.extend_from_slice(b"NOP\n");
}

fn publish_list_header(topic: &TopicName, len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"MPUB ");
    out.extend_from_slice(topic.as_bytes());
    out.push(b'\n');
    int32(len, out);
}

/// Appends `body` behind its length.
fn sized(body: &[u8], out: &mut Vec<u8>) {
    int32(body.len(), out);
    out.extend_from_slice(body);
}

/// Appends `n` as the protocol's signed 32-bit integer.
fn int32(n: usize, out: &mut Vec<u8>) {
    let n = i32::try_from(n).expect("lengths and counts of a command fit an int32");
    out.extend_from_slice(&n.to_be_bytes());
}

/// Whole milliseconds, at most what 64 bits hold.
fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
}

/// Appends `n` in decimal digits.
pub(crate) fn decimal(n: u64, out: &mut Vec<u8>) {
    let (mut digits, mut at, mut rest) = ([0; DIGITS_MAX], DIGITS_MAX, n);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// 2^64 - 1 has 20 digits.
const DIGITS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    const ID: [u8; 16] = *b"0123456789abcdef";

    fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn every_command_as_the_reference_client_writes_it() {
        let topic = TopicName::new("t").unwrap();
        let channel = ChannelName::new("ch#ephemeral").unwrap();
        let delay = Duration::from_micros(1_500_999);
        for (written, expected) in [
            (bytes(magic), &b"\x20\x20\x56\x32"[..]),
            (bytes(|o| identify(b"{}", o)), b"IDENTIFY\n\0\0\0\x02{}"),
            (bytes(|o| auth(b"secret", o)), b"AUTH\n\0\0\0\x06secret"),
            (bytes(|o| subscribe(&topic, &channel, o)), b"SUB t ch#ephemeral\n"),
            (bytes(|o| publish(&topic, b"ab", o)), b"PUB t\n\0\0\0\x02ab"),
            (bytes(|o| publish(&topic, b"", o)), b"PUB t\n\0\0\0\0"),
            (bytes(|o| publish_after(&topic, delay, b"a", o)), b"DPUB t 1500\n\0\0\0\x01a"),
            (
                bytes(|o| publish_many(&topic, &[&b"a"[..], b"bc"], o)),
                b"MPUB t\n\0\0\0\x0f\0\0\0\x02\0\0\0\x01a\0\0\0\x02bc",
            ),
            (bytes(|o| ready(0, o)), b"RDY 0\n"),
            (bytes(|o| ready(2500, o)), b"RDY 2500\n"),
            (bytes(|o| finish(&ID, o)), b"FIN 0123456789abcdef\n"),
            (bytes(|o| requeue(&ID, delay, o)), b"REQ 0123456789abcdef 1500\n"),
            (bytes(|o| touch(&ID, o)), b"TOUCH 0123456789abcdef\n"),
            (bytes(close), b"CLS\n"),
            (bytes(nop), b"NOP\n"),
        ] {
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn a_list_made_beforehand_gives_the_same_command() {
        let topic = TopicName::new("t").unwrap();
        let bodies = [&b"a"[..], b"bc"];
        let list = bytes(|o| message_list(&bodies, o));
        assert_eq!(list.len(), message_list_len(&bodies));
        assert_eq!(
            bytes(|o| publish_list(&topic, &list, o)),
            bytes(|o| publish_many(&topic, &bodies, o))
        );
    }

    #[test]
    fn decimals() {
        for n in [0, 9, 10, 99, 100, 1_234_567_890, u64::MAX] {
            assert_eq!(bytes(|o| decimal(n, o)), format!("{n}").as_bytes());
        }
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
