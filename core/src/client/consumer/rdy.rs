//! Who gets how much of `max_in_flight`: the whole of the arithmetic, as one function of plain
//! numbers (clients.md sections 3.3 and 3.4).
//!
//! - With enough for everybody each has one, and of the rest shares by weight, equal ones unless
//!   rates count. What does not divide goes to the largest remainders, among equals to the
//!   connections that came first, and what a server's `max_rdy_count` leaves over goes to the
//!   others: 10 over 3 is 4, 3, 3.
//! - With fewer than there are connections each has 1 or 0. A connection gives its 1 up when it was
//!   idle for `idle_timeout`, or at the latest after `hold_timeout`, both counted from when it got
//!   it at the earliest. What becomes free goes to the one that has waited longest. So of n
//!   connections, with a budget of b, each has its turn at least every n / b times `hold_timeout`,
//!   and the time that answers to messages in flight take.
//! - A test in backoff begins where a message is most likely to come from: at a connection that had
//!   used up its RDY, among equals at the one whose message was answered last. An idle one proves
//!   nothing, so when nothing comes for the backoff's time, the test goes on to the next.
//! - Messages in flight count as long as they are, also on connections whose RDY has fallen since:
//!   a connection that lost its RDY makes room for others only as its messages are answered.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use crate::time::Instant;

/// What limits all connections together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// The most that all RDY counts may be together.
    pub(super) rdy: u32,
    /// The most messages that may be in flight, or come, together.
    pub(super) in_flight: u32,
    /// In flight on connections that are none of the seats.
    pub(super) held: u32,
    /// A test in backoff: whoever has the best prospects comes first.
    pub(super) is_test: bool,
}

/// When a connection gives its RDY up, if there is too little for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    /// `low_rdy_idle_timeout`, or what is less in a test.
    pub(super) idle_timeout: Duration,
    /// `low_rdy_timeout`.
    pub(super) hold_timeout: Duration,
}

/// A connection as this function sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// The most that it may get: the server's `max_rdy_count`, or less.
    pub(super) max: u32,
    /// What it gets beyond one is in proportion to this; not 0.
    pub(super) weight: u64,
    /// The count that it was told last.
    pub(super) rdy: u32,
    /// Its messages in flight.
    pub(super) in_flight: u32,
    /// With RDY: when it got it. Without: since when it waits.
    pub(super) since: Instant,
    /// When a message came or was answered last; when it subscribed if none did.
    pub(super) active: Instant,
    /// Whether a test is likely to get a message from it.
    pub(super) prospects: Prospects,
}

/// What was known of a connection when the backoff's wait began; more is better.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Prospects {
    /// It had sent all that its RDY allowed, so the server may well have more.
    pub(super) is_full: bool,
    /// It was an answer to its message that made the consumer wait.
    pub(super) is_cause: bool,
}

/// What to do.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Plan {
    /// Of each seat, in their order.
    pub(super) shares: Vec<Share>,
    /// When the plan is out of date, if nothing else happens.
    pub(super) until: Option<Instant>,
    /// A share is not given out in full, because of messages in flight. An answer changes that.
    pub(super) is_blocked: bool,
    /// There is too little for all.
    pub(super) is_rotating: bool,
}

/// A seat's part of the plan.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Share {
    /// Its RDY.
    pub(super) rdy: u32,
    /// It starts a new time with RDY, even though the count may be the same.
    pub(super) is_granted: bool,
}

/// The RDY count of each connection, from now on.
pub(super) fn plan(budget: Budget, timers: Timers, seats: &[Seat], now: Instant) -> Plan {
    let is_rotating = (budget.rdy as usize) < seats.len() && budget.rdy > 0;
    let mut plan = Plan { is_rotating, ..Plan::default() };
    let (targets, gaining) = if is_rotating {
        rotate(budget, timers, seats, now, &mut plan.until)
    } else {
        (divide(budget.rdy, seats), (0..seats.len()).collect())
    };
    // What falls falls at once; what is in flight stays in use.
    let mut used = u64::from(budget.held);
    for (seat, target) in seats.iter().zip(&targets) {
        let rdy = seat.rdy.min(*target);
        used += u64::from(rdy.max(seat.in_flight));
        plan.shares.push(Share { rdy, is_granted: false });
    }
    let mut room = u64::from(budget.in_flight).saturating_sub(used);
    for at in gaining {
        let (seat, share) = (&seats[at], &mut plan.shares[at]);
        let in_use = share.rdy.max(seat.in_flight);
        let reach = in_use.saturating_add(u32::try_from(room).unwrap_or(u32::MAX));
        let rdy = targets[at].min(reach);
        room -= u64::from(rdy.saturating_sub(in_use));
        share.is_granted = rdy > 0 && (is_rotating || seat.rdy == 0);
        share.rdy = rdy;
        if rdy < targets[at] {
            plan.is_blocked = true;
            if is_rotating {
                // Whoever comes later needs no room if it has a message in flight still. It would
                // keep the place that this one waits for.
                break;
            }
        }
    }
    plan
}

