//! What nsqadmin asks of both servers, call by call, and every key that it reads in the answers
//! (http-and-ops.md section 9.3). A key that is missing or of another type ends nsqadmin or a page
//! of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;

use crate::process::{Process, sansq};

/// What a value has to be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Bool,
    Int,
    List,
    /// nsqadmin reads null as an empty list.
    ListOrNull,
    Object,
    Text,
}

use Kind::{Bool, Int, List, ListOrNull, Object, Text};

impl Kind {
    fn fits(self, value: &Value) -> bool {
        match self {
            Bool => value.is_boolean(),
            Int => value.is_i64() || value.is_u64(),
            List => value.is_array(),
            ListOrNull => value.is_array() || value.is_null(),
            Object => value.is_object(),
            Text => value.is_string(),
        }
    }
}

type Keys = &'static [(&'static str, Kind)];

const PRODUCER: Keys = &[
    ("remote_address", Text),
    ("hostname", Text),
    ("broadcast_address", Text),
    ("tcp_port", Int),
    ("http_port", Int),
    ("version", Text),
    ("topology_zone", Text),
    ("topology_region", Text),
];

const NODE: Keys = &[("tombstones", List), ("topics", List)];

const INFO: Keys = &[
    ("version", Text),
    ("broadcast_address", Text),
    ("hostname", Text),
    ("http_port", Int),
    ("tcp_port", Int),
    ("topology_zone", Text),
    ("topology_region", Text),
];

const TOPIC: Keys = &[
    ("topic_name", Text),
    ("depth", Int),
    ("backend_depth", Int),
    ("message_count", Int),
    ("channels", List),
    ("paused", Bool),
    ("e2e_processing_latency", Object),
];

const CHANNEL: Keys = &[
    ("channel_name", Text),
    ("depth", Int),
    ("backend_depth", Int),
    ("in_flight_count", Int),
    ("deferred_count", Int),
    ("requeue_count", Int),
    ("timeout_count", Int),
    ("message_count", Int),
    ("client_count", Int),
    ("clients", ListOrNull),
    ("paused", Bool),
    ("e2e_processing_latency", Object),
];

const LATENCY: Keys = &[("count", Int), ("percentiles", ListOrNull)];

const CLIENT: Keys = &[
    ("remote_address", Text),
    ("version", Text),
    ("client_id", Text),
    ("hostname", Text),
    ("user_agent", Text),
    ("connect_ts", Int),
    ("in_flight_count", Int),
    ("ready_count", Int),
    ("finish_count", Int),
    ("requeue_count", Int),
    ("message_count", Int),
    ("sample_rate", Int),
    ("deflate", Bool),
    ("snappy", Bool),
    ("topology_region", Text),
    ("topology_zone", Text),
    ("tls", Bool),
    ("tls_cipher_suite", Text),
    ("tls_version", Text),
    ("tls_negotiated_protocol", Text),
    ("tls_negotiated_protocol_is_mutual", Bool),
];

/// Keys that are left out at times, but are of this type when they are there.
const CLIENT_AT_TIMES: Keys =
    &[("authed", Bool), ("auth_identity", Text), ("auth_identity_url", Text)];

const CHANNEL_AT_TIMES: Keys =
    &[("zone_local_msg_count", Int), ("region_local_msg_count", Int), ("global_msg_count", Int)];

#[derive(Clone, Copy, Debug)]
enum Server {
    Nsqd,
    Nsqlookupd,
}

use Server::{Nsqd, Nsqlookupd};

/// What has to be in an answer: where (`*` for each element, of which there has to be one), and
/// what.
type Expected = &'static [(&'static str, Keys)];

const STATS: Expected = &[
    ("/topics/*", TOPIC),
    ("/topics/*/e2e_processing_latency", LATENCY),
    ("/topics/*/channels/*", CHANNEL),
    ("/topics/*/channels/*/e2e_processing_latency", LATENCY),
];

