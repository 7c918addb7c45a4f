//! The client side of protocol V2: a producer, and the connection that producers and consumers
//! share.
//!
//! A [`Producer`] publishes to one nsqd. It owns no socket and no timer: the driver reports what
//! happened, carries out the [`ProducerActions`] that the call left behind, and calls
//! [`Producer::handle_timeout`] when [`Producer::poll_timeout`] says so. One task owns a producer;
//! callers reach it through whatever queue the runtime has. A [`ProducerPool`] publishes to several
//! nsqds and is driven in the same way.
//!
//! # The turn
//!
//! 1. Wait for bytes, for a dial, for a caller or for the deadline, and read the clocks once.
//! 2. Tell the producer: `handle_*`, or a verb such as [`Producer::publish`].
//! 3. Carry out the actions in the order of their fields and clear them. While the socket takes
//!    bytes, write what [`Producer::swap_transmit`] gives.
//! 4. Arm the one timer.
//!
//! Back-pressure: a publish that is refused with [`PublishError::Full`] is worth another try when
//! [`ProducerActions::room`] is set. A slow socket needs no care: what was not swapped out yet
//! stays in the producer, within its limits, and is completed at its deadline.
//!
//! No bytes of a server make these machines panic. The `# Panics` sections name mistakes of the
//! caller.
//!
//! # Consuming
//!
//! A [`Consumer`] takes the messages of one channel from any number of nsqds, those that it is
//! given and those that nsqlookupds know. It is driven in the same way, with a connection for each
//! nsqd: what the [`ConsumerActions`] hold is carried out, and each of their [`Delivery`]s is given
//! to the program, which answers with [`finish`](Consumer::finish) or
//! [`requeue`](Consumer::requeue). The consumer divides `max_in_flight` among the connections,
//! slows down when the program reports failures, and keeps the deadlines of what is in flight. The
//! driver has one more duty there: a connection is closed only when its last bytes were written, so
//! [`ClientMachine::swap_transmit`] is called until it gives none, and after that the timer is
//! armed anew, since [`ClientMachine::poll_timeout`] may be earlier then. [`ClientMachine`] is what
//! a driver of pools and consumers alike has to know of them.
//!
//! # Example
//!
//! The whole of a driver, with a broker that is played by literal bytes:
//!
//! ```
//! use bytes::{Bytes, BytesMut};
//! use sansq_core::client::{Producer, ProducerActions, ProducerOptions};
//! use sansq_core::machine::MachineActions;
//! use sansq_core::name::TopicName;
//! use sansq_core::time::Now;
//!
//! let mut producer = Producer::new("127.0.0.1:4150", ProducerOptions::default(), 42)?;
//! let mut actions = ProducerActions::default();
//! let mut now = Now::from_millis(0);
//!
//! // A caller publishes. The producer wants a connection first.
//! let orders = TopicName::new("orders")?;
//! let id = producer.publish(&orders, Bytes::from("an order"), now, &mut actions)?;
//! let dial = actions.net.dial.remove(0);
//! assert_eq!(dial.address, "127.0.0.1:4150");
//! actions.clear();
//!
//! // The dial succeeds after 2 ms; magic and IDENTIFY are there to be written.
//! now = Now::from_millis(2);
//! producer.handle_connected(dial.id, now, &mut actions);
//! let mut socket = Vec::new();
//! let mut spare = Vec::new();
//! let mut write = |producer: &mut Producer, actions: &mut ProducerActions, now| {
//!     if actions.net.transmit.pop().is_some() {
//!         while {
//!             producer.swap_transmit(now, &mut spare);
//!             !spare.is_empty()
//!         } {
//!             socket.extend_from_slice(&spare);
//!         }
//!     }
//! };
//! write(&mut producer, &mut actions, now);
//!
//! // The broker answers IDENTIFY, gets the publish and answers it, all in its own time.
//! let mut input = BytesMut::from(&b"\0\0\0\x06\0\0\0\0OK"[..]);
//! producer.handle_input(dial.id, &mut input, now, &mut actions);
//! write(&mut producer, &mut actions, now);
//! let mut input = BytesMut::from(&b"\0\0\0\x06\0\0\0\0OK"[..]);
//! producer.handle_input(dial.id, &mut input, now, &mut actions);
//!
//! assert!(socket.starts_with(b"  V2IDENTIFY\n"));
//! assert!(socket.ends_with(b"PUB orders\n\0\0\0\x08an order"));
//! assert_eq!(actions.completed, [(id, Ok(()))]);
//! // Now the driver would arm its timer.
//! assert!(producer.poll_timeout() > Some(now.instant));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod actions;
mod backoff;
pub mod connection;
pub mod consumer;
pub mod directory;
mod error;
mod figures;
pub mod frame;
mod machine;
mod options;
pub mod pool;
pub mod producer;
mod transactions;

pub use crate::secret::Secret;
pub use actions::{
    Dial, DialId, LookupCallId, NetActions, Outcome, ProducerActions, ProducerEvent, PublishError,
    PublishId,
};
pub use backoff::Backoff;
pub use connection::{ClientConnection, ClientConnectionOutput, Identity, Negotiated};
pub use consumer::{
    AnswerError, BackoffScope, BackoffStrategy, ConnectionStats, Consumer, ConsumerActions,
    ConsumerEvent, ConsumerOptions, ConsumerStats, Delivery, DeliveryKey, RdyShares,
};
pub use directory::{
    Directory, DirectoryChanges, DirectoryEvent, DirectoryEventKind, DirectoryOptions, Question,
};
pub use error::ConnectionError;
pub use figures::{CODES_MAX, ErrorCounts, Latencies};
pub use frame::{Frame, FrameError, Received};
pub use machine::ClientMachine;
#[cfg(feature = "upgrade")]
pub use options::Upgrades;
pub use options::{ConnectionOptions, InvalidOption, MAX_FRAME_SIZE, USER_AGENT};
pub use pool::{PoolOptions, ProducerPool, RetryPolicy};
pub use producer::{Producer, ProducerOptions, PublishStats};
