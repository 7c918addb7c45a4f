//! How long a message takes the core, waiting for memory included: the steps whose instructions the
//! bench `instructions` counts.
//!
//! ```console
//! $ cargo bench -p sansq-core --bench time          # with 1,000, 100,000 and a million messages
//! $ cargo bench -p sansq-core --bench time finish   # steps whose names contain it
//! ```
//!
//! The items per second are messages. On a busy machine only the fastest column means anything.

mod steps;

use core::fmt;

use divan::Bencher;
use divan::counter::ItemsCount;
use steps::{STEPS, Step};

fn main() {
    divan::main();
}

/// A step with so many messages.
struct Case(Step, usize);

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, n = {}", self.0.name, self.1)
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let counts = [1_000, 100_000, 1_000_000];
    let cases = STEPS.into_iter().flat_map(move |step| counts.map(|count| Case(step, count)));
    cases.filter(|Case(step, count)| step.takes(*count))
}

#[divan::bench(args = cases(), sample_count = 5, sample_size = 1)]
fn step(bencher: Bencher<'_, '_>, Case(step, count): &Case) {
    let prepared = bencher.counter(ItemsCount::new(*count)).with_inputs(|| (step.prepare)(*count));
    prepared.bench_values(|measured| measured());
}
