//! Any sequence of steps, with and without a disk that breaks.

use proptest::prelude::*;
use sansq_core::storage::DiskOptions;

use crate::model::{Model, OPTIONS, Step};

/// Lengths of bodies: many small ones, some that are sliced, a few that need a file of their own.
fn len() -> impl Strategy<Value = u16> {
    prop_oneof![8 => 0_u16..40, 2 => 200_u16..400, 1 => 600_u16..2000]
}

fn work() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (len(), any::<bool>()).prop_map(|(len, ticket)| Step::Push { len, ticket }),
        8 => Just(Step::Pop),
        8 => any::<u8>().prop_map(Step::Finish),
        10 => (1_u8..4).prop_map(Step::Disk),
        3 => any::<u8>().prop_map(Step::Ahead),
        3 => Just(Step::Wait),
        1 => prop_oneof![3 => Just(Step::Disk(50)), 1 => Just(Step::Empty)],
        1 => Just(Step::Reopen),
    ]
}

fn with_kills() -> impl Strategy<Value = Step> {
    let kill = (any::<bool>(), any::<u8>()).prop_map(|(torn, seed)| Step::Kill { torn, seed });
    prop_oneof![30 => work(), 1 => kill]
}

fn with_everything() -> impl Strategy<Value = Step> {
    let power =
        (any::<bool>(), any::<u8>()).prop_map(|(torn, seed)| Step::PowerLoss { torn, seed });
    prop_oneof![30 => with_kills(), 1 => power, 2 => any::<u8>().prop_map(Step::Fault)]
}

fn options() -> impl Strategy<Value = DiskOptions> {
    (prop_oneof![Just(1), Just(100), Just(600), Just(100_000)], 1_u64..20).prop_map(
        |(max_bytes_per_file, sync_every)| DiskOptions {
            max_bytes_per_file,
            sync_every,
            ..OPTIONS
        },
    )
}

fn run(options: DiskOptions, steps: &[Step]) -> Vec<String> {
    let mut model = Model::new(options);
    for step in steps {
        model.step(*step);
    }
    model.end();
    model.log
}

proptest! {
    #[test]
    fn on_a_disk_that_works(steps in prop::collection::vec(work(), 1..300), options in options()) {
        run(options, &steps);
    }

    #[test]
    fn over_kills(steps in prop::collection::vec(with_kills(), 1..300), options in options()) {
        run(options, &steps);
    }

    #[test]
    fn over_everything(
        steps in prop::collection::vec(with_everything(), 1..300),
        options in options(),
    ) {
        run(options, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_same_steps_come_to_the_same(
        steps in prop::collection::vec(with_everything(), 1..100),
        options in options(),
    ) {
        prop_assert_eq!(run(options, &steps), run(options, &steps));
    }
}

/// A run that is cut by a crash before each request, and within it.
#[test]
fn at_every_request() {
    let push = |len| Step::Push { len, ticket: true };
    let mut steps = Vec::new();
    for round in 0..6 {
        steps.extend([push(10), push(250), push(3), Step::Disk(1), push(700), Step::Disk(1)]);
        steps.extend([Step::Pop, Step::Disk(1), Step::Pop, Step::Finish(round), Step::Disk(1)]);
        steps.extend([Step::Wait, Step::Disk(1), Step::Disk(1), Step::Pop, Step::Finish(0)]);
    }
    steps.push(Step::Empty);
    steps.extend([Step::Disk(1), push(5), Step::Disk(1), Step::Disk(1), Step::Wait, Step::Disk(9)]);
    for at in 0..steps.len() {
        for seed in 0..8 {
            let torn = seed % 2 == 0;
            let crashes = [Step::Kill { torn, seed }, Step::PowerLoss { torn, seed }];
            for crash in crashes {
                let mut model = Model::new(OPTIONS);
                for step in &steps[..at] {
                    model.step(*step);
                }
                model.step(crash);
                for step in &steps[at..] {
                    model.step(*step);
                }
                model.end();
            }
        }
    }
}
