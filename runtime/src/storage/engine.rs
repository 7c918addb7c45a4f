//! What a storage is to an nsqd: the files of its data path are one, and others may take their
//! place.

use std::path::PathBuf;

use sansq_core::nsqd::ShardId;

use super::disk::Desk;
use super::inventory::Inventory;

/// The storage of a node that does not run yet. Each shard takes its part of it.
pub trait Storage {
    /// What carries out the requests of a shard.
    type Engine: Engine;

    /// Where the list of topics and channels is kept, for the log.
    fn list_path(&self) -> PathBuf;

    /// What a shard begins with. Called once for each.
    fn inventory(&mut self, shard: ShardId) -> Inventory;

    /// The engine of a shard. Called once for each.
    fn engine(&mut self, shard: ShardId) -> Self::Engine;
}

/// Carries out the requests of one shard, as [`sansq_core::storage`] has it.
pub trait Engine: Send + 'static {
    /// Takes requests from `desk` and reports their completions there, until there will be none any
    /// more. It has a thread for itself, which may wait for whatever it likes; completions may be
    /// reported from others as well. When it returns, everything is done.
    ///
    /// # Panics
    /// If it panics, the server ends.
    fn run(self, desk: Desk);
}
