//! nsqd and nsqlookupd on smol: sockets, threads and timers around the machines of `sansq-core`.
//!
//! Every shard of an nsqd is one thread with an executor of its own, so the thread that starts it needs
//! none. With the feature `async-std` the same runs on async-std: choose it with
//! [`Nsqd::spawn_on`] and [`Executor`].
//!
//! ```
//! use sansq_core::options::NsqdOptions;
//! use sansq_smol::{DataPath, Nsqd};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let options = NsqdOptions {
//!     tcp_address: "127.0.0.1:0".into(),
//!     http_address: None,
//!     ..NsqdOptions::default()
//! };
//! // What an earlier nsqd, sansq's or Go's, left in the folder is taken over.
//! let data_path = DataPath::open(folder, true)?;
//! let nsqd = Nsqd::bind(options, data_path)?.spawn()?;
//! println!("publish to {}", nsqd.tcp_addr());
//! nsqd.shut_down();
//! nsqd.join()?;
//! # Ok(())
//! # }
//! ```

mod broker;
mod call;
mod client;
mod connection;
mod http;
mod lookup_peer;
mod lookupd;
mod net;
mod server;
mod shard;
mod time;
mod turn;

pub use broker::Nsqd;
pub use client::{consumer, consumer_on, producer, producer_on};
pub use lookupd::Lookupd;
pub use sansq_runtime::client::{
    AnswerError, BackoffStrategy, Config, ConfigError, ConnectionError, ConnectionOptions,
    Consumer, ConsumerConfig, ConsumerEvent, ConsumerHandle, ConsumerOptions, ConsumerStats,
    Events, Message, NetConfig, Outcome, PoolOptions, Producer, ProducerConfig, ProducerEvent,
    ProducerOptions, ProducerStats, Publish, PublishError, Receipt, RetryPolicy, Secret,
    SetupError,
};
pub use sansq_runtime::socket::Address;
pub use sansq_runtime::storage::{DataPath, DataPathError, MetadataError};
pub use sansq_runtime::{ServerHandle, Stopper};
pub use server::Executor;
