//! How many instructions a message costs the core, and how that depends on how many messages there
//! are.
//!
//! ```console
//! $ cargo bench -p sansq-core --bench instructions                  # with 1,000, 10,000 and 100,000 messages
//! $ cargo bench -p sansq-core --bench instructions -- 1000000 due   # one step, with a million
//! ```
//!
//! Numbers say with how many messages; any other word, that only steps are measured whose names
//! contain it.
//!
//! Instructions, and not time: they are the same on a busy machine, and a difference of a percent
//! shows. They are counted by valgrind, which has to be installed, for this very program with two
//! numbers of messages. The difference is what the second half of the messages cost, so that
//! starting up, and connecting, is not in it. What goes before a step is counted alone and taken
//! off. It says nothing of what waits for memory: a table that does not fit the cache costs time
//! and no instructions. For that there is the bench `time`.

mod steps;

use std::process::{Command, ExitCode};

use steps::STEPS;

fn main() -> ExitCode {
    // cargo bench adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [part @ ("whole" | "before"), step, count] =
        args.iter().map(String::as_str).collect::<Vec<_>>()[..]
        && let (Ok(step), Ok(count)) = (step.parse::<usize>(), count.parse())
    {
        // Under valgrind: one step, with so many messages.
        let measured = (STEPS[step].prepare)(count);
        if part == "whole" {
            core::mem::forget(measured());
        } else {
            core::mem::forget(measured);
        }
        return ExitCode::SUCCESS;
    }
    let counts: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![1_000, 10_000, 100_000] } else { counts };
    let names = args.iter().filter(|arg| arg.parse::<usize>().is_err());
    match table(&counts, &names.map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "it is what the program is for")]
fn table(counts: &[usize], names: &[&str]) -> Result<(), String> {
    print!("{:34}", "instructions per message, with n =");
    counts.iter().for_each(|count| print!(" {count:>9}"));
    println!();
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part));
    for (index, step) in STEPS.iter().enumerate().filter(|(_, step)| is_wanted(step.name)) {
        print!("{:34}", step.name);
        for count in counts {
            if !step.takes(*count) {
                print!(" {:>9}", "-");
                continue;
            }
            let alone = |count| -> Result<u64, String> {
                Ok(counted(index, "whole", count)?.saturating_sub(counted(index, "before", count)?))
            };
            let (half, whole) = (alone(count / 2)?, alone(*count)?);
            print!(" {:>9.0}", whole.saturating_sub(half) as f64 / (count - count / 2) as f64);
        }
        println!();
    }
    Ok(())
}

/// Instructions of a whole run of this program.
fn counted(step: usize, part: &str, count: usize) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    valgrind.arg(program).args([part, &step.to_string(), &count.to_string()]);
    let output = valgrind.output().map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find_map(|line| line.split_once("refs:"));
    let digits = line.map(|(_, number)| number.replace(',', ""));
    let number = digits.and_then(|digits| digits.trim().parse().ok());
    number.filter(|_| output.status.success()).ok_or(text)
}
