//! NSQ as pure state machines.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod arena;
pub mod client;
pub mod deadlines;
pub mod duration;
pub mod http;
pub mod input;
pub mod log;
pub mod message;
pub mod name;
pub mod nsqd;
pub mod nsqlookupd;
pub mod options;
pub mod protocol;
pub mod rng;
pub mod time;
pub mod transmit;
pub mod version;
