//! A channel against a model of it, under any sequence of commands.

#[path = "model/channel.rs"]
mod model;

use model::{Memory, Model, Op};
use proptest::prelude::*;

/// Milliseconds: mostly few, so that they meet; sometimes beyond the longest timeout.
fn millis() -> impl Strategy<Value = u16> {
    prop_oneof![2 => Just(0), 6 => 1_u16..300, 2 => 300_u16..6000]
}

/// Commands that do not bring several messages back at one time.
fn single() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => Just(Op::Put),
        3 => (0_u8..5, 0_u8..6).prop_map(|(consumer, count)| Op::Ready { consumer, count }),
        6 => (0_u8..5, any::<u8>())
            .prop_map(|(consumer, message)| Op::Finish { consumer, message }),
        3 => (0_u8..5, any::<u8>())
            .prop_map(|(consumer, message)| Op::Requeue { consumer, message, delay: 0 }),
        1 => (0_u8..5).prop_map(|consumer| Op::Block { consumer }),
        1 => (0_u8..5).prop_map(|consumer| Op::Unblock { consumer }),
        2 => any::<bool>().prop_map(Op::Pause),
        1 => Just(Op::Subscribe { timeout: 60_000 }),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        40 => single(),
        3 => millis().prop_map(|delay| Op::PutDeferred { delay }),
        3 => millis().prop_map(|timeout| Op::Subscribe { timeout }),
        2 => (0_u8..5).prop_map(|consumer| Op::Unsubscribe { consumer }),
        3 => (0_u8..5, any::<u8>(), millis())
            .prop_map(|(consumer, message, delay)| Op::Requeue { consumer, message, delay }),
        3 => (0_u8..5, any::<u8>(), millis())
            .prop_map(|(consumer, message, timeout)| Op::Touch { consumer, message, timeout }),
        1 => prop_oneof![6 => Just(Op::Unblock { consumer: 0 }), 1 => Just(Op::Empty)],
        1 => prop_oneof![30 => Just(Op::Put), 1 => Just(Op::Stop)],
        2 => millis().prop_map(|millis| Op::Late { millis }),
        3 => millis().prop_map(|millis| Op::Wait { millis }),
        5 => Just(Op::Deadline),
    ]
}

/// A channel with two consumers, so that most sequences deliver something.
fn begun(memory: Memory) -> Model {
    let mut model = Model::new(memory);
    for consumer in 0..2 {
        model.step(Op::Subscribe { timeout: 60_000 });
        model.step(Op::Ready { consumer, count: 3 });
    }
    model
}

proptest! {
    #[test]
    fn whatever_happens_a_message_is_in_one_place(ops in prop::collection::vec(any_op(), 1..250)) {
        let mut model = begun(Memory::Ample);
        for op in ops {
            model.step(op);
        }
        model.drain();
    }

    #[test]
    fn an_ephemeral_channel_drops_what_comes_at_its_limit_and_nothing_else(
        limit in 1_usize..6,
        ops in prop::collection::vec(single(), 1..250),
    ) {
        let mut model = begun(Memory::Drops(limit));
        for op in ops {
            model.step(op);
        }
    }
}
