//! The log: NSQ's line format on standard error, or one JSON object per line.
//!
//! `[nsqd] 2026/11/22 12:27:30.957558 INFO: text` is prefix, local date and time with microseconds,
//! level and text (http-and-ops.md section 7). The servers emit `tracing` events with their
//! program's name as target; the event's message is the text. `tracing` knows no level above ERROR:
//! an event with a field `fatal` is logged as FATAL.
//!
//! An object has `time` (RFC 3339, local, with microseconds), `level`, `program`, `message`, and an
//! event's other fields by their names.
//!
//! Nobody who logs waits for whoever takes the log: lines go through a queue with a thread of its
//! own, and what does not fit is lost and counted. Of the lines that peers can cause at will (their
//! events have a field `kind`) only so many are written; the rest are summed up.

mod floods;
mod queue;

use core::cell::RefCell;
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use clap::ValueEnum;
use jiff::Zoned;
use sansq_core::log::{Count, Level};
use sansq_runtime::BATCH;
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::span::Id;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use self::floods::{Fate, Floods, LeftOut};
use self::queue::Queue;

/// The form of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// NSQ's lines.
    Text,
    /// One JSON object per line.
    Json,
}

/// The settings of the log, shared with the [`LogLayer`]: levels can be changed while it runs.
///
/// Cloning gives another handle to the same settings.
#[derive(Clone, Debug)]
pub struct Logs(Arc<Settings>);

#[derive(Debug)]
struct Settings {
    format: LogFormat,
    targets: Box<[Target]>,
    start: Instant,
    floods: Floods,
}

/// One program's log.
#[derive(Debug)]
struct Target {
    name: &'static str,
    prefix: String,
    level: AtomicU8,
}

impl Logs {
    /// A log per program: its name (the events' target), prefix and level. Only lines of text have
    /// a prefix.
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
        let (start, floods) = (Instant::now(), Floods::default());
        Self(Arc::new(Settings { format, targets, start, floods }))
    }

    /// Makes this the process's log, on standard error. Later calls have no effect.
    pub fn install(&self) {
        self.install_to(io::stderr());
    }

    /// As [`install`](Self::install), with `sink` instead of standard error. [`flush`] before the
    /// program ends.
    pub fn install_to<W: Write + Send + 'static>(&self, sink: W) {
        let logs = self.clone();
        let queue = Queue::start(sink, move |lost| logs.missing(lost).into_bytes());
        // Fails only if there is a log already.
        if INSTALLED.set((self.clone(), queue.clone())).is_ok() {
            let panicked = queue.clone();
            panic::set_hook(Box::new(move |info| panicked.put(panic_text(info).as_bytes(), true)));
        }
        let layer = LogLayer::<io::Sink> { logs: self.clone(), out: Out::Queue(queue) };
        // Fails only if there is a log already.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
    }

    /// A layer that writes to `sink` at once, one write per line, or one for the lines of a
    /// [`BATCH`]; errors of the sink are ignored.
    pub fn layer<W: Write>(&self, sink: W) -> LogLayer<W> {
        LogLayer { logs: self.clone(), out: Out::Sink(Mutex::new(sink)) }
    }

    /// What says that `lost` lines are missing, and how many were left out lately of each kind.
    fn missing(&self, lost: u64) -> String {
        let mut lines = String::new();
        let mut add = |program: &str, level, message: String| {
            if let Some(target) = self.target(program) {
                lines += &self.line(target, level, &Text { message, ..Text::default() });
            }
        };
        for LeftOut { program, level, kind, count } in self.0.floods.sum_up() {
            add(program, level, format!("{kind}: … and {}", Count(count, "more such line")));
        }
        if lost > 0
            && let Some(first) = self.0.targets.first()
        {
            let (lost, why) = (Count(lost, "line"), "standard error did not take them");
            add(first.name, Level::Warn, format!("LOG: … {lost} dropped: {why}"));
        }
        lines
    }

    fn line(&self, target: &Target, level: Level, text: &Text) -> String {
        match self.0.format {
            LogFormat::Text => line(&target.prefix, &Zoned::now(), level, &text.message),
            LogFormat::Json => json_line(target.name, &Zoned::now(), level, text),
        }
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
    if let Some((logs, _)) = INSTALLED.get() {
        logs.set_level(NSQD, level);
    }
}

