//! Clients: what of a producer and a consumer is the same on every runtime.
//!
//! The machines are the core's ([`sansq_core::client`]). Here they get a lock, so that a whole
//! program can share one, the handles that programs use, and the tasks that move bytes. An adapter
//! adds sockets and timers ([`Runtime`](crate::runtime::Runtime)) and has functions `producer` and
//! `consumer` of its own; programs use those.
//!
//! **Publishing.** [`publish`](Producer::publish) waits for the nsqd's answer, and for room while
//! too much is outstanding; [`enqueue`](Producer::enqueue) never waits and gives a [`Receipt`].
//! Many may be under way at once: they share writes, and nobody waits for somebody else's answer.
//! Dropping a publish disturbs no other. What a failure means for another try says
//! [`PublishError::outcome`]: rejected, not stored, or unknown, in which case the message may come
//! twice. The producer itself tries again what was certainly not stored, until the publish's
//! deadline ([`RetryPolicy`]).
//!
//! **Consuming.** A [`Consumer`] is a stream of [`Message`]s, each of which is finished, requeued,
//! or comes again when it is dropped. [`run`](Consumer::run) does that by a handler's `Result`.
//! While handlers fail, the consumer slows down (NSQ's backoff). What fails too often goes to
//! [`dead_letter`](ConsumerConfig::dead_letter).
//!
//! **Several nsqds.** Name as many as you like, or have nsqlookupds find them:
//! [`ProducerConfig::nsqlookupd`], [`ConsumerConfig::nsqlookupd`]. Connections that are lost are
//! made again, with waits that grow and are spread.
//!
//! **Settings** are fields of [`PoolOptions`] and [`ConsumerOptions`], or, under go-nsq's names and
//! for files and flags, of [`Config`]: TLS, Snappy, Deflate, AUTH, timeouts.
//!
//! **Ending.** [`Producer::close`] and [`Consumer::stop`] wait for what is under way; dropping the
//! last handle does the same in the background, as long as the runtime lives.

#[cfg(test)]
mod by_hand;
mod config;
mod consumer;
mod consuming;
mod drive;
mod events;
#[cfg(all(test, sansq_loom))]
mod interleavings;
#[cfg(test)]
mod late;
mod machine;
mod message;
mod producer;
mod publishing;
mod setup;
mod shared;
#[cfg(test)]
mod strangers;
mod waiters;
mod wakers;

pub use config::{Config, ConfigError};
pub use consumer::{Consumer, ConsumerHandle};
pub use events::{EVENTS_MAX, Events};
pub use message::Message;
pub use producer::{Producer, ProducerStats, Publish, Receipt};
pub use setup::{ConsumerConfig, NetConfig, ProducerConfig, SetupError};

pub use sansq_core::address::AddressError;
pub use sansq_core::client::{
    AnswerError, BackoffScope, BackoffStrategy, ConnectionError, ConnectionOptions,
    ConnectionStats, ConsumerEvent, ConsumerOptions, ConsumerStats, ErrorCounts, Latencies,
    Outcome, PoolOptions, ProducerEvent, ProducerOptions, PublishError, PublishStats, RdyShares,
    RetryPolicy, Secret,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs move clients and messages between threads, and share them.
    #[test]
    fn everything_goes_to_any_thread() {
        fn is_free<T: Send + Sync>() {}
        is_free::<Producer>();
        is_free::<Publish>();
        is_free::<Receipt>();
        is_free::<Consumer>();
        is_free::<ConsumerHandle>();
        is_free::<Message>();
        is_free::<Events<ProducerEvent>>();
        is_free::<Events<ConsumerEvent>>();
    }
}
