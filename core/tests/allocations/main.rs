//! What costs allocations and what does not: counted, not timed.

mod counting;
mod many;
mod pool;
mod shard;
