//! What the adapters of all runtimes share.
//!
//! The core knows no threads, clocks and sockets; an adapter knows one runtime's. Between them is what
//! needs the standard library and no particular executor: clocks, the log, what arrives at a shard from
//! other threads, how a server of several threads ends, files, listening, and the part of HTTP that is
//! neither a socket nor NSQ. Nothing here waits for a socket or a timer: whoever needs that hands a future in.
//!
//! This crate is a part of `sansq-tokio` and `sansq-smol` and of no use by itself.
//!
//! ```
//! use sansq_runtime::Clock;
//!
//! let clock = Clock::start();
//! let (first, second) = (clock.now(), clock.now());
//! assert!(first.instant <= second.instant);
//! ```

mod bell;
mod bind;
pub mod call;
pub mod client;
mod clock;
mod host;
pub mod http;
mod impatient;
#[cfg(all(test, sansq_loom))]
mod interleavings;
pub mod lanes;
pub mod listen;
mod log;
mod machine;
mod meter;
mod metrics;
mod nearest;
pub mod places;
mod server;
mod signal;
mod site;
pub mod socket;
mod statsd;
pub mod storage;
mod sync;
pub mod tls;

pub use bind::Bound;
pub use clock::Clock;
pub use host::host_name;
pub use impatient::Impatient;
pub use log::{BATCH, Program};
pub use machine::{Machine, Registrar, RegistrarActions};
pub use meter::Meter;
pub use nearest::nearest;
pub use server::{Ending, ServerHandle, Stopper};
pub use signal::Signal;
pub use site::NsqdSite;
pub use statsd::{StatsdSender, WAITING_MAX};
