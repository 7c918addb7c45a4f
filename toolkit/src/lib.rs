//! What the servers, the tools and the load generator have in common, as programs: the log, what
//! flags are made of, and requests over HTTP.
//!
//! Nothing outside of the program `sansq` is meant to use it.

pub mod flags;
pub mod http;
pub mod log;
