//! What an nsqd does with the memory of a backlog that is gone.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use crate::process::said;
use crate::server::{RUNTIMES, Server};

#[test]
fn memory_of_a_backlog_goes_back_when_asked() {
    for runtime in RUNTIMES {
        let nsqd = Server::nsqd(runtime, &["--shards=1", "--mem-queue-size=1000000"]);
        let address = format!("--nsqd-tcp-address={}", nsqd.tcp);
        let flags = ["--mode=pub", "--topic=t", "--messages=500000", "--warm-up=0s", "--json"];
        let bench = [&["bench", &address][..], &flags].concat();
        assert_eq!(said(&[&bench[..], &["--drain"]].concat()).0, Some(0));
        let kept = nsqd.memory();
        nsqd.post("/debug/freememory", "");
        let left = nsqd.memory();
        assert!(left < 50_000_000, "{runtime}: {kept}, then {left}");
        nsqd.stop();
    }
}
