//! Servers and clients of sansq, on any runtime.
//!
//! The core knows no threads, clocks and sockets. Here they are, without a particular executor:
//! [`server`] drives nsqd and nsqlookupd, [`client`] producers and consumers, and around them are
//! clocks, the log, what arrives at a shard from other threads, files, listening, and HTTP. What a
//! runtime has to bring is in
//! [`runtime`]: tasks, timers and sockets.
//!
//! It needs a Unix. The core alone runs anywhere.
//!
//! This crate is a part of `sansq-tokio` and `sansq-smol`. Programs use those; it is for whoever
//! writes a third.
//!
//! ```
//! use sansq_runtime::Clock;
//!
//! let clock = Clock::start();
//! let (first, second) = (clock.now(), clock.now());
//! assert!(first.instant <= second.instant);
//! ```

#[cfg(not(unix))]
compile_error!("sansq-runtime needs a Unix: Linux, macOS, or WSL on Windows");

mod bell;
mod bind;
pub mod call;
pub mod client;
mod clock;
pub mod connection_limit;
mod host;
pub mod http;
mod impatient;
#[cfg(all(test, sansq_loom))]
mod interleavings;
mod io;
pub mod lanes;
pub mod listen;
mod log;
mod meter;
mod metrics;
mod nearest;
pub mod options;
#[cfg(feature = "reactor")]
pub mod reactor;
mod reply_room;
mod room;
pub mod runtime;
pub mod server;
mod signal;
mod site;
pub mod socket;
mod statsd;
pub mod storage;
mod sync;
pub mod tls;
mod turnstile;
pub mod visitors;

pub use bind::Bound;
pub use clock::Clock;
pub use host::host_name;
pub use impatient::Impatient;
pub use log::{BATCH, Program, UNWRITTEN, Unwritten};
pub use meter::Meter;
pub use nearest::nearest;
pub use reply_room::{PendingReply, ReplyRoom, Unread};
pub use room::{HttpRoom, Permit};
pub use signal::Signal;
pub use site::NsqdSite;
pub use statsd::{StatsdSender, WAITING_MAX};