/// One for everybody, and of the rest shares by weight and largest remainder, none above its
/// maximum.
fn divide(budget: u32, seats: &[Seat]) -> Vec<u32> {
    let mut targets = vec![0; seats.len()];
    if budget == 0 {
        return targets;
    }
    // There is enough for one each: otherwise they would take turns.
    let mut left = budget;
    let mut open: Vec<usize> = Vec::new();
    for (at, seat) in seats.iter().enumerate() {
        targets[at] = seat.max.min(1);
        left -= targets[at];
        if seat.max > 1 {
            open.push(at);
        }
    }
    // In parts of the sum of all weights: what somebody is to get of what is left.
    let part = |at: usize, left: u32| u128::from(left) * u128::from(seats[at].weight);
    let sum = |open: &[usize]| open.iter().map(|at| u128::from(seats[*at].weight)).sum::<u128>();
    // Those that can't take their part take what they can. The others' parts only grow by that.
    loop {
        let (whole, before) = (sum(&open), left);
        open.retain(|at| {
            let room = seats[*at].max - 1;
            let is_open = part(*at, before) < u128::from(room) * whole;
            if !is_open {
                targets[*at] += room;
                left -= room;
            }
            is_open
        });
        if left == before {
            break;
        }
    }
    let (whole, all) = (sum(&open).max(1), left);
    let mut remainders = Vec::new();
    for at in open {
        let whole_part = u32::try_from(part(at, all) / whole).unwrap_or(all);
        targets[at] += whole_part;
        left -= whole_part;
        remainders.push((Reverse(part(at, all) % whole), at));
    }
    remainders.sort_unstable();
    for (_, at) in remainders.into_iter().take(left as usize) {
        targets[at] += 1;
    }
    targets
}

/// 1 for as many seats as the budget has, and those of them that get it anew, in the order in which
/// they do.
fn rotate(
    budget: Budget,
    timers: Timers,
    seats: &[Seat],
    now: Instant,
    until: &mut Option<Instant>,
) -> (Vec<u32>, Vec<usize>) {
    let mut targets = vec![0; seats.len()];
    let mut left = budget.rdy;
    let mut waiting = Vec::new();
    for (at, seat) in seats.iter().enumerate() {
        let ends = ends(seat, timers);
        if seat.rdy > 0 && ends > now && left > 0 {
            targets[at] = 1;
            left -= 1;
            *until = until.map_or(Some(ends), |other| Some(ends.min(other)));
        } else {
            let since = if seat.rdy > 0 { now } else { seat.since };
            waiting.push((since, Reverse(seat.active), at));
        }
    }
    if budget.is_test && seats.iter().all(|seat| seat.rdy == 0) {
        waiting.sort_by_key(|(since, active, at)| {
            (Reverse(seats[*at].prospects), *active, *since, *at)
        });
    } else {
        waiting.sort();
    }
    waiting.truncate(left as usize);
    let gaining: Vec<usize> = waiting.into_iter().map(|(_, _, at)| at).collect();
    for at in &gaining {
        targets[*at] = 1;
        let ends = ends(&Seat { since: now, ..seats[*at] }, timers);
        *until = until.map_or(Some(ends), |other| Some(ends.min(other)));
    }
    (targets, gaining)
}

