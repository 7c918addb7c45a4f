//! The queue on disk, over files in memory.

mod behaviour;
mod rig;
