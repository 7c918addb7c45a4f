//! A channel under any sequence of commands, against the model that `core/tests/channel.rs` has
//! too.

#[path = "../core/tests/model/channel.rs"]
mod model;

use self::model::{Memory, Model, Op};

/// Reads the input as commands of four bytes each: what, to which consumer, about which message,
/// and how long. Byte 0 chooses the channel.
///
/// # Panics
/// If the channel is wrong.
pub fn check(data: &[u8]) {
    let Some((flags, commands)) = data.split_first() else { return };
    // One channel in four is ephemeral, with little room. Several messages must not come back to it
    // at one time, see `Memory::Drops`.
    let memory = match flags % 4 {
        0 => Memory::Drops(1 + usize::from(flags / 4 % 4)),
        _ => Memory::Ample,
    };
    let mut model = Model::new(memory);
    for command in commands.chunks(4).take(COMMANDS_MAX) {
        let byte = |at: usize| command.get(at).copied().unwrap_or(0);
        let op = op(byte(0), byte(1), byte(2), byte(3));
        if memory == Memory::Ample || brings_back_one_at_most(op) {
            model.step(op);
        }
    }
    if memory == Memory::Ample {
        model.drain();
    }
}

/// More would only make runs longer: every step looks at every message.
const COMMANDS_MAX: usize = 300;

fn op(what: u8, consumer: u8, message: u8, time: u8) -> Op {
    // Up to 127 ms in steps of one, so that times meet; then up to 6 s.
    let millis = u16::from(time) + u16::from(time.saturating_sub(127)) * 46;
    match what % 32 {
        0..=7 => Op::Put,
        8 | 9 => Op::PutDeferred { delay: millis },
        10 | 11 => Op::Subscribe { timeout: millis },
        12 => Op::Unsubscribe { consumer },
        13..=15 => Op::Ready { consumer, count: message % 8 },
        16..=18 => Op::Finish { consumer, message },
        19 | 20 => Op::Requeue { consumer, message, delay: millis },
        21 => Op::Requeue { consumer, message, delay: 0 },
        22 | 23 => Op::Touch { consumer, message, timeout: millis },
        24 => Op::Block { consumer },
        25 => Op::Unblock { consumer },
        26 => Op::Pause(message & 1 == 0),
        27 => Op::Wait { millis },
        28 => Op::Late { millis },
        29 | 30 => Op::Deadline,
        // Rarely, or nothing would happen in most runs.
        _ => match message {
            0xFE => Op::Stop,
            0xFF => Op::Empty,
            _ => Op::Wait { millis: 0 },
        },
    }
}

const fn brings_back_one_at_most(op: Op) -> bool {
    match op {
        Op::Put
        | Op::Subscribe { .. }
        | Op::Ready { .. }
        | Op::Finish { .. }
        | Op::Requeue { delay: 0, .. }
        | Op::Block { .. }
        | Op::Unblock { .. }
        | Op::Pause(_)
        | Op::Empty
        | Op::Stop => true,
        Op::PutDeferred { .. }
        | Op::Unsubscribe { .. }
        | Op::Requeue { .. }
        | Op::Touch { .. }
        | Op::Late { .. }
        | Op::Wait { .. }
        | Op::Deadline => false,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("channel", super::check);
    }
}
