//! Drivers for tests: a whole nsqd, and a client machine beside it, without a runtime.
//!
//! With the feature `testing`. What a runtime does with sockets, timers, threads and files, these
//! do with vectors, a clock that is moved by hand, and [`MemoryFiles`](crate::storage::memory).
//! Nothing happens by chance, so a test gives the same result each time; where chance is wanted,
//! it is an [`Rng`](crate::rng::Rng) of the test's own.
//!
//! - [`Node`] is an nsqd: its shards, the lanes between them, its disk, and clients as bytes.
//! - [`Pair`] is a [`Node`] and a client machine of [`client`](crate::client), with a [`Wire`]
//!   between them that delays, cuts, splits and drops.
//!
//! For many nodes, nsqlookupds, faults drawn by a seed, and judges that know NSQ's rules, use the
//! simulator (`sansq-sim`).
//!
//! # Example
//!
//! A message that is on disk outlasts the loss of power:
//!
//! ```
//! use core::time::Duration;
//!
//! use sansq_core::nsqd::Config;
//! use sansq_core::rng::Rng;
//! use sansq_core::testing::Node;
//!
//! let config = Config { disk: true, mem_queue_size: 0, ..Config::default() };
//! let mut node = Node::new(2, config.clone());
//! let _consumer = node.consumer(1, "orders", "shipping", 0);
//! let producer = node.client(0);
//! node.publish(producer, "orders", "apples");
//! // What is not synced may be lost. --sync-timeout is two seconds.
//! node.wait(Duration::from_secs(5));
//! let files = node.lose_power(&mut Rng::new(1));
//!
//! let mut node = Node::over(files, 2, config);
//! let consumer = node.consumer(0, "orders", "shipping", 1);
//! assert_eq!(node.bodies(consumer), ["apples"]);
//! ```
//!
//! # Limits
//!
//! There are none but those of the machines: what a test does not take (bytes, events, replies)
//! is kept until the driver is dropped.

mod node;
mod pair;

pub use node::{ClientId, Holds, Node};
pub use pair::{Pair, Wire};
