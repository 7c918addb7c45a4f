//! `sansq to-file`: what was finished is in a file, whatever happens.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;

use super::{nsqd, nsqd_with};
use crate::process::Process;
use crate::server::{PATIENCE, Server};

/// All files of a folder, unpacked, by name.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let (mut text, mut file) = (String::new(), File::open(&path).unwrap());
            if name.ends_with(".gz") {
                flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
            } else {
                file.read_to_string(&mut text).unwrap();
            }
            (name, text)
        })
        .collect();
    files.sort();
    files
}

/// What the files have, line by line.
fn lines(files: &[(String, String)]) -> Vec<&str> {
    let mut lines: Vec<&str> = files.iter().flat_map(|(_, text)| text.lines()).collect();
    lines.sort_unstable();
    lines
}

/// Waits until so many lines can be seen in a folder.
fn wait_for(folder: &Path, count: usize) {
    let began = Instant::now();
    while lines(&files(folder)).len() < count {
        assert!(began.elapsed() < PATIENCE, "{:?}", files(folder));
    }
}

fn start(nsqd: &Server, folder: &Path, flags: &[&str]) -> Process {
    let args = ["to-file", "--topic", "t", "--nsqd-tcp-address", &nsqd.tcp];
    let names = ["--filename-format", "<TOPIC><REV>.log", "--output-dir", folder.to_str().unwrap()];
    Process::start(&[&args[..], &names, flags].concat())
}

#[test]
fn messages_are_in_the_file_when_they_are_finished() {
    let (nsqd, folder) = (nsqd(), tempfile::tempdir().unwrap());
    nsqd.publish("t", &["a", "b", "c"]);
    let tool = start(&nsqd, folder.path(), &["--sync-interval", "10ms"]);
    nsqd.wait_until_done("t", "nsq_to_file", 3);
    let written = files(folder.path());
    assert_eq!((written.len(), written[0].0.as_str()), (1, "t.log"));
    assert_eq!(lines(&written), ["a", "b", "c"]);
    let (status, output, log) = tool.stop(Signal::TERM);
    assert_eq!((status, output.as_str()), (Some(0), ""), "{log}");
    assert!(log.starts_with("[nsq_to_file] 20") && log.contains(" INFO: "), "{log}");
    nsqd.stop();
}

#[test]
fn a_signal_keeps_everything_and_a_hangup_begins_another_file() {
    let (nsqd, folder) = (nsqd(), tempfile::tempdir().unwrap());
    // Nothing is synced by itself.
    let flags = ["--sync-interval", "1h", "--rotate-interval", "24h"];
    let tool = start(&nsqd, folder.path(), &flags);
    nsqd.publish("t", &["a", "b"]);
    wait_for(folder.path(), 2);
    nsqd.wait("t", "nsq_to_file", &[("in_flight_count", 2)]);
    tool.send(Signal::HUP);
    nsqd.wait_until_done("t", "nsq_to_file", 2);
    nsqd.publish("t", &["c"]);
    wait_for(folder.path(), 3);
    nsqd.wait("t", "nsq_to_file", &[("in_flight_count", 1)]);
    let (status, _, log) = tool.stop(Signal::INT);
    assert_eq!(status, Some(0), "{log}");
    nsqd.wait_until_done("t", "nsq_to_file", 3);
    let written = files(folder.path());
    // An empty one was there before the first message, or not, as it happened.
    assert_eq!(lines(&written), ["a", "b", "c"]);
    assert!(written.iter().any(|(_, text)| text == "c\n"), "{written:?}");
    nsqd.stop();
}

