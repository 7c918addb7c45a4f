//! The bytes of NSQ's two protocols: V2 (clients and nsqd) and V1 (nsqd and nsqlookupd).

pub mod command;
pub mod encode;
pub mod error;
pub mod frame;
pub mod identify;
pub mod json;
pub mod lookup;
