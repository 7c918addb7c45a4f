//! A whole NSQ cluster on one thread, a virtual clock and one seed.
//!
//! nsqds of several shards, nsqlookupds, producers and consumers are the same machines that the broker
//! runs; here they are driven by a queue of events instead of sockets and timers. A seed decides
//! everything that chance decides elsewhere: when bytes arrive and in which pieces, which of two events
//! at the same time comes first, what breaks, what consumers do. So a run that goes wrong is told by one
//! number, and happens again as often as one likes.
//!
//! ```
//! use sansq_sim::{Options, Trace, run};
//!
//! let first = run(Options::from_seed(7), Trace::new(None));
//! assert_eq!(first.result, Ok(()));
//! assert_eq!(first.hash, run(Options::from_seed(7), Trace::new(None)).hash);
//! ```
//!
//! [`swarm`] says what a seed may draw, [`net`] and [`world`] what may break, [`oracles`] what must hold
//! all the same.

mod chance;
pub mod client;
mod directory;
mod disk;
mod env;
pub mod events;
pub mod model;
pub mod net;
mod node;
pub mod oracles;
pub mod swarm;
mod tap;
pub mod trace;
pub mod world;

pub use model::{MessageNumber, Outcome};
pub use oracles::{Oracles, Violation};
pub use swarm::Options;
pub use trace::Trace;
pub use world::{Outcomes, World, run};
