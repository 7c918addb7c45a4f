//! The log: NSQ's line format on standard error, or one JSON object per line.
//!
//! `[nsqd] 2026/11/22 12:27:30.957558 INFO: text` is prefix, local date and time with microseconds,
//! level and text (http-and-ops.md section 7). The servers emit `tracing` events with their program's
//! name as target; the event's message is the text. `tracing` knows no level above ERROR: an event
//! with a field `fatal` is logged as FATAL.
//!
//! An object has `time` (RFC 3339, local, with microseconds), `level`, `program`, `message`, and an event's
//! other fields by their names.

use core::cell::RefCell;
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU8, Ordering};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Zoned;
use sansq_core::log::Level;
use sansq_runtime::BATCH;
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::span::Id;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use crate::args::LogFormat;

/// The settings of the log, shared with the [`LogLayer`]: levels can be changed while it runs.
///
/// Cloning gives another handle to the same settings.
#[derive(Clone, Debug)]
pub struct Logs(Arc<Settings>);

#[derive(Debug)]
struct Settings {
    format: LogFormat,
    targets: Box<[Target]>,
}

/// One program's log.
#[derive(Debug)]
struct Target {
    name: &'static str,
    prefix: String,
    level: AtomicU8,
}

impl Logs {
    /// A log per program: its name (the events' target), prefix and level. Only lines of text have a prefix.
    pub fn new<'a>(
        format: LogFormat,
        programs: impl IntoIterator<Item = (&'static str, &'a str, Level)>,
    ) -> Self {
        let target = |(name, prefix, level): (_, &str, _)| Target {
            name,
            prefix: prefix.into(),
            level: AtomicU8::new(rank(level)),
        };
        let targets = programs.into_iter().map(target).collect();
        Self(Arc::new(Settings { format, targets }))
    }

    /// Makes this the process's log, on standard error. Later calls have no effect.
    pub fn install(&self) {
        self.install_to(io::stderr());
    }

    /// As [`install`](Self::install), with `sink` instead of standard error.
    pub fn install_to<W: Write + Send + 'static>(&self, sink: W) {
        // Fails only if there is a log already.
        let _ = INSTALLED.set(self.clone());
        let layer = LogLayer { logs: self.clone(), sink: Mutex::new(sink) };
        // Fails only if there is a log already.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
    }

    /// A layer that writes to `sink`, one write per line, or one for the lines of a [`BATCH`]; errors of the
    /// sink are ignored.
    pub fn layer<W: Write>(&self, sink: W) -> LogLayer<W> {
        LogLayer { logs: self.clone(), sink: Mutex::new(sink) }
    }

    /// The quietest level that `program` logs; `None` if it has no log here.
    pub fn level(&self, program: &str) -> Option<Level> {
        let rank = self.target(program)?.level.load(Ordering::Relaxed);
        LEVELS.get(usize::from(rank)).copied()
    }

    /// Changes the quietest level that `program` logs, from the next line on.
    pub fn set_level(&self, program: &str, level: Level) {
        if let Some(target) = self.target(program) {
            target.level.store(rank(level), Ordering::Relaxed);
        }
    }

    fn target(&self, program: &str) -> Option<&Target> {
        self.0.targets.iter().find(|target| target.name == program)
    }
}

/// Changes the quietest level that nsqd logs, from the next line on; for `/config/log_level`.
pub fn set_nsqd_level(level: Level) {
    if let Some(logs) = INSTALLED.get() {
        logs.set_level(NSQD, level);
    }
}

/// The process's log.
static INSTALLED: OnceLock<Logs> = OnceLock::new();

/// Logs `text` at `level` for `program`, through whatever log is installed.
pub fn log(program: &'static str, level: Level, text: impl fmt::Display) {
    // An event's target has to be known at compile time.
    macro_rules! event {
        ($target:literal) => {
            match level {
                Level::Debug => tracing::debug!(target: $target, "{text}"),
                Level::Info => tracing::info!(target: $target, "{text}"),
                Level::Warn => tracing::warn!(target: $target, "{text}"),
                Level::Error => tracing::error!(target: $target, "{text}"),
                Level::Fatal => tracing::error!(target: $target, fatal = true, "{text}"),
            }
        };
    }
    match program {
        NSQLOOKUPD => event!("nsqlookupd"),
        TOOL => event!("tool"),
        _ => event!("nsqd"),
    }
}

