use core::fmt::Write as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use sansq_core::client::{ConnectionOptions, ConsumerOptions, PoolOptions, ProducerOptions};
use sansq_core::duration::parse_go_duration;

use super::*;

fn plain() -> Config {
    Config { hostname: String::new(), ..Config::default() }
}

/// Name, default, and values that are taken and refused (clients.md part 4). Those of the defaults
/// that are empty are not written.
const TABLE: &[(&str, &str, &[&str], &[&str])] = &[
    ("dial_timeout", "1s", &["1ms", "5", "1h"], &["0", "-1", "x", ""]),
    ("read_timeout", "1m0s", &["100ms", "5m"], &["99ms", "300001", "1"]),
    ("write_timeout", "1s", &["100ms", "5m"], &["99ms", "300001ms"]),
    ("local_addr", "", &["127.0.0.1", "127.0.0.1:0", "::1", "[::1]:0", ""], &["host", "1.2.3.4:5"]),
    ("lookupd_poll_interval", "1m0s", &["10ms", "5m"], &["9ms", "5m1ms"]),
    ("lookupd_poll_jitter", "0.3", &["0", "1", "0.5"], &["-0.1", "1.1", "NaN", "x"]),
    ("lookupd_poll_timeout", "1m0s", &["1ms"], &["0"]),
    ("max_requeue_delay", "15m0s", &["0", "60m"], &["60m1ms"]),
    ("default_requeue_delay", "1m30s", &["0", "60m"], &["60m1ms"]),
    ("backoff_strategy", "exponential", &["exponential", "full_jitter"], &["linear", ""]),
    ("max_backoff_duration", "2m0s", &["0", "60m"], &["60m1ms"]),
    ("backoff_multiplier", "1s", &["0", "60m"], &["60m1ms"]),
    ("max_attempts", "5", &["0", "65535"], &["65536", "-1", "1.5"]),
    ("low_rdy_idle_timeout", "10s", &["1s", "5m"], &["999ms", "5m1ms"]),
    ("low_rdy_timeout", "30s", &["1s", "5m"], &["999ms", "5m1ms"]),
    ("rdy_redistribute_interval", "5s", &["1ms", "5s"], &["999us", "5001"]),
    ("client_id", "", &["me"], &[]),
    ("hostname", "", &["me.example"], &[]),
    ("user_agent", USER_AGENT, &["me/1"], &[]),
    ("topology_region", "", &["r"], &[]),
    ("topology_zone", "", &["z"], &[]),
    ("heartbeat_interval", "30s", &["1ms", "-1", "-1ms"], &["0", "-2", "-1s"]),
    ("sample_rate", "0", &["99"], &["100", "-1"]),
    ("tls_v1", "false", &["true", "1", "t", "F"], &["yes", "2"]),
    ("tls_root_ca_file", "", &["ca.pem", ""], &[]),
    ("tls_insecure_skip_verify", "false", &["true"], &["yes"]),
    ("tls_cert", "", &["cert.pem"], &[]),
    ("tls_key", "", &["key.pem"], &[]),
    ("tls_min_version", "tls1.2", &["ssl3.0", "tls1.0", "tls1.1", "tls1.3"], &["1.2", "tls1.4"]),
    ("deflate", "false", &["true"], &["on"]),
    ("deflate_level", "6", &["1", "9"], &["0", "10"]),
    ("snappy", "false", &["true"], &["on"]),
    ("output_buffer_size", "16384", &["0", "64", "-1"], &["-2", "x"]),
    ("output_buffer_timeout", "250ms", &["0", "25ms", "-1"], &["-2"]),
    ("max_in_flight", "1", &["0", "2500", "4294967295"], &["-1", "4294967296"]),
    ("msg_timeout", "0s", &["0", "1m"], &["-1"]),
    ("max_msg_size", "0", &["1", "2147483647"], &["-1", "2147483648"]),
    ("auth_secret", "", &["hunter2", ""], &[]),
    ("skip_lookupd_authorization", "true", &["false"], &["no"]),
    ("publish_timeout", "30s", &["1ms"], &["0"]),
    ("close_timeout", "30s", &["0", "1h"], &["-1"]),
    ("max_outstanding", "10000", &["1"], &["0", "-1"]),
    ("max_outstanding_bytes", "67108864", &["0"], &["-1"]),
    ("retry", "not_stored", &["never", "always"], &["sometimes"]),
    ("max_body_size", "5242880", &["1", "2147483647"], &["0"]),
    ("linger", "0s", &["0", "2ms", "5ms"], &["5ms1us", "-1"]),
    ("max_req_timeout", "1h0m0s", &["0"], &["-1"]),
    ("handshake_timeout", "30s", &["1ms"], &["0"]),
    ("auto_touch", "false", &["true"], &["maybe"]),
    ("rdy_shares", "equal", &["rate"], &["weighted"]),
    ("backoff_scope", "consumer", &["connection"], &["handler"]),
    ("redial_min", "100ms", &["1ms"], &["0", "999us"]),
    ("redial_max", "30s", &["1ms"], &["0"]),
    ("tls_server_name", "", &["nsqd.example"], &[]),
    ("upgrade_required", "true", &["false"], &["no"]),
];

