//! The meta file: depth and positions (storage-formats.md section 5).

use alloc::string::String;
use core::fmt;

/// A place in the data files of a queue.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Position {
    /// The data file's number.
    pub(super) file: u64,
    /// Bytes from its start.
    pub(super) offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.file, self.offset)
    }
}

/// The highest number of a data file that is taken for ours. A number is used up by a file of 100
/// MB; so the limit is never met, and the next number never too large for the reference's.
pub(super) const FILE_NUMBER_MAX: u64 = 1 << 62;

/// What a meta file holds; by default that of a queue that was never used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Meta {
    /// Records from `read` to `write`, as counted by who wrote the file.
    pub(super) depth: i64,
    /// The first record that is needed.
    pub(super) read: Position,
    /// Where the next record goes.
    pub(super) write: Position,
}

/// The text is no meta file, or says what cannot be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct BadMeta;

impl Meta {
    /// Reads a meta file as leniently as the reference, so the last line end may be missing, and
    /// blanks in front of numbers, plus signs, CRLF and more text behind the third line do no harm.
    ///
    /// # Errors
    /// [`BadMeta`] also for positions that are negative, beyond all numbers, or out of order.
    pub(super) fn parse(text: &[u8]) -> Result<Self, BadMeta> {
        let mut scan = Scan { text };
        let depth = scan.number()?;
        scan.line_end()?;
        let read = scan.position()?;
        scan.line_end()?;
        let write = scan.position()?;
        if read > write || write.file > FILE_NUMBER_MAX {
            return Err(BadMeta);
        }
        Ok(Self { depth, read, write })
    }

    /// The one form in which it is written.
    pub(super) fn to_text(self) -> String {
        alloc::format!("{}\n{}\n{}\n", self.depth, self.read, self.write)
    }
}

struct Scan<'a> {
    text: &'a [u8],
}

impl Scan<'_> {
    fn position(&mut self) -> Result<Position, BadMeta> {
        let file = self.number()?;
        self.text = self.text.strip_prefix(b",").ok_or(BadMeta)?;
        let offset = self.number()?;
        match (u64::try_from(file), u64::try_from(offset)) {
            (Ok(file), Ok(offset)) => Ok(Position { file, offset }),
            _ => Err(BadMeta),
        }
    }

    fn number(&mut self) -> Result<i64, BadMeta> {
        let text = self.text.trim_ascii_start_of_line();
        let (is_negative, text) = match text {
            [b'-', text @ ..] => (true, text),
            [b'+', text @ ..] => (false, text),
            text => (false, text),
        };
        let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = text.split_at(len);
        self.text = rest;
        let number = core::str::from_utf8(digits).map_err(|_| BadMeta)?;
        let number: i64 = number.parse().map_err(|_| BadMeta)?;
        Ok(if is_negative { -number } else { number })
    }

    fn line_end(&mut self) -> Result<(), BadMeta> {
        let text = self.text.trim_ascii_start_of_line();
        let text = text.strip_prefix(b"\r").unwrap_or(text);
        self.text = text.strip_prefix(b"\n").ok_or(BadMeta)?;
        Ok(())
    }
}

/// Blanks that end no line.
trait TrimBlanks {
    fn trim_ascii_start_of_line(&self) -> &Self;
}

impl TrimBlanks for [u8] {
    fn trim_ascii_start_of_line(&self) -> &Self {
        let blanks = self.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        &self[blanks..]
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn meta(depth: i64, read: (u64, u64), write: (u64, u64)) -> Meta {
        let position = |(file, offset)| Position { file, offset };
        Meta { depth, read: position(read), write: position(write) }
    }

    #[test]
    fn the_canonical_form_is_the_references() {
        for (text, meta) in [
            ("9\n0,0\n0,319\n", meta(9, (0, 0), (0, 319))),
            ("0\n0,0\n0,0\n", meta(0, (0, 0), (0, 0))),
            ("35\n1,490\n5,980\n", meta(35, (1, 490), (5, 980))),
        ] {
            assert_eq!(meta.to_text(), text);
            assert_eq!(Meta::parse(text.as_bytes()), Ok(meta));
        }
    }

    #[test]
    fn variants_are_read_as_the_reference_reads_them() {
        let same = meta(9, (0, 5), (2, 319));
        for text in [
            "9\n0,5\n2,319",
            "9\r\n0,5\r\n2,319\r\n",
            " 9\n 0, 5\n\t2, 319\n",
            "+9\n+0,+5\n+2,+319\n",
            "9\n0,5\n2,319\nand more",
            "9\n0,5\n2,319 and more",
        ] {
            assert_eq!(Meta::parse(text.as_bytes()), Ok(same), "{text:?}");
        }
        assert_eq!(Meta::parse(b"-3\n0,0\n0,9\n").map(|meta| meta.depth), Ok(-3));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let huge = (FILE_NUMBER_MAX + 1).to_string();
        for text in [
            "",
            "\n",
            "x",
            "9\n",
            "9\n0,0\n",
            "9\n0,0\n1\n",
            "9\n0,0\n0,\n",
            "9 0,0\n0,0\n",
            "9\n0;0\n0,0\n",
            "9\n-1,0\n0,0\n",
            "9\n0,0\n0,-1\n",
            "9\n1,0\n0,50\n",
            "9\n0,51\n0,50\n",
            "99999999999999999999\n0,0\n0,0\n",
            "\u{feff}9\n0,0\n0,0\n",
        ] {
            assert_eq!(Meta::parse(text.as_bytes()), Err(BadMeta), "{text:?}");
        }
        assert_eq!(Meta::parse(alloc::format!("1\n0,0\n{huge},0\n").as_bytes()), Err(BadMeta));
    }
}
