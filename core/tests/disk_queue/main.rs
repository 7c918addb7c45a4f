//! The queue on disk, over files in memory.

mod behaviour;
mod fixtures;
#[path = "../model/disk_queue.rs"]
mod model;
mod properties;
mod rig;
