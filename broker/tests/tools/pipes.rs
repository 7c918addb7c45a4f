//! `sansq pub` and `sansq tail` between a pipe, an nsqd and another pipe.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::server::{Nsqd, SANSQ, sansq};

#[test]
fn lines_go_to_every_nsqd_in_their_order() {
    let nsqds = [Nsqd::start(), Nsqd::start()];
    let mut child = Command::new(SANSQ)
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
        let (status, output, log) =
            sansq(&[&args[..], &["--nsqd-tcp-address", &nsqd.tcp]].concat());
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
    let nsqd = Nsqd::start();
    let mut tail = Command::new(SANSQ)
        .args(["tail", "--topic", "t", "--channel", "c", "--print-topic"])
        .args(["--nsqd-tcp-address", &nsqd.tcp])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was built");
    let mut publisher = Command::new(SANSQ)
        .args(["pub", "--topic", "t", "--nsqd-tcp-address", &nsqd.tcp])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it was built");
    publisher.stdin.as_mut().expect("it is piped").write_all(b"hello\n").unwrap();
    let mut line = String::new();
    BufReader::new(tail.stdout.take().expect("it is piped")).read_line(&mut line).unwrap();
    assert_eq!(line, "t | hello\n");
    for child in [&mut tail, &mut publisher] {
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    nsqd.wait_until_done("t", "c", 1);
}
