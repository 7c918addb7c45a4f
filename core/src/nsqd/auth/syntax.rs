//! Go's syntax of regular expressions, rewritten for the engine that is used here.
//!
//! The two agree on most, but not on what an auth server may rely on: Go takes `{` for itself where it
//! begins no repetition, knows `\Q…\E`, refuses `a**`, and has no sets within classes. So every pattern
//! is read by Go's rules and written out anew in the part of the syntax that both share.
//!
//! What is matched are names, and those are ASCII. So a character beyond ASCII is written as a byte
//! that no name has, and Unicode's classes as what of them is ASCII. Of the scripts only `Latin` and
//! `Common` are known: a pattern with another one is refused, like one that does not compile.
//!
//! Source: nsqd-protocol.md section 16 ("RE2 syntax").

use alloc::string::String;
use core::fmt::Write as _;

/// The pattern is not one of Go's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SyntaxError(pub(super) &'static str);

/// Writes `pattern` anew, for an engine that matches bytes and knows no Unicode.
pub(super) fn rewrite(pattern: &str) -> Result<String, SyntaxError> {
    let mut rewriter = Rewriter { rest: pattern, out: String::with_capacity(2 * pattern.len()) };
    rewriter.run()?;
    Ok(rewriter.out)
}

struct Rewriter<'a> {
    rest: &'a str,
    out: String,
}