/// Waits until everything logged so far is written, but for no longer than a second.
pub fn flush() {
    if let Some((logs, queue)) = INSTALLED.get() {
        queue.put(logs.missing(0).as_bytes(), true);
        queue.flush(FLUSH_TIME);
    }
}

/// Writes a last text and a newline to standard error, behind the log, and waits for a second at
/// most until it is taken.
pub fn say(text: impl fmt::Display) {
    flush();
    let text = format!("{text}\n");
    let (done, wait) = channel();
    let write = move || {
        // Nobody is left to be told.
        let _ = io::stderr().write_all(text.as_bytes());
        let _ = done.send(());
    };
    if thread::Builder::new().name("last words".into()).spawn(write).is_ok() {
        let _ = wait.recv_timeout(FLUSH_TIME);
    }
}

/// What a panic says, for whom standard error may be as slow as for the log.
fn panic_text(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let trace = Backtrace::capture();
    let name = thread.name().unwrap_or("without a name");
    let mut text = format!("thread '{name}' {info}\n");
    if trace.status() == BacktraceStatus::Captured {
        text += &format!("{trace}\n");
    }
    text
}

/// The process's log.
static INSTALLED: OnceLock<(Logs, Queue)> = OnceLock::new();

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
    out: Out<W>,
}

#[derive(Debug)]
enum Out<W> {
    Queue(Queue),
    Sink(Mutex<W>),
}

impl<W: Write> LogLayer<W> {
    fn write(&self, lines: &[u8], level: Level) {
        match &self.out {
            Out::Queue(queue) => queue.put(lines, level >= Level::Error),
            Out::Sink(sink) => {
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                // A log that can't be written must not end the broker.
                let _ = sink.write_all(lines);
            }
        }
    }

    /// What is to become of a line of a `kind`.
    fn fate(&self, program: &'static str, kind: &str, level: Level) -> Fate {
        let Settings { floods, start, .. } = &*self.logs.0;
        let fate = floods.count(program, kind, level, start.elapsed());
        if let (Fate::FirstLeftOut, Out::Queue(queue)) = (fate, &self.out) {
            queue.nudge(PERIOD);
        }
        fate
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
        let mut level = from_tracing(*event.metadata().level());
        let quietest = target.level.load(Ordering::Relaxed);
        // An ERROR may turn out to be FATAL, and no FATAL line is one of those that peers can
        // cause.
        let mut max = MESSAGE_LEN_MAX;
        if rank(level) >= quietest {
            let mut kind = Kind { layer: self, program: target.name, level, fate: None };
            event.record(&mut kind);
            match kind.fate {
                Some(Fate::Written) => max = PEERS_LEN_MAX,
                Some(Fate::FirstLeftOut | Fate::LeftOut) => return,
                None => {}
            }
        }
        let mut text = Text { max, ..Text::default() };
        event.record(&mut text);
        if text.fatal {
            level = Level::Fatal;
        }
        if rank(level) < quietest {
            return;
        }
        text.end();
        let line = self.logs.line(target, level, &text);
        let is_kept = GATHERED.with_borrow_mut(|gathered| {
            let Some(gathered) = gathered else { return false };
            gathered.extend_from_slice(line.as_bytes());
            if gathered.len() >= GATHERED_LEN_MAX {
                self.write(gathered, Level::Info);
                gathered.clear();
            }
            true
        });
        if !is_kept {
            self.write(line.as_bytes(), level);
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
            self.write(&gathered, Level::Info);
        }
    }
}

thread_local! {
    /// The lines of this thread that are to be written together, if it is within a [`BATCH`].
    static GATHERED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Bytes of lines that are written together: some hundred lines.
const GATHERED_LEN_MAX: usize = 32 * 1024;

/// Finds out of which kind a line is, before it is formatted.
struct Kind<'a, W> {
    layer: &'a LogLayer<W>,
    program: &'static str,
    level: Level,
    /// Of lines that have a kind.
    fate: Option<Fate>,
}

