//! `sansq to-nsq`: what goes on, what does not, and what comes again.

use rustix::process::Signal;

use super::nsqd;
use crate::process::{Process, said};
use crate::server::Server;

fn read(nsqd: &Server, topic: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let args = ["tail", "--topic", topic, "--channel", "c", "-n", &count];
    let (status, output, log) = said(&[&args[..], &["--nsqd-tcp-address", &nsqd.tcp]].concat());
    assert_eq!(status, Some(0), "{log}");
    let mut lines: Vec<String> = output.lines().map(String::from).collect();
    lines.sort();
    lines
}

#[test]
fn messages_go_on_to_one_of_several_nsqds() {
    for mode in ["hostpool", "round-robin"] {
        let (from, to, other) = (nsqd(), nsqd(), nsqd());
        let messages: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        from.publish("t", &messages.iter().map(String::as_str).collect::<Vec<_>>());
        let tool = Process::start(&[
            "to-nsq",
            "-topic=t",
            "-mode",
            mode,
            "-status-every=10",
            "-nsqd-tcp-address",
            &from.tcp,
            "-destination-nsqd-tcp-address",
            &to.tcp,
            "-destination-nsqd-tcp-address",
            &other.tcp,
        ]);
        from.wait_until_done("t", "nsq_to_nsq", 20);
        let (status, _, log) = tool.stop(Signal::TERM);
        assert_eq!(status, Some(0), "{log}");
        assert_eq!(log.matches("[aggregate]: finished 10 - 99th: ").count(), 2, "{log}");
        let counts = [&to, &other].map(|nsqd| nsqd.topic_count("t"));
        assert_eq!(counts.iter().sum::<i64>(), 20);
        if mode == "round-robin" {
            assert_eq!(counts, [10, 10]);
        }
    }
}

#[test]
fn json_decides() {
    let (from, to) = (nsqd(), nsqd());
    from.publish("t", &["no json", "{}", r#"{"a":2,"b":1}"#, r#"{"a":1.0,"c":[],"b":"x"}"#]);
    let args = ["to-nsq", "--topic", "t", "--destination-topic", "u", "--require-json-field", "a"];
    let more =
        ["--require-json-value", "1", "--whitelist-json-field=b", "--whitelist-json-field=a"];
    let addresses =
        ["--nsqd-tcp-address", &from.tcp, "--destination-nsqd-tcp-address", to.tcp.as_str()];
    let mut tool = Process::start(&[&args[..], &more, &addresses].concat());
    tool.wait_for("is no JSON object, dropped");
    from.wait_until_done("t", "nsq_to_nsq", 4);
    assert_eq!(tool.stop(Signal::TERM).0, Some(0));
    assert_eq!(to.topic_count("u"), 1);
    assert_eq!(read(&to, "u", 1), [r#"{"a":1,"b":"x"}"#]);
}

#[test]
fn what_no_destination_takes_is_not_lost() {
    let from = nsqd();
    let gone = nsqd();
    let nobody = gone.tcp.clone();
    gone.stop();
    from.publish("t", &["a"]);
    let args = ["to-nsq", "--topic", "t", "--nsqd-tcp-address", &from.tcp];
    let tool = Process::start(&[&args[..], &["--destination-nsqd-tcp-address", &nobody]].concat());
    from.wait("t", "nsq_to_nsq", &[("in_flight_count", 1)]);
    assert_eq!(tool.stop(Signal::TERM).0, Some(0));
    from.wait("t", "nsq_to_nsq", &[("client_count", 0), ("in_flight_count", 0)]);
    assert_eq!(from.waiting("t", "nsq_to_nsq"), 1);
}

#[test]
fn a_source_that_is_not_there_ends_it() {
    let gone = nsqd();
    let nobody = gone.tcp.clone();
    gone.stop();
    let args = ["to-nsq", "--topic", "t", "--destination-nsqd-tcp-address", nobody.as_str()];
    let (status, _, log) = said(&[&args[..], &["--nsqd-tcp-address", &nobody]].concat());
    assert_eq!(status, Some(1));
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("subscribing at ") && last.contains(&nobody), "{log}");
    for wrong in [&["--mode", "x"][..], &["--require-json-value", "x"], &[]] {
        assert_eq!(said(&[&args[..], wrong].concat()).0, Some(2), "{wrong:?}");
    }
}
