//! The form of a line.

use core::fmt::{self, Write};
use std::collections::BTreeMap;

use jiff::Zoned;
use sansq_core::log::{Count, Level};
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::{KIND, LogFormat, Logs, Target, from_tracing};

impl<S, N> FormatEvent<S, N> for Logs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(target) = self.target(event.metadata().target()) else { return Ok(()) };
        let mut text = Text::default();
        event.record(&mut text);
        text.end();
        let level = from_tracing(*event.metadata().level());
        let level = if text.is_fatal { Level::Fatal } else { level };
        self.write_line(&mut writer, target, level, &text)
    }
}

impl Logs {
    /// Writes one line, newline included.
    pub(super) fn write_line(
        &self,
        out: &mut impl Write,
        target: &Target,
        level: Level,
        text: &Text,
    ) -> fmt::Result {
        match self.0.format {
            LogFormat::Text => line(out, &target.prefix, &Zoned::now(), level, &text.message),
            LogFormat::Json => object(out, target.name, &Zoned::now(), level, text),
        }
    }
}

/// A line of NSQ's. Control characters are escaped: some texts quote what a peer sent, and a peer
/// must not be able to forge a line.
fn line(out: &mut impl Write, prefix: &str, now: &Zoned, level: Level, text: &str) -> fmt::Result {
    write!(out, "{prefix}{} {level}: ", now.strftime("%Y/%m/%d %H:%M:%S.%6f"))?;
    let is_escaped = |c: char| c.is_control() && c != '\t';
    for part in text.split_inclusive(is_escaped) {
        match part.char_indices().next_back() {
            Some((at, c)) if is_escaped(c) => {
                write!(out, "{}{}", &part[..at], c.escape_default())?;
            }
            _ => out.write_str(part)?,
        }
    }
    out.write_char('\n')
}

/// An object on a line. JSON escapes whatever could end it.
fn object(
    out: &mut impl Write,
    program: &str,
    now: &Zoned,
    level: Level,
    text: &Text,
) -> fmt::Result {
    #[derive(Serialize)]
    struct Object<'a> {
        time: String,
        level: String,
        program: &'a str,
        message: &'a str,
        #[serde(flatten)]
        others: &'a BTreeMap<&'static str, String>,
    }
    let object = Object {
        time: now.strftime("%Y-%m-%dT%H:%M:%S.%6f%:z").to_string(),
        level: level.to_string(),
        program,
        message: &text.message,
        others: &text.others,
    };
    out.write_str(&serde_json::to_string(&object).map_err(|_| fmt::Error)?)?;
    out.write_char('\n')
}

/// What an event says.
#[derive(Default)]
pub(super) struct Text {
    message: String,
    /// Bytes that the message lacks.
    cut: usize,
    is_fatal: bool,
    /// Peers can cause such lines at will.
    has_kind: bool,
    others: BTreeMap<&'static str, String>,
}

impl Text {
    pub(super) fn new(message: String) -> Self {
        Self { message, ..Self::default() }
    }

    /// Says what the message lacks.
    fn end(&mut self) {
        if self.has_kind {
            let len = self.message.len().min(PEERS_LEN_MAX);
            let len = char_boundary(&self.message, len);
            self.cut += self.message.len() - len;
            self.message.truncate(len);
        }
        if self.cut > 0 {
            self.message += &format!("… ({} more)", Count(self.cut, "byte"));
        }
    }
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room =
            if self.cut > 0 { 0 } else { MESSAGE_LEN_MAX.saturating_sub(self.message.len()) };
        let (fitting, rest) = part.split_at(char_boundary(part, part.len().min(room)));
        self.message.push_str(fitting);
        self.cut += rest.len();
        Ok(())
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            // Writing into it can't fail.
            "message" => drop(write!(self, "{value:?}")),
            KIND => self.has_kind = true,
            name => drop(self.others.insert(name, format!("{value:?}"))),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "fatal" {
            self.is_fatal |= value;
        } else {
            self.record_debug(field, &value);
        }
    }
}

/// The last boundary of a character that is at most at `at`, which is within `text`.
fn char_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Bytes of a line's text, before control characters are escaped; and of one that peers can cause
/// at will.
const MESSAGE_LEN_MAX: usize = 16 * 1024;
const PEERS_LEN_MAX: usize = 1536;

#[cfg(test)]
mod tests {
    use jiff::civil;
    use jiff::tz::{self, TimeZone};

    use super::*;
    use crate::log::LEVELS;

    #[test]
    fn the_line() {
        let time = civil::date(2026, 1, 2).at(3, 4, 5, 6_007_999);
        let time = time.to_zoned(TimeZone::UTC).unwrap();
        let shown = |prefix: &str, level, text: &str| {
            let mut out = String::new();
            line(&mut out, prefix, &time, level, text).unwrap();
            out
        };
        for (level, word) in LEVELS.into_iter().zip(["DEBUG", "INFO", "WARNING", "ERROR", "FATAL"])
        {
            let expected = format!("[nsqd] 2026/01/02 03:04:05.006007 {word}: hi\n");
            assert_eq!(shown("[nsqd] ", level, "hi"), expected);
        }
        let forged = shown("", Level::Info, "a\n[nsqd] b\r\u{1b}\tä");
        assert!(forged.ends_with(" INFO: a\\n[nsqd] b\\r\\u{1b}\tä\n"), "{forged}");
    }

    #[test]
    fn the_object() {
        let time = civil::date(2026, 1, 2).at(3, 4, 5, 6_007_999);
        let time = time.to_zoned(TimeZone::fixed(tz::offset(1))).unwrap();
        let mut out = String::new();
        object(&mut out, "nsqd", &time, Level::Warn, &Text::new("a \"b\"\n\u{1b}".into())).unwrap();
        assert_eq!(
            out,
            "{\"time\":\"2026-01-02T03:04:05.006007+01:00\",\"level\":\"WARNING\",\"program\":\"nsqd\",\
             \"message\":\"a \\\"b\\\"\\n\\u001b\"}\n"
        );
    }
}
