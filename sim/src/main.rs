//! Runs seeds and says which of them went wrong.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use sansq_sim::shrink::{attempt, shrink};
use sansq_sim::{Options, Outcomes, Trace};

mod many;

/// Simulates NSQ clusters: each seed is a run that can be had again. The exit status is 1 if a run
/// went wrong, and 2 if the arguments are.
#[derive(Debug, Parser)]
#[command(name = "sansq-sim", max_term_width = 100)]
struct Arguments {
    /// Runs one seed: a number, or a commit hash
    #[arg(long, required_unless_present = "seeds", conflicts_with = "seeds")]
    seed: Option<String>,

    /// Prints everything that happens in the run
    #[arg(long, requires = "seed")]
    trace: bool,

    /// Runs the seeds from A up to but not including B, or those from A on for some minutes: A..B,
    /// A..
    #[arg(long, value_name = "A..B")]
    seeds: Option<String>,

    /// Begins no new run after so many minutes
    #[arg(long, value_name = "M", requires = "seeds")]
    minutes: Option<f64>,

    /// How many threads run seeds
    #[arg(long, value_name = "J", default_value_t = 1)]
    jobs: usize,

    /// Changes something about each run, as a smaller run that failed says
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,

    /// Ends with the first run that fails, and makes it no smaller
    #[arg(long, requires = "seeds")]
    first: bool,

    /// Tries so many smaller runs of one that fails
    #[arg(long, value_name = "RUNS", default_value_t = 300)]
    shrink: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match carry_out(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(text) => {
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::from(2)
        }
    }
}

/// Returns how many runs went wrong.
fn carry_out(arguments: &Arguments) -> Result<u64, String> {
    let settings = settings(&arguments.settings)?;
    if let Some(seed) = &arguments.seed {
        let seed = seed_of(seed)?;
        let options = options(seed, &settings)?;
        let sink = arguments.trace.then(|| Box::new(std::io::stdout()) as Box<dyn Write>);
        let outcomes = attempt(options.clone(), Trace::new(sink));
        report(seed, &outcomes);
        if is_good(outcomes.as_ref()) {
            return Ok(0);
        }
        if !arguments.trace {
            replay(&options, &settings, arguments.shrink);
        }
        return Ok(1);
    }
    let range = arguments.seeds.as_deref().unwrap_or_default();
    let (start, end) = range.split_once("..").ok_or("the seeds are A..B or A..")?;
    let start = seed_of(start)?;
    let end = if end.is_empty() { None } else { Some(seed_of(end)?) };
    if end.is_none() && arguments.minutes.is_none() {
        return Err("A.. runs for ever: say for how many --minutes".into());
    }
    let plan = many::Plan {
        start,
        end,
        minutes: arguments.minutes,
        jobs: arguments.jobs,
        first: arguments.first,
    };
    many::run(
        &plan,
        |seed| options(seed, &settings),
        |options| {
            replay(options, &settings, if plan.first { 0 } else { arguments.shrink });
        },
    )
}

/// Says how a run that failed is had again, and a smaller one that fails in the same way.
fn replay(options: &Options, settings: &[(String, String)], runs_max: usize) {
    let command = |settings: &[(String, String)]| {
        let mut words = format!("cargo run --release -p sansq-sim -- --seed {}", options.seed);
        for (key, value) in settings {
            words += &format!(" --set {key}={value}");
        }
        words
    };
    say(format_args!("replay:  {} --trace", command(settings)));
    // Runs that panic say so each time, which nobody wants to read here.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let made = shrink(options, runs_max);
    std::panic::set_hook(hook);
    if made.is_empty() {
        return;
    }
    let mut all: Vec<_> = settings.to_vec();
    all.retain(|(key, _)| made.iter().all(|(other, _)| other != key));
    all.extend(made);
    say(format_args!("smaller: {} --trace", command(&all)));
}

fn settings(words: &[String]) -> Result<Vec<(String, String)>, String> {
    let pair = |word: &String| {
        let (key, value) =
            word.split_once('=').ok_or_else(|| format!("{word} is not KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}

fn options(seed: u64, settings: &[(String, String)]) -> Result<Options, String> {
    let mut options = Options::from_seed(seed);
    for (key, value) in settings {
        options.set(key, value)?;
    }
    Ok(options)
}

/// A number is itself; a commit hash stands for a number of 48 bits, which is easier to repeat.
fn seed_of(text: &str) -> Result<u64, String> {
    if let Ok(seed) = text.parse() {
        return Ok(seed);
    }
    let is_hash = text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = text.get(..12.min(text.len())).unwrap_or_default();
    match u64::from_str_radix(digits, 16) {
        Ok(seed) if is_hash => Ok(seed),
        _ => Err(format!("{text} is neither a number nor a commit hash")),
    }
}

fn is_good(outcomes: Option<&Outcomes>) -> bool {
    outcomes.is_some_and(|outcomes| outcomes.result.is_ok())
}

fn report(seed: u64, outcomes: &Option<Outcomes>) {
    let Some(outcomes) = outcomes else {
        return say(format_args!("seed {seed} FAILED: panic"));
    };
    let Outcomes { hash, events, published, delivered, ended, result, .. } = outcomes;
    let seconds = ended.as_nanos() / 1_000_000_000;
    say(format_args!(
        "seed {seed}: hash {hash:016x}, {events} events, {published} messages, {delivered} deliveries, \
         {seconds} s"
    ));
    if let Err(violation) = result {
        say(format_args!("seed {seed} FAILED: {violation}"));
    }
}

/// Prints a line. A reader that went away, such as `head`, is no failure.
fn say(line: core::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
