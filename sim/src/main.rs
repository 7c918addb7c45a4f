//! Runs seeds and says which of them went wrong.

use core::ops::Range;
use core::panic::AssertUnwindSafe;
use std::io::Write;
use std::panic::catch_unwind;
use std::process::ExitCode;

use sansq_sim::{Options, Outcomes, Trace, run};

const USAGE: &str = "usage: sansq-sim --seed N [--trace]
       sansq-sim --seeds A..B

--seed N     runs one seed
--trace      prints everything that happens
--seeds A..B runs the seeds from A up to but not including B

The exit status is 1 if a seed went wrong, and 2 if the arguments are.";

enum Job {
    One { seed: u64, trace: bool },
    Many(Range<u64>),
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let Some(job) = parse(&arguments) else {
        say(format_args!("{USAGE}"));
        return ExitCode::from(2);
    };
    let failed = match job {
        Job::One { seed, trace } => {
            let sink = trace.then(|| Box::new(std::io::stdout()) as Box<dyn Write>);
            let outcomes = attempt(seed, Trace::new(sink));
            report(seed, &outcomes);
            u64::from(!is_good(&outcomes))
        }
        Job::Many(seeds) => many(seeds),
    };
    ExitCode::from(u8::from(failed > 0))
}

fn many(seeds: Range<u64>) -> u64 {
    let (mut failed, mut events, mut delivered) = (0, 0, 0);
    for seed in seeds.clone() {
        let outcomes = attempt(seed, Trace::new(None));
        if let Some(outcomes) = &outcomes {
            events += outcomes.events;
            delivered += outcomes.delivered;
        }
        if !is_good(&outcomes) {
            failed += 1;
            report(seed, &outcomes);
        }
    }
    let count = seeds.end.saturating_sub(seeds.start);
    say(format_args!("{count} seeds, {failed} failed, {events} events, {delivered} deliveries"));
    failed
}

/// Runs a seed; `None` if something panicked.
fn attempt(seed: u64, trace: Trace) -> Option<Outcomes> {
    catch_unwind(AssertUnwindSafe(|| run(Options::from_seed(seed), trace))).ok()
}

fn is_good(outcomes: &Option<Outcomes>) -> bool {
    outcomes.as_ref().is_some_and(|outcomes| outcomes.result.is_ok())
}

fn report(seed: u64, outcomes: &Option<Outcomes>) {
    match outcomes {
        Some(outcomes) => {
            let Outcomes { hash, events, published, delivered, ended, result, .. } = outcomes;
            let seconds = ended.as_nanos() / 1_000_000_000;
            say(format_args!(
                "seed {seed}: hash {hash:016x}, {events} events, {published} messages, \
                 {delivered} deliveries, {seconds} s"
            ));
            if let Err(violation) = result {
                say(format_args!("seed {seed} FAILED: {violation}"));
            }
        }
        None => say(format_args!("seed {seed} FAILED: panic")),
    }
    if !is_good(outcomes) {
        say(format_args!(
            "replay: cargo run -p sansq-sim --bin sansq-sim -- --seed {seed} --trace"
        ));
    }
}

fn parse(arguments: &[String]) -> Option<Job> {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--seed", seed] => Some(Job::One { seed: seed.parse().ok()?, trace: false }),
        ["--seed", seed, "--trace"] | ["--trace", "--seed", seed] => {
            Some(Job::One { seed: seed.parse().ok()?, trace: true })
        }
        ["--seeds", range] => {
            let (start, end) = range.split_once("..")?;
            Some(Job::Many(start.parse().ok()?..end.parse().ok()?))
        }
        _ => None,
    }
}

/// Prints a line. A reader that went away, such as `head`, is no failure.
fn say(line: core::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
