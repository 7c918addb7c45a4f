//! What `packaging/` hands to users: each flag and key in it has to be one that the programs take.

use core::fmt::Debug;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use sansq::args::{BothOptions, NsqdOptions, NsqlookupdOptions, Program, Request, load};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(file(name)).expect(name)
}

/// Takes the arguments as the program would; nothing may be refused or warned of.
fn accepted<P: Program + Debug>(args: &[String]) -> P {
    let args: Vec<OsString> = args.iter().map(Into::into).collect();
    match load::<P>(&args) {
        Ok(Request::Run(options, warnings)) if warnings.is_empty() => options,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// The values that Kubernetes and systemd fill in.
fn filled_in(arg: &str) -> String {
    arg.replace("$(INDEX)", "1").replace("$(NAME)", "nsqd-1").replace("$(NAMESPACE)", "default")
}

#[test]
fn the_config_files_have_known_keys_in_the_comments_too() {
    fn check<P: Program + Debug>(name: &str) {
        let text = read(name);
        let all: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(option) if option.contains(" = ") => option,
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(
            all.lines().filter(|line| !line.starts_with('#') && line.contains('=')).count() > 5
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        for text in [text, all] {
            fs::write(&path, text).unwrap();
            accepted::<P>(&[format!("--config={}", path.display())]);
        }
    }
    check::<NsqdOptions>("nsqd.toml");
    check::<NsqlookupdOptions>("nsqlookupd.toml");
}

#[test]
fn the_units_start_what_is_installed() {
    for name in ["nsqd", "nsqlookupd"] {
        let unit = read(&format!("systemd/{name}.service"));
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect(name);
        assert_eq!(line, format!("/usr/bin/{name} --config=/etc/nsq/{name}.toml"));
    }
}

#[test]
fn the_manifests_have_known_flags() {
    let args = |name: &str| -> Vec<String> {
        let text = read(name);
        let args = text.lines().filter_map(|line| line.trim().strip_prefix("- --"));
        args.map(|arg| filled_in(&format!("--{arg}"))).collect()
    };
    let nsqd: NsqdOptions = accepted(&args("kubernetes/nsqd.yaml"));
    assert_eq!(nsqd.broadcast_address, "nsqd-1.nsqd.default.svc");
    assert_eq!(
        (nsqd.id, nsqd.nsqlookupd_tcp_addresses.as_slice()),
        (1, &["nsqlookupd:4160".into()][..])
    );
    let nsqlookupd: NsqlookupdOptions = accepted(&args("kubernetes/nsqlookupd.yaml"));
    assert_eq!(nsqlookupd.broadcast_address, "nsqlookupd.default.svc");
}

#[test]
fn the_image_starts_both_servers() {
    let text = read("Dockerfile");
    let line = text.lines().find_map(|line| line.strip_prefix("CMD ")).expect("a command");
    let words: Vec<String> = serde_json::from_str(line).unwrap();
    assert_eq!(words[0], "/sansq");
    assert_eq!(accepted::<BothOptions>(&words[1..]).nsqd.data_path, "/data");
}
