//! The program `sansq`: NSQ's nsqd and nsqlookupd, and a few tools, behind one name.
//!
//! A library so that its parts can be tested; nothing outside of this package is meant to use it.

pub mod args;
mod assemble;
pub mod cli;
mod limits;
pub mod pages;
pub mod serve;

use sansq_core::version::{NSQ_VERSION, SANSQ_VERSION};

/// The line that `--version` prints, and a server's log begins with (http-and-ops.md section 6).
pub fn version_line(program: &str) -> String {
    format!("{program} v{NSQ_VERSION} (built w/sansq-{SANSQ_VERSION})")
}
