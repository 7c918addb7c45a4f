//! NSQ as pure state machines: events in, actions out.
//!
//! Nothing in this crate opens a socket, reads a clock, starts a thread, sleeps, logs or draws a
//! random number. Bytes, time and seeds are arguments; what is to be done comes back as values. So
//! the same code runs under any runtime, in a simulator on a virtual clock, under a fuzzer, and in
//! a unit test with literal times; and the same inputs give the same outputs, byte for byte.
//!
//! | machine | what it is |
//! |---|---|
//! | [`nsqd::Shard`] | one thread's part of an nsqd: connections, topics, channels; one alone is a whole nsqd |
//! | [`nsqd::Topic`], [`nsqd::Channel`] | the parts that hold messages |
//! | [`storage::DiskQueue`] | a queue on disk, as requests and completions |
//! | [`nsqd::LookupPeer`] | nsqd's connection to one nsqlookupd |
//! | [`nsqlookupd::Lookupd`] | a whole nsqlookupd |
//! | [`client::Producer`] | publishes to one nsqd |
//! | [`client::ProducerPool`] | publishes to any of several nsqds, given or found |
//! | [`client::Directory`] | finds nsqds through nsqlookupds |
//! | [`client::ClientConnection`] | the client's side of one connection, for consumers of your own |
//!
//! The wire is in [`protocol`], the HTTP APIs in [`http`], [`nsqd::http`] and
//! [`nsqlookupd`]. Most
//! people want a runtime's crate (`sansq-tokio`, `sansq-smol`) or the broker (`sansq`) and not this
//! one.
//!
//! # The turn
//!
//! A driver owns a machine, and an [`Actions`](nsqd::Actions) that it reuses. One turn is:
//!
//! 1. gather what is ready: bytes of a connection, a batch from another shard, the timer;
//! 2. read the clocks once, into a [`Now`](time::Now);
//! 3. call the machine: `handle_<what happened>`, or an NSQ verb;
//! 4. carry out the actions, field by field, until there are none;
//! 5. arm one timer for `poll_timeout()`.
//!
//! [`Machine`](machine::Machine) is what nsqd and nsqlookupd have in common for that, and
//! [`client::ClientMachine`] what the clients have.
//!
//! A call returns with all its consequences in the caller's hands. No machine keeps a queue of
//! outputs, so there is no drain to forget.
//!
//! # Example
//!
//! A broker on nothing, with a client that publishes to itself:
//!
//! ```
//! use bytes::BytesMut;
//! use sansq_core::machine::Machine;
//! use sansq_core::nsqd::{Actions, Config, Peer, Shard, ShardId};
//! use sansq_core::time::Now;
//! use sansq_core::transmit::Transmit;
//!
//! let mut shard = Shard::new(ShardId(0), 1, Config::default(), 42);
//! let mut actions = Actions::default();
//! let now = Now::from_millis(0);
//! shard.start(now, &mut actions);
//!
//! // A client connects, subscribes to channel `c` of topic `t`, is ready for one message, publishes.
//! let conn = shard.accept(Peer::Tcp(([127, 0, 0, 1], 50_000).into()), now, &mut actions);
//! let mut input = BytesMut::from(&b"  V2SUB t c\nRDY 1\nPUB t\n\0\0\0\x05hello"[..]);
//! let _ = shard.handle_input(conn, &mut input, now, &mut actions);
//! assert!(input.is_empty());
//!
//! // There is something to send: two answers and the message.
//! assert_eq!(actions.transmit, [conn]);
//! let mut bytes = Transmit::new();
//! shard.swap_transmit(conn, &mut bytes);
//! let mut slices = [&[][..]; 8];
//! let count = bytes.slices(&mut slices);
//! let sent = slices[..count].concat();
//! assert!(sent.starts_with(b"\0\0\0\x06\0\0\0\0OK"));
//! assert!(sent.windows(5).any(|window| window == b"hello"));
//!
//! // The driver says what it wrote, and when to come back: the first heartbeat is due after 30 s.
//! shard.handle_sent(conn, sent.len(), now, &mut actions);
//! assert_eq!(shard.poll_timeout(), Some(Now::from_millis(30_000).instant));
//! ```
//!
//! # Time
//!
//! [`Now`](time::Now) holds two clocks. Every timer runs on the monotonic one; the wall clock is
//! only written into messages and shown to people. A call with a `now` that is earlier than the
//! last one's does no harm, a `handle_timeout` that comes early or twice does nothing.
//!
//! # Back-pressure and limits
//!
//! Every queue, buffer and table has a named limit and a documented behaviour at it; look for
//! constants ending in `_MAX`, and at [`nsqd::config`]. The driver takes part in two ways: it reads
//! nothing while [`ReadState`](machine::ReadState) says so, and reports what it wrote.
//!
//! # Errors and panics
//!
//! What a *peer* does wrong becomes bytes for that peer ([`protocol::error::ProtocolError`]) and
//! the end of its connection. What goes wrong in the *world* (a connection that ends, a deadline)
//! comes in as an event. What the *caller* may get wrong is kept small by types and by ids that
//! know their generation: a stale one finds nothing. A panic means a bug; `# Panics` sections name
//! the few mistakes of a caller that end in one. No bytes of a peer do.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "upgrade")]
extern crate std;

pub mod address;
pub mod arena;
pub mod client;
pub mod deadlines;
pub mod duration;
mod fifo;
pub mod http;
pub mod input;
pub mod list;
pub mod log;
pub mod machine;
pub mod message;
pub mod name;
pub mod nsqd;
pub mod nsqlookupd;
pub mod protocol;
pub mod rng;
mod secret;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod transmit;
#[cfg(feature = "upgrade")]
pub mod upgrade;
pub mod version;
