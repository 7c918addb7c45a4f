//! Whoever takes the log and does not, and clients that would fill it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, Stdio};

use rustix::process::Signal;

use super::work_goes_on;
use crate::process::{sansq, send};
use crate::server::{RUNTIMES, Server, frame, patient, until};

/// A server whose standard error is read until it listens, and no further.
struct Unread {
    process: Child,
    tcp: String,
    http: String,
    log: BufReader<ChildStderr>,
    _folder: tempfile::TempDir,
}

impl Unread {
    fn start(program: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = sansq()
            .args([program, "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"])
            .args(flags)
            .current_dir(folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut address = |name: &str| {
            loop {
                let mut line = String::new();
                assert!(log.read_line(&mut line).unwrap() > 0, "it ended early");
                if let Some((_, rest)) = line.split_once(name) {
                    let end = rest.find(|c: char| c.is_ascii_whitespace() || c == '"');
                    return rest[..end.unwrap()].to_owned();
                }
            }
        };
        let (tcp, http) = (address("TCP: listening on "), address("HTTP: listening on "));
        Self { process, tcp, http, log, _folder: folder }
    }

    fn is_served(&self) {
        let mut socket = patient(&self.http);
        socket.write_all(b"GET /ping HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\nOK"), "{answer}");
    }

    /// Ends it by SIGTERM; its status, and the rest of the log.
    fn end(mut self, is_read_at_once: bool) -> (Option<i32>, String) {
        send(&self.process, Signal::TERM);
        let mut text = Vec::new();
        if is_read_at_once {
            self.log.read_to_end(&mut text).unwrap();
        }
        let status = self.process.wait().unwrap().code();
        self.log.read_to_end(&mut text).unwrap();
        (status, String::from_utf8(text).unwrap())
    }
}

/// Commands that are each refused, and each worth a line.
fn bad_commands(address: &str, count: usize) {
    let mut client = patient(address);
    client.write_all(b"  V2SUB t c\n").unwrap();
    assert_eq!(frame(&mut client).0, 0);
    for verb in ["FIN", "REQ", "TOUCH"] {
        let time = if verb == "REQ" { " 0" } else { "" };
        let command = format!("{verb} 0123456789abcdef{time}\n");
        for _ in 0..count / 100 {
            client.write_all(command.repeat(100).as_bytes()).unwrap();
            for _ in 0..100 {
                assert_eq!(frame(&mut client).0, 1);
            }
        }
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    for runtime in RUNTIMES {
        for format in ["text", "json"] {
            let flags = [format!("--runtime={runtime}"), format!("--log-format={format}")];
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let nsqd = Unread::start("nsqd", &flags);
            // More lines than the pipe holds.
            bad_commands(&nsqd.tcp, 1_500);
            nsqd.is_served();
            let (status, log) = nsqd.end(false);
            assert_eq!(status, Some(0), "{runtime}, {format}");
            assert!(log.contains("failed FIN") || log.contains("E_FIN_FAILED"), "{log}");

            let nsqlookupd = Unread::start("nsqlookupd", &flags);
            let mut nsqd = patient(&nsqlookupd.tcp);
            nsqd.write_all(b"  V1").unwrap();
            for n in 0..30 {
                let names = (0..100).map(|m| format!("REGISTER t{n} c{m}\n"));
                nsqd.write_all(names.collect::<String>().as_bytes()).unwrap();
                nsqlookupd.is_served();
            }
            assert_eq!(nsqlookupd.end(false).0, Some(0), "{runtime}, {format}");
        }
    }
}

/// A start that fails says so if it can, and ends if it can't.
#[test]
fn a_log_that_is_full_stops_no_start() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'x'; 65_536]).unwrap();
    for args in [&["nsqd", "--data-path=/nowhere"][..], &["nsqd", "--shards=none"], &["nosuch"]] {
        let stderr = Stdio::from(writer.try_clone().unwrap());
        let status = sansq().args(args).stderr(stderr).status();
        assert!(matches!(status.unwrap().code(), Some(1 | 2)), "{args:?}");
    }
    drop(reader);
}

#[test]
fn lines_that_clients_cause_are_limited_and_summed_up() {
    for runtime in RUNTIMES {
        let nsqd = Server::nsqd(runtime, &[]);
        work_goes_on(&nsqd, 10);
        const COUNT: usize = 6_000;
        bad_commands(&nsqd.tcp, COUNT);
        let lines = |log: &str| log.matches("] - E_FIN_FAILED ").count();
        let left_out = |log: &str| -> usize {
            let sums = log.split("E_FIN_FAILED: … and ").skip(1);
            sums.map(|rest| rest.split(' ').next().unwrap().parse::<usize>().unwrap()).sum()
        };
        until(|| lines(&nsqd.log()) + left_out(&nsqd.log()) == COUNT);
        println!("{runtime}: {} of {COUNT} lines are left out", left_out(&nsqd.log()));
        assert!(lines(&nsqd.log()) >= 1_000, "{}", lines(&nsqd.log()));
        let page = nsqd.ask("GET /metrics", b"");
        let line = page.lines().find_map(|l| l.strip_prefix("nsqd_log_lines_left_out_total "));
        assert!(line.unwrap().parse::<usize>().unwrap() >= left_out(&nsqd.log()));
        assert!(page.contains("\nnsqd_log_lines_lost_total 0\n"), "{page}");
    }
}

/// What a peer sends is shown, but not all of it.
#[test]
fn long_bodies_are_cut_in_the_log() {
    let nsqd = Unread::start("nsqd", &[]);
    let mut client = patient(&nsqd.tcp);
    let body = format!("{{\"other\":\"{}\"}}", "x".repeat(100_000));
    client.write_all(b"  V2IDENTIFY\n").unwrap();
    client.write_all(&(body.len() as u32).to_be_bytes()).unwrap();
    client.write_all(body.as_bytes()).unwrap();
    assert_eq!(frame(&mut client), (0, b"OK".to_vec()));
    let mut http = patient(&nsqd.http);
    write!(http, "GET /{} HTTP/1.0\r\n\r\n", "y".repeat(20_000)).unwrap();
    http.read_to_end(&mut Vec::new()).unwrap();
    let (status, log) = nsqd.end(true);
    assert_eq!(status, Some(0));
    let line = |text: &str| log.lines().find(|line| line.contains(text)).unwrap().len();
    assert!((1_024..1_300).contains(&line("IDENTIFY: {")), "{}", line("IDENTIFY: {"));
    assert!((1_024..2_000).contains(&line(" GET /y")), "{}", line(" GET /y"));
}
