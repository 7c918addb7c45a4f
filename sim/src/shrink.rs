//! From a run that fails to a smaller one that fails in the same way.

use core::mem::discriminant;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use crate::limits::Limits;
use crate::oracles::Violation;
use crate::swarm::{Fault, Options};
use crate::trace::Trace;
use crate::world::{Outcomes, run};

/// Runs `options`; `None` if something panicked.
pub fn attempt(options: Options, trace: Trace) -> Option<Outcomes> {
    catch_unwind(AssertUnwindSafe(|| run(options, trace))).ok()
}

/// Makes a failing run smaller: fewer kinds of faults and fewer of them, a shorter time, fewer of
/// everything. Each step is a setting that [`Options::set`] takes, so that the settings and the
/// seed tell the smaller run. At most `runs_max` runs are tried.
///
/// Returns the settings that are left to make; none if nothing could be left out, or if it does not
/// fail.
pub fn shrink(options: &Options, runs_max: usize) -> Vec<(String, String)> {
    let Some(how) = Failure::of(attempt(options.clone(), Trace::new(None))) else {
        return Vec::new();
    };
    let mut search = Search { options: options.clone(), how, made: Vec::new(), left: runs_max };
    loop {
        let before = search.made.len();
        search.round();
        if search.made.len() == before || search.left == 0 {
            return search.settings();
        }
    }
}

/// How a run failed, as far as another one has to fail in the same way.
enum Failure {
    Panic,
    Broken(Violation),
}

impl Failure {
    fn of(outcomes: Option<Outcomes>) -> Option<Self> {
        match outcomes {
            None => Some(Self::Panic),
            Some(outcomes) => outcomes.result.err().map(Self::Broken),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Panic, Self::Panic) => true,
            (Self::Broken(a), Self::Broken(b)) => discriminant(a) == discriminant(b),
            _ => false,
        }
    }
}

struct Search {
    options: Options,
    how: Failure,
    made: Vec<(String, String)>,
    left: usize,
}

impl Search {
    /// Tries everything once.
    fn round(&mut self) {
        for kind in self.options.faults.kinds.clone() {
            let kinds = self.options.faults.kinds.iter().filter(|other| **other != kind);
            let names: Vec<_> = kinds.map(|kind| format!("{kind:?}")).collect();
            self.make("kinds", names.join(","));
        }
        self.halve("chaos_ms", self.options.chaos.as_millis() as u64, 1);
        self.halve("faults", self.options.faults.count_max.unwrap_or(1000), 0);
        self.halve("messages", self.options.messages as u64, 1);
        for (key, value) in self.options.switches() {
            self.make(key, value);
        }
        let counts = self.options.counts();
        for (key, value, least) in counts {
            self.halve(key, value, least);
        }
    }

    /// Makes a number smaller as long as that works.
    fn halve(&mut self, key: &str, mut value: u64, least: u64) {
        while value > least && self.make(key, (value / 2).max(least).to_string()) {
            value = (value / 2).max(least);
        }
        while value > least && value < 20 && self.make(key, (value - 1).to_string()) {
            value -= 1;
        }
    }

    /// Makes a setting if the run fails all the same.
    fn make(&mut self, key: &str, value: String) -> bool {
        let mut smaller = self.options.clone();
        if self.left == 0 || smaller.set(key, &value).is_err() {
            return false;
        }
        self.left -= 1;
        let fails = Failure::of(attempt(smaller.clone(), Trace::new(None)));
        let is_like = fails.is_some_and(|how| how.is_like(&self.how));
        if is_like {
            self.options = smaller;
            self.made.push((key.to_owned(), value));
        }
        is_like
    }

    /// The last setting of each kind.
    fn settings(self) -> Vec<(String, String)> {
        let mut settings: Vec<(String, String)> = Vec::new();
        for (key, value) in self.made {
            settings.retain(|(other, _)| *other != key);
            settings.push((key, value));
        }
        settings
    }
}

