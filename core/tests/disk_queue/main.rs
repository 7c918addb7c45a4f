//! The queue on disk, over files in memory.

mod behaviour;
#[path = "../model/disk_queue.rs"]
mod model;
mod properties;
mod rig;
