use super::super::LookupdConfig;
use super::*;
use alloc::string::{String, ToString};
use bytes::{Bytes, BytesMut};

struct Harness {
    lookupd: Lookupd,
    now: Now,
    out: LookupdActions,
}

impl Harness {
    fn new() -> Self {
        Self {
            lookupd: Lookupd::new(LookupdConfig::default()),
            now: Now::from_millis(1_700_000_000_000),
            out: LookupdActions::default(),
        }
    }

    fn ask(&mut self, method: &str, uri: &str) -> (u16, String) {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(p, q)| (p, Some(q)));
        let request = HttpRequest { method, path, query, body: &Bytes::new() };
        let answer = self.lookupd.handle_http(&request, self.now, &mut self.out);
        let LookupdReply::Reply(reply) = answer else { panic!("{answer:?}") };
        assert!(self.out.transmit.is_empty() && self.out.close.is_empty());
        assert_eq!(reply.header("X-NSQ-Content-Type").is_some(), path != "/ping");
        let body = core::str::from_utf8(&reply.body).unwrap().to_string();
        let is_json = reply.header("Content-Type") == Some("application/json; charset=utf-8");
        assert_eq!(is_json, body.starts_with('{'));
        (reply.status, body)
    }

    fn get(&mut self, uri: &str) -> String {
        let (status, body) = self.ask("GET", uri);
        assert_eq!(status, 200, "{uri}");
        body
    }

    fn post(&mut self, uri: &str) {
        assert_eq!(self.ask("POST", uri), (200, String::new()), "{uri}");
    }

    fn refused(&mut self, method: &str, uri: &str, status: u16, message: &str) {
        let body = alloc::format!("{{\"message\":\"{message}\"}}");
        assert_eq!(self.ask(method, uri), (status, body), "{method} {uri}");
    }

    fn nsqd(&mut self, port: u16, identify: &str, then: &str) {
        let remote = SocketAddr::from(([127, 0, 0, 1], port));
        let conn = self.lookupd.accept(remote, self.now, &mut self.out);
        let mut wire = b"  V1IDENTIFY\n".to_vec();
        wire.extend_from_slice(&(identify.len() as u32).to_be_bytes());
        wire.extend_from_slice(&[identify.as_bytes(), then.as_bytes()].concat());
        let mut input = BytesMut::from(&wire[..]);
        self.lookupd.handle_input(conn, &mut input, self.now, &mut self.out);
        assert!(self.out.close.is_empty());
        self.out.clear();
    }
}

const N1: &str = r#"{"broadcast_address":"n1","hostname":"h<1>","tcp_port":4150,"http_port":4151,"version":"1.3.0","topology_zone":"z"}"#;
const N1_SHOWN: &str = r#""remote_address":"127.0.0.1:9","hostname":"h\u003c1\u003e","broadcast_address":"n1","tcp_port":4150,"http_port":4151,"version":"1.3.0","topology_zone":"z","topology_region":"""#;

#[test]
fn nothing_is_known_at_first() {
    let mut w = Harness::new();
    assert_eq!(w.get("/ping"), "OK");
    assert!(w.get("/info").starts_with("{\"version\":\"1.3.0\",\"sansq_version\":\""));
    assert_eq!(w.get("/topics"), "{\"topics\":[]}");
    assert_eq!(w.get("/channels?topic=none"), "{\"channels\":[]}");
    assert_eq!(w.get("/nodes"), "{\"producers\":[]}");
    assert_eq!(w.get("/debug"), "{}");
    w.refused("GET", "/lookup?topic=none", 404, "TOPIC_NOT_FOUND");
    w.refused("GET", "/nope", 404, "NOT_FOUND");
    w.refused("GET", "/topic/create?topic=t", 405, "METHOD_NOT_ALLOWED");
}

#[test]
fn arguments_are_judged_in_order() {
    let mut w = Harness::new();
    w.post("/topic/create?topic=t");
    for (uri, message) in [
        ("/lookup", "MISSING_ARG_TOPIC"),
        ("/lookup?topic=%zz", "INVALID_REQUEST"),
        ("/channels", "MISSING_ARG_TOPIC"),
        ("/channels?a;b", "INVALID_REQUEST"),
    ] {
        w.refused("GET", uri, 400, message);
    }
    for uri in ["/lookup?topic=", "/lookup?topic=*", "/lookup?topic=a+b"] {
        w.refused("GET", uri, 404, "TOPIC_NOT_FOUND");
    }
    assert_eq!(w.get("/channels?topic=*"), "{\"channels\":[]}");
    // These look at no query.
    assert_eq!(w.get("/topics?%zz"), "{\"topics\":[\"t\"]}");
    for (uri, message) in [
        ("/topic/create", "MISSING_ARG_TOPIC"),
        ("/topic/create?topic=", "INVALID_ARG_TOPIC"),
        ("/topic/create?topic=%zz", "INVALID_REQUEST"),
        ("/topic/delete", "MISSING_ARG_TOPIC"),
        ("/topic/delete?topic=*", "INVALID_ARG_TOPIC"),
        ("/topic/tombstone?node=n:1", "MISSING_ARG_TOPIC"),
        ("/topic/tombstone?topic=t", "MISSING_ARG_NODE"),
        ("/topic/tombstone?topic=t&node=n:1&tcp_port=x", "INVALID_ARG_TCP_PORT"),
    ] {
        w.refused("POST", uri, 400, message);
    }
    for call in ["/channel/create", "/channel/delete"] {
        for (query, message) in [
            ("", "MISSING_ARG_TOPIC"),
            ("?channel=c", "MISSING_ARG_TOPIC"),
            ("?topic=t!", "INVALID_ARG_TOPIC"),
            ("?topic=t", "MISSING_ARG_CHANNEL"),
            ("?topic=t&channel=*", "INVALID_ARG_CHANNEL"),
            ("?topic=t&channel=c;", "INVALID_REQUEST"),
        ] {
            w.refused("POST", &[call, query].concat(), 400, message);
        }
    }
    w.refused("POST", "/channel/delete?topic=t&channel=c", 404, "CHANNEL_NOT_FOUND");
    w.refused("POST", "/channel/delete?topic=none&channel=c", 404, "CHANNEL_NOT_FOUND");
    w.post("/topic/delete?topic=none");
    w.post("/topic/delete?topic=a$b");
    assert_eq!(w.get("/topics"), "{\"topics\":[\"t\"]}");
}

