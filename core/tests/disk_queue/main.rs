//! The queue on disk, over files in memory.

mod behaviour;
mod damage;
mod fixtures;
mod full;
#[path = "../model/disk_queue.rs"]
mod model;
mod properties;
mod rig;
