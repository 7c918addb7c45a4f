//! Which of several addresses is asked next (http-and-ops.md section 10.4).

use core::time::Duration;
use std::time::Instant;

use clap::ValueEnum;
use sansq_core::rng::Rng;

/// How one of several addresses is chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum HttpMode {
    /// Each in turn; one that fails is left out, for 30 seconds first and 15 minutes at most.
    Hostpool,
    /// Mostly the one that answers fastest, at times another; those that fail as with hostpool.
    EpsilonGreedy,
    /// Each in turn, whatever happens.
    RoundRobin,
    /// All of them.
    Multicast,
}

/// The addresses, by number.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    mode: HttpMode,
    hosts: Vec<Host>,
    next: usize,
    /// The share of choices, in parts of 1000, that go to any address.
    exploration: u64,
    rng: Rng,
}

#[derive(Clone, Debug, Default)]
struct Host {
    /// When it may be asked again, if it failed; and for how long that was.
    left_out: Option<(Instant, Duration)>,
    /// A moving average; none before the first answer.
    latency: Option<Duration>,
}

impl Hosts {
    pub(super) fn new(mode: HttpMode, count: usize, seed: u64) -> Self {
        Self {
            mode,
            hosts: vec![Host::default(); count],
            next: 0,
            exploration: EXPLORATION,
            rng: Rng::new(seed),
        }
    }

    /// The numbers of those to be asked now; none only if there is no address at all.
    pub(super) fn choose(&mut self, now: Instant) -> Vec<usize> {
        match self.mode {
            HttpMode::Multicast => (0..self.hosts.len()).collect(),
            HttpMode::RoundRobin => {
                let all: Vec<usize> = (0..self.hosts.len()).collect();
                self.in_turn(&all).into_iter().collect()
            }
            HttpMode::Hostpool => {
                let live = self.live(now);
                self.in_turn(&live).into_iter().collect()
            }
            HttpMode::EpsilonGreedy => {
                let live = self.live(now);
                if self.rng.below(1000) < self.exploration {
                    self.exploration = (self.exploration * 9 / 10).max(EXPLORATION_MIN);
                    let index = self.rng.below(live.len() as u64);
                    let index = usize::try_from(index).unwrap_or_default();
                    return live.get(index).copied().into_iter().collect();
                }
                // Whoever was never asked is asked first.
                let fastest = live.into_iter().min_by_key(|index| self.hosts[*index].latency);
                fastest.into_iter().collect()
            }
        }
    }

    /// How it went; `latency` is that of an answer that is good.
    pub(super) fn report(&mut self, index: usize, latency: Option<Duration>, now: Instant) {
        let Some(host) = self.hosts.get_mut(index) else { return };
        match latency {
            Some(latency) => {
                host.left_out = None;
                // A tenth of the newest and nine of what was.
                host.latency = Some(host.latency.map_or(latency, |old| (old * 9 + latency) / 10));
            }
            None => {
                let pause = match host.left_out {
                    // Several requests were under way when it failed.
                    Some((until, pause)) if until > now => pause,
                    Some((_, pause)) => (pause * 2).min(PAUSE_MAX),
                    None => PAUSE_MIN,
                };
                host.left_out = Some((now + pause, pause));
            }
        }
    }

    /// Those that may be asked: all, if all are left out.
    fn live(&mut self, now: Instant) -> Vec<usize> {
        let is_live = |host: &Host| host.left_out.is_none_or(|(until, _)| until <= now);
        if !self.hosts.iter().any(is_live) {
            self.hosts.iter_mut().for_each(|host| host.left_out = None);
        }
        (0..self.hosts.len()).filter(|index| is_live(&self.hosts[*index])).collect()
    }

    fn in_turn(&mut self, of: &[usize]) -> Option<usize> {
        // The first from the next one on, or else from the beginning.
        let chosen =
            of.iter().find(|index| **index >= self.next).or_else(|| of.first()).copied()?;
        self.next = chosen + 1;
        Some(chosen)
    }
}

/// How long an address is left out when it fails for the first time, and at most.
const PAUSE_MIN: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(900);

/// Parts of 1000, at the beginning and at least.
const EXPLORATION: u64 = 300;
const EXPLORATION_MIN: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Option<Duration> = Some(Duration::from_millis(1));
    const SLOW: Option<Duration> = Some(Duration::from_millis(50));

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn in_turn_and_all() {
        let now = Instant::now();
        let mut hosts = Hosts::new(HttpMode::RoundRobin, 3, 1);
        hosts.report(1, None, now);
        let chosen: Vec<_> = (0..4).flat_map(|_| hosts.choose(now)).collect();
        assert_eq!(chosen, [0, 1, 2, 0]);
        assert_eq!(Hosts::new(HttpMode::Multicast, 3, 1).choose(now), [0, 1, 2]);
        for mode in HttpMode::value_variants() {
            assert!(Hosts::new(*mode, 0, 1).choose(now).is_empty());
        }
    }

    #[test]
    fn one_that_fails_is_left_out_for_longer_and_longer() {
        let mut now = Instant::now();
        let mut hosts = Hosts::new(HttpMode::Hostpool, 3, 1);
        let choose = |hosts: &mut Hosts, now| -> Vec<usize> {
            (0..3).flat_map(|_| hosts.choose(now)).collect()
        };
        assert_eq!(choose(&mut hosts, now), [0, 1, 2]);
        for pause in [30, 60, 120, 240, 480, 900, 900] {
            // Several that fail at once are one failure.
            hosts.report(1, None, now);
            hosts.report(1, None, now);
            assert_eq!(choose(&mut hosts, now + seconds(pause - 1)), [0, 2, 0]);
            now += seconds(pause);
            hosts.next = 0;
            assert_eq!(choose(&mut hosts, now), [0, 1, 2]);
            hosts.next = 0;
        }
        hosts.report(1, FAST, now);
        hosts.report(1, None, now);
        assert_eq!(choose(&mut hosts, now + seconds(30)), [0, 1, 2]);
        // All are: then none is.
        (0..3).for_each(|index| hosts.report(index, None, now));
        assert_eq!(choose(&mut hosts, now), [0, 1, 2]);
    }

    #[test]
    fn the_fastest_has_most() {
        let now = Instant::now();
        let mut hosts = Hosts::new(HttpMode::EpsilonGreedy, 3, 1);
        let mut counts = [0; 3];
        for _ in 0..1000 {
            for index in hosts.choose(now) {
                counts[index] += 1;
                hosts.report(index, if index == 2 { FAST } else { SLOW }, now);
            }
        }
        assert!(counts[2] > 900 && counts[0] > 0 && counts[1] > 0, "{counts:?}");
        hosts.report(2, None, now);
        let chosen: Vec<_> = (0..100).flat_map(|_| hosts.choose(now)).collect();
        assert!(chosen.len() == 100 && !chosen.contains(&2));
    }
}
