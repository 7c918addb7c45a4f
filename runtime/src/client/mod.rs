//! Clients: what of a producer and a consumer is the same on every runtime.
//!
//! The machines are the core's ([`sansq_core::client`]). Here they get a lock, so that a whole
//! program can share one, the handles that programs use, and the tasks that move bytes. An adapter
//! adds sockets and timers ([`Runtime`](crate::runtime::Runtime)) and has functions `producer` and
//! `consumer` of its own; programs use those.

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
