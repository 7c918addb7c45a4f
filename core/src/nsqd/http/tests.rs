use super::*;
use crate::nsqd::ids::Peer;
use crate::nsqd::latency::LatencyStats;
use crate::nsqd::publish::NotPublished;
use crate::nsqd::stats::{ChannelStats, TopicStats};
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn config() -> Config {
    Config { max_msg_size: 1000, max_body_size: 4000, ..Config::default() }
}

fn ask_with(method: &str, uri: &str, body: &'static [u8], too_big: bool) -> Parsed {
    let (path, query) = uri.split_once('?').map_or((uri, None), |(p, q)| (p, Some(q)));
    let request = HttpRequest { method, path, query, body: &Bytes::from_static(body) };
    parse(&request, too_big, false, &config())
}

fn ask(method: &str, uri: &str) -> Parsed {
    ask_with(method, uri, b"some body", false)
}

/// Status and text of a reply, whose headers fit them.
#[track_caller]
fn shown(reply: &HttpReply) -> (u16, &str) {
    let body = core::str::from_utf8(&reply.body).unwrap();
    let content_type = match body.bytes().next() {
        None => None,
        Some(b'{') => Some("application/json; charset=utf-8"),
        Some(_) => Some("text/plain; charset=utf-8"),
    };
    assert_eq!(reply.header("Content-Type"), content_type);
    assert_eq!(reply.header("X-NSQ-Content-Type"), Some("nsq; version=1.0"));
    (reply.status, body)
}

#[track_caller]
fn refused(parsed: &Parsed, status: u16, word: &str, is_logged: bool) {
    let Parsed::Reply(reply) = parsed else { panic!("{parsed:?}") };
    assert_eq!(shown(reply), (status, &*format!("{{\"message\":\"{word}\"}}")));
    assert_eq!(reply.is_logged, is_logged);
}

#[track_caller]
fn created(parsed: &Parsed, name: &str, status: u16, body: &str) {
    let Parsed::CreateThenReply(topic, reply) = parsed else { panic!("{parsed:?}") };
    assert_eq!(topic.as_str(), name);
    assert_eq!(shown(reply), (status, body));
    assert!(!reply.is_logged);
}

#[track_caller]
fn published(parsed: &Parsed, name: &str, bodies: &[&str], delay_ms: u64) -> ReplyForm {
    let Parsed::Admin(AdminRequest::Publish { topic, batch, delay }, form) = parsed else {
        panic!("{parsed:?}")
    };
    let got = match batch {
        Batch::One(body) => alloc::vec![&body[..]],
        Batch::Many(bodies) => bodies.iter().collect(),
    };
    let bodies = bodies.iter().map(|body| body.as_bytes()).collect();
    assert_eq!((topic.as_str(), got), (name, bodies));
    assert_eq!(*delay, Duration::from_millis(delay_ms));
    form.clone()
}

/// Asks and has the shards answer `answer`.
#[track_caller]
fn answered(method: &str, uri: &str, answer: AdminReply) -> HttpReply {
    let parsed = ask(method, uri);
    let Parsed::Admin(_, form) = parsed else { panic!("{parsed:?}") };
    reply(answer, &form, &context())
}

fn context() -> Context {
    Context {
        now: Now::default().after(Duration::from_secs(1_795_350_550)),
        start_time: 1_795_350_450,
        utc_offset: 0,
        uptime: Duration::from_nanos(93_423_681_072),
        memory: Some(Memory {
            heap_objects: 18_726,
            heap_idle_bytes: 4_423_680,
            ..Memory::default()
        }),
    }
}

#[test]
fn paths_and_methods() {
    refused(&ask("GET", "/nope"), 404, "NOT_FOUND", true);
    for path in ["/config/", "/debug/pprof/heap", "/put", "/mput", "/create_topic"] {
        refused(&ask("GET", path), 404, "NOT_FOUND", true);
        refused(&ask("POST", path), 404, "NOT_FOUND", true);
    }
    for (method, path, allow) in [
        ("GET", "/pub", "OPTIONS, POST"),
        ("HEAD", "/ping", "GET, OPTIONS"),
        ("POST", "/stats", "GET, OPTIONS"),
        ("GET", "/channel/unpause", "OPTIONS, POST"),
        ("GET", "/debug/freememory", "OPTIONS, POST"),
    ] {
        let parsed = ask(method, path);
        refused(&parsed, 405, "METHOD_NOT_ALLOWED", true);
        let Parsed::Reply(reply) = parsed else { unreachable!() };
        assert_eq!(reply.header("Allow"), Some(allow));
    }
    let Parsed::Reply(reply) = ask("POST", "/pub/?topic=t") else { panic!() };
    assert_eq!((reply.status, reply.header("Location")), (308, Some("/pub?topic=t")));
    assert_eq!(ask("GET", "/ping"), Parsed::Admin(AdminRequest::Ping, ReplyForm(Form::Other)));
    assert_eq!(ask("POST", "/debug/freememory"), Parsed::FreeMemory);
    assert_eq!(ask("GET", "/info?%zz"), Parsed::Admin(AdminRequest::Info, ReplyForm(Form::Other)));
}

