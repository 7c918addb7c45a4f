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
///
/// ```
/// use sansq_core::storage::memory::MemoryFiles;
/// use sansq_runtime::storage::{Desk, Engine};
///
/// /// Keeps everything as long as the server runs.
/// struct Memory(MemoryFiles);
///
/// impl Engine for Memory {
///     fn run(mut self, desk: Desk) {
///         let (mut batch, mut completions) = (Vec::new(), Vec::new());
///         while desk.wait(&mut batch) {
///             completions.extend(batch.drain(..).map(|request| self.0.carry_out(&request)));
///             desk.report(&mut completions);
///         }
///     }
/// }
/// ```
pub trait Engine: Send + 'static {
    /// Takes requests from `desk` and reports their completions there, until there will be none any
    /// more. It has a thread for itself, which may wait for whatever it likes; completions may be
    /// reported from others as well. When it returns, everything is done.
    ///
    /// # Panics
    /// If it panics, the server ends.
    fn run(self, desk: Desk);
}
