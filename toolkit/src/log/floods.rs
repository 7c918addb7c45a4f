//! Lines that peers can cause at will: so many of each kind, and then only how many more there
//! were.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sansq_core::log::Level;
use sansq_runtime::UNWRITTEN;

/// The lines of each kind that were written lately. There are as many kinds as the programs have
/// words for.
#[derive(Debug, Default)]
pub(super) struct Floods(Mutex<Kinds>);

/// By program and level, and by kind.
type Kinds = BTreeMap<(&'static str, Level), BTreeMap<String, Flood>>;

/// Lines of a kind that were left out.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct LeftOut {
    pub(super) program: &'static str,
    pub(super) level: Level,
    pub(super) kind: String,
    pub(super) count: u64,
}

#[derive(Debug)]
struct Flood {
    /// Lines that may be written at once.
    credit: u32,
    /// When it was last filled up.
    filled: Duration,
    /// Lines left out since that was last said.
    left_out: u64,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    Written,
    /// The first of a kind since it was last said how many were left out.
    FirstLeftOut,
    LeftOut,
}

impl Floods {
    /// Counts a line of a `kind`. `now` is the time since any moment.
    pub(super) fn count(
        &self,
        program: &'static str,
        kind: &str,
        level: Level,
        now: Duration,
    ) -> Fate {
        let mut floods = self.lock();
        let kinds = floods.entry((program, level)).or_default();
        if !kinds.contains_key(kind) {
            kinds.insert(kind.to_owned(), Flood { credit: BURST, filled: now, left_out: 0 });
        }
        let Some(flood) = kinds.get_mut(kind) else { return Fate::Written };
        let steps = now.saturating_sub(flood.filled).as_nanos() / STEP.as_nanos();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX).min(BURST);
        flood.credit = (flood.credit + steps).min(BURST);
        // A full one has nothing to gain from the rest of a step.
        flood.filled = if flood.credit == BURST { now } else { flood.filled + STEP * steps };
        if let Some(credit) = flood.credit.checked_sub(1) {
            flood.credit = credit;
            return Fate::Written;
        }
        UNWRITTEN.note_left_out();
        flood.left_out += 1;
        if flood.left_out == 1 { Fate::FirstLeftOut } else { Fate::LeftOut }
    }

    /// What was left out since the last call.
    pub(super) fn sum_up(&self) -> Vec<LeftOut> {
        let mut sums = Vec::new();
        for ((program, level), kinds) in self.lock().iter_mut() {
            for (kind, flood) in kinds.iter_mut().filter(|(_, flood)| flood.left_out > 0) {
                let (kind, count) = (kind.clone(), core::mem::take(&mut flood.left_out));
                sums.push(LeftOut { program, level: *level, kind, count });
            }
        }
        sums
    }

    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines of a kind that may be written at once: a thousand clients that come back after a restart
/// have all of theirs.
const BURST: u32 = 1000;

/// The time for one line more: a hundred in a second.
const STEP: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_thousand_at_once_then_a_hundred_in_a_second() {
        let floods = Floods::default();
        let count = |kind, level, lines: u32, millis: u32| {
            let fates = (0..lines).map(|_| floods.count("nsqd", kind, level, MILLI * millis));
            fates.filter(|fate| *fate == Fate::Written).count()
        };
        assert_eq!(count("a", Level::Info, 1500, 5), 1000);
        // Others are not affected.
        assert_eq!(count("b", Level::Info, 10, 5), 10);
        assert_eq!(count("a", Level::Warn, 10, 5), 10);
        let left_out =
            |count| LeftOut { program: "nsqd", level: Level::Info, kind: "a".into(), count };
        assert_eq!(floods.sum_up(), [left_out(500)]);
        assert_eq!(floods.sum_up(), []);

        assert_eq!(count("a", Level::Info, 5, 14), 0);
        assert_eq!(count("a", Level::Info, 5, 15), 1);
        assert_eq!(count("a", Level::Info, 500, 1015), 100);
        assert_eq!(floods.sum_up(), [left_out(5 + 4 + 400)]);
        assert_eq!(count("a", Level::Info, 5000, 100_000_000), 1000);
    }

    #[test]
    fn the_first_one_left_out_is_told() {
        let floods = Floods::default();
        let count = || floods.count("nsqd", "a", Level::Info, Duration::ZERO);
        assert!((0..1000).all(|_| count() == Fate::Written));
        assert_eq!((count(), count()), (Fate::FirstLeftOut, Fate::LeftOut));
        floods.sum_up();
        assert_eq!((count(), count()), (Fate::FirstLeftOut, Fate::LeftOut));
    }
}
