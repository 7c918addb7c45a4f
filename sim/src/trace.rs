//! What happened, as a hash and, if wanted, as lines.

use core::fmt;
use std::io::Write;

use sansq_core::time::Now;

/// Every event of a run goes in as a line; the hash over the lines tells two runs apart.
pub struct Trace {
    hash: u64,
    lines: u64,
    sink: Option<Box<dyn Write>>,
}

impl Trace {
    /// A trace that only hashes, or that writes its lines to `sink` as well.
    pub fn new(sink: Option<Box<dyn Write>>) -> Self {
        Self { hash: OFFSET_BASIS, lines: 0, sink }
    }

    /// Takes note of what happens at `now`. A sink that fails is given up: the run matters more.
    pub fn line(&mut self, now: Now, what: fmt::Arguments<'_>) {
        self.lines += 1;
        let at = now.instant.as_nanos();
        let mut hasher = Hasher(self.hash);
        // The hasher takes everything.
        let _ = fmt::write(&mut hasher, format_args!("{at} {what}\n"));
        self.hash = hasher.0;
        if let Some(sink) = &mut self.sink {
            let (secs, micros) = (at / 1_000_000_000, at / 1000 % 1_000_000);
            if writeln!(sink, "{secs}.{micros:06} {what}").is_err() {
                self.sink = None;
            }
        }
    }

    /// The hash over all lines so far.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there were.
    pub const fn lines(&self) -> u64 {
        self.lines
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("hash", &self.hash)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

/// The hash of some bytes, which stand for them in a line.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| step(hash, *byte))
}

/// FNV-1a with 64 bits: no secret is kept, and a run is replayed by the same program.
struct Hasher(u64);

impl fmt::Write for Hasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = text.bytes().fold(self.0, step);
        Ok(())
    }
}

const fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01B3)
}

const OFFSET_BASIS: u64 = 0xCBF2_9CE4_8422_2325;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_text_make_the_hash() {
        let run = |lines: &[(u64, &str)]| {
            let mut trace = Trace::new(None);
            for (at, text) in lines {
                trace.line(Now::from_millis(*at), format_args!("{text}"));
            }
            trace.hash()
        };
        assert_eq!(run(&[(1, "a"), (2, "b")]), run(&[(1, "a"), (2, "b")]));
        assert_ne!(run(&[(1, "a"), (2, "b")]), run(&[(1, "a"), (3, "b")]));
        assert_ne!(run(&[(1, "a"), (2, "b")]), run(&[(2, "b"), (1, "a")]));
    }
}