#[test]
fn options_are_shown_and_changed() {
    let show = OptionRequest::Show("log_level".into());
    assert_eq!(ask("GET", "/config/log_level"), Parsed::Option(show));
    let set = OptionRequest::SetLogLevel(crate::log::Level::Debug);
    assert_eq!(ask_with("PUT", "/config/log_level", b"debug", false), Parsed::Option(set));
    const LONG: &[u8] = &[b'x'; 1001];
    for (body, too_big, status, word) in [
        (&b"x"[..], false, 400, "INVALID_OPTION"),
        (b"", false, 413, "INVALID_VALUE"),
        (b"x", true, 413, "INVALID_VALUE"),
        (LONG, false, 413, "INVALID_VALUE"),
    ] {
        refused(&ask_with("PUT", "/config/id", body, too_big), status, word, true);
    }
    assert_eq!(body_limit("PUT", "/config/id", &config()), 1000);
}

#[test]
fn bodies_have_limits() {
    let config = config();
    let limit = |method, path| body_limit(method, path, &config);
    assert_eq!(limit("POST", "/pub"), 1000);
    assert_eq!(limit("POST", "/%70ub"), 1000);
    assert_eq!(limit("POST", "/mpub"), 4000);
    for (method, path) in [
        ("GET", "/pub"),
        ("GET", "/stats"),
        ("POST", "/topic/create"),
        ("POST", "/nope"),
        ("POST", "%zz"),
    ] {
        assert_eq!(limit(method, path), IGNORED_BODY_LEN_MAX, "{method} {path}");
    }
    // More than the limit is no error where the body means nothing.
    let parsed = ask_with("POST", "/topic/create?topic=t", b"", true);
    assert!(matches!(parsed, Parsed::Admin(AdminRequest::Topic(..), _)), "{parsed:?}");
}

#[test]
fn pub_checks_in_order() {
    static LARGE: [u8; 1001] = [b'x'; 1001];
    let publish = |uri: &str, body| ask_with("POST", uri, body, false);
    // Each request has the faults of all rows below it as well.
    refused(&ask_with("POST", "/pub?%zz", b"", true), 413, "MSG_TOO_BIG", false);
    refused(&publish("/pub?%zz", &LARGE), 413, "MSG_TOO_BIG", false);
    refused(&publish("/pub?%zz", b""), 400, "MSG_EMPTY", false);
    refused(&publish("/pub?defer=x;", b"x"), 400, "INVALID_REQUEST", false);
    refused(&publish("/pub?defer=x", b"x"), 400, "MISSING_ARG_TOPIC", false);
    refused(&publish("/pub", b"x"), 400, "MISSING_ARG_TOPIC", false);
    refused(&publish("/pub?Topic=t", b"x"), 400, "MISSING_ARG_TOPIC", false);
    for name in ["", "=", "=a+b", "=t%23x", "=%23ephemeral"] {
        let uri = ["/pub?defer=x&topic", name].concat();
        refused(&publish(&uri, b"x"), 400, "INVALID_TOPIC", false);
    }
    for defer in [
        "",
        "abc",
        "1.5",
        "-1",
        "%2B",
        "+5",
        "3600001",
        "18446744073710",
        "9223372036854775807",
        "9223372036854775808",
        "99999999999999999999",
        "1_000",
        "0x10",
    ] {
        let parsed = publish(&["/pub?topic=t&defer=", defer].concat(), b"x");
        created(&parsed, "t", 400, "{\"message\":\"INVALID_DEFER\"}");
    }
    for (defer, millis) in
        [("0", 0), ("-0", 0), ("%2B5", 5), ("007", 7), ("100&defer=x", 100), ("3600000", 3_600_000)]
    {
        let parsed = publish(&["/pub?topic=t&defer=", defer].concat(), b"x");
        published(&parsed, "t", &["x"], millis);
    }
    let parsed = publish("/pub?topic=a%2Eb%23ephemeral&topic=second", &LARGE[1..]);
    let text = core::str::from_utf8(&LARGE[1..]).unwrap();
    let form = published(&parsed, "a.b#ephemeral", &[text], 0);
    let done = reply(AdminReply::Published, &form, &context());
    assert_eq!((shown(&done), done.is_logged), ((200, "OK"), false));
    assert!(form.warning().is_none());
    let no_space = "write /d/t.diskqueue.000000.dat: no space left on device";
    for (why, text) in [
        (NotPublished::Exiting, "EXITING"),
        (NotPublished::Full, "QUEUE_FULL"),
        (NotPublished::Disk(no_space.into()), no_space),
    ] {
        let refused = AdminReply::Refused(AdminError::NotPublished(why));
        let refused = reply(refused, &form, &context());
        let body = format!("{{\"message\":\"{text}\"}}");
        assert_eq!((shown(&refused), refused.is_logged), ((503, body.as_str()), false));
    }
}

