//! When a connection's publish commands are due.
//!
//! Pure arithmetic on nanoseconds since the start of the run, so that tests turn the clock.

/// What one connection has still to send.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pace: Pace,
    /// Commands taken so far.
    taken: u64,
    /// Commands that may be taken, all in all.
    limit: u64,
    /// Nothing is due from then on.
    end: u64,
}

#[derive(Clone, Copy, Debug)]
enum Pace {
    /// Whenever there is room.
    Closed,
    /// At fixed times.
    Open {
        /// Commands per second, times messages per command, of all connections together.
        rate: u64,
        batch: u64,
        /// Which of all connections this one is, and how many there are.
        connection: u64,
        connections: u64,
    },
}

impl Schedule {
    /// The closed loop: a command whenever there is room, at most `limit`, none at `end` or later.
    pub(super) const fn closed(limit: u64, end: u64) -> Self {
        Self { pace: Pace::Closed, taken: 0, limit, end }
    }

    /// The open loop: of all connections together `rate` messages per second in commands of
    /// `batch`. The commands are dealt to the connections in turn, so that they are spread as
    /// evenly as can be.
    pub(super) const fn open(
        rate: u64,
        batch: u32,
        (connection, connections): (u32, u32),
        limit: u64,
        end: u64,
    ) -> Self {
        let pace = Pace::Open {
            rate,
            batch: batch as u64,
            connection: connection as u64,
            connections: connections as u64,
        };
        Self { pace, taken: 0, limit, end }
    }

    /// When the next command is due in the open loop; `None` in the closed one, and if there is
    /// none.
    pub(super) fn due(&self) -> Option<u64> {
        let due = self.nth(self.taken)?;
        (self.taken < self.limit && due < self.end).then_some(due)
    }

    /// Takes the next command, if one is due: the time that its latency counts from.
    pub(super) fn take(&mut self, now: u64) -> Option<u64> {
        let intended = match self.pace {
            Pace::Closed => (self.taken < self.limit && now < self.end).then_some(now),
            Pace::Open { .. } => self.due().filter(|due| *due <= now),
        };
        self.taken += u64::from(intended.is_some());
        intended
    }

    /// Whether no command is due any more, now or later.
    pub(super) fn is_over(&self, now: u64) -> bool {
        match self.pace {
            Pace::Closed => self.taken >= self.limit || now >= self.end,
            Pace::Open { .. } => self.due().is_none(),
        }
    }

    /// How many commands were due by `now` and have not been taken.
    pub(super) fn missed(&self, now: u64) -> u64 {
        let Pace::Open { rate, batch, connection, connections } = self.pace else { return 0 };
        // The first n whose time is not before `until`.
        let until = u128::from(self.end.min(now.saturating_add(1)));
        let all = (until * u128::from(rate)).div_ceil(u128::from(batch) * SECOND);
        let ours = all.saturating_sub(u128::from(connection)).div_ceil(u128::from(connections));
        let ours = u64::try_from(ours).unwrap_or(u64::MAX).min(self.limit);
        ours.saturating_sub(self.taken)
    }

    /// When our n-th command is due. `None` if that is never.
    fn nth(&self, n: u64) -> Option<u64> {
        let Pace::Open { rate, batch, connection, connections } = self.pace else { return None };
        let of_all = u128::from(n) * u128::from(connections) + u128::from(connection);
        u64::try_from(of_all.checked_mul(u128::from(batch) * SECOND)? / u128::from(rate)).ok()
    }
}

/// The share of connection `index` in `total` commands that `count` connections send.
pub(super) fn share(total: u64, index: u32, count: u32) -> u64 {
    let (index, count) = (u64::from(index), u64::from(count));
    total / count + u64::from(index < total % count)
}

const SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closed_loop_takes_whenever_asked_until_its_end() {
        let mut schedule = Schedule::closed(3, 100);
        assert_eq!((schedule.due(), schedule.take(7)), (None, Some(7)));
        assert_eq!(
            (schedule.take(100), schedule.is_over(100), schedule.is_over(99)),
            (None, true, false)
        );
        assert_eq!(
            (schedule.take(99), schedule.take(99), schedule.take(99)),
            (Some(99), Some(99), None)
        );
        assert!(schedule.is_over(99));
        assert_eq!(schedule.missed(1_000), 0);
    }

    #[test]
    fn the_open_loop_deals_out_times_evenly() {
        // 1,000 messages a second in batches of 2: a command every 2 ms, of three connections.
        let mut all = Vec::new();
        for connection in 0..3 {
            let mut schedule = Schedule::open(1_000, 2, (connection, 3), u64::MAX, 20_000_000);
            while let Some(due) = schedule.due() {
                assert_eq!(schedule.take(due - u64::from(due > 0)), (due == 0).then_some(0));
                if due > 0 {
                    assert_eq!(schedule.take(due), Some(due));
                }
                all.push(due);
            }
            assert!(schedule.is_over(0));
        }
        all.sort_unstable();
        assert_eq!(all, (0..10).map(|n| n * 2_000_000).collect::<Vec<u64>>());
    }

    #[test]
    fn what_could_not_be_sent_keeps_its_time() {
        let mut schedule = Schedule::open(1_000, 1, (0, 1), u64::MAX, 5_000_000);
        assert_eq!(schedule.take(0), Some(0));
        // The server stalls until long after the end.
        assert_eq!((schedule.missed(2_999_999), schedule.missed(3_000_000)), (2, 3));
        assert_eq!(schedule.missed(1_000_000_000), 4);
        let late: Vec<u64> = core::iter::from_fn(|| schedule.take(1_000_000_000)).collect();
        assert_eq!(late, [1_000_000, 2_000_000, 3_000_000, 4_000_000]);
        assert_eq!((schedule.missed(1_000_000_000), schedule.is_over(0)), (0, true));
    }

    #[test]
    fn times_do_not_drift() {
        // A third of a second is no whole number of nanoseconds; sums of it would drift.
        let mut schedule = Schedule::open(3, 1, (0, 1), u64::MAX, u64::MAX);
        schedule.taken = 3_000_000_000;
        assert_eq!(schedule.due(), Some(1_000_000_000_000_000_000));
        schedule.taken = u64::MAX;
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn shares_add_up() {
        let shares: Vec<u64> = (0..4).map(|index| share(10, index, 4)).collect();
        assert_eq!(shares, [3, 3, 2, 2]);
        let limited = Schedule::open(1_000, 1, (0, 2), 2, u64::MAX);
        assert_eq!(limited.missed(10_000_000_000), 2);
    }
}
