//! nsqd, nsqlookupd and their clients on smol: sockets, threads and timers around the machines of
//! `sansq-core`.
//!
//! Every shard of an nsqd is one thread with an executor of its own, so the thread that starts it
//! needs none. With the feature `async-std` the same runs on async-std: choose it with
//! [`Nsqd::spawn_on`] and [`Executor`].
//!
//! ```
//! use sansq_smol::{DataPath, Nsqd, NsqdOptions};
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
//!
//! # Clients
//!
//! [`producer`] and [`consumer`] start clients whose tasks run on smol's global executor.
//! [`producer_on`] and [`consumer_on`] choose async-std's.
//!
//! ```
//! use core::time::Duration;
//! use sansq_smol::{ConsumerConfig, Message, ProducerConfig};
//! # use sansq_smol::{DataPath, Nsqd, NsqdOptions};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! # smol::block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let options = NsqdOptions {
//! #     tcp_address: "127.0.0.1:0".into(),
//! #     http_address: None,
//! #     ..NsqdOptions::default()
//! # };
//! # let nsqd = Nsqd::bind(options, DataPath::open(folder.path(), false)?)?.spawn()?;
//! # let address = nsqd.tcp_addr().to_string();
//! // `address` is an nsqd's, such as "127.0.0.1:4150".
//! let producer = sansq_smol::producer(ProducerConfig::new().nsqd(&address))?;
//! producer.publish("orders", "tea").await?;
//! producer.publish_many("orders", ["milk", "sugar"]).await?;
//!
//! let config = ConsumerConfig::new("orders", "shipping")?.nsqd(&address).max_in_flight(10);
//! let consumer = sansq_smol::consumer(config)?;
//! let handle = consumer.handle();
//! # let shipped = std::sync::atomic::AtomicUsize::new(0);
//! // Ten handlers at once, until somebody says stop. An error brings the message back later.
//! let work = consumer.run(10, async |message: Message| {
//!     println!("shipping {:?}, attempt {}", message.body(), message.attempts());
//! #   shipped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
//!     Ok::<_, std::io::Error>(())
//! });
//! # let shipped = async {
//! #     while shipped.load(std::sync::atomic::Ordering::Relaxed) < 3 {
//! #         futures_lite::future::yield_now().await;
//! #     }
//! # };
//! let stop = async {
//! #   shipped.await;
//!     // Elsewhere, say on SIGTERM: messages in work get up to a minute.
//!     handle.stop(Duration::from_secs(60)).await;
//! };
//! futures_lite::future::zip(work, stop).await;
//! producer.close().await;
//! # nsqd.shut_down();
//! # nsqd.join()?;
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! [`sansq_runtime::client`] says what they promise.

mod client;
mod net;
mod runtime;

pub use client::{consumer, consumer_on, producer, producer_on};
pub use net::{Dialled, Listener};
pub use runtime::{Executor, SmolTask, SmolThread};
pub use sansq_runtime::client::{
    AnswerError, BackoffScope, BackoffStrategy, Config, ConfigError, ConnectionError,
    ConnectionOptions, ConnectionStats, Consumer, ConsumerConfig, ConsumerEvent, ConsumerHandle,
    ConsumerOptions, ConsumerStats, ErrorCounts, Events, Latencies, Message, NetConfig, Outcome,
    PoolOptions, Producer, ProducerConfig, ProducerEvent, ProducerOptions, ProducerStats, Publish,
    PublishError, PublishStats, RdyShares, Receipt, RetryPolicy, Secret, SetupError,
};
pub use sansq_runtime::options::{
    DATA_FILES_MAX, HTTP_CONNECTIONS_MAX, LookupdOptions, NsqdOptions, SHARDS_MAX,
};
pub use sansq_runtime::server::{ServerHandle, Stopper};
pub use sansq_runtime::socket::Address;
pub use sansq_runtime::storage::{
    DataPath, DataPathError, Desk, Engine, Files, Inventory, MetadataFileError, Storage,
};

/// nsqd on smol or async-std.
pub type Nsqd<S = Files> = sansq_runtime::server::Nsqd<Executor, S>;

/// nsqlookupd on smol or async-std.
pub type Lookupd = sansq_runtime::server::Lookupd<Executor>;