impl<W: Write> Visit for Kind<'_, W> {
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == KIND {
            self.fate = Some(self.layer.fate(self.program, value, self.level));
        }
    }
}

/// The field that says of which kind a line is, if peers can cause such lines at will.
const KIND: &str = "kind";

/// Bytes of a line's text, before control characters are escaped; and of one that peers can cause
/// at will.
const MESSAGE_LEN_MAX: usize = 16 * 1024;
const PEERS_LEN_MAX: usize = 1536;

/// What an event says.
#[derive(Default)]
struct Text {
    message: String,
    /// How long the message may be, in bytes.
    max: usize,
    /// What it lacks.
    cut: usize,
    fatal: bool,
    others: BTreeMap<&'static str, String>,
}

impl Text {
    /// Says what the message lacks.
    fn end(&mut self) {
        if self.cut > 0 {
            self.message += &format!("… ({} more)", Count(self.cut, "byte"));
        }
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = if self.cut > 0 { 0 } else { self.max.saturating_sub(self.message.len()) };
        let mut len = part.len().min(room);
        while !part.is_char_boundary(len) {
            len -= 1;
        }
        let (fitting, rest) = part.split_at(len);
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
            KIND => {}
            name => drop(self.others.insert(name, format!("{value:?}"))),
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

/// One line, newline included. Control characters are escaped: some texts quote what a peer sent,
/// and a peer must not be able to forge a line.
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

/// The time between two lines about what is missing.
const PERIOD: Duration = Duration::from_secs(1);

/// How long the end of the program waits for whoever takes the log.
const FLUSH_TIME: Duration = Duration::from_secs(1);

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
    fn lines_of_a_kind_are_limited_and_summed_up() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let writes = Writes::default();
            let mut logs = Logs::new(format, [(NSQD, "", Level::Info)]);
            // Until then no time goes by, and nothing is added to what may be written.
            Arc::get_mut(&mut logs.0).unwrap().start += Duration::from_secs(3600);
            let subscriber = tracing_subscriber::registry().with(logs.layer(writes.clone()));
            let dispatch = tracing::Dispatch::new(subscriber);
            let lines = |count: usize, kind| {
                tracing::dispatcher::with_default(&dispatch, || {
                    (0..count).for_each(|n| tracing::warn!(target: "nsqd", kind, "line {n}"));
                });
            };
            lines(3_000, None::<&str>);
            assert_eq!(writes.take().len(), 3_000);
            lines(3_000, Some("bad things"));
            let written = writes.take();
            assert_eq!(written.len(), 1_000);
            assert!(!written[0].contains("bad things"), "{}", written[0]);
            let sum = logs.missing(7);
            let text = "bad things: … and 2000 more such lines";
            assert!(sum.contains(text) && sum.contains("7 lines dropped: "), "{sum}");
            assert_eq!((sum.lines().count(), logs.missing(0).as_str()), (2, ""));
        }
    }

    #[test]
    fn long_lines_are_cut() {
        let writes = Writes::default();
        let logs = Logs::new(LogFormat::Text, [(NSQD, "", Level::Info)]);
        let subscriber = tracing_subscriber::registry().with(logs.layer(writes.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "nsqd", kind = "long", "{}{}", "ä".repeat(1_000), "x");
            tracing::warn!(target: "nsqd", "{}", "x".repeat(20_000));
        });
        let lines = writes.take();
        let peers = format!(" WARNING: {}… (465 bytes more)\n", "ä".repeat(768));
        assert!(lines[0].ends_with(&peers), "{}", lines[0]);
        let own = format!("x… ({} bytes more)\n", 20_000 - MESSAGE_LEN_MAX);
        assert!(lines[1].ends_with(&own), "{}", lines[1]);
    }

    #[test]
    fn a_closed_sink_is_no_reason_to_panic() {
        let logs = Logs::new(LogFormat::Text, [(NSQD, "", Level::Debug)]);
        let subscriber = tracing_subscriber::registry().with(logs.layer(Closed));
        tracing::subscriber::with_default(subscriber, || everything(NSQD));
    }
}