/// The `tracing` layer that writes the lines.
#[derive(Debug)]
pub struct LogLayer<W> {
    logs: Logs,
    sink: Mutex<W>,
}

impl<W: Write> LogLayer<W> {
    fn write(&self, lines: &[u8]) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that can't be written must not end the broker.
        let _ = sink.write_all(lines);
    }
}

/// Whether a span is one around lines that are written together.
fn is_batch<S: Subscriber + for<'a> LookupSpan<'a>>(id: &Id, context: &Context<'_, S>) -> bool {
    context.span(id).is_some_and(|span| span.name() == BATCH)
}

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + Send + 'static,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Asked again at every event, because levels change.
        if self.logs.target(metadata.target()).is_some() {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // An ERROR may turn out to be FATAL.
        let highest = match *metadata.level() {
            tracing::Level::ERROR => Level::Fatal,
            level => from_tracing(level),
        };
        let target = self.logs.target(metadata.target());
        target.is_some_and(|target| rank(highest) >= target.level.load(Ordering::Relaxed))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(target) = self.logs.target(event.metadata().target()) else { return };
        let mut text = Text::default();
        event.record(&mut text);
        let level = if text.fatal { Level::Fatal } else { from_tracing(*event.metadata().level()) };
        if rank(level) < target.level.load(Ordering::Relaxed) {
            return;
        }
        let line = match self.logs.0.format {
            LogFormat::Text => line(&target.prefix, &Zoned::now(), level, &text.message),
            LogFormat::Json => json_line(target.name, &Zoned::now(), level, &text),
        };
        let is_kept = GATHERED.with_borrow_mut(|gathered| {
            let Some(gathered) = gathered else { return false };
            gathered.extend_from_slice(line.as_bytes());
            if gathered.len() >= GATHERED_LEN_MAX {
                self.write(gathered);
                gathered.clear();
            }
            true
        });
        if !is_kept {
            self.write(line.as_bytes());
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if is_batch(id, &context) {
            GATHERED.set(Some(Vec::new()));
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        if is_batch(id, &context)
            && let Some(gathered) = GATHERED.take()
        {
            self.write(&gathered);
        }
    }
}

thread_local! {
    /// The lines of this thread that are to be written together, if it is within a [`BATCH`].
    static GATHERED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Bytes of lines that are written together: some hundred lines.
const GATHERED_LEN_MAX: usize = 32 * 1024;

/// What an event says.
#[derive(Default)]
struct Text {
    message: String,
    fatal: bool,
    others: BTreeMap<&'static str, String>,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing into a String can't fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.others.insert(field.name(), format!("{value:?}"));
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "fatal" {
            self.fatal |= value;
        } else {
            self.record_debug(field, &value);
        }
    }
}

/// One line, newline included. Control characters are escaped: some texts quote what a peer sent, and
/// a peer must not be able to forge a line.
fn line(prefix: &str, now: &Zoned, level: Level, text: &str) -> String {
    let mut line = String::with_capacity(prefix.len() + text.len() + 40);
    let (date, time, micros) = (now.date(), now.time(), now.subsec_nanosecond() / 1_000);
    let _ = write!(
        line,
        "{prefix}{:04}/{:02}/{:02} {:02}:{:02}:{:02}.{micros:06} {level}: ",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
    );
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

/// One object, newline included. JSON escapes whatever could end it.
fn json_line(program: &str, now: &Zoned, level: Level, text: &Text) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        level: String,
        program: &'a str,
        message: &'a str,
        #[serde(flatten)]
        others: &'a BTreeMap<&'static str, String>,
    }
    let line = Line {
        time: now.strftime("%Y-%m-%dT%H:%M:%S.%6f%:z").to_string(),
        level: level.to_string(),
        program,
        message: &text.message,
        others: &text.others,
    };
    // Texts always have a form in JSON.
    let mut line = serde_json::to_string(&line).unwrap_or_default();
    line.push('\n');
    line
}

fn from_tracing(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        _ => Level::Debug,
    }
}

/// The place of `level` in [`LEVELS`].
fn rank(level: Level) -> u8 {
    match level {
        Level::Debug => 0,
        Level::Info => 1,
        Level::Warn => 2,
        Level::Error => 3,
        Level::Fatal => 4,
    }
}

/// The target of nsqd's events.
pub const NSQD: &str = "nsqd";
/// The target of nsqlookupd's events.
pub const NSQLOOKUPD: &str = "nsqlookupd";
/// The target of the tools.
pub const TOOL: &str = "tool";
/// The target of the clients that the tools consume and publish with.
pub const CLIENT: &str = "sansq::client";

