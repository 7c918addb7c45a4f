//! Publish commands, built once: a ring in which only the time stamps are rewritten.

use core::iter;

use super::options::{BenchOptions, Body};

/// As many commands as a connection may have under way, one behind the other, of the same length.
#[derive(Debug)]
pub(super) struct Commands {
    bytes: Vec<u8>,
    /// Bytes of one command.
    command_len: usize,
    /// Where in a command the first body begins, and how far it is to the next one.
    first_body: usize,
    body_stride: usize,
    is_stamped: bool,
    /// Of all bytes that were ever sent, how many are written, and how many may be.
    written: u64,
    stamped: u64,
}

impl Commands {
    /// Commands to `topics` in turn, as many as the window and at least one for each. The topics'
    /// names have one length.
    pub(super) fn new(
        options: &BenchOptions,
        topics: &[String],
        marker: [u8; 8],
        seed: u64,
    ) -> Self {
        let &BenchOptions { size, batch, .. } = options;
        let size = size as usize;
        let mut words = Words(seed);
        let mut bytes = Vec::new();
        let (mut command_len, mut first_body) = (0, 0);
        let turns = (options.window() as usize).div_ceil(topics.len());
        for topic in iter::repeat_n(topics, turns).flatten() {
            let start = bytes.len();
            if batch == 1 {
                bytes.extend(format!("PUB {topic}\n").as_bytes());
            } else {
                bytes.extend(format!("MPUB {topic}\n").as_bytes());
                bytes.extend((batch * (size as u32 + 4) + 4).to_be_bytes());
                bytes.extend(batch.to_be_bytes());
            }
            first_body = bytes.len() + 4 - start;
            for _ in 0..batch {
                bytes.extend((size as u32).to_be_bytes());
                let body = bytes.len();
                match options.body {
                    Body::Random => words.random(size, &mut bytes),
                    Body::Text => words.text(size, &mut bytes),
                }
                if size >= STAMP {
                    bytes[body..body + marker.len()].copy_from_slice(&marker);
                }
            }
            command_len = bytes.len() - start;
        }
        Self {
            bytes,
            command_len,
            first_body,
            body_stride: 4 + size,
            is_stamped: size >= STAMP,
            written: 0,
            stamped: 0,
        }
    }

    /// Has the next command sent, with this time in its bodies. No more may be under way than the
    /// window.
    pub(super) fn push(&mut self, time: u64) {
        let start = self.position(self.stamped);
        let command = &mut self.bytes[start..start + self.command_len];
        if self.is_stamped {
            let time = time.to_be_bytes();
            for body in command[self.first_body..].chunks_mut(self.body_stride) {
                body[8..STAMP].copy_from_slice(&time);
            }
        }
        self.stamped += self.command_len as u64;
    }

    /// What is to be written next, in one piece; empty if everything is.
    pub(super) fn unsent(&self) -> &[u8] {
        let start = self.position(self.written);
        let len = (self.stamped - self.written) as usize;
        &self.bytes[start..self.bytes.len().min(start + len)]
    }

    /// So much of it was written.
    pub(super) fn advance(&mut self, count: usize) {
        self.written += count as u64;
    }

    /// Whether another command may be put between: none is half written.
    pub(super) fn is_between(&self) -> bool {
        self.written.is_multiple_of(self.command_len as u64)
    }

    fn position(&self, count: u64) -> usize {
        (count % self.bytes.len() as u64) as usize
    }
}

/// Bodies that look alike and are not the same: those of one seed are.
struct Words(u64);

impl Words {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn random(&mut self, len: usize, bytes: &mut Vec<u8>) {
        let end = bytes.len() + len;
        while bytes.len() < end {
            bytes.extend(self.next().to_be_bytes());
        }
        bytes.truncate(end);
    }

