//! nsqd and nsqlookupd as servers, on any [`Runtime`].
//!
//! ```text
//!   Nsqd, Lookupd ──► life: one thread each, from its start to its end
//!                      └─► turn: the one place where a machine is called
//!                            ├─ connection     sockets of clients
//!                            ├─ shard          what nsqd's actions mean
//!                            ├─ nsqlookupd     what nsqlookupd's actions mean
//!                            ├─ lookup_peer    nsqd's connections to the nsqlookupds
//!                            └─ http           the HTTP APIs
//! ```

mod connection;
mod handle;
mod http;
mod life;
mod lookup_peer;
mod nsqd;
mod nsqlookupd;
mod shard;
#[cfg(test)]
mod tests;
mod turn;

pub(crate) use handle::Ending;
pub use handle::{ServerHandle, Stopper};
pub use nsqd::Nsqd;
pub use nsqlookupd::Lookupd;

use sansq_core::nsqd::Peer;

use crate::listen::{AcceptPause, set_options};
use crate::log::Program;
use crate::runtime::{Listener, Runtime, Thread};
use crate::socket::Stream;

/// Waits for the next connection and sets its options. A failure is logged and does not end it.
async fn accept<T: Thread>(listener: &T::Listener, program: Program, name: &str) -> (Stream, Peer) {
    let mut pause = AcceptPause::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Stream::Tcp(stream) = &stream {
                    set_options(stream);
                }
                return (stream, peer);
            }
            Err(error) => {
                if let Some(time) = pause.after(&error, program, name) {
                    T::Runtime::sleep(time).await;
                }
            }
        }
    }
}
