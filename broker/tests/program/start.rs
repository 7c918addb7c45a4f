//! The built program: names, exit statuses, and what goes to which output.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::process::{program, run, said, sansq, send};

#[test]
fn versions_go_to_standard_output() {
    let own = env!("CARGO_PKG_VERSION");
    for (args, line) in [
        (&["--version"][..], format!("sansq v{own} (NSQ v1.3.0)\n")),
        (&["nsqd", "-version"], format!("nsqd v1.3.0 (built w/sansq-{own})\n")),
        (&["nsqlookupd", "--version"], format!("nsqlookupd v1.3.0 (built w/sansq-{own})\n")),
    ] {
        assert_eq!(said(args), (Some(0), line, String::new()));
    }
}

#[test]
fn a_link_is_the_program_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let tools = ["nsq_stat", "nsq_tail", "nsq_to_file", "nsq_to_http", "nsq_to_nsq", "to_nsq"];
    for name in [&["nsqd", "nsqlookupd"][..], &tools].concat() {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(program(), &link).unwrap();
        let (status, stdout, _) = run(Command::new(&link).arg("--version"));
        assert_eq!(status, Some(0));
        assert!(stdout.starts_with(&format!("{name} v1.3.0 (built w/sansq-")), "{stdout}");
    }
}

#[test]
fn help_goes_to_standard_output() {
    for (args, text) in [
        (&["--help"][..], "sansq nsqlookupd [flags]"),
        (&["help"], "sansq nsqlookupd [flags]"),
        (&["help", "flags"], "--nsqlookupd-tcp-address"),
        (&["nsqd", "-h"], "--mem-queue-size"),
        (&["nsqlookupd", "-help"], "--tombstone-lifetime"),
        (&["help", "pub"], "--topic"),
        (&["tail", "-help"], "--print-topic"),
        (&["bench", "--help"], "--window"),
        (&["stat", "--help"], "--channel"),
        (&["help", "top"], "--once"),
    ] {
        let (status, stdout, stderr) = said(args);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(stdout.contains(text), "{stdout}");
    }
}

#[test]
fn usage_errors_are_one_line_and_status_2() {
    for (args, line) in [
        (
            &["nsqd", "--mem-queue-sise=1"][..],
            "unexpected argument '--mem-queue-sise' found; \
             a similar argument exists: '--mem-queue-size'\n",
        ),
        (
            &["-shards", "0"],
            "invalid value '0' for '--shards <N>': it has to be a whole number from 1 to 256\n",
        ),
        (&["nsqlokupd"], "unknown command nsqlokupd; did you mean nsqlookupd?\n"),
    ] {
        assert_eq!(said(args), (Some(2), String::new(), line.into()));
    }
    for args in [
        &["tail"][..],
        &["stat", "--topic", "t", "--channel", "c"],
        &["stat", "--topic", "t", "--channel", "c", "--nsqd-http-address", "http://h:1"],
        &["top", "--sort", "nothing"],
        &["tail", "--topic", "t", "--consumer-opt", "max_in_fligth,7"],
        &["pub", "--topic", "t", "--producer-opt", "snappy", "--producer-opt=deflate,true", "x"],
    ] {
        assert_eq!(said(args).0, Some(2), "{args:?}");
    }
}

