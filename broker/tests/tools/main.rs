//! The tools that consume and publish, as programs, against an nsqd that is one too.
#![cfg(test)]
#![cfg(unix)]

mod bench;
mod hung;
mod memory;
mod pipes;
mod server;
mod to_file;
mod to_http;
mod to_nsq;