/// An option as a file would have it.
fn written(config: &Config, name: &str) -> String {
    match serde_json::to_value(config).unwrap().get(name) {
        None => String::new(),
        Some(value) => value.as_str().map_or_else(|| value.to_string(), Into::into),
    }
}

#[test]
fn every_option_its_default_and_its_bounds() {
    let names: Vec<_> = Config::names().collect();
    assert_eq!(names, TABLE.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    for (name, default, good, bad) in TABLE {
        let mut config = plain();
        assert_eq!(written(&config, name), *default, "{name}");
        if !default.is_empty() {
            config.set(name, default).unwrap();
            assert_eq!(config, plain(), "{name}");
        }
        for value in *good {
            config.set(name, value).unwrap();
            config.set(&name.replace('_', "-"), value).unwrap();
        }
        let before = config.clone();
        for value in *bad {
            let error = config.set(name, value).unwrap_err();
            assert_eq!(error.name(), *name);
            let text = error.to_string();
            assert!(text.starts_with(&format!("{name}: {value:?} is not ")), "{text}");
            assert!(config == before, "{name} {value}");
        }
    }
}

/// What files can have is what `set` takes.
#[test]
fn files_have_the_same_options() {
    let mut full = plain();
    for (name, default, good, _) in TABLE {
        // One that differs from the default, so that it is written.
        let value = good.iter().find(|value| !value.is_empty() && *value != default).unwrap();
        full.set(name, value).unwrap();
    }
    let json = serde_json::to_value(&full).unwrap();
    let keys: BTreeSet<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected: BTreeSet<_> = Config::names().filter(|name| *name != "auth_secret").collect();
    assert_eq!(keys, expected);
    // And what is written is read.
    let mut read: Config = serde_json::from_value(json).unwrap();
    assert_eq!(read.auth_secret.take(), None);
    full.auth_secret = None;
    assert_eq!(read, full);
    let read: Config = serde_json::from_value(serde_json::to_value(plain()).unwrap()).unwrap();
    assert_eq!(read, plain());
}

#[test]
fn files_are_read_as_text_is() {
    let read = |json: &str| serde_json::from_str::<Config>(json);
    let config = read(
        r#"{"msg_timeout": 1500, "dial_timeout": "2m", "heartbeat_interval": -1, "retry": "always",
            "output_buffer_size": -1, "auth_secret": "hunter2", "local_addr": "127.0.0.1:0"}"#,
    )
    .unwrap();
    assert_eq!(config.msg_timeout, Duration::from_millis(1500));
    assert_eq!(config.dial_timeout, Duration::from_secs(120));
    assert_eq!((config.heartbeat_interval, config.output_buffer_size), (None, None));
    assert_eq!(config.retry, RetryPolicy::Always);
    assert_eq!(config.auth_secret, Some(Secret::new("hunter2")));
    assert_eq!(config.local_addr, Some([127, 0, 0, 1].into()));
    for (json, what) in [
        (r#"{"max_in_fligth": 1}"#, "unknown field `max_in_fligth`"),
        (r#"{"dial_timeout": "1"#, "EOF"),
        (
            r#"{"dial_timeout": "1x"}"#,
            "\"1x\", expected a duration like 1m30s, or whole milliseconds",
        ),
        (r#"{"dial_timeout": -1}"#, "`-1`, expected a duration"),
        (r#"{"dial_timeout": true}"#, "expected a duration like 1m30s"),
        (r#"{"retry": "x"}"#, "`x`, expected one of `never`, `not_stored`, `always`"),
        (r#"{"sample_rate": -1}"#, "invalid value"),
        (r#"{"tls_config": {}}"#, "unknown field `tls_config`"),
    ] {
        let error = read(json).unwrap_err().to_string();
        assert!(error.contains(what), "{json}: {error}");
    }
    // Bounds are for `check`, and so for whoever uses it.
    let config = read(r#"{"lookupd_poll_jitter": 1.5}"#).unwrap();
    let error = config.pool_options().unwrap_err();
    assert_eq!(error.to_string(), "lookupd_poll_jitter: \"1.5\" is not a number from 0 to 1");
}

#[test]
fn options_that_do_not_go_together() {
    for (values, text) in [
        (
            &[("heartbeat_interval", "60001")][..],
            "heartbeat_interval must not be above read_timeout",
        ),
        (
            &[("snappy", "1"), ("deflate", "1")],
            "snappy must not be asked for together with deflate",
        ),
        (&[("tls_cert", "x")], "tls_cert must come with tls_key"),
        (&[("tls_key", "x")], "tls_key must come with tls_cert"),
        (&[("redial_min", "31s")], "redial_max must be at least redial_min"),
    ] {
        let mut config = plain();
        for (name, value) in values {
            config.set(name, value).unwrap();
        }
        let error = config.check().unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(config.consumer_options().unwrap_err(), error);
        assert_eq!(config.net_config().unwrap_err(), error);
    }
}

#[test]
fn misspelt_names() {
    let mut config = plain();
    for (name, nearest) in [
        ("max-in-fligth", Some("max_in_flight")),
        ("Deflate", Some("deflate")),
        ("auth_secre", Some("auth_secret")),
        ("frobnicate", None),
        ("", None),
    ] {
        let expected = ConfigError::Unknown { name: name.into(), nearest };
        assert_eq!(config.set(name, "x"), Err(expected));
    }
    assert_eq!(config, plain());
}

#[test]
fn the_secret_does_not_show() {
    let mut config = plain();
    config.set("auth_secret", "hunter2").unwrap();
    let mut shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
    let long = "hunter2".repeat(10_000);
    let error = config.set("auth_secret", &long).unwrap_err();
    write!(shown, "{error} {error:?}").unwrap();
    config.auth_secret = Some(Secret::new(long));
    let error = config.check().unwrap_err();
    write!(shown, "{error} {error:?}").unwrap();
    assert!(!shown.contains("hunter2"));
    assert_eq!(error.to_string(), "auth_secret: \"(secret)\" is not a secret of up to 65536 bytes");
}

/// Nothing changes for programs that go from the machines' own defaults to these.
#[test]
fn the_machines_get_their_defaults() {
    assert_eq!(plain().connection_options(), Ok(ConnectionOptions::default()));
    assert_eq!(plain().producer_options(), Ok(ProducerOptions::default()));
    assert_eq!(plain().pool_options(), Ok(PoolOptions::default()));
    assert_eq!(plain().consumer_options(), Ok(ConsumerOptions::default()));
    assert!(!Config::default().connection_options().unwrap().hostname.is_empty());
}

#[test]
fn the_machines_get_what_is_set() {
    let mut config = plain();
    for (name, value) in [
        ("max_msg_size", "2000"),
        ("msg_timeout", "2s"),
        ("deflate", "true"),
        ("deflate_level", "3"),
        ("upgrade_required", "0"),
        ("redial_min", "7ms"),
        ("lookupd_poll_interval", "10s"),
        ("lookupd_poll_jitter", "0.5"),
        ("max_in_flight", "12"),
        ("local_addr", "::1"),
        ("auth_secret", "s"),
        ("skip_lookupd_authorization", "false"),
        ("linger", "2ms"),
    ] {
        config.set(name, value).unwrap();
    }
    let connection = config.connection_options().unwrap();
    assert_eq!(connection.max_frame_size, 4096);
    assert_eq!(connection.msg_timeout, parse_go_duration("2s").ok());
    assert_eq!((connection.upgrades.deflate, connection.upgrades.required), (Some(3), false));
    assert_eq!(connection.auth_secret, Some(Secret::new("s")));
    let pool = config.pool_options().unwrap();
    assert_eq!(pool.producer.max_msg_size, 2000);
    assert_eq!(pool.producer.backoff_min, Duration::from_millis(7));
    assert_eq!(pool.lookupd.poll_jitter, Duration::from_secs(5));
    assert_eq!(pool.producer.check(), Ok(()));
    assert!(!pool.lookupd_authorization);
    assert_eq!(pool.producer.linger, Duration::from_millis(2));
    let consumer = config.consumer_options().unwrap();
    assert_eq!((consumer.max_in_flight, consumer.lookupd_poll_jitter_percent), (12, 50));
    assert!(!consumer.lookupd_authorization);
    assert_eq!(consumer.redial_min, Duration::from_millis(7));
    // Without heartbeats a producer lives, and a consumer does not.
    let mut silent = config.clone();
    silent.set("heartbeat_interval", "-1").unwrap();
    assert!(silent.pool_options().is_ok());
    let error = silent.consumer_options().unwrap_err();
    assert_eq!(error.to_string(), "heartbeat_interval must not be off for a consumer");
    let net = config.net_config().unwrap();
    assert_eq!(net.local_address.map(|ip| ip.to_string()).as_deref(), Some("::1"));
    assert!(net.http_tls.is_none());
}

#[test]
fn files_of_tls() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(vec!["nsqd.example".into()]).unwrap();
    fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(path("empty.pem"), "").unwrap();
    let mut good = plain();
    for (name, value) in [
        ("tls_v1", "true"),
        ("tls_root_ca_file", &path("cert.pem")),
        ("tls_cert", &path("cert.pem")),
        ("tls_key", &path("key.pem")),
        ("tls_server_name", "other.example"),
    ] {
        good.set(name, value).unwrap();
    }
    let upgrades = good.connection_options().unwrap().upgrades;
    assert!(upgrades.tls.is_some() && upgrades.required);
    assert_eq!(upgrades.tls_server_name.as_deref(), Some("other.example"));
    assert!(good.net_config().unwrap().http_tls.is_some());

    for name in ["tls_root_ca_file", "tls_cert", "tls_key"] {
        for file in ["empty.pem", "missing.pem"] {
            let mut bad = good.clone();
            bad.set(name, &path(file)).unwrap();
            let error = bad.connection_options().unwrap_err();
            assert!(matches!(error, ConfigError::File { .. }));
            let text = error.to_string();
            assert!(text.starts_with(&format!("{name}: {}: ", path(file))), "{text}");
            assert_eq!(bad.check(), Ok(()));
            // No file is looked at that is not needed.
            bad.tls_v1 = false;
            assert!(bad.connection_options().unwrap().upgrades.tls.is_none());
            // What is there already is taken.
            bad.tls_v1 = true;
            bad.tls_config = upgrades.tls.clone();
            assert_eq!(bad.connection_options().unwrap().upgrades.tls, upgrades.tls);
        }
    }
}

/// The guide lists every option with its default.
#[test]
fn the_guide_knows_all_options() {
    let guide = include_str!("../../../../docs/CLIENTS.md");
    let mut listed = BTreeMap::new();
    for row in guide.lines() {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        if let [_, names, default, _, _, _] = cells[..] {
            listed.extend(names.split('`').skip(1).step_by(2).map(|name| (name, default)));
        }
    }
    for (name, default, ..) in TABLE {
        match *name {
            // Different on every machine, and in every version.
            "hostname" | "user_agent" => assert!(listed.contains_key(name), "{name}"),
            _ => assert_eq!(listed.get(name), Some(default), "{name}"),
        }
    }
}

/// What is said to be right, for every sort of option.
#[test]
fn errors_say_what_would_be_right() {
    for (name, value, expected) in [
        ("dial_timeout", "x", "a duration of at least 1ms"),
        ("read_timeout", "x", "a duration from 100ms to 5m0s"),
        ("msg_timeout", "x", "a duration like 1m30s, or whole milliseconds"),
        ("heartbeat_interval", "0", "a duration of at least 1ms, or -1"),
        ("local_addr", "x", "an IP address, with port 0 or without a port"),
        ("lookupd_poll_jitter", "x", "a number from 0 to 1"),
        ("max_attempts", "x", "a whole number from 0 to 65535"),
        ("sample_rate", "100", "a whole number from 0 to 99"),
        ("output_buffer_size", "x", "a number of bytes, or -1"),
        ("tls_v1", "x", "true or false"),
        ("retry", "x", "one of never, not_stored, always"),
        ("tls_min_version", "x", "one of ssl3.0, tls1.0, tls1.1, tls1.2, tls1.3"),
    ] {
        let error = plain().set(name, value).unwrap_err();
        assert_eq!(error.to_string(), format!("{name}: {value:?} is not {expected}"));
    }
}
