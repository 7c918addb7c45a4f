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

mod choice;
mod floods;
mod format;
mod queue;

use core::fmt::Display;
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use clap::ValueEnum;
use sansq_core::log::{Count, Level};
use serde::Serialize;
use tracing::Subscriber;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;

use self::choice::Choice;
use self::floods::{Floods, LeftOut};
use self::format::Text;
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

/// The settings of the log: levels can be changed while it runs.
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
        let queue = self.queue(sink);
        // Fails only if there is a log already.
        if INSTALLED.set((self.clone(), queue.clone())).is_ok() {
            let panicked = queue.clone();
            panic::set_hook(Box::new(move |info| panicked.put(panic_text(info).as_bytes(), true)));
        }
        // Fails only if there is a log already.
        let _ = tracing::subscriber::set_global_default(self.subscriber(queue));
    }

    fn queue(&self, sink: impl Write + Send + 'static) -> Queue {
        let logs = self.clone();
        Queue::start(sink, move |lost| logs.missing(lost).into_bytes())
    }

    /// What makes lines of events and puts them into `queue`.
    fn subscriber(&self, queue: Queue) -> impl Subscriber + Send + Sync + use<> {
        let lines = fmt::layer().event_format(self.clone()).with_writer(queue.clone());
        // A log that can't be written must not end the broker, nor fill its standard error.
        let lines = lines.log_internal_errors(false);
        tracing_subscriber::registry().with(lines).with(Choice { logs: self.clone(), queue })
    }

    /// What says that `lost` lines are missing, and how many were left out lately of each kind.
    fn missing(&self, lost: u64) -> String {
        let mut lines = String::new();
        let mut add = |program: &str, level, message: String| {
            if let Some(target) = self.target(program) {
                self.write_line(&mut lines, target, level, &Text::new(message))
                    .expect("a String takes all text");
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
pub fn say(text: impl Display) {
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
pub fn log(program: &'static str, level: Level, text: impl Display) {
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

fn from_tracing(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        _ => Level::Debug,
    }
}

/// The field that says of which kind a line is, if peers can cause such lines at will.
const KIND: &str = "kind";

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
mod tests;