#[test]
fn failures_at_the_start_are_fatal_lines_and_status_1() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let missing = missing.to_str().unwrap();
    let data_path = format!("--data-path={missing}");
    let config = format!("--config={missing}");
    let damaged = tempfile::tempdir().unwrap();
    std::fs::write(damaged.path().join("nsqd.dat"), "[]").unwrap();
    let damaged_path = format!("--data-path={}", damaged.path().display());
    let ports = ["--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"];
    for (args, texts) in [
        (
            &["nsqd", &damaged_path, ports[0], ports[1], "--log-level=error"][..],
            ["[nsqd] ", " FATAL: failed to load metadata - failed to parse metadata in "],
        ),
        (
            &["nsqd", &data_path, "-log-prefix=p:"][..],
            ["p:", " FATAL: failed to instantiate nsqd - failed to lock data-path: open "],
        ),
        (
            &["nsqd", &data_path],
            [
                "[nsqd] ",
                "no such file or directory; it has to exist, create it with: mkdir -p -- '",
            ],
        ),
        (
            &["nsqlookupd", "--http-address=localhost", ports[0], "--log-level=error"],
            [
                "[nsqlookupd] ",
                " FATAL: failed to instantiate nsqlookupd - listen (localhost) failed - it has to be \
                 host:port, such as localhost:4161; change it with --http-address\n",
            ],
        ),
        (&["nsqd", &config], ["[nsqd] ", " FATAL: failed to load config file "]),
        (&["nsqlookupd", &config], ["[nsqlookupd] ", " FATAL: failed to load config file "]),
    ] {
        let (status, stdout, stderr) = said(args);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{args:?}");
        let [prefix, text] = texts;
        assert!(stderr.starts_with(prefix) && stderr.contains(text), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

/// Of two servers in one process, and of several ports, the line says which it is and what changes
/// it.
#[test]
fn a_port_that_is_taken_is_named_with_its_server_and_its_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, program) in [
        ("tcp-address", "nsqd"),
        ("http-address", "nsqd"),
        ("nsqlookupd-tcp-address", "nsqlookupd"),
        ("nsqlookupd-http-address", "nsqlookupd"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let data_path = format!("--data-path={}", folder.path().display());
        let others = ["tcp", "http", "nsqlookupd-tcp", "nsqlookupd-http"]
            .map(|name| format!("--{name}-address=127.0.0.1:0"));
        let taken = format!("--{flag}={address}");
        let args = [&others[..], &[data_path, taken, "--log-level=error".into()]].concat();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (status, _, stderr) = said(&args);
        assert_eq!(status, Some(1), "{stderr}");
        let start = format!("[{program}] ");
        let end = format!(
            "FATAL: failed to instantiate {program} - listen ({address}) failed - listen tcp \
             {address}: bind: address already in use; another program has this port; \
             change it with --{flag}\n"
        );
        assert!(stderr.starts_with(&start) && stderr.ends_with(&end), "{stderr}");
    }
}

/// An address without a port is a port forgotten, not a file to be made.
#[test]
fn an_address_without_a_port_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data_path = format!("--data-path={}", folder.path().display());
    let (status, _, stderr) = said(&["nsqd", &data_path, "--tcp-address=localhost"]);
    assert_eq!(status, Some(1));
    let end = "listen (localhost) failed - it has to be host:port, such as localhost:4150, or the \
               path of a unix socket, with a slash, such as ./localhost; change it with --tcp-address\n";
    assert!(stderr.ends_with(end), "{stderr}");
    assert!(!Path::new("localhost").exists());
}

/// `sansq` alone, on free ports, with what it says about them.
struct Running {
    child: Child,
    welcome: String,
}

impl Running {
    fn start(data_path: &Path, runtime: &str) -> Self {
        let mut command = sansq();
        for flag in ["tcp", "http", "nsqlookupd-tcp", "nsqlookupd-http"] {
            command.arg(format!("--{flag}-address=127.0.0.1:0"));
        }
        command.args(["--broadcast-address=127.0.0.1", "--runtime", runtime]);
        command.arg(format!("--data-path={}", data_path.display()));
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it was built");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut welcome = String::new();
        for line in output.lines() {
            welcome += &line.expect("it prints text only");
            welcome.push('\n');
            if welcome.contains("Stop with Ctrl-C.") {
                break;
            }
        }
        Self { child, welcome }
    }

    /// The address that stands behind `label` in what it says.
    fn address(&self, label: &str) -> String {
        let (_, behind) = self.welcome.split_once(label).expect(label);
        behind.split_whitespace().next().expect("an address").to_owned()
    }

