//! `sansq bench` against an nsqd: what it says has to be what the server had.

use std::process::Stdio;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use super::nsqd;
use crate::process::{sansq, send};
use crate::server::{PATIENCE, Server};

/// Runs the bench to its end; its exit status, and the JSON that it printed.
fn bench(nsqd: &Server, flags: &str) -> (Option<i32>, Value) {
    let fixed =
        ["bench", "--json", "--warm-up=0s", "--duration=1h", "--nsqd-tcp-address", &nsqd.tcp];
    let output = sansq().args(fixed).args(flags.split_whitespace()).output().unwrap();
    let json = serde_json::from_slice(&output.stdout);
    let json = json.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), json)
}

#[test]
fn what_it_published_it_consumed_and_finished() {
    let nsqd = nsqd();
    for (topic, flags) in [
        ("closed", "--messages 2000 --batch 20"),
        ("single", "--messages 200 --batch 1 --window 1 --connections 7 --threads 2"),
        ("open", "--messages 200 --batch 1 --rate 20000 --rdy 1"),
        ("snappy", "--messages 2000 --client-opt snappy"),
        (
            "deflate",
            "--messages 2000 --client-opt deflate --client-opt deflate_level,3 --body random",
        ),
        ("many", "--messages 2000 --batch 10 --channels 3 --consumers 5"),
    ] {
        let (status, json) = bench(&nsqd, &format!("--topic {topic} {flags}"));
        assert_eq!(status, Some(0), "{topic}: {json}");
        let messages = json["publish"]["total_messages"].as_i64().unwrap();
        assert!(messages >= 200);
        assert_eq!(nsqd.topic_count(topic), messages);
        let channels = json["channels"].as_i64().unwrap();
        assert_eq!(json["deliver"]["total_messages"], messages * channels);
        assert_eq!(json["deliver"]["latency_us"]["samples"], messages * channels);
        assert_eq!((&json["undelivered"], &json["nsqd_version"]), (&0.into(), &"1.3.0".into()));
        let names = match channels {
            1 => vec!["bench".into()],
            _ => (0..channels).map(|n| format!("bench_{n}")).collect(),
        };
        for channel in names {
            nsqd.wait_until_done(topic, &channel, messages);
        }
    }
    nsqd.stop();
}

/// The text that a run prints for people.
fn say(nsqd: &Server, flags: &str) -> String {
    let fixed = ["bench", "--duration=1h", "--nsqd-tcp-address", &nsqd.tcp];
    let output = sansq().args(fixed).args(flags.split_whitespace()).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn topics_of_a_run_go_with_it() {
    let nsqd = nsqd();
    let http = format!("--nsqd-http-address {}", nsqd.http);
    let flags = format!("{http} --mode pub --batch 10 --messages 400 --topics 3");
    let said = say(&nsqd, &format!("--warm-up 0s {flags}"));
    assert!(!said.contains("left behind"), "{said}");
    assert_eq!(nsqd.topics(), [] as [String; 0]);
    // Those that are not the run's own stay, and so do those that are to be kept.
    say(&nsqd, &format!("--warm-up 0s {flags} --topic mine"));
    assert_eq!(nsqd.topics(), ["mine_0", "mine_1", "mine_2"]);
    say(&nsqd, &format!("--warm-up 0s {flags} --keep"));
    assert_eq!(nsqd.topics().len(), 6);
    // What can't be deleted is named.
    let said = say(&nsqd, "--warm-up 0s --mode pub --messages 400 --nsqd-http-address 127.0.0.1:1");
    assert!(said.contains(" left behind: http://127.0.0.1:1/topic/delete"), "{said}");
    nsqd.stop();
}

/// An interrupted run cleans up as well.
#[test]
fn topics_of_an_interrupted_run_go_with_it() {
    let nsqd = nsqd();
    let child = sansq()
        .args(["bench", "--mode=pub", "--duration=1h", "--nsqd-tcp-address", &nsqd.tcp])
        .args(["--nsqd-http-address", &nsqd.http])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while nsqd.topics().is_empty() {
        assert!(began.elapsed() < PATIENCE);
    }
    send(&child, Signal::INT);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
    while !nsqd.topics().is_empty() {
        assert!(began.elapsed() < PATIENCE);
    }
    nsqd.stop();
}

#[test]
fn results_that_are_empty_are_explained() {
    let nsqd = nsqd();
    let said = say(&nsqd, "--mode sub --topic full --prefill 4000 --warm-up 1h");
    assert!(said.contains("all 4000 messages came within the --warm-up of 3600s"), "{said}");
    let said = say(&nsqd, "--mode sub --topic full --prefill 4000");
    assert!(!said.contains("--warm-up"), "{said}");
    nsqd.stop();
}

#[test]
fn what_is_prefilled_is_drained() {
    let nsqd = nsqd();
    let flags = "--mode sub --topic full --topics 2 --consumers 3 --prefill 4000";
    let (status, json) = bench(&nsqd, flags);
    assert_eq!((status, &json["deliver"]["messages"]), (Some(0), &4_000.into()), "{json}");
    for topic in ["full_0", "full_1"] {
        nsqd.wait_until_done(topic, "bench", 2_000);
    }
    nsqd.stop();
}

#[test]
fn what_is_published_only_can_be_drained() {
    let nsqd = nsqd();
    // The second run does not get what the first one left.
    for total in [2_000, 4_000] {
        let flags = "--mode pub --topic t --messages 2000 --drain";
        let (status, json) = bench(&nsqd, flags);
        assert_eq!((status, &json["undelivered"]), (Some(0), &0.into()), "{json}");
        assert_eq!(json["publish"]["messages"], 2_000);
        nsqd.wait_until_done("t", "bench", total);
    }
    nsqd.stop();
}

#[test]
fn two_servers_are_compared() {
    let (first, second) = (nsqd(), nsqd());
    let both = format!("{},{}", first.tcp, second.tcp);
    let flags = ["--compare", &both, "--rounds=2", "--messages=400", "--warm-up=0s", "--topic=t"];
    let output = sansq().arg("bench").args(flags).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("PUB to delivery p99, us") && table.contains("2 alternating"),
        "{table}"
    );
    // Each run said a line meanwhile.
    assert_eq!(stderr.lines().count(), 4, "{stderr}");
    for nsqd in [first, second] {
        nsqd.wait_until_done("t", "bench", 800);
        nsqd.stop();
    }
}

#[test]
fn the_exit_status_says_what_went_wrong() {
    let nsqd = nsqd();
    let status = |flags: &str| {
        let fixed = ["bench", "--nsqd-tcp-address", &nsqd.tcp];
        let output = sansq().args(fixed).args(flags.split_whitespace()).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = status("--mode pub --client-opt tls_v1");
    assert_eq!((code, text.contains("does not grant tls_v1")), (Some(1), true), "{text}");
    let (code, text) = status("--mode pub --size 2000000 --batch 1 --messages 1");
    assert_eq!((code, text.contains("E_BAD_MESSAGE")), (Some(1), true), "{text}");
    assert_eq!(status("--topics 2 --consumers 1").0, Some(2));
    let (code, text) = status("--mode pub --messages 10 --warm-up 1h");
    assert_eq!((code, text.contains("within the --warm-up of 3600s")), (Some(3), true), "{text}");
    nsqd.stop();
}
