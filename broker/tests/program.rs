//! The built program: names, exit statuses, and what goes to which output.

use std::path::Path;
use std::process::{Command, Output};

const SANSQ: &str = env!("CARGO_BIN_EXE_sansq");

fn run(program: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(program).args(args).output().expect("it was built");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text only");
    (status.code(), text(stdout), text(stderr))
}

fn sansq(args: &[&str]) -> (Option<i32>, String, String) {
    run(Path::new(SANSQ), args)
}

#[test]
fn versions_go_to_standard_output() {
    let own = env!("CARGO_PKG_VERSION");
    for (args, line) in [
        (&["--version"][..], format!("sansq v{own} (NSQ v1.3.0)\n")),
        (&["nsqd", "-version"], format!("nsqd v1.3.0 (built w/sansq-{own})\n")),
        (&["nsqlookupd", "--version"], format!("nsqlookupd v1.3.0 (built w/sansq-{own})\n")),
    ] {
        assert_eq!(sansq(args), (Some(0), line, String::new()));
    }
}

#[cfg(unix)]
#[test]
fn a_link_is_the_program_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["nsqd", "nsqlookupd"] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(SANSQ, &link).unwrap();
        let (status, stdout, _) = run(&link, &["--version"]);
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
    ] {
        let (status, stdout, stderr) = sansq(args);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(stdout.contains(text), "{stdout}");
    }
}

#[test]
fn usage_errors_are_one_line_and_status_2() {
    for (args, line) in [
        (
            &["nsqd", "--mem-queue-sise=1"][..],
            "unknown flag --mem-queue-sise; did you mean --mem-queue-size?\n",
        ),
        (&["-shards", "0"], "flag --shards: \"0\" is not a whole number from 1 to 256\n"),
        (&["nsqlokupd"], "unknown command nsqlokupd; did you mean nsqlookupd?\n"),
    ] {
        assert_eq!(sansq(args), (Some(2), String::new(), line.into()));
    }
    assert_eq!(sansq(&["tail"]).0, Some(2));
}

#[test]
fn failures_at_the_start_are_fatal_lines_and_status_1() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let missing = missing.to_str().unwrap();
    let data_path = format!("--data-path={missing}");
    let config = format!("--config={missing}");
    for (args, texts) in [
        (
            &["nsqd", &data_path, "-log-prefix=p:"][..],
            ["p:", " FATAL: failed to instantiate nsqd - failed to lock data-path: open "],
        ),
        (&["nsqd", &config], ["[nsqd] ", " FATAL: failed to load config file "]),
        (&["nsqlookupd", &config], ["[nsqlookupd] ", " FATAL: failed to load config file "]),
    ] {
        let (status, stdout, stderr) = sansq(args);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{args:?}");
        let [prefix, text] = texts;
        assert!(stderr.starts_with(prefix) && stderr.contains(text), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