    fn stop(mut self, signal: Signal) -> Option<i32> {
        send(&self.child, signal);
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn sansq_alone_says_what_to_type_and_it_works() {
    for (runtime, signal) in
        [("tokio", Signal::INT), ("smol", Signal::TERM), ("async-std", Signal::HUP)]
    {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start(folder.path(), runtime);
        let nsqd = running.address("for clients ");
        assert!(running.address("for nsqd ").starts_with("127.0.0.1:"), "{}", running.welcome);
        assert!(running.welcome.contains(" tail --topic greetings"), "{}", running.welcome);
        let to = ["--nsqd-tcp-address", nsqd.as_str()];

        // A channel that lasts, so that what is published is there for the tail that comes later.
        let published =
            said(&[&["pub", "--topic", "greetings"], &to[..], &["hello", "again"]].concat());
        assert_eq!(published, (Some(0), String::new(), String::new()));
        let tail = ["tail", "--topic", "greetings", "--channel", "c", "-n", "2"];
        let printed = said(&[&tail[..], &to].concat());
        assert_eq!(printed, (Some(0), "hello\nagain\n".into(), String::new()));

        // The same data path and the same port are in use.
        let data_path = format!("--data-path={}", folder.path().display());
        let (status, _, stderr) = said(&["nsqd", &data_path]);
        assert_eq!(status, Some(1));
        assert!(stderr.contains("possibly in use by another instance of nsqd"), "{stderr}");
        let other = tempfile::tempdir().unwrap();
        let data_path = format!("--data-path={}", other.path().display());
        let (status, _, stderr) = said(&["nsqd", &data_path, "--tcp-address", &nsqd]);
        let text = format!(
            "FATAL: failed to instantiate nsqd - listen ({nsqd}) failed - listen tcp {nsqd}: bind: address already in use; another program has this port; change it with --tcp-address\n"
        );
        assert!(status == Some(1) && stderr.ends_with(&text), "{stderr}");

        // What the tools show of it.
        let http = ["--nsqd-http-address", &running.address(" HTTP ")];
        let what = ["stat", "--topic", "greetings", "--channel", "c"];
        let rows = ["--interval", "1ms", "--count", "2"];
        let (status, stdout, stderr) = said(&[&what[..], &rows, &http].concat());
        assert_eq!((status, stderr.as_str()), (Some(0), ""));
        let lines: Vec<&str> = stdout.lines().collect();
        assert_eq!(lines.len(), 4, "{stdout}");
        let row = "      0       0 |       0       0       0     0     0 |       0       0            2       0";
        assert_eq!(lines[3], row);
        let (status, _, stderr) =
            said(&[&["stat", "--topic", "none", "--channel", "c"][..], &rows, &http].concat());
        assert_eq!(status, Some(1));
        assert_eq!(stderr, "no nsqd knows the topic none with the channel c\n");
        for (view, row) in
            [("topics", "greetings      1 "), ("channels", "c        greetings      1 ")]
        {
            let once = ["top", "--once", "--interval", "1ms", "--view", view];
            let (status, stdout, stderr) = said(&[&once[..], &http].concat());
            assert_eq!((status, stderr.as_str()), (Some(0), ""));
            assert!(stdout.lines().nth(1).is_some_and(|line| line.starts_with(row)), "{stdout}");
        }
        // A signal ends it in good order, which scripts see.
        let mut child = sansq()
            .args([&what[..], &["--interval", "1ms"], &http].concat())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was built");
        let mut heading = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        output.read_line(&mut heading).expect("it prints text only");
        assert!(heading.starts_with("------rate"), "{heading}");
        send(&child, signal);
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
        // Without a terminal there is nothing to draw on.
        assert_eq!(said(&[&["top"][..], &http].concat()).0, Some(1));

        send(&running.child, Signal::USR1);
        assert_eq!(said(&[&["pub", "--topic", "greetings"], &to[..], &["on"]].concat()).0, Some(0));
        assert_eq!(running.stop(signal), Some(0));
    }
}

#[test]
fn tools_name_the_server_that_they_cannot_reach() {
    // A port that was free a moment ago, and on which nobody listens now.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    for args in [
        &["pub", "--topic", "t", "--nsqd-tcp-address", nobody.as_str(), "x"][..],
        &["tail", "--topic", "t", "--nsqd-tcp-address", nobody.as_str()],
        &["tail", "--topic", "t", "--lookupd-http-address", nobody.as_str()],
        &["bench", "--nsqd-tcp-address", nobody.as_str()],
        &["stat", "--topic", "t", "--channel", "c", "--nsqd-http-address", nobody.as_str()],
        &["stat", "--topic", "t", "--channel", "c", "--lookupd-http-address", nobody.as_str()],
        &["top", "--once", "--nsqd-http-address", nobody.as_str()],
    ] {
        let (status, stdout, stderr) = said(args);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{args:?}");
        assert!(stderr.contains(&nobody) && stderr.lines().count() == 1, "{stderr}");
    }
}