/// When a seat has to give its RDY up.
fn ends(seat: &Seat, timers: Timers) -> Instant {
    let held = seat.since + timers.hold_timeout;
    // While its message is being worked on a connection is not idle.
    if seat.in_flight > 0 {
        held
    } else {
        held.min(seat.since.max(seat.active) + timers.idle_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    const TIMERS: Timers =
        Timers { idle_timeout: Duration::from_secs(10), hold_timeout: Duration::from_secs(30) };

    fn seat(max: u32, rdy: u32, in_flight: u32) -> Seat {
        let (since, active) = (Instant::ZERO, Instant::ZERO);
        let prospects = Prospects::default();
        Seat { max, weight: 1, rdy, in_flight, since, active, prospects }
    }

    fn budget(count: u32) -> Budget {
        Budget { rdy: count, in_flight: count, held: 0, is_test: false }
    }

    fn counts(plan: &Plan) -> Vec<u32> {
        plan.shares.iter().map(|share| share.rdy).collect()
    }

    #[test]
    fn shares_are_equal_and_nothing_is_lost() {
        for (count, maxima, expected) in [
            (10, vec![2500; 3], vec![4, 3, 3]),
            (20, vec![2500; 3], vec![7, 7, 6]),
            (10, vec![2500], vec![10]),
            (3, vec![2500; 3], vec![1, 1, 1]),
            (0, vec![2500; 3], vec![0, 0, 0]),
            (10, vec![3, 2500, 2500], vec![3, 4, 3]),
            (10, vec![2500, 1, 2], vec![7, 1, 2]),
            (100, vec![3, 3], vec![3, 3]),
            (u32::MAX, vec![u32::MAX; 2], vec![1 << 31, (1 << 31) - 1]),
        ] {
            let seats: Vec<Seat> = maxima.iter().map(|max| seat(*max, 0, 0)).collect();
            let plan = plan(budget(count), TIMERS, &seats, Instant::ZERO);
            assert_eq!(counts(&plan), expected, "{count} over {maxima:?}");
            assert!(!plan.is_blocked && !plan.is_rotating);
        }
    }

    #[test]
    fn what_comes_lately_weighs() {
        for (count, weights, expected) in [
            (30, vec![1, 1, 1], vec![10, 10, 10]),
            // Half of all equally, half after rates of 9 and 0.
            (100, vec![9 + 2 * 9, 9], vec![75, 25]),
            (2, vec![1_000_000, 1], vec![1, 1]),
            (5, vec![1_000_000, 1, 1], vec![3, 1, 1]),
        ] {
            let seat = |weight| Seat { weight, ..seat(2500, 0, 0) };
            let seats: Vec<Seat> = weights.iter().copied().map(seat).collect();
            let plan = plan(budget(count), TIMERS, &seats, Instant::ZERO);
            assert_eq!(counts(&plan), expected, "{count} over {weights:?}");
        }
    }

    #[test]
    fn what_is_in_flight_is_not_given_out_twice() {
        // A second connection comes while the first has all 10 in flight: it waits for answers.
        for (in_flight, second) in [(10, 0), (8, 2), (5, 5), (0, 5)] {
            let seats = [seat(2500, 10, in_flight), seat(2500, 0, 0)];
            let plan = plan(budget(10), TIMERS, &seats, Instant::ZERO);
            assert_eq!(counts(&plan), [5, second]);
            assert_eq!(plan.is_blocked, second < 5);
        }
        let held = Budget { held: 9, ..budget(10) };
        let plan = plan(held, TIMERS, &[seat(2500, 0, 0), seat(2500, 0, 0)], Instant::ZERO);
        assert_eq!(counts(&plan), [1, 0]);
    }

    #[test]
    fn a_test_goes_to_the_connection_that_was_active_last() {
        let mut seats = [seat(2500, 0, 0); 3];
        seats[1].active = Instant::from_millis(5);
        let test = Budget { rdy: 1, in_flight: 10, held: 0, is_test: true };
        let plan = plan(test, TIMERS, &seats, Instant::from_millis(6));
        assert_eq!(counts(&plan), [0, 1, 0]);
        assert_eq!(plan.until, Some(Instant::from_millis(10_006)));
    }

    #[test]
    fn a_test_prefers_who_had_no_rdy_left_and_then_who_failed() {
        let mut seats = [seat(2500, 0, 0); 4];
        seats[0].active = Instant::from_millis(5);
        let test = Budget { rdy: 1, in_flight: 10, held: 0, is_test: true };
        let mut begins = |at: usize, prospects| {
            seats[at].prospects = prospects;
            counts(&plan(test, TIMERS, &seats, Instant::from_millis(6)))
        };
        let (full, cause) = (true, true);
        assert_eq!(begins(1, Prospects { is_full: !full, is_cause: cause }), [0, 1, 0, 0]);
        assert_eq!(begins(2, Prospects { is_full: full, is_cause: !cause }), [0, 0, 1, 0]);
        assert_eq!(begins(3, Prospects { is_full: full, is_cause: cause }), [0, 0, 0, 1]);
    }

    #[test]
    fn an_idle_connection_gives_up_after_a_whole_period_from_its_grant() {
        // Without a message for an hour, and granted just now.
        let now = Instant::from_millis(3_600_000);
        let mut seats = [seat(2500, 1, 0), seat(2500, 0, 0)];
        seats[0].since = now;
        let early = plan(budget(1), TIMERS, &seats, now + Duration::from_millis(9_999));
        assert_eq!(counts(&early), [1, 0]);
        let due = now + TIMERS.idle_timeout;
        assert_eq!(early.until, Some(due));
        assert_eq!(counts(&plan(budget(1), TIMERS, &seats, due)), [0, 1]);
        // A message that is worked on is activity, up to the longest hold.
        seats[0].in_flight = 1;
        assert_eq!(counts(&plan(budget(1), TIMERS, &seats, due)), [1, 0]);
        let late = plan(budget(1), TIMERS, &seats, now + TIMERS.hold_timeout);
        assert_eq!((counts(&late), late.is_blocked), (vec![0, 0], true));
    }

    /// The first has lost its RDY and needs no room to get it back; the second has waited longer.
    #[test]
    fn whoever_waits_for_room_is_not_overtaken() {
        let now = Instant::from_millis(100_000);
        let mut seats = [seat(2500, 0, 1), seat(2500, 0, 0), seat(2500, 1, 1)];
        (seats[0].since, seats[2].since) =
            (Instant::from_millis(90_000), Instant::from_millis(70_000));
        let blocked = plan(budget(2), TIMERS, &seats, now);
        assert_eq!((counts(&blocked), blocked.is_blocked), (vec![0, 0, 0], true));
        seats[0].in_flight = 0;
        let plan = plan(budget(2), TIMERS, &seats, now);
        assert_eq!(counts(&plan), [0, 1, 0]);
    }

    fn seats() -> impl Strategy<Value = Vec<Seat>> {
        let weight = prop_oneof![Just(1_u64), 1_u64..1000, any::<u64>().prop_map(|any| any.max(1))];
        let seat = (1_u32..30, weight, 0_u32..30, 0_u32..30, 0_u64..60_000, 0_u64..60_000)
            .prop_map(|(max, weight, rdy, in_flight, since, active)| Seat {
                max,
                weight,
                rdy: rdy.min(max),
                in_flight,
                since: Instant::from_millis(since),
                active: Instant::from_millis(active),
                prospects: Prospects::default(),
            });
        proptest::collection::vec(seat, 0..12)
    }

    proptest! {
        #[test]
        fn no_plan_is_above_the_budget(
            seats in seats(),
            rdy in 0_u32..60,
            more in 0_u32..60,
            held in 0_u32..20,
            is_test: bool,
            now in 60_000_u64..120_000,
        ) {
            let budget = Budget { rdy, in_flight: rdy + more, held, is_test };
            let now = Instant::from_millis(now);
            let plan = plan(budget, TIMERS, &seats, now);
            prop_assert_eq!(plan.shares.len(), seats.len());
            prop_assert!(counts(&plan).iter().sum::<u32>() <= rdy);
            let mut used = held;
            let mut unmoved = held;
            for (seat, share) in seats.iter().zip(&plan.shares) {
                prop_assert!(share.rdy <= seat.max);
                used += share.rdy.max(seat.in_flight);
                unmoved += share.rdy.min(seat.rdy).max(seat.in_flight);
            }
            // Nothing is raised unless there is room for it.
            prop_assert!(used <= budget.in_flight.max(unmoved));
            prop_assert!(plan.until.is_none_or(|until| until > now));
            // What can be given out is.
            let room: u32 = seats.iter().map(|seat| seat.max).sum();
            if !plan.is_blocked {
                prop_assert_eq!(counts(&plan).iter().sum::<u32>(), rdy.min(room));
            }
        }

        /// Busy and idle connections, answers of up to 5 s: each is served within its bound.
        #[test]
        fn every_connection_has_its_turn_in_bounded_time(
            busy in proptest::collection::vec(any::<bool>(), 2..9),
            count: u32,
        ) {
            let n = busy.len() as u64;
            let count = 1 + count % (busy.len() as u32 - 1);
            let mut seats: Vec<Seat> = busy.iter().map(|_| seat(2500, 0, 0)).collect();
            let mut served: BTreeMap<usize, u64> = (0..busy.len()).map(|at| (at, 0)).collect();
            let bound = 35 * n.div_ceil(u64::from(count)) + 35;
            for second in 0..1000_u64 {
                let now = Instant::from_millis(second * 1000);
                for (seat, busy) in seats.iter_mut().zip(&busy) {
                    if seat.in_flight > 0 && second % 5 == 0 {
                        (seat.in_flight, seat.active) = (0, now);
                    }
                    if *busy && seat.rdy > 0 && seat.in_flight == 0 {
                        (seat.in_flight, seat.active) = (1, now);
                    }
                }
                let plan = plan(budget(count), TIMERS, &seats, now);
                for (at, (seat, share)) in seats.iter_mut().zip(plan.shares).enumerate() {
                    if share.is_granted || (seat.rdy > 0 && share.rdy == 0) {
                        seat.since = now;
                    }
                    seat.rdy = share.rdy;
                    if seat.rdy > 0 {
                        served.insert(at, second);
                    }
                }
                for last in served.values() {
                    prop_assert!(second - last <= bound, "{served:?} at {second}");
                }
            }
        }
    }
}