impl Options {
    /// Changes one thing about a run: `kinds` (of faults, by name, with commas between), `faults`
    /// (how many at most), `chaos_ms`, and by their names `nodes`, `shards`, `lookupds`, `topics`,
    /// `channels`, `producers`, `consumers`, `pools`, `workers`, `messages`; `off` for `disks`,
    /// `limits`, `hostile`, `ephemeral`, `burst`.
    ///
    /// # Errors
    /// What is wrong with the setting.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u64>().map_err(|_| format!("{key}: {value} is no number"));
        let count = |least: u64| match number()? {
            n if n >= least && n <= 1000 => Ok(n as usize),
            n => Err(format!("{key}: {n} is not from {least} to 1000")),
        };
        match key {
            "kinds" => {
                let names = value.split(',').filter(|name| !name.is_empty());
                let kinds = names.map(|name| {
                    let mut all = Fault::ALL.into_iter();
                    let kind = all.find(|kind| format!("{kind:?}") == name);
                    kind.ok_or_else(|| {
                        let all = Fault::ALL.map(|kind| format!("{kind:?}")).join(", ");
                        format!("{name} is no kind of fault; there are: {all}")
                    })
                });
                self.faults.kinds = kinds.collect::<Result<_, _>>()?;
            }
            "faults" => self.faults.count_max = Some(number()?),
            "chaos_ms" => self.chaos = core::time::Duration::from_millis(number()?),
            "nodes" => self.nodes = count(1)?,
            "shards" => self.shards = count(1)? as u16,
            "lookupds" => self.lookupds = count(1)?,
            "topics" => self.topics = count(1)?,
            "channels" => self.channels = count(1)?,
            "messages" => self.messages = count(0)?,
            "producers" => self.producers = count(0)?,
            "consumers" => self.consumers = count(0)?,
            "workers" => self.workers.0 = count(0)?,
            "pools" => self.pools.truncate(count(0)?),
            "disks" if value == "off" => self.disks = None,
            "limits" if value == "off" => self.limits = Limits::default(),
            "hostile" if value == "off" => self.hostile = false,
            "ephemeral" if value == "off" => self.ephemeral = false,
            "burst" if value == "off" => self.burst = false,
            "disks" | "limits" | "hostile" | "ephemeral" | "burst" => {
                return Err(format!("{key}: {value} is not off"));
            }
            _ => return Err(format!("there is no setting {key}; there are: {}", KEYS.join(", "))),
        }
        if self.consumers + self.workers.0 == 0 {
            return Err("somebody has to consume".into());
        }
        Ok(())
    }

    /// What can be left out.
    fn switches(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("hostile", self.hostile),
            ("ephemeral", self.ephemeral),
            ("burst", self.burst),
            ("disks", self.disks.is_some()),
            ("limits", self.limits != Limits::default()),
        ];
        let on = all.into_iter().filter(|(_, is_on)| *is_on);
        on.map(|(key, _)| (key, "off".to_owned())).collect()
    }

    /// What can be fewer, how many there are, and how many there have to be.
    fn counts(&self) -> Vec<(&'static str, u64, u64)> {
        vec![
            ("pools", self.pools.len() as u64, 0),
            ("workers", self.workers.0 as u64, 0),
            ("producers", self.producers as u64, 0),
            ("consumers", self.consumers as u64, 0),
            ("nodes", self.nodes as u64, 1),
            ("shards", u64::from(self.shards), 1),
            ("lookupds", self.lookupds as u64, 1),
            ("topics", self.topics as u64, 1),
            ("channels", self.channels as u64, 1),
        ]
    }
}

/// What [`Options::set`] changes.
const KEYS: [&str; 18] = [
    "kinds",
    "faults",
    "chaos_ms",
    "nodes",
    "shards",
    "lookupds",
    "topics",
    "channels",
    "producers",
    "consumers",
    "pools",
    "workers",
    "messages",
    "disks",
    "limits",
    "hostile",
    "ephemeral",
    "burst",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let mut options = Options::from_seed(1);
        options.set("kinds", "LoseLink,Partition").unwrap();
        assert_eq!(options.faults.kinds, [Fault::LoseLink, Fault::Partition]);
        options.set("kinds", "").unwrap();
        assert!(options.faults.kinds.is_empty());
        options.set("nodes", "2").unwrap();
        assert_eq!(options.nodes, 2);
        for (key, value) in [("kinds", "Fire"), ("nodes", "0"), ("nodes", "x"), ("disks", "on")] {
            assert!(options.set(key, value).is_err(), "{key}={value}");
        }
        let told = options.set("colour", "1").unwrap_err();
        assert!(told.ends_with(&KEYS.join(", ")), "{told}");
        for key in KEYS {
            let told = options.set(key, "?").unwrap_err();
            assert!(!told.starts_with("there is no setting"), "{told}");
        }
    }

    #[test]
    fn what_does_not_fail_is_not_made_smaller() {
        assert_eq!(shrink(&Options::quiet(1), 100), []);
    }
}
