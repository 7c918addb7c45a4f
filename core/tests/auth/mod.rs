//! Authorization as clients and auth servers see it (nsqd-protocol.md section 16).

use core::time::Duration;

use sansq_core::client::frame::Frame;
use sansq_core::http::call::{Call, CallFailure};
use sansq_core::nsqd::auth::AUTH_ANSWER_LEN_MAX;
use sansq_core::nsqd::config::CALLS_MAX;
use sansq_core::nsqd::{AdminReply, AdminRequest, AuthMethod, Config, Event, StatsFilter};
use sansq_core::testing::{ClientId, Node};

use crate::{error, ok, pub_command, text};

const ALL: &str = r#"{"ttl":20,"identity":"i","identity_url":"u","authorizations":[{"topic":".*","channels":[".*"],"permissions":["subscribe","publish"]}]}"#;
const NONE: &str = r#"{"ttl":60,"authorizations":[]}"#;
const ONLY_A: &str =
    r#"{"ttl":60,"authorizations":[{"topic":"^a$","channels":[""],"permissions":["publish"]}]}"#;

fn node(shards: u16, addresses: &[&str]) -> Node {
    let auth_http_addresses = addresses.iter().map(|&address| address.into()).collect();
    Node::new(shards, Config { auth_http_addresses, ..Config::default() })
}

