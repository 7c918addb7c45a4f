//! What peers that misbehave cost the built program: its memory, its descriptors, and the work of others.
#![cfg(test)]
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod bytes;
mod certificates;
mod clients;
mod disk;
mod everything;
mod http;
mod log;
mod paused;
mod server;