const LEVELS: [Level; 5] = [Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Fatal];

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil;
    use jiff::tz::TimeZone;

    /// A sink that counts its writes.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<String>>>);

    impl Writes {
        fn take(&self) -> Vec<String> {
            core::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A sink whose other end is gone.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    fn everything(name: &'static str) {
        for level in LEVELS {
            log(name, level, format_args!("at {level}"));
        }
    }

    #[test]
    fn the_line() {
        let time = civil::date(2026, 1, 2).at(3, 4, 5, 6_007_999);
        let time = time.to_zoned(TimeZone::UTC).unwrap();
        for (level, word) in LEVELS.into_iter().zip(["DEBUG", "INFO", "WARNING", "ERROR", "FATAL"])
        {
            let expected = format!("[nsqd] 2026/01/02 03:04:05.006007 {word}: hi\n");
            assert_eq!(line("[nsqd] ", &time, level, "hi"), expected);
        }
        let forged = line("", &time, Level::Info, "a\n[nsqd] b\r\u{1b}\tä");
        assert!(forged.ends_with(" INFO: a\\n[nsqd] b\\r\\u{1b}\tä\n"), "{forged}");
    }

    #[test]
    fn the_object() {
        let time = civil::date(2026, 1, 2).at(3, 4, 5, 6_007_999);
        let time = time.to_zoned(TimeZone::fixed(jiff::tz::offset(1))).unwrap();
        let text = Text { message: "a \"b\"\n\u{1b}".into(), ..Text::default() };
        assert_eq!(
            json_line("nsqd", &time, Level::Warn, &text),
            "{\"time\":\"2026-01-02T03:04:05.006007+01:00\",\"level\":\"WARNING\",\"program\":\"nsqd\",\
             \"message\":\"a \\\"b\\\"\\n\\u001b\"}\n"
        );

        let writes = Writes::default();
        let logs = Logs::new(LogFormat::Json, [(NSQD, "[nsqd] ", Level::Warn)]);
        let subscriber = tracing_subscriber::registry().with(logs.layer(writes.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "nsqd", "too quiet");
            tracing::error!(target: "nsqd", fatal = true, port = 4150, "no {}", "port");
        });
        let lines = writes.take();
        assert_eq!(lines.len(), 1);
        let mut object: BTreeMap<String, String> = serde_json::from_str(&lines[0]).unwrap();
        assert!(object.remove("time").is_some());
        let object: Vec<_> = object.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            object,
            [("level", "FATAL"), ("message", "no port"), ("port", "4150"), ("program", "nsqd")]
        );
    }

    #[test]
    fn levels_per_program_change_while_running() {
        let writes = Writes::default();
        let logs = Logs::new(
            LogFormat::Text,
            [(NSQD, "d:", Level::Warn), (NSQLOOKUPD, "l:", Level::Fatal)],
        );
        let subscriber = tracing_subscriber::registry().with(logs.layer(writes.clone()));
        let words = |lines: Vec<String>| -> Vec<String> {
            lines
                .iter()
                .map(|l| format!("{}{}", &l[..2], l.split(' ').next_back().unwrap()))
                .collect()
        };
        tracing::subscriber::with_default(subscriber, || {
            everything(NSQD);
            assert_eq!(words(writes.take()), ["d:WARNING\n", "d:ERROR\n", "d:FATAL\n"]);
            everything(NSQLOOKUPD);
            assert_eq!(words(writes.take()), ["l:FATAL\n"]);

            logs.set_level(NSQD, Level::Debug);
            logs.set_level(NSQLOOKUPD, Level::Error);
            everything(NSQD);
            assert_eq!(writes.take().len(), 5);
            everything(NSQLOOKUPD);
            assert_eq!(words(writes.take()), ["l:ERROR\n", "l:FATAL\n"]);

            tracing::error!(target: "elsewhere", "nobody asked");
            assert_eq!(writes.take(), Vec::<String>::new());
        });
        assert_eq!((logs.level(NSQD), logs.level("x")), (Some(Level::Debug), None));
    }

    #[test]
    fn a_closed_sink_is_no_reason_to_panic() {
        let logs = Logs::new(LogFormat::Text, [(NSQD, "", Level::Debug)]);
        let subscriber = tracing_subscriber::registry().with(logs.layer(Closed));
        tracing::subscriber::with_default(subscriber, || everything(NSQD));
    }
}