/// The calls that change nothing: which page makes them, to whom, and what is read.
const READS: [(&str, Server, &str, Expected); 11] = [
    ("topics", Nsqlookupd, "/topics", &[("", &[("topics", List)])]),
    ("inactive topics", Nsqlookupd, "/channels?topic=orders", &[("", &[("channels", List)])]),
    (
        "topic",
        Nsqlookupd,
        "/lookup?topic=orders",
        &[("", &[("producers", List)]), ("/producers/*", PRODUCER)],
    ),
    ("topic", Nsqd, "/stats?format=json&topic=orders&include_clients=false", STATS),
    (
        "channel",
        Nsqd,
        "/stats?format=json&topic=orders&channel=work%23ephemeral",
        &[("/topics/*/channels/*", CHANNEL), ("/topics/*/channels/*/clients/*", CLIENT)],
    ),
    ("nodes", Nsqlookupd, "/nodes", &[("/producers/*", PRODUCER), ("/producers/*", NODE)]),
    ("nodes without nsqlookupd", Nsqd, "/info", &[("", INFO)]),
    ("nodes without nsqlookupd", Nsqd, "/stats?format=json&include_clients=false", STATS),
    ("node", Nsqd, "/stats?format=json", STATS),
    ("node", Nsqd, "/stats?format=json", &[("/topics/*/channels/*/clients/*", CLIENT)]),
    ("counter", Nsqd, "/stats?format=json&include_clients=false", STATS),
];

/// The calls that change something, in an order in which each of them can be carried out.
const WRITES: [(&str, Server, &str); 18] = [
    ("create", Nsqlookupd, "/topic/create?topic=new"),
    ("create", Nsqlookupd, "/channel/create?topic=new&channel=first"),
    ("create", Nsqd, "/channel/create?topic=orders&channel=second"),
    ("pause", Nsqd, "/channel/pause?topic=orders&channel=second"),
    ("unpause", Nsqd, "/channel/unpause?topic=orders&channel=second"),
    ("empty", Nsqd, "/channel/empty?topic=orders&channel=second"),
    ("pause", Nsqd, "/topic/pause?topic=orders"),
    ("unpause", Nsqd, "/topic/unpause?topic=orders"),
    ("empty", Nsqd, "/topic/empty?topic=orders"),
    ("delete", Nsqlookupd, "/channel/delete?topic=orders&channel=second"),
    ("delete", Nsqd, "/channel/delete?topic=orders&channel=second"),
    ("delete", Nsqlookupd, "/channel/delete?topic=orders&channel=work%23ephemeral"),
    ("tombstone", Nsqlookupd, "/topic/tombstone?topic=orders&node=127.0.0.1%3A4151"),
    ("tombstone", Nsqd, "/topic/delete?topic=other"),
    ("delete", Nsqlookupd, "/topic/delete?topic=other"),
    ("delete", Nsqlookupd, "/topic/delete?topic=orders"),
    ("delete", Nsqd, "/topic/delete?topic=orders"),
    ("delete", Nsqlookupd, "/topic/delete?topic=new"),
];

/// Both servers on free ports.
struct Servers {
    process: Process,
    tcp: String,
    nsqd: String,
    nsqlookupd: String,
    agent: ureq::Agent,
}

impl Servers {
    fn start(data_path: &Path) -> Self {
        let mut command = sansq();
        for flag in ["tcp", "http", "nsqlookupd-tcp", "nsqlookupd-http"] {
            command.arg(format!("--{flag}-address=127.0.0.1:0"));
        }
        command.args(["--broadcast-address=127.0.0.1", "--shards=2"]);
        command.arg(format!("--data-path={}", data_path.display()));
        let mut process = Process::spawn(&mut command);
        // nsqlookupd comes first.
        let nsqlookupd = process.address("HTTP: listening on ");
        let tcp = process.address("TCP: listening on ");
        let nsqd = process.address("HTTP: listening on ");
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { process, tcp, nsqd, nsqlookupd, agent }
    }

    fn url(&self, server: Server, call: &str) -> String {
        let address = match server {
            Nsqd => &self.nsqd,
            Nsqlookupd => &self.nsqlookupd,
        };
        format!("http://{address}{call}")
    }

