//! How many instructions a message costs the core, and how that depends on how many messages there are.
//!
//! ```console
//! $ cargo bench -p sansq-core --bench instructions              # with 1,000, 10,000 and 100,000 messages
//! $ cargo bench -p sansq-core --bench instructions -- 1000000   # with a million, which takes a while
//! ```
//!
//! Instructions, and not time: they are the same on a busy machine, and a difference of a percent shows. They are
//! counted by valgrind, which has to be installed, for this very program with two numbers of messages. The
//! difference is what the second half of the messages cost, so that starting up, and connecting, is not in it.
//! It says nothing of what waits for memory: a table that does not fit the cache costs time and no
//! instructions.

#[path = "../tests/rig/mod.rs"]
mod rig;

use core::time::Duration;
use std::process::{Command, ExitCode};

use rig::Rig;
use sansq_core::nsqd::{Config, Peer};
use sansq_core::protocol::encode;

/// What is measured, one line each of the table.
const STEPS: [Step; 14] = [
    Step { name: "publish, MPUB of 200, no channel", run: publish_many, without: None },
    Step { name: "publish, PUB, no channel", run: publish, without: None },
    Step { name: "publish to 1 channel", run: fan_out_1, without: None },
    Step { name: "publish to 10 channels", run: fan_out_10, without: None },
    Step { name: "deliver and encode", run: deliver, without: Some(fan_out_1) },
    Step { name: "finish", run: finish, without: Some(deliver) },
    Step { name: "finish, last one first", run: finish_backwards, without: Some(deliver) },
    Step { name: "time out and deliver again", run: time_out, without: Some(deliver) },
    Step { name: "publish deferred, DPUB", run: defer, without: None },
    Step { name: "fall due and deliver", run: fall_due, without: Some(defer) },
    Step { name: "make a topic with a channel", run: make_topics, without: None },
    Step { name: "make one more channel of a topic", run: make_channels, without: None },
    Step { name: "one more consumer of a channel", run: subscribe, without: None },
    Step { name: "a message for each consumer", run: deliver_to_each, without: Some(subscribe) },
];

#[derive(Clone, Copy)]
struct Step {
    name: &'static str,
    run: fn(usize),
    /// What of it is not counted.
    without: Option<fn(usize)>,
}

fn main() -> ExitCode {
    // cargo bench adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [step, part, count] = &args[..] {
        // Under valgrind: one step, with so many messages.
        let (Ok(step), Ok(count)) = (step.parse::<usize>(), count.parse()) else {
            return ExitCode::FAILURE;
        };
        let step = STEPS[step];
        match step.without {
            Some(without) if part == "without" => without(count),
            _ => (step.run)(count),
        }
        return ExitCode::SUCCESS;
    }
    let counts: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![1_000, 10_000, 100_000] } else { counts };
    match table(&counts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "it is what the program is for")]
