//! What peers that misbehave cost the built program: its memory, its descriptors, and the work of
//! others.
#![cfg(test)]
#![cfg(target_os = "linux")]

mod bytes;
mod certificates;
mod clients;
mod disk;
mod everything;
mod http;
mod log;
mod nsqlookupd;
mod paused;
mod server;
mod stop;