#[test]
fn small_messages_are_copied_out_of_the_request() {
    for (len, is_copied) in [(READ_LEN_MAX, true), (READ_LEN_MAX + 1, false)] {
        let body = Bytes::from(vec![b'x'; len]);
        let request =
            HttpRequest { method: "POST", path: "/pub", query: Some("topic=t"), body: &body };
        let parsed = parse(&request, false, false, &Config::default());
        let Parsed::Admin(AdminRequest::Publish { batch: Batch::One(message), .. }, _) = parsed
        else {
            panic!("{parsed:?}")
        };
        assert_eq!((&message, message.as_ptr() != body.as_ptr()), (&body, is_copied));
    }
}

#[test]
fn mpub_checks_in_order() {
    static LARGE: [u8; 4001] = [b'\n'; 4001];
    static LINE: [u8; 1001] = [b'x'; 1001];
    let publish = |uri: &str, body| ask_with("POST", uri, body, false);
    refused(&ask_with("POST", "/mpub?%zz", b"", true), 413, "BODY_TOO_BIG", false);
    refused(&publish("/mpub?%zz", &LARGE), 413, "BODY_TOO_BIG", false);
    refused(&publish("/mpub?a;b", &LINE), 400, "INVALID_REQUEST", false);
    refused(&publish("/mpub?binary=1", b""), 400, "MISSING_ARG_TOPIC", false);
    refused(&publish("/mpub?topic=&binary=1", b""), 400, "INVALID_TOPIC", false);
    created(&publish("/mpub?topic=t", &LINE), "t", 413, "{\"message\":\"MSG_TOO_BIG\"}");
    created(&publish("/mpub?topic=t&binary=1", b"x"), "t", 413, "{\"message\":\"BAD_BODY\"}");
    let short = publish("/mpub?topic=t&binary=1", b"\0\0\0\x01");
    created(&short, "t", 413, "{\"message\":\"BAD_MESSAGE\"}");
    created(&publish("/mpub?topic=t", b""), "t", 200, "OK");
    created(&publish("/mpub?topic=t", &LARGE[1..]), "t", 200, "OK");
    // No delays here.
    published(&publish("/mpub?topic=t&defer=x", b"one\n\ntwo"), "t", &["one", "two"], 0);
}

#[test]
fn mpub_has_two_forms() {
    const BINARY: &[u8] = b"\0\0\0\x02\0\0\0\x02a\n\0\0\0\x01b";
    let publish =
        |query: &str, body| ask_with("POST", &["/mpub?topic=t", query].concat(), body, false);
    for query in ["", "&binary=false", "&binary=0"] {
        let form = published(&publish(query, b"a\nb\n"), "t", &["a", "b"], 0);
        assert_eq!(form.warning(), None);
    }
    for query in ["&binary=true", "&binary=1"] {
        let form = published(&publish(query, BINARY), "t", &["a\n", "b"], 0);
        assert_eq!(form.warning(), None);
        let done = reply(AdminReply::Published, &form, &context());
        assert_eq!((shown(&done), done.is_logged), ((200, "OK"), false));
    }
    for (query, value) in
        [("&binary", ""), ("&binary=", ""), ("&binary=TRUE", "TRUE"), ("&binary=a%0Ab", "a\\nb")]
    {
        let form = published(&publish(query, BINARY), "t", &["a\n", "b"], 0);
        let warning = format!("deprecated value '{value}' used for /mpub binary param");
        assert_eq!(form.warning(), Some(&*warning));
    }
}

