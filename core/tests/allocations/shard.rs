//! What a message costs in allocations, from the bytes of PUB or MPUB through a shard to FIN.
//!
//! In steady state, with small bodies, nothing is allocated per message: tables, queues and buffers
//! have grown to their sizes before and are used again. What remains is shared by many messages: a
//! chunk of 4 KiB that small bodies are copied into, and for MPUB one list per command.

use sansq_core::nsqd::Config;
use sansq_core::protocol::encode;

use crate::counting::allocations;
use crate::rig::Rig;

/// Publishes with `command`, so often, finishing what comes; returns how many messages came, and
/// the allocations meanwhile.
fn round(rig: &mut Rig, command: &[u8], times: usize) -> (usize, usize) {
    let (mut answers, mut delivered) = (Vec::with_capacity(64 * 1024), 0);
    let before = allocations();
    for _ in 0..times {
        rig.send(rig.producer, command);
        delivered += rig.ids.len();
        rig.ids.drain(..).for_each(|id| encode::finish(&id, &mut answers));
        rig.send(rig.consumer, &answers);
        answers.clear();
    }
    (delivered, allocations() - before)
}

#[test]
fn allocations_per_message() {
    let body = [b'x'; 100];
    let sized = [&100_u32.to_be_bytes()[..], &body].concat();
    let publish = [b"PUB t\n", &sized[..]].concat();
    let list = [&50_u32.to_be_bytes()[..], &sized.repeat(50)].concat();
    let publish_many = [b"MPUB t\n", &(list.len() as u32).to_be_bytes()[..], &list].concat();

    let mut rig = Rig::new(Config::default(), 1);
    rig.send(rig.consumer, b"RDY 100\n");
    round(&mut rig, &publish, 2000);
    round(&mut rig, &publish_many, 100);

    // 40 bodies of 100 bytes fit a chunk of 4 KiB; the chunk and what counts its users are two.
    let (messages, allocations) = round(&mut rig, &publish, 10_000);
    assert_eq!(messages, 10_000);
    assert!(allocations * 16 <= messages, "PUB: {allocations} for {messages} messages");

    // And one list for each 50 messages.
    let (messages, allocations) = round(&mut rig, &publish_many, 200);
    assert_eq!(messages, 10_000);
    assert!(allocations * 10 <= messages, "MPUB: {allocations} for {messages} messages");
}