fn table(counts: &[usize]) -> Result<(), String> {
    print!("{:34}", "instructions per message, with n =");
    counts.iter().for_each(|count| print!(" {count:>9}"));
    println!();
    for (index, step) in STEPS.iter().enumerate() {
        print!("{:34}", step.name);
        for count in counts {
            let marginal = |part| -> Result<f64, String> {
                let (half, whole) =
                    (counted(index, part, count / 2)?, counted(index, part, *count)?);
                Ok(whole.saturating_sub(half) as f64 / (count - count / 2) as f64)
            };
            let without = if step.without.is_some() { marginal("without")? } else { 0.0 };
            print!(" {:>9.0}", marginal("run")? - without);
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
    valgrind.arg(program).args([&step.to_string(), part, &count.to_string()]);
    let output = valgrind.output().map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find_map(|line| line.split_once("refs:"));
    let digits = line.map(|(_, number)| number.replace(',', ""));
    let number = digits.and_then(|digits| digits.trim().parse().ok());
    number.filter(|_| output.status.success()).ok_or(text)
}

/// A rig in which nothing but the count of messages has a limit.
fn rig(channels: usize) -> Rig {
    let config = Config {
        mem_queue_size: 1_000_000_000,
        msg_timeout: Duration::from_secs(10),
        max_rdy_count: u32::MAX,
        disk: false,
        ..Config::default()
    };
    Rig::new(config, channels)
}

impl Rig {
    fn publish(&mut self, head: &str, count: usize) {
        let command = [head.as_bytes(), &100_u32.to_be_bytes(), &[b'x'; 100]].concat();
        for _ in 0..count {
            self.send(self.producer, &command);
        }
    }

    fn ready(&mut self, count: usize) {
        self.send(self.consumer, format!("RDY {count}\n").as_bytes());
    }

    fn finish(&mut self, ids: impl Iterator<Item = [u8; 16]>) {
        // Simple, because what the rig itself costs is counted too.
        let mut commands = Vec::new();
        ids.for_each(|id| encode::finish(&id, &mut commands));
        // As many as come in one read.
        for part in commands.chunks(21 * 500) {
            self.send(self.consumer, part);
        }
    }

    /// Lets time pass, and all deadlines with it.
    fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        while self.shard.poll_timeout().is_some_and(|due| due <= self.now.instant) {
            self.shard.handle_timeout(self.now, &mut self.actions);
            self.write();
        }
    }
}

fn publish_many(count: usize) {
    let mut rig = rig(0);
    let sized = [&100_u32.to_be_bytes()[..], &[b'x'; 100]].concat();
    let list = [&200_u32.to_be_bytes()[..], &sized.repeat(200)].concat();
    let command = [b"MPUB t\n", &(list.len() as u32).to_be_bytes()[..], &list].concat();
    for _ in 0..count / 200 {
        rig.send(rig.producer, &command);
    }
}

fn publish(count: usize) {
    rig(0).publish("PUB t\n", count);
}

fn fan_out_1(count: usize) {
    rig(1).publish("PUB t\n", count);
}

fn fan_out_10(count: usize) {
    rig(10).publish("PUB t\n", count);
}

fn delivered(count: usize) -> Rig {
    let mut rig = rig(1);
    rig.publish("PUB t\n", count);
    rig.ready(count);
    assert_eq!(rig.ids.len(), count);
    rig
}

fn deliver(count: usize) {
    delivered(count);
}

fn finish(count: usize) {
    let mut rig = delivered(count);
    let ids = core::mem::take(&mut rig.ids);
    rig.finish(ids.into_iter());
}

fn finish_backwards(count: usize) {
    let mut rig = delivered(count);
    let ids = core::mem::take(&mut rig.ids);
    rig.finish(ids.into_iter().rev());
}

fn time_out(count: usize) {
    let mut rig = delivered(count);
    rig.wait(Duration::from_secs(11));
    assert_eq!(rig.ids.len(), 2 * count);
}

fn deferred(count: usize) -> Rig {
    let mut rig = rig(1);
    rig.publish("DPUB t 10000\n", count);
    rig
}

fn defer(count: usize) {
    deferred(count);
}

fn fall_due(count: usize) {
    let mut rig = deferred(count);
    rig.ready(count);
    assert_eq!(rig.ids.len(), 0);
    rig.wait(Duration::from_secs(11));
    assert_eq!(rig.ids.len(), count);
}

/// A shard with so many consumers, and what each of them said.
fn consumers(count: usize, command: impl Fn(usize) -> String) -> Rig {
    let mut rig = rig(0);
    let peer = Peer::Tcp(([127, 0, 0, 1], 4000).into());
    for n in 0..count {
        let conn = rig.shard.accept(peer, rig.now, &mut rig.actions);
        rig.send(conn, command(n).as_bytes());
    }
    rig
}

fn make_topics(count: usize) {
    consumers(count, |n| format!("  V2SUB t{n:07} c\n"));
}

fn make_channels(count: usize) {
    consumers(count, |n| format!("  V2SUB t c{n:07}\n"));
}

fn subscribed(count: usize) -> Rig {
    consumers(count, |_| String::from("  V2SUB t c\nRDY 1\n"))
}

fn subscribe(count: usize) {
    subscribed(count);
}

fn deliver_to_each(count: usize) {
    let mut rig = subscribed(count);
    rig.publish("PUB t\n", count);
    assert_eq!(rig.ids.len(), count);
}
