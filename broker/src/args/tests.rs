use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::fs;

use super::*;

fn request<P: Program>(args: &[&str]) -> Result<Request<P>, String> {
    let args: Vec<OsString> = args.iter().map(Into::into).collect();
    load(&args).map_err(|error| format!("{}: {error}", error.exit_status()))
}

fn run_with(args: &[&str]) -> (NsqdOptions, Vec<String>) {
    match request(args).unwrap() {
        Request::Run(options, warnings) => (options, warnings),
        other @ (Request::Help(_) | Request::Version) => panic!("{other:?}"),
    }
}

fn nsqd(args: &[&str]) -> NsqdOptions {
    run_with(args).0
}

fn refusal(args: &[&str]) -> String {
    request::<NsqdOptions>(args).unwrap_err()
}

/// The page without its line breaks.
fn words(page: &str) -> String {
    page.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A config file, and the flag that names it.
struct ConfigFile(tempfile::NamedTempFile);

impl ConfigFile {
    fn new(text: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Self(file)
    }
    fn flag(&self) -> String {
        format!("--config={}", self.path())
    }
    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

/// The tables of http-and-ops.md sections 4 and 5: flag, default, config name where it differs (`-`
/// for none).
const NSQD: [(&str, &str, &str); 58] = [
    ("version", "false", "-"),
    ("config", "", "-"),
    ("log-level", "info", ""),
    ("log-prefix", "[nsqd] ", ""),
    ("verbose", "false", "-"),
    ("node-id", "the host's", "id"),
    ("worker-id", "false", "-"),
    ("tcp-address", "0.0.0.0:4150", ""),
    ("http-address", "0.0.0.0:4151", ""),
    ("https-address", "0.0.0.0:4152", ""),
    ("broadcast-address", "the host's name", ""),
    ("broadcast-tcp-port", "0", ""),
    ("broadcast-http-port", "0", ""),
    ("lookupd-tcp-address", "", "nsqlookupd_tcp_addresses"),
    ("auth-http-address", "", "auth_http_addresses"),
    ("auth-http-request-method", "get", ""),
    ("http-client-connect-timeout", "2s", ""),
    ("http-client-request-timeout", "5s", ""),
    ("topology-region", "", ""),
    ("topology-zone", "", ""),
    ("enable-experiment", "", "enable_experiment"),
    ("data-path", "", ""),
    ("mem-queue-size", "10000", ""),
    ("max-bytes-per-file", "104857600", ""),
    ("sync-every", "2500", ""),
    ("sync-timeout", "2s", ""),
    ("queue-scan-worker-pool-max", "4", ""),
    ("queue-scan-selection-count", "20", ""),
    ("msg-timeout", "1m0s", ""),
    ("max-msg-timeout", "15m0s", ""),
    ("max-msg-size", "1048576", ""),
    ("max-req-timeout", "1h0m0s", ""),
    ("max-body-size", "5242880", ""),
    ("max-unanswered-bytes", "67108864", ""),
    ("max-heartbeat-interval", "1m0s", ""),
    ("max-rdy-count", "2500", ""),
    ("max-output-buffer-size", "65536", ""),
    ("max-output-buffer-timeout", "30s", ""),
    ("min-output-buffer-timeout", "25ms", ""),
    ("output-buffer-timeout", "250ms", ""),
    ("max-channel-consumers", "0", ""),
    ("statsd-address", "", ""),
    ("statsd-interval", "1m0s", ""),
    ("statsd-mem-stats", "true", ""),
    ("statsd-prefix", "nsq.%s", ""),
    ("statsd-udp-packet-size", "508", ""),
    ("statsd-exclude-ephemeral", "false", ""),
    ("e2e-processing-latency-percentile", "", "e2e_processing_latency_percentiles"),
    ("e2e-processing-latency-window-time", "10m0s", ""),
    ("tls-cert", "", ""),
    ("tls-key", "", ""),
    ("tls-client-auth-policy", "", ""),
    ("tls-root-ca-file", "", ""),
    ("tls-required", "false", ""),
    ("tls-min-version", "tls1.0", ""),
    ("deflate", "true", ""),
    ("max-deflate-level", "6", ""),
    ("snappy", "true", ""),
];

const NSQLOOKUPD: [(&str, &str, &str); 10] = [
    ("version", "false", "-"),
    ("config", "", "-"),
    ("verbose", "false", "-"),
    ("log-level", "info", ""),
    ("log-prefix", "[nsqlookupd] ", ""),
    ("tcp-address", "0.0.0.0:4160", ""),
    ("http-address", "0.0.0.0:4161", ""),
    ("broadcast-address", "the host's name", ""),
    ("inactive-producer-timeout", "5m0s", ""),
    ("tombstone-lifetime", "45s", ""),
];

/// Every option that is in the config file is shown, by its name there, and no other.
#[test]
fn options_are_shown_under_their_names_in_the_config_file() {
    use sansq_core::nsqd::http::OptionValue;
    let shown = shown(&NsqdOptions { id: 16, ..NsqdOptions::default() });
    for (name, _, key) in NSQD {
        let name = if key.is_empty() { name.replace('-', "_") } else { key.into() };
        assert_eq!(shown.get(&name).is_some(), name != "-", "{name}");
    }
    let keys = values(&NsqdOptions::default());
    assert!(keys.keys().all(|key| shown.get(key).is_some()));
    for (name, value) in [
        ("id", OptionValue::Integer(16)),
        ("log_level", OptionValue::Integer(2)),
        ("msg_timeout", OptionValue::Duration(Duration::from_secs(60))),
        ("nsqlookupd_tcp_addresses", OptionValue::Texts(Some(vec![]))),
        ("runtime", OptionValue::Text("tokio".into())),
        ("snappy", OptionValue::Bool(true)),
        ("tls_min_version", OptionValue::Integer(769)),
        ("tls_required", OptionValue::Integer(0)),
    ] {
        assert_eq!(shown.get(name), Some(&value), "{name}");
    }
}

fn assert_table<P: Program>(table: &[(&str, &str, &str)], own: &[&str]) {
    let command = command::<P>();
    let flags: Vec<_> = command.get_arguments().collect();
    let keys = values(&defaults::<P>());
    for (name, default, key) in table {
        let flag = flags.iter().find(|flag| flag.get_long() == Some(name)).expect(name);
        if !default.starts_with("the host") {
            let shown = flag.get_default_values().join(OsStr::new(","));
            assert_eq!(shown, *default, "default of {name}");
        }
        let id = flag.get_id().as_str();
        let key = match *key {
            "-" => None,
            "" => Some(name.replace('-', "_")),
            key => Some(key.into()),
        };
        assert_eq!(keys.contains_key(id).then(|| id.into()), key, "config name of {name}");
        assert!(flag.get_help().is_some() && flag.get_help_heading().is_some(), "{name}");
    }
    let more: Vec<_> = (flags.iter().filter_map(|flag| flag.get_long()))
        .filter(|name| table.iter().all(|(known, ..)| known != name))
        .collect();
    assert_eq!(more, own, "flags beyond NSQ's");
    assert_eq!(flags.len(), table.len() + own.len(), "a flag is there twice");
}

#[test]
fn every_flag_and_default_of_the_reference() {
    assert_table::<NsqdOptions>(
        &NSQD,
        &[
            "runtime",
            "shards",
            "max-topics",
            "max-channels-per-topic",
            "max-connections",
            "max-http-connections",
            "metrics-aggregate",
            "log-format",
        ],
    );
    let options = NsqdOptions::default();
    assert_eq!(options.runtime, Runtime::Tokio);
    assert!((1..=256).contains(&options.shards));
    assert_eq!(options.id, default_node_id(&host_name()));
    assert_eq!(options.broadcast_address, host_name());
    assert_eq!(NsqlookupdOptions::default().broadcast_address, host_name());
    assert_table::<NsqlookupdOptions>(
        &NSQLOOKUPD,
        &[
            "runtime",
            "max-http-connections",
            "max-names",
            "max-registrations",
            "max-registrations-per-nsqd",
            "log-format",
        ],
    );
}

#[test]
fn the_defaults_pass_their_own_checks() {
    assert_eq!(NsqdOptions::default().check(), Ok(()));
    assert_eq!(nsqd(&[]), NsqdOptions::default());
}

#[test]
fn the_forms_of_a_flag() {
    for args in [
        &["-max-rdy-count=7", "-msg-timeout=1500ms", "-snappy=false"][..],
        &["--max-rdy-count", "7", "--msg-timeout", "1.5s", "--snappy=0"],
        &["-max-rdy-count", "0x7", "--msg-timeout=1s500ms", "-snappy=F", "--deflate"],
        &["--max-rdy-count=9", "--max-rdy-count=7", "-msg-timeout=1500000us", "-snappy=False"],
    ] {
        let options = nsqd(args);
        assert_eq!(options.max_rdy_count, 7, "{args:?}");
        assert_eq!(options.msg_timeout, Duration::from_millis(1_500), "{args:?}");
        assert!(!options.snappy && options.deflate, "{args:?}");
    }
    assert_eq!(nsqd(&["--tls-required"]).tls_required, TlsRequired::Yes);
    assert_eq!(nsqd(&["--tls-required=tcp-https"]).tls_required, TlsRequired::ExceptHttp);
    assert_eq!(nsqd(&["-http-address="]).http_address, "");
    assert_eq!(nsqd(&["-statsd-prefix=a=b"]).statsd_prefix, "a=b");
    assert_eq!(nsqd(&["-log-prefix", "-x"]).log_prefix, "-x");
    assert_eq!(nsqd(&["-runtime=async-std", "-shards=256"]).shards, 256);
    let lists = nsqd(&[
        "-lookupd-tcp-address=a:1",
        "-lookupd-tcp-address",
        "b:2",
        "--e2e-processing-latency-percentile=0.5,0.99",
    ]);
    assert_eq!(lists.nsqlookupd_tcp_addresses, ["a:1", "b:2"]);
    assert_eq!(lists.e2e_processing_latency_percentiles, [0.99, 0.5]);
}

#[test]
fn flags_end_at_the_first_other_argument() {
    for (args, warning) in [
        (&["--max-rdy-count=7", "x", "--max-rdy-count=9"][..], "x --max-rdy-count=9"),
        (&["--max-rdy-count=7", "-", "-no-such"], "- -no-such"),
        (&["--max-rdy-count=7", "--", "-no-such"], "-no-such"),
    ] {
        let (options, warnings) = run_with(args);
        assert_eq!(options.max_rdy_count, 7, "{args:?}");
        assert_eq!(warnings, [format!("ignored what follows the flags: {warning}")]);
    }
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    for (args, line) in [
        (
            &["--mem-queue-sise=1"][..],
            "2: unexpected argument '--mem-queue-sise' found; \
             a similar argument exists: '--mem-queue-size'",
        ),
        (
            &["-frobnicate"],
            "2: unexpected argument '--frobnicate' found; --help lists what there is",
        ),
        (
            &["---tcp-address=x"],
            "2: unexpected argument '---tcp-address' found; a similar argument exists: '--tcp-address'",
        ),
        (&["-=x"], "2: unexpected argument '-=' found; --help lists what there is"),
        (
            &["--max-rdy-count"],
            "2: a value is required for '--max-rdy-count <N>' but none was supplied",
        ),
        (
            &["--max-rdy-count=many"],
            "2: invalid value 'many' for '--max-rdy-count <N>': \
             it has to be a whole number from 0 up",
        ),
        (
            &["--msg-timeout=60"],
            "2: invalid value '60' for '--msg-timeout <DURATION>': \
             it has to be a duration such as 250ms, 2s or 1h30m",
        ),
        (
            &["--worker-id=5"],
            "2: invalid value '5' for '--worker-id[=<true|false>]': it is true or false",
        ),
        (
            &["--snappy=maybe"],
            "2: invalid value 'maybe' for '--snappy[=<true|false>]': it is true or false",
        ),
        (
            &["--log-level=loud"],
            "2: invalid value 'loud' for '--log-level <WORD>' \
             [possible values: debug, info, warn, error, fatal]",
        ),
        (
            &["--tls-min-version=ssl3.0"],
            "2: invalid value 'ssl3.0' for '--tls-min-version <WORD>' \
             [possible values: tls1.0, tls1.1, tls1.2, tls1.3]",
        ),
        (
            &["--shards=0"],
            "2: invalid value '0' for '--shards <N>': it has to be a whole number from 1 to 256",
        ),
        (
            &["--shards=257"],
            "2: invalid value '257' for '--shards <N>': it has to be a whole number from 1 to 256",
        ),
        (
            &["--mem-queue-size=-1"],
            "2: invalid value '-1' for '--mem-queue-size <N>': \
             it has to be a whole number from 0 up",
        ),
        (
            &["--output-buffer-timeout=0"],
            "2: invalid value '0' for '--output-buffer-timeout <DURATION>': \
             it has to be more than 0s",
        ),
        (
            &["--broadcast-tcp-port=65536"],
            "2: invalid value '65536' for '--broadcast-tcp-port <N>': \
             it has to be a whole number from 0 to 65535",
        ),
        (
            &["--sync-timeout=0"],
            "2: invalid value '0' for '--sync-timeout <DURATION>': it has to be more than 0s",
        ),
        (
            &["--statsd-interval=1s"],
            "2: invalid value '1s' for '--statsd-interval <DURATION>': it has to be more than 1s",
        ),
        (
            &["--e2e-processing-latency-percentile=high"],
            "2: invalid value 'high' for '--e2e-processing-latency-percentile <NUMBERS>': \
             it has to be a number such as 0.99",
        ),
        (
            &["--http-address=x", "--max-rdy-count=two\nlines"],
            "2: invalid value 'two\\nlines' for '--max-rdy-count <N>': \
             it has to be a whole number from 0 up",
        ),
        (
            &["--log-level=\u{1b}[0minfo"],
            "2: invalid value '\\u{1b}[0minfo' for '--log-level <WORD>' \
             [possible values: debug, info, warn, error, fatal]",
        ),
    ] {
        assert_eq!(refusal(args), line, "{args:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_argument_has_to_be_text() {
    use std::os::unix::ffi::OsStringExt as _;
    let args = [OsString::from_vec(b"--data-path=\xFF".to_vec())];
    let error = load::<NsqdOptions>(&args).unwrap_err();
    assert_eq!(error, ArgsError::Usage("--data-path=\u{FFFD} is not UTF-8".into()));
}

#[test]
fn checks_before_the_start_have_the_references_texts() {
    let required = "cannot require TLS client connections without TLS key and cert";
    let pair = "failed to build TLS config - --tls-cert and --tls-key need each other";
    for (args, text) in [
        (&["--node-id=1024"][..], "--node-id must be [0,1024)"),
        (&["--node-id=-1"], "--node-id must be [0,1024)"),
        (&["--max-deflate-level=0"], "--max-deflate-level must be [1,9]"),
        (&["--max-deflate-level=10", "--node-id=-1"], "--max-deflate-level must be [1,9]"),
        (&["--tls-required=true"], required),
        (&["--tls-client-auth-policy=require"], required),
        (&["--tls-cert=c"], pair),
        (&["--tls-key=k", "--tls-required"], pair),
        (&["--auth-http-request-method=put"], "--auth-http-request-method must be post or get"),
        (
            &["--e2e-processing-latency-percentile=1.0,1.5"],
            "invalid E2E processing latency percentile: 1.5",
        ),
        (
            &["--e2e-processing-latency-percentile=NaN"],
            "invalid E2E processing latency percentile: NaN",
        ),
    ] {
        let error = nsqd(args).check().unwrap_err();
        assert_eq!(error.to_string(), text, "{args:?}");
    }
    let mut options = nsqd(&[
        "--node-id=1023",
        "--max-deflate-level=9",
        "--e2e-processing-latency-percentile=1.0,0.99",
        "--tls-cert=c",
        "--tls-key=k",
        "--tls-client-auth-policy=require",
    ]);
    assert_eq!(options.check(), Ok(()));
    assert_eq!(options.tls_required, TlsRequired::Yes);
}

#[test]
fn flags_that_nothing_heeds_are_named() {
    let (_, warnings) = run_with(&[
        "--queue-scan-worker-pool-max=3",
        "--queue-scan-selection-count=1",
        "--max-rdy-count=1",
    ]);
    assert_eq!(
        warnings,
        [
            "set but without effect so far: --queue-scan-worker-pool-max, --queue-scan-selection-count"
        ]
    );
    let file = ConfigFile::new("queue_scan_selection_count = 5\nmax_rdy_count = 1\n");
    let (_, warnings) = run_with(&[&file.flag()]);
    assert_eq!(warnings, ["set but without effect so far: --queue-scan-selection-count"]);
}

#[test]
fn help_and_version() {
    assert_eq!(request::<NsqdOptions>(&["-version"]), Ok(Request::Version));
    assert_eq!(request::<NsqdOptions>(&["-version", "-config=/no/such"]), Ok(Request::Version));
    for help in ["-h", "-help", "--help", "--h", "-h=false", "--help="] {
        let Ok(Request::Help(page)) = request::<NsqdOptions>(&["--tcp-address=x", help]) else {
            panic!("{help}");
        };
        for (name, ..) in NSQD {
            assert!(page.contains(&format!("\n      --{name}")), "{name}");
        }
        assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
        // The defaults, not what the command line says.
        assert!(words(&page).contains("[default: 0.0.0.0:4150]"), "{page}");
    }
}

#[test]
fn a_flag_beats_the_file_and_the_file_the_default() {
    let file = ConfigFile::new(
        "max_rdy_count = 7\nmax_msg_timeout = \"5s\"\nnsqlookupd_tcp_addresses = [\"a:1\", \"b:2\"]\n\
         auth_http_addresses = \"c:3,d:4\"\n",
    );
    let options = nsqd(&[&file.flag(), "--max-rdy-count=9", "--lookupd-tcp-address=x:1"]);
    assert_eq!(options.max_rdy_count, 9);
    assert_eq!(options.max_msg_timeout, Duration::from_secs(5));
    assert_eq!(options.max_deflate_level, 6);
    assert_eq!(options.nsqlookupd_tcp_addresses, ["x:1"]);
    assert_eq!(options.auth_http_addresses, ["c:3", "d:4"]);
}

#[test]
fn the_types_of_the_file() {
    let file = ConfigFile::new(
        "id = \"5\"\nmsg_timeout = 1500\nmax_req_timeout = \"1h30m\"\nsnappy = 0\ndeflate = \"f\"\n\
         statsd_mem_stats = false\ntls_required = \"TCP-HTTPS\"\ntls_min_version = \"\"\nlog_level = \"warn\"\n\
         e2e_processing_latency_percentiles = [0.5, 1, 0.99]\nenable_experiment = []\n",
    );
    let options = nsqd(&[&file.flag()]);
    assert_eq!(options.id, 5);
    assert_eq!(options.msg_timeout, Duration::from_millis(1_500));
    assert_eq!(options.max_req_timeout, Duration::from_secs(5_400));
    assert!(!options.snappy && !options.deflate && !options.statsd_mem_stats);
    assert_eq!(options.tls_required, TlsRequired::ExceptHttp);
    assert_eq!(options.tls_min_version, TlsVersion::Tls10);
    assert_eq!(options.log_level, sansq_core::log::Level::Warn);
    // In the file's order, unlike the command line's.
    assert_eq!(options.e2e_processing_latency_percentiles, [0.5, 1.0, 0.99]);
    let file =
        ConfigFile::new("tls_required = true\ne2e_processing_latency_percentiles = \"0.5,0.9\"");
    let options = nsqd(&[&file.flag()]);
    assert_eq!(options.tls_required, TlsRequired::Yes);
    assert_eq!(options.e2e_processing_latency_percentiles, [0.5, 0.9]);
}

#[test]
fn a_bad_file_ends_the_start() {
    for (text, reason) in [
        ("this is = = not toml\n", "line 1: "),
        ("a = 1\nmax_rdy_count = = 2\n", "line 2: "),
        (
            "max_rdy_count = 7.5",
            "max_rdy_count: invalid value '7.5' for '--max-rdy-count <N>': it has to be a whole number from 0 up",
        ),
        (
            "max_rdy_count = true",
            "max_rdy_count: invalid value 'true' for '--max-rdy-count <N>': it has to be a whole number from 0 up",
        ),
        (
            "max_rdy_count = -1",
            "max_rdy_count: invalid value '-1' for '--max-rdy-count <N>': it has to be a whole number from 0 up",
        ),
        (
            "msg_timeout = -1",
            "msg_timeout: invalid value '-1ms' for '--msg-timeout <DURATION>': it has to be a duration",
        ),
        (
            "msg_timeout = \"60\"",
            "msg_timeout: invalid value '60' for '--msg-timeout <DURATION>': it has to be a duration",
        ),
        (
            "snappy = 2",
            "snappy: invalid value '2' for '--snappy[=<true|false>]': it is true or false",
        ),
        ("tcp_address = 5", "tcp_address: 5 is not a text"),
        ("log_level = 3", "log_level: 3 is not one of debug, info, warn, error, fatal"),
        ("sync_timeout = [1]", "sync_timeout: [1] is not a duration such as 2s"),
        ("tls_required = 1", "tls_required: 1 is not one of false, true, tcp-https"),
        ("max_rdy_count = [1]", "max_rdy_count: [1] is not a whole number"),
        ("statsd_interval = 1000", "statsd_interval: invalid value '1000ms' for "),
        (
            "log_level = \"loud\"",
            "log_level: invalid value 'loud' for '--log-level <WORD>' [possible values: debug",
        ),
        ("nsqlookupd_tcp_addresses = [1]", "nsqlookupd_tcp_addresses: [1] is not a list of texts"),
        ("e2e_processing_latency_percentiles = [\"x\"]", "e2e_processing_latency_percentiles: "),
    ] {
        let file = ConfigFile::new(text);
        let line = refusal(&[&file.flag()]);
        let start = format!("1: failed to load config file {} - {reason}", file.path());
        assert!(line.starts_with(&start) && !line.contains('\n'), "{line}");
    }
    assert!(
        refusal(&["--config=/no/such"])
            .starts_with("1: failed to load config file /no/such - no such file or directory")
    );
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let option = "max_rdy_count = 7\n";
    let filled = |len: usize| format!("{option}{}", "#".repeat(len - option.len()));
    let file = ConfigFile::new(&filled(1 << 20));
    assert_eq!(nsqd(&[&file.flag()]).max_rdy_count, 7);
    let file = ConfigFile::new(&filled((1 << 20) + 1));
    let path = file.path();
    let line = format!("1: failed to load config file {path} - it is larger than 1 MiB");
    assert_eq!(refusal(&[&file.flag()]), line);
    let file = ConfigFile::new("");
    fs::write(file.path(), b"\xff\xfea\0").unwrap();
    let line = format!("1: failed to load config file {} - it is not UTF-8", file.path());
    assert_eq!(refusal(&[&file.flag()]), line);
}

#[test]
fn keys_that_are_none_are_named_with_the_nearest() {
    let file = ConfigFile::new(
        "mem_queue_sise = 5\nmax-rdy-count = 5\nnode_id = 5\nLOG_LEVEL = \"warn\"\nfrobnicate = 1\n\
         config = \"x\"\n[nsqd]\nmax_rdy_count = 5\n",
    );
    let (options, mut warnings) = run_with(&[&file.flag()]);
    assert_eq!(options, NsqdOptions { config: file.path().into(), ..NsqdOptions::default() });
    warnings.sort();
    let expected = [
        "the section [nsqd] is ignored, options belong at the top",
        "config is a flag only and ignored here",
        "unknown key LOG_LEVEL is ignored; did you mean log_level?",
        "unknown key frobnicate is ignored",
        "unknown key max-rdy-count is ignored; did you mean max_rdy_count?",
        "unknown key mem_queue_sise is ignored; did you mean mem_queue_size?",
        "unknown key node_id is ignored; did you mean id?",
    ];
    let mut expected = expected.map(|text| format!("{}: {text}", file.path()));
    expected.sort();
    assert_eq!(warnings, expected);
}

/// The keys that the reference's example files have, in the forms that they have them in.
#[test]
fn the_keys_of_the_references_examples() {
    let file = ConfigFile::new(
        "log_level = \"debug\"\nid = 7\ntcp_address = \"0.0.0.0:5150\"\nhttp_address = \"0.0.0.0:5151\"\n\
         https_address = \"0.0.0.0:4152\"\nbroadcast_address = \"nsqd.example\"\n\
         nsqlookupd_tcp_addresses = [\n    \"10.0.0.1:4160\",\n    \"10.0.0.2:4160\"\n]\n\
         http_client_connect_timeout = \"3s\"\nhttp_client_request_timeout = \"6s\"\ndata_path = \"/data\"\n\
         mem_queue_size = 20000\nmax_bytes_per_file = 104857600\nsync_every = 2500\nsync_timeout = \"2s\"\n\
         msg_timeout = \"90s\"\nmax_msg_timeout = \"20m\"\nmax_msg_size = 1000000\nmax_req_timeout = \"2h\"\n\
         max_body_size = 5000000\nmax_heartbeat_interval = \"50s\"\nmax_rdy_count = 2000\n\
         max_output_buffer_size = 60000\nmax_output_buffer_timeout = \"1s\"\nstatsd_address = \"\"\n\
         statsd_prefix = \"nsq.%s\"\nstatsd_interval = \"60s\"\nstatsd_mem_stats = true\n\
         statsd_udp_packet_size = 508\ne2e_processing_latency_percentiles = [\n    1.0,\n    0.95\n]\n\
         e2e_processing_latency_window_time = \"10m\"\ntls_cert = \"\"\ntls_key = \"\"\n\
         tls_client_auth_policy = \"\"\ntls_root_ca_file = \"\"\ntls_required = false\n\
         tls_min_version = \"\"\ndeflate = true\nmax_deflate_level = 5\nsnappy = false\n",
    );
    let (options, warnings) = run_with(&[&file.flag()]);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(options.nsqlookupd_tcp_addresses, ["10.0.0.1:4160", "10.0.0.2:4160"]);
    assert_eq!((options.id, options.mem_queue_size, options.max_deflate_level), (7, 20_000, 5));
    assert_eq!(options.max_output_buffer_timeout, Duration::from_secs(1));
    assert_eq!(options.e2e_processing_latency_percentiles, [1.0, 0.95]);
    assert!(options.deflate && !options.snappy);

    let file = ConfigFile::new(
        "log_level = \"warn\"\ntcp_address = \"0.0.0.0:5160\"\nhttp_address = \"0.0.0.0:5161\"\n\
         broadcast_address = \"lookup.example\"\ninactive_producer_timeout = \"250s\"\n\
         tombstone_lifetime = \"40s\"\n",
    );
    let request = request::<NsqlookupdOptions>(&[&file.flag()]);
    let Ok(Request::Run(options, warnings)) = request else { panic!("{request:?}") };
    assert_eq!((options.tombstone_lifetime, warnings), (Duration::from_secs(40), vec![]));
}

#[test]
fn nsqlookupd_has_the_same_rules() {
    let file = ConfigFile::new("broadcast_address = \"from.file\"\ntombstone_lifetime = \"10m\"\n");
    let request = request(&[&file.flag(), "-tombstone-lifetime", "1s"]);
    let Ok(Request::Run(options, warnings)) = request else { panic!("{request:?}") };
    let options: NsqlookupdOptions = options;
    assert_eq!(options.broadcast_address, "from.file");
    assert_eq!(options.tombstone_lifetime, Duration::from_secs(1));
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn both_servers_find_each_other() {
    for (args, lookupd) in [
        (&[][..], &["127.0.0.1:4160"][..]),
        (&["--nsqlookupd-tcp-address=:5"], &["127.0.0.1:5"]),
        (&["--nsqlookupd-tcp-address=[::]:5"], &["127.0.0.1:5"]),
        (&["--nsqlookupd-tcp-address=h:5"], &["h:5"]),
        (&["--nsqlookupd-tcp-address=127.0.0.1:0"], &[]),
        (&["--lookupd-tcp-address=a:1"], &["a:1"]),
    ] {
        let Ok(Request::Run(options, _)) = request::<BothOptions>(args) else { panic!("{args:?}") };
        assert_eq!(options.nsqd.data_path, "./data");
        let (options, _) = options.split();
        assert_eq!(options.nsqlookupd_tcp_addresses, lookupd, "{args:?}");
    }
}

#[test]
fn both_servers_together_listen_on_this_host_unless_they_are_told_otherwise() {
    let settled = |args: &[&str]| {
        let Ok(Request::Run(options, _)) = request::<BothOptions>(args) else {
            panic!("{args:?}");
        };
        options.split()
    };
    let (nsqd, nsqlookupd) = settled(&[]);
    let addresses = [nsqd.tcp_address, nsqd.http_address, nsqd.https_address];
    assert_eq!(addresses, ["127.0.0.1:4150", "127.0.0.1:4151", "127.0.0.1:4152"]);
    let addresses = [nsqlookupd.tcp_address, nsqlookupd.http_address];
    assert_eq!(addresses, ["127.0.0.1:4160", "127.0.0.1:4161"]);
    assert_eq!(nsqd.nsqlookupd_tcp_addresses, ["127.0.0.1:4160"]);
    assert_eq!(
        (&*nsqd.broadcast_address, &*nsqlookupd.broadcast_address),
        ("127.0.0.1", "127.0.0.1")
    );

    let (nsqd, nsqlookupd) = settled(&["--tcp-address=:4150"]);
    assert_eq!(
        (nsqd.broadcast_address, &*nsqlookupd.broadcast_address),
        (host_name(), "127.0.0.1")
    );
    let (nsqd, _) = settled(&["--broadcast-address=nsqd.example"]);
    assert_eq!(nsqd.broadcast_address, "nsqd.example");

    let Ok(Request::Help(page)) = request::<BothOptions>(&["--help"]) else { panic!("no help") };
    let page = words(&page);
    assert!(
        page.contains("[default: 127.0.0.1:4150]") && page.contains("127.0.0.1 only"),
        "{page}"
    );
    // Alone they are NSQ's.
    assert_eq!(NsqdOptions::default().tcp_address, "0.0.0.0:4150");
    assert_eq!(NsqlookupdOptions::default().tcp_address, "0.0.0.0:4160");
}
