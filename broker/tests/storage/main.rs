//! The built program on real files.
#![cfg(unix)]

mod crash;
mod server;
mod takeover;
mod trouble;
