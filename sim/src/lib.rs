//! A whole NSQ cluster on one thread, a virtual clock and one seed.
//!
//! nsqds of several shards, nsqlookupds, producers and consumers are the same machines that the
//! broker and its clients run; here they are driven by a queue of events instead of sockets and
//! timers. A seed decides everything that chance decides elsewhere: when bytes arrive and in which
//! pieces, which of two events at the same time comes first, what breaks, what consumers do. So a
//! run that goes wrong is told by one number, and happens again as often as one likes.
//!
//! # A run of the swarm
//!
//! ```
//! use sansq_sim::{Options, Trace, run};
//!
//! let first = run(Options::from_seed(7), Trace::new(None));
//! assert_eq!(first.result, Ok(()));
//! assert_eq!(first.hash, run(Options::from_seed(7), Trace::new(None)).hash);
//! ```
//!
//! [`swarm`] says what a seed may draw, [`net`] and [`world`] what may break, [`oracles`] what must
//! hold all the same. A [`Trace`] with a sink tells what happened, line by line.
//!
//! # A world of one's own
//!
//! [`Options::empty`] is a cluster without clients. Fill it, let time pass, break what you like,
//! and [`finish`](World::finish): then nothing breaks any more, everything has to be consumed, and
//! the judges say whether a rule of NSQ was broken. Rules of your own are checks; your own programs
//! are [`Client`]s.
//!
//! ```
//! use core::time::Duration;
//!
//! use sansq_sim::client::pool::{Pool, PoolPlan};
//! use sansq_sim::client::worker::{Worker, WorkerPlan};
//! use sansq_sim::client::{Client, Context};
//! use sansq_sim::net::Process;
//! use sansq_sim::oracles::Observation;
//! use sansq_sim::{Options, Trace, World, channel, topic};
//!
//! /// A program that asks an nsqlookupd for the nsqds every minute.
//! #[derive(Debug)]
//! struct Monitor;
//!
//! impl Client for Monitor {
//!     fn started(&mut self, context: &mut Context<'_>) {
//!         context.wake(Duration::from_secs(60), 0);
//!     }
//!
//!     fn woken(&mut self, _: u64, context: &mut Context<'_>) {
//!         context.get(0, "/nodes");
//!         context.wake(Duration::from_secs(60), 0);
//!     }
//! }
//!
//! let mut world = World::new(Options::empty(1, 2, 1), Trace::new(None));
//! let plan = PoolPlan::new(vec![topic(0)], 20, Duration::from_millis(500));
//! world.add_client(Pool::new(plan));
//! let worker = world.add_client(Worker::new(WorkerPlan::new(topic(0), channel(0))));
//! world.add_client(Monitor);
//!
//! // A rule of one's own: no message is delivered more than three times.
//! world.add_check(|_, observation| match observation {
//!     Observation::Delivered { attempts: 4.., .. } => Err("it came four times".into()),
//!     _ => Ok(()),
//! });
//!
//! world.run_for(Duration::from_secs(5));
//! // nsqd 0 does not hear the consumer any more, but the consumer hears it.
//! world.cut(Process::Client(worker), Process::Nsqd(0));
//! world.run_for(Duration::from_secs(20));
//! world.heal(Process::Client(worker), Process::Nsqd(0));
//! world.crash_client(worker);
//!
//! let outcomes = world.finish();
//! assert_eq!(outcomes.result, Ok(()));
//! assert_eq!(world.oracles().unfinished(), []);
//! ```
//!
//! # Faults at a moment
//!
//! [`World::run_until`] goes on until the judges see something, such as the first FIN that an nsqd
//! has acted on, and stops behind that event. What is broken then is broken at that moment, with
//! everything under way that was under way. A program of one's own is put there by a
//! [`Handler`](client::handler::Handler) behind a [`Worker`](client::worker::Worker): it reads
//! messages, publishes others, and finishes. `examples/service.rs` is a service that loses orders
//! if it dies at a bad moment.
//!
//! `examples/rack.rs` asks whether a topology loses messages if a rack goes away during a deploy,
//! `examples/scaling.rs` how the work spreads over shards, and what these hand to each other.
//!
//! # Limits
//!
//! A run has at most two million events. Messages are told apart by what their bodies begin with,
//! so those of a client of one's own are made by
//! [`Context::publishing`](client::Context::publishing). TLS and compression are not simulated:
//! rustls draws its own random numbers.

mod chance;
pub mod client;
mod directory;
mod disk;
mod env;
pub mod events;
mod limits;
pub mod model;
pub mod net;
mod node;
pub mod oracles;
pub mod shrink;
pub mod swarm;
mod tap;
pub mod trace;
pub mod world;

pub use client::{Client, Context};
pub use limits::Limits;
pub use model::{MessageNumber, PublishOutcome};
pub use node::ShardWork;
pub use oracles::{Oracles, Violation};
pub use swarm::Options;
pub use trace::Trace;
pub use world::{Outcomes, World, channel, run, topic};
