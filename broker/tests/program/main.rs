//! The built program: its start, its servers on real files and among peers that misbehave, its
//! tools.
#![cfg(test)]

#[cfg(target_os = "linux")]
mod hostile;
mod nsqadmin;
mod process;
mod server;
mod start;
mod storage;
mod tools;