    /// As nsqadmin asks: with this header, and anything but 200 is an error.
    fn get(&self, server: Server, call: &str) -> Value {
        let request = self.agent.get(self.url(server, call));
        let request = request.header("Accept", "application/vnd.nsq; version=1.0");
        let mut answer = request.call().expect("it answers");
        assert_eq!(answer.status(), 200, "{call}");
        let header = |name| answer.headers().get(name).map(|value| value.to_str().expect("a text"));
        assert_eq!(header("X-NSQ-Content-Type"), Some("nsq; version=1.0"), "{call}");
        assert_eq!(header("Content-Type"), Some("application/json; charset=utf-8"), "{call}");
        let body = answer.body_mut().read_to_string().expect("a text");
        body.parse().expect("JSON")
    }

    fn post(&self, server: Server, call: &str, body: &str) -> (u16, String) {
        let request = self.agent.post(self.url(server, call));
        let request = request.header("Accept", "application/vnd.nsq; version=1.0");
        let mut answer = request.send(body).expect("it answers");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("a text"))
    }
}

/// The values at `path`.
fn at<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    path.split('/').skip(1).fold(vec![value], |values, step| {
        values
            .into_iter()
            .flat_map(|value| match step {
                "*" => value.as_array().map_or_else(Vec::new, |list| list.iter().collect()),
                key => value.get(key).into_iter().collect(),
            })
            .collect()
    })
}

fn check(page: &str, call: &str, answer: &Value, expected: Expected) {
    for (path, keys) in expected {
        let objects = at(answer, path);
        assert!(!objects.is_empty(), "{page}: {call} has no {path}: {answer:#}");
        for object in objects {
            for (key, kind) in *keys {
                let fits = object.get(key).is_some_and(|value| kind.fits(value));
                assert!(fits, "{page}: {call} at {path}: {key} is not {kind:?}: {object:#}");
            }
            for (key, kind) in CLIENT_AT_TIMES.iter().chain(CHANNEL_AT_TIMES) {
                let fits = object.get(key).is_none_or(|value| kind.fits(value));
                assert!(fits, "{page}: {call} at {path}: {key} is not {kind:?}: {object:#}");
            }
        }
    }
}

/// A consumer with a message in flight.
fn consume(address: &str, topic: &str, channel: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("it listens");
    let identify = r#"{"client_id":"id","hostname":"host","user_agent":"agent/1"}"#;
    let mut commands = b"  V2IDENTIFY\n".to_vec();
    commands.extend((identify.len() as u32).to_be_bytes());
    commands.extend(format!("{identify}SUB {topic} {channel}\nRDY 1\n").as_bytes());
    socket.write_all(&commands).expect("it reads");
    // Two answers OK, then a message.
    for _ in 0..3 {
        let mut size = [0; 4];
        socket.read_exact(&mut size).expect("it answers");
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        socket.read_exact(&mut frame).expect("it answers");
    }
    socket
}

#[test]
fn every_call_of_nsqadmin_is_answered_with_every_key_that_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut servers = Servers::start(folder.path());
    for topic in ["orders", "other"] {
        assert_eq!(servers.post(Nsqd, &format!("/pub?topic={topic}"), "x"), (200, "OK".into()));
    }
    let _consumer = consume(&servers.tcp, "orders", "work#ephemeral");
    let registered = "REGISTER category:channel key:orders subkey:work#ephemeral";
    servers.process.wait_for(registered);

    for (page, server, call, expected) in READS {
        let answer = servers.get(server, call);
        check(page, call, &answer, expected);
    }

    // As long as one another, or nsqadmin ends.
    let nodes = servers.get(Nsqlookupd, "/nodes");
    let node = &nodes["producers"][0];
    assert_eq!(node["topics"], serde_json::json!(["orders", "other"]));
    assert_eq!(node["tombstones"], serde_json::json!([false, false]));
    // The address at which nsqadmin asks nsqd.
    let port: i64 = servers.nsqd.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(
        (&node["broadcast_address"], &node["http_port"]),
        (&"127.0.0.1".into(), &port.into())
    );

    for (action, server, call) in WRITES {
        assert_eq!(servers.post(server, call, ""), (200, String::new()), "{action}: {call}");
    }
    assert_eq!(servers.get(Nsqd, "/stats?format=json")["topics"], serde_json::json!([]));
}
