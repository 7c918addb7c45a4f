//! Which events become lines, and how the lines of a thread come into the queue.

use core::cell::RefCell;
use core::fmt;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::io::{self, Write};

use sansq_core::log::Level;
use sansq_runtime::BATCH;
use tracing::field::{Field, Visit};
use tracing::span::Id;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::floods::Fate;
use super::queue::Queue;
use super::{KIND, Logs, from_tracing, rank};

/// Keeps away from the other layers what nobody wants to read, and keeps the lines of a [`BATCH`]
/// together.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) logs: Logs,
    pub(super) queue: Queue,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Choice {
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

    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let Some(target) = self.logs.target(event.metadata().target()) else { return false };
        let level = from_tracing(*event.metadata().level());
        let is_heard = rank(level) >= target.level.load(Ordering::Relaxed);
        let fate = is_heard.then_some(Fate::Written);
        let mut seen = Seen { choice: self, program: target.name, level, fate };
        event.record(&mut seen);
        seen.fate == Some(Fate::Written)
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
            self.queue.put(&gathered, false);
        }
    }
}

impl Choice {
    /// What is to become of a line of a `kind`.
    fn fate(&self, program: &'static str, kind: &str, level: Level) -> Fate {
        let settings = &self.logs.0;
        let fate = settings.floods.count(program, kind, level, settings.start.elapsed());
        if fate == Fate::FirstLeftOut {
            self.queue.nudge(PERIOD);
        }
        fate
    }
}

/// The time between two lines about what is missing.
const PERIOD: Duration = Duration::from_secs(1);

/// Finds out what is to become of an event, before it is formatted.
struct Seen<'a> {
    choice: &'a Choice,
    program: &'static str,
    level: Level,
    /// `None`: it is too quiet, unless it turns out to be FATAL. No FATAL line is one of those that
    /// peers can cause.
    fate: Option<Fate>,
}

impl Visit for Seen<'_> {
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "fatal" && value {
            self.fate = Some(Fate::Written);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == KIND && self.fate.is_some() {
            self.fate = Some(self.choice.fate(self.program, value, self.level));
        }
    }
}

/// Whether a span is one around lines that are written together.
fn is_batch<S: Subscriber + for<'a> LookupSpan<'a>>(id: &Id, context: &Context<'_, S>) -> bool {
    context.span(id).is_some_and(|span| span.name() == BATCH)
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: self, is_urgent: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { queue: self, is_urgent: *metadata.level() == tracing::Level::ERROR }
    }
}

/// Takes whole lines, into the queue or to the others of the batch.
#[derive(Debug)]
pub(super) struct Line<'a> {
    queue: &'a Queue,
    is_urgent: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        GATHERED.with_borrow_mut(|gathered| match gathered {
            Some(gathered) => {
                gathered.extend_from_slice(line);
                if gathered.len() >= GATHERED_LEN_MAX {
                    self.queue.put(gathered, false);
                    gathered.clear();
                }
            }
            None => self.queue.put(line, self.is_urgent),
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

thread_local! {
    /// The lines of this thread that are to be written together, if it is within a [`BATCH`].
    static GATHERED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Bytes of lines that are written together: some hundred lines.
const GATHERED_LEN_MAX: usize = 32 * 1024;