#[test]
fn topic_calls() {
    for (path, op) in [
        ("/topic/create", TopicOp::Create),
        ("/topic/delete", TopicOp::Delete),
        ("/topic/empty", TopicOp::Empty),
        ("/topic/pause", TopicOp::Pause),
        ("/topic/unpause", TopicOp::Unpause),
    ] {
        let ask = |query: &str| ask("POST", &[path, query].concat());
        refused(&ask("?topic=t%zz"), 400, "INVALID_REQUEST", true);
        refused(&ask(""), 400, "MISSING_ARG_TOPIC", true);
        for name in ["", "bad!name", &"x".repeat(65)] {
            let parsed = ask(&["?topic=", name].concat());
            if matches!(op, TopicOp::Create | TopicOp::Empty) {
                refused(&parsed, 400, "INVALID_TOPIC", true);
            } else {
                refused(&parsed, 404, "TOPIC_NOT_FOUND", true);
            }
        }
        let request = AdminRequest::Topic(topic("t"), op);
        assert_eq!(ask("?topic=%74"), Parsed::Admin(request, ReplyForm(Form::Other)));
        let uri = [path, "?topic=t"].concat();
        let done = answered("POST", &uri, AdminReply::Done);
        assert_eq!((shown(&done), done.is_logged), ((200, ""), true));
        let unknown = answered("POST", &uri, AdminReply::Refused(AdminError::TopicNotFound));
        assert_eq!(shown(&unknown), (404, "{\"message\":\"TOPIC_NOT_FOUND\"}"));
    }
}

#[test]
fn channel_calls() {
    for (path, op) in [
        ("/channel/create", ChannelOp::Create),
        ("/channel/delete", ChannelOp::Delete),
        ("/channel/empty", ChannelOp::Empty),
        ("/channel/pause", ChannelOp::Pause),
        ("/channel/unpause", ChannelOp::Unpause),
    ] {
        let ask = |query: &str| ask("POST", &[path, query].concat());
        for (query, word) in [
            ("?channel=%zz", "INVALID_REQUEST"),
            ("?channel=c!", "MISSING_ARG_TOPIC"),
            ("?topic=t!", "INVALID_ARG_TOPIC"),
            ("?topic=", "INVALID_ARG_TOPIC"),
            ("?topic=t", "MISSING_ARG_CHANNEL"),
            ("?topic=t&channel", "INVALID_ARG_CHANNEL"),
            ("?topic=t&channel=c!", "INVALID_ARG_CHANNEL"),
        ] {
            refused(&ask(query), 400, word, true);
        }
        let request = AdminRequest::Channel(topic("t"), channel("c#ephemeral"), op);
        let parsed = ask("?topic=t&channel=c%23ephemeral");
        assert_eq!(parsed, Parsed::Admin(request, ReplyForm(Form::Other)));
        let uri = [path, "?topic=t&channel=c"].concat();
        assert_eq!(shown(&answered("POST", &uri, AdminReply::Done)), (200, ""));
        for (error, word) in [
            (AdminError::TopicNotFound, "TOPIC_NOT_FOUND"),
            (AdminError::ChannelNotFound, "CHANNEL_NOT_FOUND"),
        ] {
            let refused = answered("POST", &uri, AdminReply::Refused(error));
            assert_eq!(shown(&refused), (404, &*format!("{{\"message\":\"{word}\"}}")));
            assert!(refused.is_logged);
        }
    }
}

