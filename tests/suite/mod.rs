//! What every runtime has to do, seen from outside: plain blocking sockets against servers that the
//! including crate starts through its `harness`.
//!
//! No test sleeps or says how fast something has to be. The patience of a blocking read is only
//! there so that a broken server makes a test fail instead of hang.

mod auth;
mod bad_lookupds;
mod client;
mod clients;
mod connections;
mod http;
mod life;
mod messages;
mod storage;
mod trouble;
mod unix;
mod upgrade;

use sansq_core::{nsqd, nsqlookupd};
use sansq_runtime::options::{LookupdOptions, NsqdOptions};

use self::client::Client;
use crate::harness::Server;

/// An nsqd on free ports with so many shards.
fn start(shards: u16) -> Server {
    Server::nsqd(options(shards)).expect("free ports")
}

fn options(shards: u16) -> NsqdOptions {
    NsqdOptions {
        tcp_address: String::from("127.0.0.1:0"),
        http_address: Some(String::from("127.0.0.1:0")),
        https_address: Some(String::from("127.0.0.1:0")),
        shards,
        seed: 7,
        config: nsqd::Config {
            broadcast_address: String::from("127.0.0.1"),
            broadcast_tcp_port: 0,
            broadcast_http_port: 0,
            ..nsqd::Config::default()
        },
        ..NsqdOptions::default()
    }
}

/// An nsqlookupd on free ports.
fn start_lookupd() -> Server {
    Server::lookupd(lookupd_options()).expect("free ports")
}

fn lookupd_options() -> LookupdOptions {
    LookupdOptions {
        tcp_address: String::from("127.0.0.1:0"),
        http_address: String::from("127.0.0.1:0"),
        config: nsqlookupd::LookupdConfig {
            broadcast_address: String::from("127.0.0.1"),
            ..nsqlookupd::LookupdConfig::default()
        },
        ..LookupdOptions::default()
    }
}
