//! nsqd and nsqlookupd on smol: sockets, threads and timers around the machines of `sansq-core`.
//!
//! Every shard of an nsqd is one thread with an executor of its own, so the thread that starts it needs
//! none. With the feature `async-std` the same runs on async-std: choose it with
//! [`Nsqd::spawn_on`] and [`Executor`].
//!
//! ```
//! use sansq_core::options::NsqdOptions;
//! use sansq_smol::Nsqd;
//!
//! # fn main() -> std::io::Result<()> {
//! let options = NsqdOptions {
//!     tcp_address: "127.0.0.1:0".into(),
//!     http_address: None,
//!     ..NsqdOptions::default()
//! };
//! let nsqd = Nsqd::bind(options)?.spawn()?;
//! println!("publish to {}", nsqd.tcp_addr());
//! nsqd.shut_down();
//! nsqd.join()
//! # }
//! ```

mod broker;
mod call;
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
pub use lookupd::Lookupd;
pub use sansq_runtime::{ServerHandle, Stopper};
pub use server::Executor;
