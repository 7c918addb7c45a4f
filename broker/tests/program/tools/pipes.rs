//! `sansq pub` and `sansq tail` between a pipe, an nsqd and another pipe.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rustix::process::Signal;

use super::nsqd;
use crate::process::{said, sansq, send};

#[test]
fn lines_go_to_every_nsqd_in_their_order() {
    let nsqds = [nsqd(), nsqd()];
    let mut child = sansq()
        .args(["pub", "-topic=t", "-producer-opt=snappy"])
        .args(["-nsqd-tcp-address", &nsqds[0].tcp, "-nsqd-tcp-address", &nsqds[1].tcp])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it was built");
    let mut input = child.stdin.take().expect("it is piped");
    let numbers: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    // The last one has no end of line, and is sent whole.
    input.write_all(numbers.join("\n").as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    for nsqd in &nsqds {
        assert_eq!(nsqd.topic_count("t"), 5000);
        let args = ["tail", "--topic=t", "--channel=c", "-n=5000", "--consumer-opt=deflate,true"];
        let (status, output, log) = said(&[&args[..], &["--nsqd-tcp-address", &nsqd.tcp]].concat());
        assert_eq!((status, log.as_str()), (Some(0), ""));
        let mut lines: Vec<&str> = output.lines().collect();
        // Memory and disk keep the order, but what is given back may come late.
        lines.sort_by_key(|line| line.parse::<u32>().unwrap());
        assert_eq!(lines, numbers);
        nsqd.wait_until_done("t", "c", 5000);
    }
}

#[test]
fn a_signal_ends_both_in_good_order() {
    let nsqd = nsqd();
    let mut tail = sansq()
        .args(["tail", "--topic", "t", "--channel", "c", "--print-topic"])
        .args(["--nsqd-tcp-address", &nsqd.tcp])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was built");
    let mut publisher = sansq()
        .args(["pub", "--topic", "t", "--nsqd-tcp-address", &nsqd.tcp])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it was built");
    publisher.stdin.as_mut().expect("it is piped").write_all(b"hello\n").unwrap();
    let mut line = String::new();
    BufReader::new(tail.stdout.take().expect("it is piped")).read_line(&mut line).unwrap();
    assert_eq!(line, "t | hello\n");
    for child in [&mut tail, &mut publisher] {
        send(child, Signal::TERM);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    nsqd.wait_until_done("t", "c", 1);
}

/// Standard output has nobody who reads, as behind `| head`: that is no failure of any of them.
#[test]
fn whoever_has_seen_enough_hears_no_complaint() {
    let nsqd = nsqd();
    nsqd.publish("t", &["message"]);
    nsqd.post("/channel/create?topic=t&channel=c", "");
    let (tcp, http) = (nsqd.tcp.as_str(), nsqd.http.as_str());
    let tools: [&[&str]; 11] = [
        &["completions", "bash"],
        &["man"],
        &["help"],
        &["help", "tail"],
        &["tail", "--help"],
        &["--version"],
        &["nsqd", "--help"],
        &["nsqd", "--version"],
        &["tail", "--topic=t", "--channel=c", "--nsqd-tcp-address", tcp],
        &["stat", "--topic=t", "--channel=c", "--interval=1ms", "--nsqd-http-address", http],
        &["top", "--once", "--nsqd-http-address", http],
    ];
    for args in tools {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut tool = sansq();
        let output = tool.args(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), log.as_ref()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn flags_are_named_as_they_were_written() {
    let (status, _, log) = said(&["tail", "-t", "x"]);
    assert_eq!(status, Some(2), "{log}");
    assert!(log.contains("unexpected argument '-t'") && log.contains("'--topic'"), "{log}");
    for (args, text) in [
        (&["tail", "--t", "x"][..], "unexpected argument '--t'"),
        (&["pub", "-topic=t", "-rate=x"], "for '-rate <RATE>'"),
        (&["pub", "-topic=t", "--rate=x"], "for '--rate <RATE>'"),
        (
            &["pub", "-topic=t", "-nsqd-tcp-address=a:1", "--lookupd-http-address=b:1"],
            "'-nsqd-tcp-address <ADDRESS>' cannot be used with '--lookupd-http-address <ADDRESS>'",
        ),
    ] {
        let (status, _, log) = said(args);
        assert_eq!(status, Some(2), "{log}");
        assert!(log.contains(text), "{log}");
    }
}

/// A full disk is another matter than a reader that has gone.
#[test]
#[cfg(target_os = "linux")]
fn what_can_not_be_written_is_an_error() {
    for args in [&["--version"][..], &["completions", "bash"], &["man"], &["nsqd", "--help"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = sansq().args(args).stdout(full).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {log}");
        assert!(log.contains("No space left on device"), "{args:?}: {log}");
    }
}