    fn text(&mut self, len: usize, bytes: &mut Vec<u8>) {
        let end = bytes.len() + len;
        while bytes.len() < end {
            let random = self.next();
            let word = WORDS[(random % WORDS.len() as u64) as usize];
            bytes.extend(format!("\"{word}\": {}, ", random >> 48).as_bytes());
        }
        bytes.truncate(end);
    }
}

/// Bytes of a body that carry the marker and the time.
pub(super) const STAMP: usize = 16;

/// What the keys of a message may be called.
const WORDS: [&str; 16] = [
    "account", "address", "amount", "country", "created", "currency", "customer", "event", "item",
    "order", "price", "quantity", "region", "session", "status", "user",
];

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn commands(flags: &str, topics: &[&str]) -> Commands {
        let words = ["bench"].into_iter().chain(flags.split_ascii_whitespace());
        let options = BenchOptions::try_parse_from(words).unwrap();
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).into()).collect();
        Commands::new(&options, &topics, *b"<marker>", 1)
    }

    /// Takes up to `count` bytes out.
    fn write(commands: &mut Commands, count: usize) -> Vec<u8> {
        let part = commands.unsent();
        let part = part[..count.min(part.len())].to_vec();
        commands.advance(part.len());
        part
    }

    #[test]
    fn a_ring_of_two_topics() {
        let mut ring = commands("--batch 1 --size 16 --window 3", &["a", "b"]);
        // Three in the window, rounded up to whole turns.
        assert_eq!(ring.bytes.len(), 4 * ring.command_len);
        assert!(ring.unsent().is_empty() && ring.is_between());
        let mut all = Vec::new();
        for time in 1..=6 {
            ring.push(time);
            all.extend(write(&mut ring, 5));
            assert!(!ring.is_between());
            all.extend(write(&mut ring, usize::MAX));
            assert!(ring.unsent().is_empty() && ring.is_between());
        }
        let expected: Vec<u8> = (1..=6_u64)
            .flat_map(|time| {
                let topic = if time % 2 == 1 { "a" } else { "b" };
                let head = format!("PUB {topic}\n\0\0\0\x10<marker>");
                [head.as_bytes(), &time.to_be_bytes()[..]].concat()
            })
            .collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn the_ring_goes_round_in_two_pieces() {
        let mut ring = commands("--batch 1 --size 16 --window 2", &["t"]);
        ring.push(1);
        let len = ring.command_len;
        assert_eq!(write(&mut ring, usize::MAX).len(), len);
        ring.push(2);
        ring.push(3);
        assert_eq!(write(&mut ring, usize::MAX).len(), len);
        assert_eq!(write(&mut ring, usize::MAX).len(), len);
        assert!(ring.unsent().is_empty());
    }

    #[test]
    fn a_batch_says_how_long_it_is() {
        let mut ring = commands("--batch 3 --size 20 --window 1", &["t"]);
        ring.push(0x0102_0304_0506_0708);
        let bytes = write(&mut ring, usize::MAX);
        let (head, rest) = bytes.split_at(7);
        assert_eq!(head, b"MPUB t\n");
        assert_eq!(rest[..8], [0, 0, 0, 76, 0, 0, 0, 3]);
        assert_eq!(rest[4..].len(), 76);
        for body in rest[8..].chunks(24) {
            assert_eq!(body[..4], [0, 0, 0, 20]);
            assert_eq!(body[4..20], *b"<marker>\x01\x02\x03\x04\x05\x06\x07\x08");
        }
    }

    #[test]
    fn small_bodies_have_no_stamp_and_random_ones_do_not_repeat() {
        let mut ring = commands("--batch 1 --size 3 --window 1", &["t"]);
        ring.push(u64::MAX);
        assert_eq!(write(&mut ring, usize::MAX), b"PUB t\n\0\0\0\x03\"ad");
        let ring = commands("--batch 1 --size 800 --body random --window 1", &["t"]);
        let words: std::collections::BTreeSet<&[u8]> = ring.bytes[32..].chunks_exact(8).collect();
        assert_eq!(words.len(), ring.bytes[32..].len() / 8);
    }
}
