//! The bytes of NSQ's two protocols: V2 (clients and nsqd) and V1 (nsqd and nsqlookupd).

pub mod json;
pub mod lookup;
