//! What a publish costs in allocations, from the call of a pool to the broker's answer.
//!
//! In steady state nothing is allocated: the pool's table, its queue, the connection's transactions
//! and the buffers have grown to their sizes before and are used again.

use bytes::{Bytes, BytesMut};
use sansq_core::client::{ClientMachine, DialId, PoolOptions, ProducerActions, ProducerPool};
use sansq_core::machine::MachineActions;
use sansq_core::name::TopicName;
use sansq_core::time::Now;

use crate::counting::allocations;

const OK: &[u8] = b"\0\0\0\x06\0\0\0\0OK";

/// A pool with its nsqds, whose buffers are used again and again.
struct Bench {
    pool: ProducerPool,
    actions: ProducerActions,
    now: Now,
    topic: TopicName,
    conns: Vec<DialId>,
    input: BytesMut,
    spare: Vec<u8>,
    completed: usize,
}

impl Bench {
    fn new(nsqds: &[&str]) -> Self {
        let now = Now::from_millis(0);
        let mut pool =
            ProducerPool::new(PoolOptions::default(), 1).expect("the defaults are in range");
        let mut actions = ProducerActions::default();
        for nsqd in nsqds {
            assert!(pool.add_nsqd(nsqd, now, &mut actions));
        }
        let conns: Vec<_> = actions.net.dial.drain(..).map(|dial| dial.id).collect();
        let mut bench = Self {
            pool,
            actions,
            now,
            topic: TopicName::new("t").expect("a name"),
            conns: conns.clone(),
            input: BytesMut::with_capacity(64 * 1024),
            spare: Vec::with_capacity(64 * 1024),
            completed: 0,
        };
        for id in conns {
            bench.pool.handle_connected(id, now, &mut bench.actions);
            bench.write();
            bench.answer(id, 1);
        }
        bench.actions.clear();
        assert_eq!(bench.pool.connected(), nsqds.len());
        bench
    }

    fn write(&mut self) {
        for id in self.actions.net.transmit.drain(..) {
            while {
                self.pool.swap_transmit(id, self.now, &mut self.spare);
                !self.spare.is_empty()
            } {}
        }
    }

    fn answer(&mut self, id: DialId, count: usize) {
        for _ in 0..count {
            self.input.extend_from_slice(OK);
        }
        self.pool.handle_input(id, &mut self.input, self.now, &mut self.actions);
        self.completed += self.actions.completed.len();
        assert!(self.actions.completed.iter().all(|(_, result)| result.is_ok()));
        self.actions.completed.clear();
    }

    /// Publishes so many at once, so often; returns the allocations meanwhile.
    fn round(&mut self, burst: usize, times: usize) -> usize {
        let before = allocations();
        for _ in 0..times {
            for _ in 0..burst * self.conns.len() {
                let body = Bytes::from_static(&[b'x'; 100]);
                let taken = self.pool.publish(&self.topic, body, self.now, &mut self.actions);
                assert!(taken.is_ok());
            }
            self.write();
            for at in 0..self.conns.len() {
                self.answer(self.conns[at], burst);
            }
        }
        allocations() - before
    }
}

#[test]
fn a_publish_allocates_nothing() {
    for nsqds in [&["a:1"][..], &["a:1", "b:1", "c:1"]] {
        let mut bench = Bench::new(nsqds);
        bench.round(100, 10);
        bench.completed = 0;
        assert_eq!(bench.round(100, 100), 0, "with {} nsqds", nsqds.len());
        assert_eq!(bench.completed, 10_000 * nsqds.len());
        assert_eq!(bench.pool.outstanding(), 0);
    }
}
