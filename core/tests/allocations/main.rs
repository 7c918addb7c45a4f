//! What costs allocations and what does not: counted, not timed.

mod counting;
mod many;
mod pool;
#[path = "../rig/mod.rs"]
mod rig;
mod shard;
