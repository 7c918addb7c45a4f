//! A queue on disk under any sequence of steps, crashes and faults, against the model that
//! `core/tests/disk_queue` has too.

#[path = "../core/tests/model/disk_queue.rs"]
mod model;

use sansq_core::storage::DiskOptions;

use self::model::{Model, OPTIONS, Step};

/// More would only make runs longer: every crash looks at every record.
const STEPS_MAX: usize = 300;

/// Reads the input as steps of three bytes each: what, and two numbers. Byte 0 chooses the options.
///
/// # Panics
/// If the queue is wrong.
pub fn check(data: &[u8]) {
    let Some((flags, steps)) = data.split_first() else { return };
    let max_bytes_per_file = [1, 100, 600, 100_000][usize::from(flags % 4)];
    let sync_every = u64::from(flags / 4 % 16);
    let mut model = Model::new(DiskOptions { max_bytes_per_file, sync_every, ..OPTIONS });
    for step in steps.chunks(3).take(STEPS_MAX) {
        let byte = |at: usize| step.get(at).copied().unwrap_or(0);
        model.step(self::step(byte(0), byte(1), byte(2)));
    }
    model.end();
}

fn step(what: u8, number: u8, seed: u8) -> Step {
    let torn = number & 1 == 0;
    match what % 32 {
        0..=7 => {
            // Small ones, ones that are sliced, and ones that need a file of their own.
            let len = u16::from(seed) * if seed < 128 { 1 } else { 8 };
            Step::Push { len, ticket: torn }
        }
        8..=13 => Step::Pop,
        14..=18 => Step::Finish(number),
        19..=25 => Step::Disk(number % 8),
        26 => Step::Ahead(number),
        27 => Step::Fault(number),
        28 => Step::Reopen,
        29 => Step::Kill { torn, seed },
        30 => Step::PowerLoss { torn, seed },
        // Rarely, or nothing would be left in most runs.
        _ if number == 0xFF => Step::Empty,
        _ => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("disk_queue", super::check);
    }
}
