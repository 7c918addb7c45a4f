//! Many seeds on several threads, and the table of what they came to.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use sansq_sim::shrink::attempt;
use sansq_sim::swarm::Fault;
use sansq_sim::{Options, Outcomes, Trace};

use crate::{is_good, report, say};

/// Which seeds, and how.
pub(crate) struct Plan {
    pub(crate) start: u64,
    pub(crate) end: Option<u64>,
    pub(crate) minutes: Option<f64>,
    pub(crate) jobs: usize,
    /// Whether nothing is run behind the first that fails.
    pub(crate) first: bool,
}

/// What all runs came to together.
#[derive(Default)]
struct Sums {
    seeds: u64,
    events: u64,
    virtual_nanos: u128,
    published: u64,
    delivered: u64,
    faults: BTreeMap<Fault, u64>,
    failed: Vec<Options>,
    /// Of the runs' hashes, in no order.
    hash: u64,
}

/// Runs them; a run that fails is told to `failed` when all are done. Returns how many failed.
pub(crate) fn run(
    plan: &Plan,
    options: impl Fn(u64) -> Result<Options, String> + Sync,
    failed: impl Fn(&Options),
) -> Result<u64, String> {
    options(plan.start)?;
    let began = Instant::now();
    let until =
        plan.minutes.map(|minutes| began + Duration::from_secs_f64(minutes.max(0.0) * 60.0));
    let count = plan.end.map(|end| end.saturating_sub(plan.start));
    // Drawn on a terminal only.
    let bar = count.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = "{elapsed_precise} {pos}/{len} seeds, {per_sec} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let next = AtomicU64::new(0);
    let sums = Mutex::new(Sums::default());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let is_over = until.is_some_and(|until| Instant::now() >= until);
            if is_over || at >= count.unwrap_or(NEVER) {
                return;
            }
            let seed = plan.start.wrapping_add(at);
            let Ok(options) = options(seed) else { return };
            let outcomes = attempt(options.clone(), Trace::new(None));
            let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
            sums.add(options, &outcomes);
            if !is_good(outcomes.as_ref()) {
                bar.suspend(|| report(seed, &outcomes));
                if plan.first {
                    next.store(NEVER, Ordering::Relaxed);
                }
                bar.set_message(format!("{} FAILED", sums.failed.len()));
            }
            bar.inc(1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..plan.jobs {
            scope.spawn(work);
        }
        work();
    });
    bar.finish_and_clear();
    let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    sums.say(began.elapsed());
    for options in sums.failed.iter().take(REPLAYS_MAX) {
        failed(options);
    }
    Ok(sums.failed.len() as u64)
}

impl Sums {
    fn add(&mut self, options: Options, outcomes: &Option<Outcomes>) {
        self.seeds += 1;
        if !is_good(outcomes.as_ref()) {
            self.failed.push(options);
        }
        let Some(outcomes) = outcomes else { return };
        self.hash = self.hash.wrapping_add(outcomes.hash);
        self.events += outcomes.events;
        self.virtual_nanos += u128::from(outcomes.ended.as_nanos());
        self.published += outcomes.published as u64;
        self.delivered += outcomes.delivered as u64;
        for (kind, count) in &outcomes.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
    }

    fn say(&self, real: Duration) {
        let seconds = real.as_secs_f64().max(1e-9);
        let virtual_seconds = self.virtual_nanos as f64 / 1e9;
        let hours = virtual_seconds / 3600.0;
        let rate = self.events as f64 / seconds;
        let row = |name: &str, value: String| say(format_args!("{name:<16}{value:>17}"));
        row("seeds", self.seeds.to_string());
        row("events", self.events.to_string());
        row("messages", self.published.to_string());
        row("deliveries", self.delivered.to_string());
        row("virtual time", format!("{hours:.1} h"));
        row("real time", format!("{seconds:.1} s"));
        row("events/s", format!("{rate:.0}"));
        row("virtual/real", format!("{:.0}", virtual_seconds / seconds));
        for (kind, count) in &self.faults {
            row(&format!("{kind:?}"), count.to_string());
        }
        row("hash", format!("{:x}", self.hash));
        row("violations", self.failed.len().to_string());
    }
}

/// More seeds than anybody runs.
const NEVER: u64 = u64::MAX / 2;

/// Of so many runs that failed is said how they are had again.
const REPLAYS_MAX: usize = 5;
