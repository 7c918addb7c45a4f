//! What a message costs in allocations, from the bytes of PUB or MPUB through a shard to FIN.
//!
//! In steady state, with small bodies, nothing is allocated per message: tables, queues and buffers
//! have grown to their sizes before and are used again. What remains is shared by many messages: a chunk
//! of 4 KiB that small bodies are copied into, and for MPUB one list per command.

use bytes::BytesMut;
use sansq_core::arena::ConnId;
use sansq_core::nsqd::{Actions, Config, Peer, ReadState, Shard, ShardId};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;

use crate::counting::allocations;

/// A producer and a consumer on one shard, whose buffers are used again and again.
struct Bench {
    shard: Shard,
    actions: Actions,
    now: Now,
    producer: ConnId,
    consumer: ConnId,
    input: BytesMut,
    spare: Transmit,
    /// FINs for what the consumer got.
    answers: Vec<u8>,
    delivered: usize,
}

impl Bench {
    fn new() -> Self {
        let now = Now::from_millis(1_789_000_000_000);
        let mut shard = Shard::new(ShardId(0), 1, Config::default(), 1);
        let mut actions = Actions::new(1);
        let peer = Peer::Tcp(([127, 0, 0, 1], 4000).into());
        let producer = shard.accept(peer, now, &mut actions);
        let consumer = shard.accept(peer, now, &mut actions);
        let mut bench = Self {
            shard,
            actions,
            now,
            producer,
            consumer,
            input: BytesMut::with_capacity(64 * 1024),
            spare: Transmit::new(),
            answers: Vec::with_capacity(64 * 1024),
            delivered: 0,
        };
        bench.send(producer, b"  V2");
        bench.send(consumer, b"  V2SUB t c\nRDY 100\n");
        bench
    }

    fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let Self { shard, actions, now, input, .. } = self;
        let state = shard.handle_input(conn, input, *now, actions);
        assert!(matches!(state, ReadState::More(_)), "the command was refused");
        assert!(self.input.is_empty());
        self.write();
    }

    /// Writes out what is owed to both. The consumer notes what it has to finish.
    fn write(&mut self) {
        for conn in [self.producer, self.consumer] {
            self.shard.swap_transmit(conn, &mut self.spare);
            let len = self.spare.len();
            let mut slices = [&[][..]; 1];
            self.spare.slices(&mut slices);
            let mut rest = slices[0];
            assert_eq!(rest.len(), len, "small frames lie flat");
            while let Some((header, _)) = rest.split_at_checked(8) {
                let size = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
                let (frame, behind) = rest.split_at(4 + size as usize);
                if header[7] == 2 {
                    self.delivered += 1;
                    self.answers.extend_from_slice(b"FIN ");
                    self.answers.extend_from_slice(&frame[18..34]);
                    self.answers.push(b'\n');
                }
                rest = behind;
            }
            self.spare.advance(len);
            self.shard.handle_sent(conn, len, self.now, &mut self.actions);
        }
        self.actions.events.clear();
        self.actions.transmit.clear();
        assert!(self.actions.is_empty(), "nothing else is asked for");
    }

    /// Publishes with `command`, so often, finishing what comes; returns the allocations meanwhile.
    fn round(&mut self, command: &[u8], times: usize) -> usize {
        let before = allocations();
        for _ in 0..times {
            self.send(self.producer, command);
            let answers = core::mem::take(&mut self.answers);
            self.send(self.consumer, &answers);
            self.answers = answers;
            self.answers.clear();
        }
        allocations() - before
    }
}

#[test]
fn allocations_per_message() {
    let body = [b'x'; 100];
    let sized = [&100_u32.to_be_bytes()[..], &body].concat();
    let publish = [b"PUB t\n", &sized[..]].concat();
    let list = [&50_u32.to_be_bytes()[..], &sized.repeat(50)].concat();
    let publish_many = [b"MPUB t\n", &(list.len() as u32).to_be_bytes()[..], &list].concat();

    let mut bench = Bench::new();
    bench.round(&publish, 2000);
    bench.round(&publish_many, 100);
    bench.delivered = 0;

    // 40 bodies of 100 bytes fit a chunk of 4 KiB; the chunk and what counts its users are two.
    let (messages, allocations) = (10_000, bench.round(&publish, 10_000));
    assert_eq!(bench.delivered, messages);
    assert!(allocations * 16 <= messages, "PUB: {allocations} for {messages} messages");

    // And one list for each 50 messages.
    let (messages, allocations) = (10_000, bench.round(&publish_many, 200));
    assert_eq!(bench.delivered, 20_000);
    assert!(allocations * 10 <= messages, "MPUB: {allocations} for {messages} messages");
}
