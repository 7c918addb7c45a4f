//! How far a tool is, shown on standard error if that is a terminal.

use core::time::Duration;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// A line that counts messages. Clones show the same line; without a terminal there is none.
#[derive(Clone, Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Begins with `verb`, such as "written".
    pub(super) fn new(verb: &'static str) -> Self {
        // Is hidden by itself where standard error is no terminal.
        let bar = ProgressBar::new_spinner();
        if !bar.is_hidden() {
            let template = "{spinner} {msg} {human_pos} messages, {per_sec:.0}, {elapsed}";
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.set_message(verb);
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// So many more are done.
    pub(super) fn add(&self, count: usize) {
        self.0.inc(count as u64);
    }

    /// Standard error for others: what they write stands above the line.
    pub(super) fn stderr(&self) -> impl Write + Send + 'static {
        Above(self.0.clone())
    }

    /// Leaves the line as it is, and ends it.
    pub(super) fn finish(&self) {
        self.0.abandon();
    }
}

struct Above(ProgressBar);

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Time between two looks of the line.
const TICK: Duration = Duration::from_millis(200);