#[test]
fn a_crash_loses_nothing_and_leaves_files_that_can_be_read() {
    let (nsqd, folder) = (nsqd(), tempfile::tempdir().unwrap());
    let work = folder.path().join("work");
    let output = folder.path().join("output");
    let flags = ["--work-dir", work.to_str().unwrap(), "--gzip", "--sync-interval", "1h"];
    // The third message fills it, and is synced.
    let flags = [&flags[..], &["--max-in-flight", "3"]].concat();
    let tool = start(&nsqd, &output, &flags);
    nsqd.publish("t", &["a", "b", "c"]);
    nsqd.wait_until_done("t", "nsq_to_file", 3);
    nsqd.publish("t", &["d"]);
    nsqd.wait("t", "nsq_to_file", &[("in_flight_count", 1)]);
    assert_eq!(tool.stop(Signal::KILL).0, None);
    nsqd.wait("t", "nsq_to_file", &[("client_count", 0)]);

    let tool = start(&nsqd, &output, &[&flags[..], &["--sync-interval=10ms"]].concat());
    nsqd.wait_until_done("t", "nsq_to_file", 3 + 1);
    let (status, _, log) = tool.stop(Signal::TERM);
    assert_eq!(status, Some(0), "{log}");
    // What the first run synced is where it was, and can be read so far.
    let (mut text, left) = (String::new(), File::open(work.join("t-000000.log.gz")).unwrap());
    let _ = flate2::read::MultiGzDecoder::new(left).read_to_string(&mut text);
    let mut kept: Vec<&str> = text.lines().take(3).collect();
    kept.sort_unstable();
    assert_eq!(kept, ["a", "b", "c"]);
    assert_eq!(lines(&files(&output)), ["d"]);
    nsqd.stop();
}

#[test]
fn topics_are_found_by_their_names() {
    let (nsqlookupd, folder) = (Server::nsqlookupd("tokio", &[]), tempfile::tempdir().unwrap());
    let lookupd = format!("--lookupd-tcp-address={}", nsqlookupd.tcp);
    let nsqd = nsqd_with(&[&lookupd, "--broadcast-address=127.0.0.1"]);
    nsqd.publish("orders", &["a"]);
    nsqd.publish("clicks", &["b"]);
    // Its files would be outside of the folder.
    nsqd.publish("..", &["c"]);
    let tool = Process::start(&[
        "to-file",
        "-lookupd-http-address",
        &nsqlookupd.http,
        "-topic-pattern=^o|[.]",
        "-topic-refresh=10ms",
        "-sync-interval=10ms",
        "-consumer-opt=lookupd_poll_interval,50ms",
        "-filename-format=<TOPIC>/log",
        "-output-dir",
        folder.path().to_str().unwrap(),
    ]);
    nsqd.wait_until_done("orders", "nsq_to_file", 1);
    // One that comes later.
    nsqd.publish("others", &["d"]);
    nsqd.wait_until_done("others", "nsq_to_file", 1);
    let (status, _, log) = tool.stop(Signal::TERM);
    assert_eq!(status, Some(0), "{log}");
    assert_eq!(log.matches("no file can be called ..").count(), 1, "{log}");
    let read = |topic: &str| fs::read_to_string(folder.path().join(topic).join("log"));
    assert_eq!((read("orders").unwrap(), read("others").unwrap()), ("a\n".into(), "d\n".into()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    nsqd.stop();
}

#[test]
fn wrong_flags_and_folders() {
    let nsqd = nsqd();
    nsqd.publish("t", &["a"]);
    nsqd.post("/channel/create?topic=t&channel=nsq_to_file", "");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (status, _, log) = start(&nsqd, &file, &[]).wait();
    assert_eq!(status, Some(1));
    assert!(log.contains("writing failed: ") && log.contains(file.to_str().unwrap()), "{log}");
    // The message was not finished.
    nsqd.wait("t", "nsq_to_file", &[("client_count", 0), ("in_flight_count", 0)]);
    assert_eq!(nsqd.waiting("t", "nsq_to_file"), 1);
    let (status, _, log) =
        start(&nsqd, folder.path(), &["--gzip", "--filename-format", "x"]).wait();
    assert_eq!((status, log.contains("<REV>")), (Some(2), true), "{log}");
    nsqd.stop();
}