#[test]
fn made_and_deleted() {
    let mut w = Harness::new();
    w.post("/channel/create?topic=t%2Dx&channel=d&topic=second");
    w.post("/channel/create?topic=t-x&channel=c");
    w.post("/topic/create?topic=a");
    assert_eq!(w.get("/topics"), "{\"topics\":[\"a\",\"t-x\"]}");
    assert_eq!(w.get("/lookup?topic=t-x"), "{\"channels\":[\"c\",\"d\"],\"producers\":[]}");
    w.post("/channel/delete?topic=t-x&channel=c");
    assert_eq!(w.get("/channels?topic=t-x"), "{\"channels\":[\"d\"]}");
    w.post("/topic/delete?topic=t-x");
    assert_eq!(w.get("/topics"), "{\"topics\":[\"a\"]}");
    let log: Vec<String> = w.out.events.iter().map(ToString::to_string).collect();
    assert_eq!(
        log,
        [
            "DB: adding channel(d) in topic(t-x)",
            "DB: adding topic(t-x)",
            "DB: adding channel(c) in topic(t-x)",
            "DB: adding topic(t-x)",
            "DB: adding topic(a)",
            "DB: removing channel(c) from topic(t-x)",
            "DB: removing channel(d) from topic(t-x)",
            "DB: removing topic(t-x)",
        ]
    );
}

#[test]
fn producers_are_shown_key_by_key() {
    let mut w = Harness::new();
    w.nsqd(9, N1, "REGISTER t c\nREGISTER u\n");
    assert_eq!(
        w.get("/lookup?topic=t"),
        ["{\"channels\":[\"c\"],\"producers\":[{", N1_SHOWN, "}]}"].concat()
    );
    w.post("/topic/tombstone?topic=t&node=n1%3a4151");
    assert_eq!(w.get("/lookup?topic=t"), "{\"channels\":[\"c\"],\"producers\":[]}");
    assert_eq!(
        w.get("/nodes"),
        ["{\"producers\":[{", N1_SHOWN, ",\"tombstones\":[true,false],\"topics\":[\"t\",\"u\"]}]}"]
            .concat()
    );
}

#[test]
fn debug_shows_everything_that_has_producers() {
    let mut w = Harness::new();
    w.post("/topic/create?topic=empty");
    w.nsqd(9, N1, "REGISTER t c\n");
    w.post("/topic/tombstone?topic=t&node=n1:4151");
    w.now = w.now.after(core::time::Duration::from_secs(100));
    let shown = |tombstone: &str| {
        [
            r#"[{"broadcast_address":"n1","hostname":"h\u003c1\u003e","http_port":4151,"id":"127.0.0.1:9","last_update":1700000000000000000,"tcp_port":4150,"#,
            tombstone,
            r#","topology_region":"","topology_zone":"z","version":"1.3.0"}]"#,
        ]
        .concat()
    };
    let never = shown("\"tombstoned\":false,\"tombstoned_at\":-6795364578871345152");
    let once = shown("\"tombstoned\":true,\"tombstoned_at\":1700000000000000000");
    assert_eq!(
        w.get("/debug"),
        alloc::format!("{{\"channel:t:c\":{never},\"client::\":{never},\"topic:t:\":{once}}}")
    );
}

#[test]
fn metrics_count_what_there_is() {
    let mut world = Harness::new();
    let request = HttpRequest { method: "GET", path: "/metrics", query: None, body: &Bytes::new() };
    world.ask("POST", "/channel/create?topic=t&channel=c");
    world.ask("GET", "/lookup?topic=t");
    world.ask("GET", "/lookup");
    let answer = world.lookupd.handle_http(&request, world.now, &mut world.out);
    let LookupdReply::Metrics(stats) = answer else { panic!("{answer:?}") };
    assert_eq!((stats.topics, stats.channels, stats.producers), (1, 1, 0));
    assert_eq!((stats.counters.lookups, stats.counters.other_requests), (2, 2));
}