#[test]
fn ping_is_plain() {
    let well = answered("GET", "/ping", AdminReply::Health(Ok(())));
    assert_eq!((well.status, &well.body[..], well.is_logged), (200, &b"OK"[..], true));
    assert!(well.header("X-NSQ-Content-Type").is_none());
    let ill = answered("GET", "/ping", AdminReply::Health(Err("disk full".into())));
    assert_eq!((ill.status, &ill.body[..]), (500, &b"NOK - disk full"[..]));
    assert_eq!(ill.header("Content-Type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn info_member_by_member() {
    let info = Info {
        version: "1.3.0",
        broadcast_address: "nsqd.example".into(),
        hostname: "h\"1".into(),
        http_port: -1,
        tcp_port: 4150,
        start_time: 1_795_350_450,
        max_heartbeat_interval: Duration::from_secs(7),
        max_output_buffer_size: 1000,
        max_output_buffer_timeout: Duration::from_millis(250),
        max_deflate_level: 6,
        topology_zone: "z".into(),
        topology_region: String::new(),
    };
    let shown_info = answered("GET", "/info", AdminReply::Info(Box::new(info)));
    let body = format!(
        "{}{}{}{SANSQ_VERSION}\"}}",
        r#"{"version":"1.3.0","broadcast_address":"nsqd.example","hostname":"h\"1","http_port":-1,"#,
        r#""tcp_port":4150,"start_time":1795350450,"max_heartbeat_interval":7000000000,"max_output_buffer_size":1000,"#,
        r#""max_output_buffer_timeout":250000000,"max_deflate_level":6,"topology_zone":"z","topology_region":"","sansq_version":""#,
    );
    assert_eq!(shown(&shown_info), (200, &*body));
}

#[test]
fn stats_arguments() {
    refused(&ask("GET", "/stats?format=json&topic=%zz"), 400, "INVALID_REQUEST", true);
    let all = StatsFilter { include_clients: true, ..StatsFilter::default() };
    let text = StatsForm { has_memory: true, ..StatsForm::default() };
    let json = StatsForm { is_json: true, ..text };
    let t = Some(topic("t"));
    for (query, filter, form) in [
        ("", all.clone(), text),
        ("?format=JSON", all.clone(), text),
        ("?format=xml&format=json", all.clone(), text),
        ("?format=json&topic=&channel=", all.clone(), json),
        (
            "?include_mem=false&include_clients=0",
            StatsFilter { include_clients: false, ..all.clone() },
            StatsForm { has_memory: false, ..text },
        ),
        ("?include_mem=FALSE&include_clients=", all.clone(), text),
        ("?include_mem=0&include_clients=1", all.clone(), StatsForm { has_memory: false, ..text }),
        ("?include_mem=1&include_clients=true", all.clone(), text),
        ("?topic=t", StatsFilter { topic: t, ..all.clone() }, StatsForm { topic: t, ..text }),
        ("?channel=c", StatsFilter { channel: Some(channel("c")), ..all.clone() }, text),
        (
            "?topic=t!",
            StatsFilter { include_clients: false, ..all.clone() },
            StatsForm { no_topic: true, ..text },
        ),
        (
            "?topic=t&channel=c!",
            StatsFilter { topic: t, ..all },
            StatsForm { topic: t, no_channel: true, ..text },
        ),
    ] {
        let parsed = ask("GET", &["/stats", query].concat());
        let expected = ReplyForm(Form::Stats(form));
        assert_eq!(expected.shows_memory(), form.has_memory);
        assert_eq!(parsed, Parsed::Admin(AdminRequest::Stats(filter), expected), "{query}");
    }
    assert!(!ReplyForm(Form::Other).shows_memory());
}

fn client(name: &str, port: u16, agent: &str) -> ClientStats {
    ClientStats {
        client_id: format!("{name}-id"),
        hostname: name.to_string(),
        user_agent: agent.to_string(),
        peer: Peer::Tcp(([10, 0, 0, 1], port).into()),
        state: 3,
        ready_count: 2,
        in_flight_count: 2,
        message_count: 3,
        finish_count: 1,
        requeue_count: 0,
        connect_ts: 1_795_350_550,
        sample_rate: 17,
        topology_zone: "z".into(),
        topology_region: "r".into(),
        authed: false,
        auth_identity: String::new(),
        auth_identity_url: String::new(),
        pub_counts: Vec::new(),
        deflate: false,
        snappy: false,
        tls: None,
    }
}

fn st1() -> TopicStats {
    let channel = ChannelStats {
        name: channel("chA"),
        depth: 3,
        backend_depth: 1,
        in_flight_count: 2,
        deferred_count: 4,
        message_count: 6,
        zone_local_msg_count: 9,
        region_local_msg_count: 10,
        global_msg_count: 8,
        requeue_count: 5,
        timeout_count: 7,
        client_count: 1,
        idle_client_count: 0,
        ready_client_count: 0,
        clients: Some(vec![client("chost2", 50834, "ua/2")]),
        paused: false,
        latency: LatencyStats::default(),
    };
    TopicStats {
        name: topic("st1"),
        channels: vec![channel],
        depth: 0,
        backend_depth: 0,
        message_count: 6,
        message_bytes: 60,
        paused: false,
        latency: LatencyStats::default(),
    }
}

fn st2() -> TopicStats {
    let channel = ChannelStats {
        name: channel("chP"),
        depth: 0,
        backend_depth: 0,
        in_flight_count: 0,
        deferred_count: 0,
        message_count: 0,
        zone_local_msg_count: 0,
        region_local_msg_count: 0,
        global_msg_count: 0,
        requeue_count: 0,
        timeout_count: 0,
        client_count: 0,
        idle_client_count: 0,
        ready_client_count: 0,
        clients: None,
        paused: true,
        latency: LatencyStats::default(),
    };
    let (name, channels) = (topic("st2"), vec![channel]);
    TopicStats { name, channels, depth: 1, message_count: 1, paused: true, ..st1() }
}

fn producer() -> ClientStats {
    let pub_counts = vec![(topic("other"), 1), (topic("st1"), 5), (topic("st3"), 5)];
    ClientStats { pub_counts, ..client("chost", 50830, "ua/1") }
}

fn sample() -> ServerStats {
    ServerStats {
        refusals: Default::default(),
        refused_registrations: 0,
        topics: vec![st1(), st2()],
        topic_known: true,
        producers: vec![producer()],
        ..ServerStats::default()
    }
}

#[track_caller]
fn stats(query: &str, stats: ServerStats) -> String {
    let uri = ["/stats", query].concat();
    let reply = answered("GET", &uri, AdminReply::Stats(Box::new(stats)));
    assert!(reply.is_logged);
    let (status, body) = shown(&reply);
    assert_eq!(status, 200);
    body.to_string()
}

const HEAD: &str = "\
start_time 2026-11-22T12:27:30Z
uptime 1m33.423681072s

Health: OK
";

#[test]
fn stats_as_text() {
    let memory = "
Memory:
   heap_objects             \t18726
   heap_idle_bytes          \t4423680
   heap_in_use_bytes        \t0
   heap_released_bytes      \t0
   gc_pause_usec_100        \t0
   gc_pause_usec_99         \t0
   gc_pause_usec_95         \t0
   next_gc_bytes            \t0
   gc_total_runs            \t0
";
    // Blanks at the end of a line are the reference's.
    let topics = [
        "",
        "Topics:",
        "   [st1            ] depth: 0     be-depth: 0     msgs: 6        e2e%: ",
        "      [chA                      ] depth: 3     be-depth: 1     inflt: 2    def: 4    re-q: 5     timeout: 7     msgs: 6        e2e%: ",
        "        [V2 chost2:50834 ua/2    ] state: 3 inflt: 2    rdy: 2    fin: 1        re-q: 0        msgs: 3        connected: 0s",
        "",
        "*P [st2            ] depth: 1     be-depth: 0     msgs: 1        e2e%: ",
        "   *P [chP                      ] depth: 0     be-depth: 0     inflt: 0    def: 0    re-q: 0     timeout: 0     msgs: 0        e2e%: ",
        "",
        "Producers:",
        "   [V2 chost:50830 ua/1     ] msgs: 5        topics: st1=5 connected: 0s",
        "",
    ]
    .join("\n");
    let version = format!("nsqd v1.3.0 (built w/sansq-{SANSQ_VERSION})\n");
    assert_eq!(stats("", sample()), [&version, HEAD, memory, &topics].concat());
    assert_eq!(stats("?include_mem=0", sample()), [&version, HEAD, &topics].concat());
    let empty = ServerStats { topic_known: true, ..ServerStats::default() };
    let none = "\nTopics: None\n\nProducers: None\n";
    assert_eq!(stats("?include_mem=0", empty), [&version, HEAD, none].concat());
    let unknown = ServerStats::default();
    assert_eq!(stats("?topic=none&include_mem=0", unknown), [&version, HEAD, none].concat());
}

#[test]
fn latencies_are_shown() {
    let mut topic = st1();
    let values = [(1.0, 2_500_000_000), (0.99, 351_949_000), (0.5, 1_001), (0.1, 1_000)];
    topic.latency = LatencyStats { count: 7, percentiles: values.to_vec(), totals: None };
    topic.channels[0].latency =
        LatencyStats { count: 0, percentiles: vec![(1.0, 0)], totals: None };
    let sample = ServerStats { topics: vec![topic], ..sample() };
    let text = stats("?include_mem=0", sample.clone());
    let shown = "msgs: 6        e2e%: 2.5s, 351.9ms, 1.0us, 1000.0ns\n      [chA ";
    assert!(text.contains(shown), "{text}");
    assert!(text.contains("msgs: 6        e2e%: 0.0ns\n        [V2 "), "{text}");
    let json = stats("?format=json", sample);
    for shown in [
        r#""paused":false,"e2e_processing_latency":{"count":0,"percentiles":[{"quantile":1,"value":0}]}}],"#,
        r#"{"count":7,"percentiles":[{"quantile":1,"value":2500000000},{"quantile":0.99,"value":351949000},{"quantile":0.5,"value":1001},{"quantile":0.1,"value":1000}]}"#,
    ] {
        assert!(json.contains(shown), "{json}");
    }
}

#[test]
fn clients_as_text() {
    // One that did not publish to the topic that is asked for is shown as consumers are.
    let text = stats("?topic=st2", sample());
    let shown = "\nProducers:\n   [V2 chost:50830 ua/1     ] state: 3 inflt: 2    rdy: 2    fin: 1        re-q: 0        msgs: 3        connected: 0s\n";
    assert!(text.ends_with(shown), "{text}");
    let text = stats("?topic=other", sample());
    let shown = "] msgs: 1        topics: other=1 connected: 0s\n";
    assert!(text.ends_with(shown), "{text}");
    // Long names push the rest aside, forged lines stay on their line, times are whole seconds.
    let mut long = producer();
    long.hostname = "a.long.host.example\nProducers: None".into();
    long.connect_ts = 1_795_350_550 - 3_725;
    let mut local = producer();
    (local.peer, local.connect_ts) = (Peer::Unix, 1_795_350_560);
    let text = stats("", ServerStats { producers: vec![long, local], ..sample() });
    let shown = "
Producers:
   [V2 a.long.host.example\\nProducers: None:50830 ua/1] msgs: 5        topics: st1=5 connected: 1h2m5s
   [V2 chost: ua/1          ] msgs: 5        topics: st1=5 connected: 0s
";
    assert!(text.ends_with(shown), "{text}");
}

const LATENCY: &str = r#""e2e_processing_latency":{"count":0,"percentiles":null}"#;

fn client_json(name: &str, port: u16, agent: &str, pub_counts: &str) -> String {
    format!(
        "{{\"client_id\":\"{name}-id\",\"hostname\":\"{name}\",\"version\":\"V2\",\"remote_address\":\"10.0.0.1:{port}\",{}\"user_agent\":\"{agent}\",{}{pub_counts}{}}}",
        r#""state":3,"ready_count":2,"in_flight_count":2,"message_count":3,"finish_count":1,"requeue_count":0,"connect_ts":1795350550,"sample_rate":17,"deflate":false,"snappy":false,"#,
        r#""topology_zone":"z","topology_region":"r","#,
        r#""tls":false,"tls_cipher_suite":"","tls_version":"","tls_negotiated_protocol":"","tls_negotiated_protocol_is_mutual":false"#,
    )
}

fn st1_json() -> String {
    [
        r#"{"topic_name":"st1","channels":[{"channel_name":"chA","depth":3,"backend_depth":1,"in_flight_count":2,"deferred_count":4,"message_count":6,"zone_local_msg_count":9,"region_local_msg_count":10,"global_msg_count":8,"requeue_count":5,"timeout_count":7,"client_count":1,"clients":["#,
        &client_json("chost2", 50834, "ua/2", ""),
        r#"],"paused":false,"#,
        LATENCY,
        r#"}],"depth":0,"backend_depth":0,"message_count":6,"message_bytes":60,"paused":false,"#,
        LATENCY,
        "}",
    ]
    .concat()
}

fn st2_json() -> String {
    [
        r#"{"topic_name":"st2","channels":[{"channel_name":"chP","depth":0,"backend_depth":0,"in_flight_count":0,"deferred_count":0,"message_count":0,"requeue_count":0,"timeout_count":0,"client_count":0,"clients":null,"paused":true,"#,
        LATENCY,
        r#"}],"depth":1,"backend_depth":0,"message_count":1,"message_bytes":60,"paused":true,"#,
        LATENCY,
        "}",
    ]
    .concat()
}

fn producer_json(pub_counts: &str) -> String {
    client_json("chost", 50830, "ua/1", pub_counts)
}

fn server_json(topics: &str, memory: &str, producers: &str) -> String {
    format!(
        "{{\"version\":\"1.3.0\",\"health\":\"OK\",\"start_time\":1795350450,\"topics\":{topics},{memory}\"producers\":{producers}}}"
    )
}

#[test]
fn stats_as_json() {
    let memory = r#""memory":{"heap_objects":18726,"heap_idle_bytes":4423680,"heap_in_use_bytes":0,"heap_released_bytes":0,"gc_pause_usec_100":0,"gc_pause_usec_99":0,"gc_pause_usec_95":0,"next_gc_bytes":0,"gc_total_runs":0},"#;
    let topics = format!("[{},{}]", st1_json(), st2_json());
    let counts = |topic: &str, count| {
        let counts = format!("\"pub_counts\":[{{\"topic\":\"{topic}\",\"count\":{count}}}],");
        format!("[{}]", producer_json(&counts))
    };
    let busiest = counts("st1", 5);
    assert_eq!(stats("?format=json", sample()), server_json(&topics, memory, &busiest));
    let quiet = "?format=json&include_mem=false";
    assert_eq!(stats(quiet, sample()), server_json(&topics, "", &busiest));
    // Producers are shown whatever the topic, with what they published to it.
    let one = ServerStats { topics: vec![st1()], ..sample() };
    let uncounted = format!("[{}]", producer_json(""));
    for (query, producers) in [
        ("&topic=st1", counts("st1", 5)),
        ("&topic=st3", counts("st3", 5)),
        ("&topic=other", counts("other", 1)),
        ("&topic=st2", uncounted),
    ] {
        let topics = format!("[{}]", st1_json());
        let expected = server_json(&topics, "", &producers);
        assert_eq!(stats(&[quiet, query].concat(), one.clone()), expected, "{query}");
    }
    // Figures that the platform does not tell.
    let Parsed::Admin(_, form) = ask("GET", "/stats?format=json") else { panic!() };
    let context = Context { memory: None, ..context() };
    let reply = reply(AdminReply::Stats(Box::new(sample())), &form, &context);
    assert!(shown(&reply).1.contains("\"memory\":{\"heap_objects\":0,\"heap_idle_bytes\":0,"));
}

#[test]
fn stats_of_what_is_not_there() {
    let quiet = |query: &str, part| stats(&["?format=json&include_mem=0", query].concat(), part);
    let none = ServerStats { topic_known: true, ..ServerStats::default() };
    assert_eq!(quiet("", none), server_json("[]", "", "null"));
    // An unknown topic; the shards report producers nevertheless.
    let unknown = ServerStats { producers: vec![producer()], ..ServerStats::default() };
    assert_eq!(quiet("&topic=none", unknown), server_json("null", "", "null"));
    assert_eq!(quiet("&topic=no+name", sample()), server_json("null", "", "null"));
    let no_channel = ServerStats { topics: Vec::new(), ..sample() };
    let counts = "\"pub_counts\":[{\"topic\":\"st1\",\"count\":5}],";
    let producers = format!("[{}]", producer_json(counts));
    let expected = server_json("[]", "", &producers);
    assert_eq!(quiet("&topic=st1&channel=none", no_channel), expected);
    assert_eq!(quiet("&topic=st1&channel=no+name", sample()), expected);
    assert_eq!(quiet("&channel=no+name", sample()), expected);
    // A topic without channels.
    let bare = TopicStats { channels: Vec::new(), ..st1() };
    let bare = ServerStats { topics: vec![bare], producers: Vec::new(), ..sample() };
    assert!(quiet("", bare).contains("{\"topic_name\":\"st1\",\"channels\":[],\"depth\":0,"));
}

#[test]
fn failures_are_shown_in_the_statistics() {
    let mut stats_of_two = ServerStats { topics: vec![st2()], ..ServerStats::default() };
    let failure = Some("disk \"full\"".to_string());
    stats_of_two.merge(ServerStats { failure, topics: vec![st1()], ..sample() });
    stats_of_two.merge(ServerStats { failure: Some("later".into()), ..ServerStats::default() });
    let names: Vec<_> = stats_of_two.topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["st1", "st2"]);
    let json = stats("?format=json", stats_of_two.clone());
    assert!(json.contains("\"health\":\"NOK - disk \\\"full\\\"\",\"start_time\""), "{json}");
    assert!(stats("", stats_of_two).contains("\n\nHealth: NOK - disk \"full\"\n\nMemory:\n"));
}

proptest! {
    /// Whatever is asked, the answer is no surprise: only publishes stay out of the log, and a
    /// topic is made only by them.
    #[test]
    fn any_request_is_judged(
        method in "GET|POST|PUT",
        path in "/(ping|info|stats|metrics|m?pub|topic/(create|delete|empty)|channel/(create|pause)|config/log_level|debug/freememory)",
        query in prop::option::of("((topic|channel|defer|binary|format|x)(=[a-c!%+0-9;-]{0,4})?&){0,4}"),
        body in prop::collection::vec(0_u8..4, 0..30),
        too_big in any::<bool>(),
    ) {
        let body = Bytes::from(body);
        let request =
            HttpRequest { method: &method, path: &path, query: query.as_deref(), body: &body };
        let is_publish = method == "POST" && path.ends_with("pub");
        match parse(&request, too_big, false, &config()) {
            Parsed::Admin(AdminRequest::Publish { batch, .. }, _) => {
                prop_assert!(is_publish && !too_big && !batch.is_empty());
            }
            Parsed::Admin(..) => prop_assert!(!is_publish),
            Parsed::CreateThenReply(_, reply) => {
                prop_assert!(is_publish && !reply.is_logged);
            }
            Parsed::FreeMemory => prop_assert_eq!((&*method, &*path), ("POST", "/debug/freememory")),
            Parsed::Option(_) => prop_assert!(path.starts_with("/config/")),
            Parsed::Metrics { .. } => prop_assert_eq!(&path, "/metrics"),
            Parsed::Reply(reply) => prop_assert_eq!(reply.is_logged, !is_publish),
        }
    }
}
