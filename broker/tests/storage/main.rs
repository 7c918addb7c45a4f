//! The built program on real files.
#![cfg(test)]
#![cfg(unix)]

mod crash;
mod server;
mod takeover;
mod trouble;