impl Rewriter<'_> {
    fn run(&mut self) -> Result<(), SyntaxError> {
        // Two repetitions in a row are an error; what else stands between them is the engine's business.
        let mut repeated = false;
        while let Some(c) = self.next() {
            let repeats = match c {
                '*' | '+' | '?' => {
                    self.out.push(c);
                    true
                }
                '{' => self.repetition()?,
                _ => {
                    self.single(c)?;
                    false
                }
            };
            if repeats {
                if repeated {
                    return Err(SyntaxError("invalid nested repetition operator"));
                }
                if self.eat("?") {
                    self.out.push('?');
                }
            }
            repeated = repeats;
        }
        Ok(())
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        Some(c)
    }

    fn eat(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Anything but a repetition.
    fn single(&mut self, c: char) -> Result<(), SyntaxError> {
        match c {
            '(' => self.group()?,
            ')' | '|' | '^' | '$' | '.' => self.out.push(c),
            '[' => self.class()?,
            '\\' => self.escape()?,
            _ => self.literal(c),
        }
        Ok(())
    }

    fn literal(&mut self, c: char) {
        if c.is_ascii_alphanumeric() {
            self.out.push(c);
        } else if c.is_ascii() {
            self.byte(c as u8);
        } else {
            self.out.push_str(NOTHING);
        }
    }

    fn byte(&mut self, byte: u8) {
        // A String takes all text.
        let _ = write!(self.out, "\\x{byte:02X}");
    }

    /// Behind a `{`. Returns whether it is a repetition; if not, it stands for itself.
    fn repetition(&mut self) -> Result<bool, SyntaxError> {
        let before = self.rest;
        let Some(min) = self.number() else {
            self.literal('{');
            return Ok(false);
        };
        let (mut max, mut is_open) = (min, false);
        if self.eat(",") {
            match self.number() {
                Some(number) => max = number,
                None => is_open = true,
            }
        }
        if !self.eat("}") {
            self.rest = before;
            self.literal('{');
            return Ok(false);
        }
        if max > REPEAT_MAX || min > max {
            return Err(SyntaxError("invalid repeat count"));
        }
        let _ = match (is_open, min == max) {
            (true, _) => write!(self.out, "{{{min},}}"),
            (false, true) => write!(self.out, "{{{min}}}"),
            (false, false) => write!(self.out, "{{{min},{max}}}"),
        };
        Ok(true)
    }

    /// Digits without a leading zero; numbers that are far too large are all the same.
    fn number(&mut self) -> Option<u32> {
        let len = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(len);
        if digits.is_empty() || (len > 1 && digits.starts_with('0')) {
            return None;
        }
        self.rest = rest;
        Some(digits.parse().unwrap_or(u32::MAX))
    }

    /// Behind a `(`. Nothing is captured.
    fn group(&mut self) -> Result<(), SyntaxError> {
        if !self.eat("?") {
            self.out.push_str("(?:");
            return Ok(());
        }
        if self.eat("P<") || self.eat("<") {
            let (name, rest) =
                self.rest.split_once('>').ok_or(SyntaxError("invalid named capture"))?;
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || !name.bytes().all(is_word) {
                return Err(SyntaxError("invalid named capture"));
            }
            self.rest = rest;
            self.out.push_str("(?:");
            return Ok(());
        }
        self.out.push_str("(?");
        while let Some(c) = self.next() {
            match c {
                'i' | 'm' | 's' | 'U' | '-' => self.out.push(c),
                ':' | ')' => {
                    self.out.push(c);
                    return Ok(());
                }
                _ => break,
            }
        }
        Err(SyntaxError("invalid or unsupported Perl syntax"))
    }

    /// Behind a `\`, outside of classes.
    fn escape(&mut self) -> Result<(), SyntaxError> {
        if self.eat("Q") {
            let (quoted, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
            quoted.chars().for_each(|c| self.literal(c));
            self.rest = rest;
            return Ok(());
        }
        for (text, written) in ASSERTIONS {
            if self.eat(text) {
                self.out.push_str(written);
                return Ok(());
            }
        }
        if let Some((inner, negated)) = self.shorthand()? {
            let caret = if negated { "^" } else { "" };
            let _ = write!(self.out, "[{caret}{inner}]");
            return Ok(());
        }
        match self.escaped_char()? {
            Some(byte) => self.byte(byte),
            None => self.out.push_str(NOTHING),
        }
        Ok(())
    }

    /// `\d`, `\pL` and their like: the inside of a class, and whether it is turned round.
    fn shorthand(&mut self) -> Result<Option<(&'static str, bool)>, SyntaxError> {
        for (letter, inner) in PERL_CLASSES {
            if self.eat(letter) {
                return Ok(Some((inner, false)));
            }
            if self.eat(&letter.to_ascii_uppercase()) {
                return Ok(Some((inner, true)));
            }
        }
        let mut negated = self.eat("P");
        if !negated && !self.eat("p") {
            return Ok(None);
        }
        let unknown = SyntaxError("invalid or unsupported character class");
        let name = if self.eat("{") {
            let (name, rest) = self.rest.split_once('}').ok_or(unknown)?;
            self.rest = rest;
            name
        } else {
            let len = self.rest.chars().next().map_or(0, char::len_utf8);
            let (name, rest) = self.rest.split_at(len);
            self.rest = rest;
            name
        };
        let plain = name.strip_prefix('^');
        negated ^= plain.is_some();
        let name = plain.unwrap_or(name);
        let found = UNICODE_CLASSES.iter().find(|(names, _)| names.split(' ').any(|n| n == name));
        let (_, inner) = found.filter(|_| !name.is_empty()).ok_or(unknown)?;
        Ok(Some((inner, negated)))
    }

    /// One escaped character; `None` if it is beyond ASCII.
    fn escaped_char(&mut self) -> Result<Option<u8>, SyntaxError> {
        let invalid = SyntaxError("invalid escape sequence");
        let code = match self.next().ok_or(SyntaxError("trailing backslash"))? {
            'a' => 7,
            'f' => 0x0C,
            'n' => 0x0A,
            'r' => 0x0D,
            't' => 9,
            'v' => 0x0B,
            'x' if self.eat("{") => {
                let (digits, rest) = self.rest.split_once('}').ok_or(invalid)?;
                self.rest = rest;
                hexadecimal(digits).filter(|code| *code <= 0x10_FFFF).ok_or(invalid)?
            }
            'x' => {
                let digits = self.rest.get(..2).ok_or(invalid)?;
                self.rest = &self.rest[2..];
                hexadecimal(digits).ok_or(invalid)?
            }
            // A digit alone would refer back, which there is not; with another it is a character.
            c @ '0'..='7' => {
                let is_octal = |byte: &u8| (b'0'..=b'7').contains(byte);
                let more = self.rest.bytes().take_while(is_octal).take(2).count();
                if c != '0' && more == 0 {
                    return Err(invalid);
                }
                let (digits, rest) = self.rest.split_at(more);
                self.rest = rest;
                let first = u32::from(c as u8 - b'0');
                digits.bytes().fold(first, |code, digit| code * 8 + u32::from(digit - b'0'))
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
            _ => return Err(invalid),
        };
        Ok(u8::try_from(code).ok().filter(u8::is_ascii))
    }

    /// Behind a `[`.
    fn class(&mut self) -> Result<(), SyntaxError> {
        let unclosed = SyntaxError("missing closing ]");
        self.out.push('[');
        if self.eat("^") {
            self.out.push('^');
        }
        let mut is_first = true;
        loop {
            if !is_first && self.eat("]") {
                self.out.push(']');
                return Ok(());
            }
            is_first = false;
            if self.rest.starts_with("[:")
                && let Some(end) = self.rest[2..].find(":]")
            {
                let (name, rest) = self.rest.split_at(end + 4);
                let inner = name[2..end + 2].trim_start_matches('^');
                if !POSIX_CLASSES.contains(&inner) || end > inner.len() + 1 {
                    return Err(SyntaxError("invalid character class range"));
                }
                self.out.push_str(name);
                self.rest = rest;
                continue;
            }
            let before = self.rest;
            if self.eat("\\") {
                if let Some((inner, negated)) = self.shorthand()? {
                    let caret = if negated { "^" } else { "" };
                    let _ = write!(self.out, "[{caret}{inner}]");
                    continue;
                }
                self.rest = before;
            }
            let low = self.class_char().transpose().ok_or(unclosed)??;
            let is_range = self.rest.starts_with('-') && !self.rest.starts_with("-]");
            let high = if is_range {
                self.eat("-");
                self.class_char().transpose().ok_or(unclosed)??
            } else {
                low
            };
            self.range(low, high)?;
        }
    }

    /// A character of a class; `None` at the end.
    fn class_char(&mut self) -> Result<Option<u32>, SyntaxError> {
        if self.eat("\\") {
            return self.escaped_char().map(|byte| Some(byte.map_or(BEYOND, u32::from)));
        }
        Ok(self.next().map(u32::from))
    }

    fn range(&mut self, low: u32, high: u32) -> Result<(), SyntaxError> {
        if high < low {
            return Err(SyntaxError("invalid character class range"));
        }
        match u8::try_from(low) {
            Ok(low) if low.is_ascii() => {
                self.byte(low);
                self.out.push('-');
                self.byte(high.min(0x7F) as u8);
            }
            _ => self.out.push_str(NOTHING),
        }
        Ok(())
    }
}

fn hexadecimal(digits: &str) -> Option<u32> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

/// The most times that a repetition may ask for, as in Go.
const REPEAT_MAX: u32 = 1000;

/// A byte that is in no name.
const NOTHING: &str = "\\xFF";

/// Some character beyond ASCII.
const BEYOND: u32 = 0x10_FFFF;

/// Groups keep them apart from what follows, which the engine might take for a part of them.
const ASSERTIONS: [(&str, &str); 4] =
    [("A", "(?:\\A)"), ("b", "(?:\\b)"), ("B", "(?:\\B)"), ("z", "(?:\\z)")];

const PERL_CLASSES: [(&str, &str); 3] =
    [("d", "0-9"), ("s", "\\x09\\x0A\\x0C\\x0D\\x20"), ("w", "0-9A-Za-z_")];

const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// What of Unicode's classes is ASCII.
const UNICODE_CLASSES: [(&str, &str); 19] = [
    ("Any", "\\x00-\\x7F"),
    ("C Cc", "\\x00-\\x1F\\x7F"),
    ("L Latin", "A-Za-z"),
    ("Lu", "A-Z"),
    ("Ll", "a-z"),
    ("Common", "\\x00-\\x40\\x5B-\\x60\\x7B-\\x7F"),
    ("N Nd", "0-9"),
    ("P", "\\x21-\\x23\\x25-\\x2A\\x2C-\\x2F\\x3A\\x3B\\x3F\\x40\\x5B-\\x5D_\\x7B\\x7D"),
    ("Pc", "_"),
    ("Pd", "\\x2D"),
    ("Ps", "\\x28\\x5B\\x7B"),
    ("Pe", "\\x29\\x5D\\x7D"),
    ("Po", "\\x21-\\x23\\x25-\\x27\\x2A\\x2C\\x2E\\x2F\\x3A\\x3B\\x3F\\x40\\x5C"),
    ("S", "\\x24\\x2B\\x3C-\\x3E\\x5E\\x60\\x7C\\x7E"),
    ("Sc", "\\x24"),
    ("Sk", "\\x5E\\x60"),
    ("Sm", "\\x2B\\x3C-\\x3E\\x7C\\x7E"),
    ("Z Zs", "\\x20"),
    ("Cf Co Cs Lm Lo Lt M Mc Me Mn Nl No Pf Pi So Zl Zp", NOTHING),
];
