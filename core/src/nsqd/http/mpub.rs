//! The two forms of `/mpub`'s body (http-and-ops.md section 2.4).
//!
//! Nothing of a body is published unless all of it is in order. The errors are the words of the
//! answer 413, which all of them get, also where nothing is too large.

use bytes::Bytes;

use crate::list::MessageList;
use crate::nsqd::config::Config;

/// Splits a body into its lines. Empty lines make no message, so there may be none at all; a CR
/// belongs to its message.
pub(super) fn split_lines(body: &[u8], config: &Config) -> Result<MessageList, &'static str> {
    let lines = || body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    if lines().any(|line| line.len() > config.max_msg_size) {
        return Err("MSG_TOO_BIG");
    }
    Ok(lines().collect())
}

/// Splits a body as MPUB has it: a count, then so many messages with their sizes. Bytes behind the
/// last one are ignored.
pub(super) fn split_binary(body: &Bytes, config: &Config) -> Result<MessageList, &'static str> {
    let (count, messages) = split_int32(body).ok_or("BAD_BODY")?;
    let count = u32::try_from(count).unwrap_or(0);
    if count == 0 || count as usize > config.mpub_count_max() {
        return Err("BAD_BODY");
    }
    let mut rest = messages;
    for _ in 0..count {
        let (size, behind) = split_int32(rest).ok_or("BAD_MESSAGE")?;
        let size = usize::try_from(size).unwrap_or(0);
        if size == 0 || size > config.max_msg_size {
            return Err("BAD_MESSAGE");
        }
        rest = behind.get(size..).ok_or("BAD_MESSAGE")?;
    }
    let messages = &messages[..messages.len() - rest.len()];
    Ok(MessageList::slice(count, body, messages))
}

/// A big-endian 32-bit number and what follows; `None` if it is cut off.
fn split_int32(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (int, rest) = bytes.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*int), rest))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use proptest::prelude::*;

    fn config(max_msg_size: usize, max_body_size: usize) -> Config {
        Config { max_msg_size, max_body_size, ..Config::default() }
    }

    fn binary(count: i32, messages: &[&[u8]]) -> Vec<u8> {
        let mut body = count.to_be_bytes().to_vec();
        for message in messages {
            body.extend_from_slice(&(message.len() as i32).to_be_bytes());
            body.extend_from_slice(message);
        }
        body
    }

    #[test]
    fn lines() {
        let list = |bodies: &[&str]| Ok(bodies.iter().collect::<MessageList>());
        let split = |body: &str| split_lines(body.as_bytes(), &config(4, 100));
        assert_eq!(split("a\nbb"), list(&["a", "bb"]));
        assert_eq!(split("\n\na\n\n\nb\n"), list(&["a", "b"]));
        assert_eq!(split("a\r\nb\r\n"), list(&["a\r", "b\r"]));
        assert_eq!(split("\0\n1234"), list(&["\0", "1234"]));
        assert_eq!(split(""), list(&[]));
        assert_eq!(split("\n\n"), list(&[]));
        assert_eq!(split("a\n12345\nb"), Err("MSG_TOO_BIG"));
        assert_eq!(split("a\n12345"), Err("MSG_TOO_BIG"));
    }

    #[test]
    fn binary_bodies() {
        let split = |body: Vec<u8>| split_binary(&Bytes::from(body), &config(4, 19));
        let list = |bodies: &[&[u8]]| Ok(bodies.iter().collect::<MessageList>());
        assert_eq!(split(binary(1, &[b"1234"])), list(&[b"1234"]));
        assert_eq!(split(binary(2, &[b"\n", b"\0\xff"])), list(&[b"\n", b"\0\xff"]));
        // Three is the most that 19 bytes can hold.
        assert_eq!(split(binary(3, &[b"a", b"b", b"c"])).unwrap().len(), 3);
        let behind = [binary(1, &[b"a"]), b"rest".to_vec()].concat();
        assert_eq!(split(behind), list(&[b"a"]));
        for body in [
            Vec::new(),
            b"\0\0\0".to_vec(),
            binary(0, &[]),
            binary(-1, &[b"a"]),
            binary(4, &[b"a", b"b", b"c", b"d"]),
            binary(i32::MAX, &[]),
        ] {
            assert_eq!(split(body.clone()), Err("BAD_BODY"), "{body:?}");
        }
        for body in [
            binary(1, &[]),
            binary(2, &[b"a"]),
            [binary(1, &[]), b"\0\0\0".to_vec()].concat(),
            binary(1, &[b""]),
            binary(1, &[b"12345"]),
            [binary(1, &[]), b"\xff\xff\xff\xffa".to_vec()].concat(),
            [binary(1, &[]), b"\0\0\0\x03ab".to_vec()].concat(),
        ] {
            assert_eq!(split(body.clone()), Err("BAD_MESSAGE"), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn lines_read_back(lines in prop::collection::vec("[a-c\r]{0,300}", 0..8)) {
            let messages = split_lines(lines.join("\n").as_bytes(), &Config::default()).unwrap();
            let expected: Vec<_> = lines.into_iter().filter(|line| !line.is_empty()).collect();
            prop_assert_eq!(messages, expected.iter().collect());
        }

        #[test]
        fn binary_reads_back_and_no_cut_passes(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let parts: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            let body = Bytes::from(binary(parts.len() as i32, &parts));
            let config = Config::default();
            prop_assert_eq!(split_binary(&body, &config).unwrap(), messages.iter().collect());
            let cut = body.slice(..cut.index(body.len()));
            let error = if cut.len() < 4 { "BAD_BODY" } else { "BAD_MESSAGE" };
            prop_assert_eq!(split_binary(&cut, &config), Err(error));
        }

        #[test]
        fn any_body_is_judged(body in prop::collection::vec(0_u8..4, 0..60)) {
            let (body, config) = (Bytes::from(body), config(2, 50));
            for messages in [split_binary(&body, &config), split_lines(&body, &config)] {
                for message in messages.unwrap_or_default().iter() {
                    prop_assert!((1..=2).contains(&message.len()));
                }
            }
        }
    }
}