fn granted() -> Frame {
    Frame::Response(r#"{"identity":"i","identity_url":"u","permission_count":1}"#.into())
}

fn auth(secret: &[u8]) -> Vec<u8> {
    [b"AUTH\n", &(secret.len() as u32).to_be_bytes()[..], secret].concat()
}

fn authorized(node: &mut Node, shard: usize) -> ClientId {
    let client = node.client(shard);
    node.send(client, &auth(b"s"));
    node.answer(200, ALL);
    assert_eq!(node.frames(client), [granted()]);
    client
}

fn asked(node: &Node) -> &Call {
    &node.calls.first().unwrap().2
}

fn url(node: &Node) -> String {
    let url = &asked(node).url;
    format!("{} {} {}", url.is_https(), url.authority(), url.target())
}

#[test]
fn what_the_server_is_asked() {
    let mut server = node(1, &["auth:1"]);
    let client = server.client(0);
    server.send(client, &auth(b"s3 cr&t"));
    let query = "common_name=&remote_ip=127.0.0.1&secret=s3+cr%26t&tls=false";
    assert_eq!(url(&server), format!("false auth:1 /auth?{query}"));
    let call = asked(&server);
    assert_eq!((&call.body, call.answer_len_max), (&None, AUTH_ANSWER_LEN_MAX));
    assert_eq!(call.connect_timeout, Duration::from_secs(2));
    assert_eq!(call.timeout, Duration::from_secs(5));

    let mut server = node(1, &["https://auth/custom?x=1"]);
    let client = server.client(0);
    server.send(client, &auth(b"s3 cr&t"));
    assert_eq!(url(&server), format!("true auth /custom?x=1?{query}"));

    let auth_http_addresses = vec!["auth:1".into()];
    let auth_http_request_method = AuthMethod::Post;
    let config = Config { auth_http_addresses, auth_http_request_method, ..Config::default() };
    let mut server = Node::new(1, config);
    let client = server.client(0);
    server.send(client, &auth(b"<\xff\">"));
    assert_eq!(url(&server), "false auth:1 /auth");
    let json = r#"{"common_name":[""],"remote_ip":["127.0.0.1"],"secret":["\u003c?\"\u003e"],"tls":["false"]}"#;
    let json = json.replace("?", "\u{FFFD}");
    assert_eq!(asked(&server).body.as_deref(), Some(json.as_bytes()));
}

#[test]
fn servers_are_asked_in_turn_from_any_of_them() {
    let mut first = Vec::new();
    let mut server = node(1, &["a:1", "b:2", "c:3"]);
    for _ in 0..20 {
        let client = server.client(0);
        server.send(client, &auth(b"s"));
        let mut order = Vec::new();
        for outcome in [
            Err(CallFailure::TimedOut),
            Err(CallFailure::Failed("x".into())),
            Err(CallFailure::TooBig),
        ] {
            order.push(asked(&server).url.port());
            server.called(outcome);
        }
        assert!(server.calls.is_empty());
        assert_eq!(server.frames(client), [error("E_AUTH_FAILED AUTH failed")]);
        assert!(server.is_closed(client));
        let turned = [[1, 2, 3], [2, 3, 1], [3, 1, 2]];
        assert!(turned.iter().any(|turn| order == turn), "{order:?}");
        first.push(order[0]);
    }
    first.sort_unstable();
    first.dedup();
    assert_eq!(first, [1, 2, 3]);
    let mut lines = server.events.iter().map(Event::to_string);
    let why = lines.find(|line| line.contains("failed to auth")).unwrap();
    assert!(why.contains("AUTH failed failed to auth against "), "{why}");
    assert!(why.contains(" - i/o timeout; failed to auth against "), "{why}");
    assert!(!why.contains("secret"), "{why}");
}

#[test]
fn one_good_answer_is_enough_and_a_403_leads_to_tls() {
    let mut server = node(1, &["a:1", "bad url:x"]);
    for _ in 0..8 {
        let client = server.client(0);
        server.send(client, &auth(b"s"));
        // The one that cannot be asked is passed over.
        assert_eq!(asked(&server).url.authority(), "a:1");
        server.answer(403, r#"{"message":"TLS_REQUIRED","https_port":9}"#);
        assert!(url(&server).starts_with("true a:9 /auth?common_name="));
        server.answer(200, ALL);
        assert_eq!(server.frames(client), [granted()]);
    }
    // Once, and not from TLS.
    let mut server = node(1, &["a:1"]);
    let client = server.client(0);
    server.send(client, &auth(b"s"));
    server.answer(403, r#"{"https_port":9}"#);
    server.answer(403, r#"{"https_port":9}"#);
    assert!(server.calls.is_empty());
    assert_eq!(server.frames(client), [error("E_AUTH_FAILED AUTH failed")]);
}

#[test]
fn an_answer_for_a_client_that_left_is_dropped() {
    let mut server = node(1, &["a:1", "b:1"]);
    let client = server.client(0);
    server.send(client, &auth(b"s"));
    server.close(client);
    let other = server.client(0);
    server.answer(500, "");
    assert!(server.calls.is_empty() && server.frames(other).is_empty());
    let client = server.client(0);
    server.send(client, &auth(b"s"));
    server.shut_down();
    assert!(server.is_closed(client));
    server.answer(200, ALL);
    assert!(server.frames(client).is_empty());
}

#[test]
fn commands_need_their_permission_at_their_place_in_the_order() {
    let first = |command: &str| format!("E_AUTH_FIRST AUTH required before {command}");
    let refused = |command: &str, channel: &str| {
        format!("E_UNAUTHORIZED AUTH failed for {command} on \"b\" \"{channel}\"")
    };
    // Of an MPUB the line is judged, of the others the whole.
    let commands: [(&str, &[u8], String, &str); 4] = [
        ("SUB", b"SUB b c\n", refused("SUB", "c"), "SUB b c$\n"),
        ("PUB", b"PUB b\n\0\0\0\x01x", refused("PUB", ""), "PUB b\n\0\0\0\0"),
        ("MPUB", b"MPUB b\n", refused("MPUB", ""), "MPUB b$\n"),
        ("DPUB", b"DPUB b 9\n\0\0\0\x01x", refused("DPUB", ""), "DPUB b 9\n\0\0\0\0"),
    ];
    for (command, bytes, refusal, broken) in commands {
        let mut server = node(2, &["a:1"]);
        let client = server.client(0);
        server.send(client, bytes);
        assert_eq!(server.frames(client), [Frame::Error(first(command).into())]);
        let client = server.client(0);
        server.send(client, broken.as_bytes());
        let frames = server.frames(client);
        assert!(matches!(&frames[..], [Frame::Error(text)] if text.starts_with(b"E_BAD_")));
        let client = server.client(0);
        server.send(client, &auth(b"s"));
        server.answer(200, ONLY_A);
        server.frames(client);
        server.send(client, bytes);
        assert_eq!(server.frames(client), [Frame::Error(refusal.into())]);
        assert!(server.is_closed(client));
        // None of them left a topic behind.
        let stats = server.admin(0, AdminRequest::Stats(StatsFilter::default()));
        assert!(matches!(stats, Some(AdminReply::Stats(stats)) if stats.topics.is_empty()));
    }
    // An allowed MPUB makes its topic with its line, and its body is judged afterwards.
    let mut server = node(1, &["a:1"]);
    let client = authorized(&mut server, 0);
    server.send(client, b"MPUB b\n");
    let stats = server.admin(0, AdminRequest::Stats(StatsFilter::default()));
    assert!(matches!(stats, Some(AdminReply::Stats(stats)) if stats.topics.len() == 1));
    server.send(client, b"\0\0\0\x0b\0\0\0\x01\0\0\0\x01x");
    assert_eq!(server.frames(client), [ok()]);
}

#[test]
fn an_expired_grant_is_renewed_before_the_command() {
    let commands: [&[u8]; 4] = [
        b"SUB t c\n",
        b"PUB t\n\0\0\0\x01x",
        b"MPUB t\n\0\0\0\x0b\0\0\0\x01\0\0\0\x01x",
        b"DPUB t 9\n\0\0\0\x01x",
    ];
    for (command, name) in commands.into_iter().zip(["SUB", "PUB", "MPUB", "DPUB"]) {
        for shards in [1, 4] {
            let setup = || {
                let mut server = node(shards, &["a:1"]);
                let client = authorized(&mut server, 0);
                server.wait(Duration::from_secs(20));
                server.send(client, &pub_command("t", "in time"));
                assert!(server.calls.is_empty());
                server.wait(Duration::from_nanos(1));
                server.frames(client);
                server.send(client, command);
                assert!(url(&server).ends_with("secret=s&tls=false"));
                assert!(server.frames(client).is_empty());
                (server, client)
            };
            let (mut server, client) = setup();
            server.answer(200, ALL);
            assert_eq!(server.frames(client), [ok()]);
            server.send(client, &pub_command("t", "y"));
            assert_eq!(server.frames(client), [ok()]);

            let (mut server, client) = setup();
            server.called(Err(CallFailure::TimedOut));
            assert_eq!(server.frames(client), [error("E_AUTH_FAILED AUTH failed")]);
            assert!(server.is_closed(client));

            // Success replaces everything, also what was allowed before.
            for body in [NONE, ONLY_A] {
                let (mut server, client) = setup();
                server.answer(200, body);
                let channel = if name == "SUB" { "c" } else { "" };
                let text = format!("E_UNAUTHORIZED AUTH failed for {name} on \"t\" \"{channel}\"");
                assert_eq!(server.frames(client), [error(&text)]);
                assert!(server.is_closed(client));
            }
        }
    }
}

#[test]
fn a_running_subscription_is_not_checked_again() {
    let mut server = node(1, &["a:1"]);
    let consumer = authorized(&mut server, 0);
    server.send(consumer, b"SUB t c\nRDY 5\n");
    server.wait(Duration::from_secs(21));
    let producer = authorized(&mut server, 0);
    server.frames(consumer);
    server.send(producer, &pub_command("t", "x"));
    assert_eq!(server.bodies(consumer), ["x"]);
    assert!(server.calls.is_empty());
}

#[test]
fn not_all_clients_ask_at_once() {
    let mut server = node(1, &["a:1"]);
    let clients: Vec<_> = (0..CALLS_MAX + 10).map(|_| server.client(0)).collect();
    for client in &clients {
        server.send(*client, &auth(b"s"));
    }
    assert_eq!(server.calls.len(), CALLS_MAX);
    // One that has gone meanwhile does not ask any more.
    server.close(clients[CALLS_MAX]);
    server.answer(200, ALL);
    assert_eq!(server.calls.len(), CALLS_MAX);
    for _ in 0..CALLS_MAX + 8 {
        server.answer(200, ALL);
    }
    assert!(server.calls.is_empty());
    for (n, client) in clients.iter().enumerate() {
        let expected = if n == CALLS_MAX { Vec::new() } else { vec![granted()] };
        assert_eq!(server.frames(*client), expected);
    }
}

#[test]
fn statistics_and_negotiation_tell() {
    let mut server = node(1, &["a:1"]);
    let client = server.client(0);
    let body = br#"{"feature_negotiation":true}"#;
    let length = (body.len() as u32).to_be_bytes();
    server.send(client, &[&b"IDENTIFY\n"[..], &length, body].concat());
    let frames = server.frames(client);
    let [Frame::Response(json)] = &frames[..] else { panic!("{frames:?}") };
    assert!(text(json).contains("\"auth_required\":true"));
    server.send(client, &auth(b"s"));
    server.answer(200, ALL);
    server.send(client, &pub_command("t", "x"));
    let filter = StatsFilter { include_clients: true, ..StatsFilter::default() };
    let Some(AdminReply::Stats(stats)) = server.admin(0, AdminRequest::Stats(filter)) else {
        panic!("statistics are expected");
    };
    let shown = &stats.producers[0];
    assert!(shown.authed);
    assert_eq!((&*shown.auth_identity, &*shown.auth_identity_url), ("i", "u"));
}
