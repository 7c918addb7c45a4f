//! How long a server that stops waits for a disk.

use core::time::Duration;
use std::io;

use sansq_core::storage::Failure;
use sansq_core::time::{Instant, Now};

use crate::lanes::Mail;

/// Waits for ever while the disk takes something, and for a while when it takes nothing.
#[derive(Debug)]
pub struct Patience {
    /// When the disk last did what it was asked.
    last_success: Instant,
    last_failure: Option<Failure>,
}

impl Patience {
    /// Waiting begins.
    pub const fn new(now: Now) -> Self {
        Self { last_success: now.instant, last_failure: None }
    }

    /// Looks at the completions that came.
    pub fn note(&mut self, mail: &Mail, now: Now) {
        for done in &mail.done {
            match &done.result {
                Ok(_) => self.last_success = now.instant,
                Err(failure) => self.last_failure = Some(failure.clone()),
            }
        }
    }

    /// How long to wait for the next completion.
    ///
    /// # Errors
    /// When the disk has taken nothing for too long; the text says what it said.
    pub fn left(&self, now: Now) -> io::Result<Duration> {
        let gone = now.instant.saturating_since(self.last_success);
        if let Some(left) = FLUSH_TIME.checked_sub(gone).filter(|left| !left.is_zero()) {
            return Ok(left);
        }
        let why: &dyn core::fmt::Display =
            self.last_failure.as_ref().map_or(&"it does not answer", |failure| failure);
        let text = format!("the disk did not take what was only in memory, which is lost - {why}");
        Err(io::Error::other(text))
    }
}

/// How long a disk may take nothing before a stop goes on without it. Whatever supervises the process
/// kills it after 90 s, most often.
const FLUSH_TIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use sansq_core::storage::{Answer, Done, FailureKind, Owner};
    use sansq_core::time::UnixNanos;

    use super::*;

    fn at(seconds: u64) -> Now {
        Now { instant: Instant::from_nanos(seconds * 1_000_000_000), unix: UnixNanos(0) }
    }

    fn mail(result: Result<Answer, Failure>) -> Mail {
        Mail { done: vec![Done { owner: Owner::Metadata, result }], ..Mail::default() }
    }

    #[test]
    fn only_success_is_worth_more_waiting() {
        let mut patience = Patience::new(at(100));
        assert_eq!(patience.left(at(110)).unwrap(), Duration::from_secs(20));
        assert!(patience.left(at(130)).unwrap_err().to_string().ends_with("does not answer"));
        patience.note(&mail(Ok(Answer::Appended)), at(120));
        assert_eq!(patience.left(at(130)).unwrap(), Duration::from_secs(20));
        let full = Failure { kind: FailureKind::Full, text: "write f: no space left".into() };
        patience.note(&mail(Err(full)), at(149));
        assert_eq!(patience.left(at(149)).unwrap(), Duration::from_secs(1));
        let error = patience.left(at(150)).unwrap_err().to_string();
        assert!(error.ends_with("which is lost - write f: no space left"), "{error}");
    }
}
