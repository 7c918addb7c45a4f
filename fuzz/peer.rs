//! What the worlds around clients have in common.

use bytes::Bytes;
use sansq_core::http::call::{CallAnswer, CallFailure, CallResult};

/// More would only make runs longer.
pub(crate) const STEPS_MAX: usize = 300;

/// The input, byte by byte; behind its end are zeros.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte, if there is one.
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// The next bytes, as many of them as there are.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Some bytes, behind their number.
    pub(crate) fn some(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.bytes(len)
    }

    /// A number below `bound`, which is at most 256.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A frame as an nsqd sends it.
pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + payload.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 0, kind]);
    bytes.extend_from_slice(payload);
    bytes
}

/// What an nsqlookupd answers: some of our nsqds, anything, or nothing.
pub(crate) fn call_result(reader: &mut Reader<'_>) -> CallResult {
    let flags = reader.byte();
    if flags & 3 == 3 {
        return Err(CallFailure::TimedOut);
    }
    let body = if flags & 3 == 2 {
        Bytes::copy_from_slice(reader.some())
    } else {
        let bits = flags >> 2;
        let peers: Vec<_> = (0..5)
            .filter(|at| bits >> at & 1 == 1)
            .map(|at| format!(r#"{{"broadcast_address":"n{at}","tcp_port":1}}"#))
            .collect();
        format!(r#"{{"producers":[{}]}}"#, peers.join(",")).into()
    };
    let status = [200, 200, 200, 404, 403, 500, 204, 0][usize::from(flags >> 5)];
    Ok(CallAnswer { status, body })
}

/// A command of a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ClientCommand {
    /// PUB, MPUB or DPUB; of an MPUB, the length of its body.
    Publish { bodies: Vec<String>, size: usize },
    /// FIN, REQ or TOUCH; the verb has its blank.
    Answer { verb: String, id: String },
    /// Another, by its words.
    Other(Vec<String>),
}

/// The commands in `bytes`, which are whole; the magic is passed over.
///
/// # Panics
/// If they are not.
pub(crate) fn commands(bytes: &[u8]) -> Vec<ClientCommand> {
    let mut bytes = bytes.strip_prefix(b"  V2").unwrap_or(bytes);
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        // What a server gives as an id may have any bytes, the end of a line among them.
        let verbs = [&b"FIN "[..], b"REQ ", b"TOUCH "];
        if let Some(verb) = verbs.into_iter().find(|verb| bytes.starts_with(verb)) {
            let (head, rest) = bytes.split_at(verb.len() + 16);
            bytes = &rest[end_of_line(rest) + 1..];
            commands
                .push(ClientCommand::Answer { verb: text(verb), id: text(&head[verb.len()..]) });
            continue;
        }
        let end = end_of_line(bytes);
        let line = text(&bytes[..end]);
        bytes = &bytes[end + 1..];
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        commands.push(match words[0].as_str() {
            "PUB" | "DPUB" => {
                ClientCommand::Publish { bodies: vec![text(take_sized(&mut bytes))], size: 0 }
            }
            "MPUB" => {
                let mut list = take_sized(&mut bytes);
                let size = list.len();
                let count = take_number(&mut list);
                let bodies = (0..count).map(|_| text(take_sized(&mut list))).collect();
                assert!(list.is_empty());
                ClientCommand::Publish { bodies, size }
            }
            "IDENTIFY" | "AUTH" => {
                take_sized(&mut bytes);
                ClientCommand::Other(words)
            }
            _ => ClientCommand::Other(words),
        });
    }
    commands
}

fn take_number(bytes: &mut &[u8]) -> usize {
    let (number, rest) = bytes.split_first_chunk::<4>().expect("a number has four bytes");
    *bytes = rest;
    u32::from_be_bytes(*number) as usize
}

fn take_sized<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let len = take_number(bytes);
    let (body, rest) = bytes.split_at(len);
    *bytes = rest;
    body
}

fn end_of_line(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').expect("a line has an end")
}

/// Each byte as a character.
fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
