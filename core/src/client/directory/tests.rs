use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::http::call::{CallAnswer, CallFailure};

mod properties;

struct Rig {
    directory: Directory,
    net: NetActions,
    changes: DirectoryChanges,
    now: Now,
}

const SECOND: Duration = Duration::from_secs(1);

impl Rig {
    fn new(question: Question) -> Self {
        Self {
            directory: Directory::new(question, DirectoryOptions::default(), 3),
            net: NetActions::default(),
            changes: DirectoryChanges::default(),
            now: Now::from_millis(0),
        }
    }

    fn with(servers: &[&str]) -> Self {
        let mut rig = Self::new(Question::Nodes);
        for server in servers {
            assert_eq!(rig.directory.add(server, rig.now, &mut rig.net), Ok(true));
        }
        rig
    }

    /// Answers what is under way, in the order of the servers; `""` is a failure to connect.
    fn answer(&mut self, bodies: &[&'static str]) {
        let calls = core::mem::take(&mut self.net.calls);
        assert_eq!(calls.len(), bodies.len());
        for ((id, _), body) in calls.into_iter().zip(bodies) {
            let result = match *body {
                "" => Err(CallFailure::Failed("refused".into())),
                body => Ok(CallAnswer { status: 200, body: body.into() }),
            };
            self.called(id, result);
        }
    }

    fn called(&mut self, id: LookupCallId, result: CallResult) {
        self.directory.handle_called(id, result, self.now, &mut self.net, &mut self.changes);
    }

    /// The next regular round, answered.
    fn round(&mut self, bodies: &[&'static str]) {
        let at = self.directory.poll_timeout().unwrap();
        let wait = at.saturating_since(self.now.instant);
        assert!((42 * SECOND..=60 * SECOND).contains(&wait), "{wait:?}");
        self.now = self.now.after(wait);
        self.directory.handle_timeout(self.now, &mut self.net);
        self.answer(bodies);
    }

    fn found(&mut self) -> Vec<String> {
        core::mem::take(&mut self.changes.found)
    }

    fn vanished(&mut self) -> Vec<String> {
        core::mem::take(&mut self.changes.vanished)
    }

    fn events(&mut self) -> Vec<String> {
        self.changes.events.drain(..).map(|event| event.to_string()).collect()
    }
}

const A: &str = r#"{"producers":[{"broadcast_address":"a","tcp_port":4150}]}"#;
const B: &str = r#"{"producers":[{"broadcast_address":"b","tcp_port":4150}]}"#;
const NONE: &str = r#"{"producers":[]}"#;

#[test]
fn addresses_become_urls() {
    let topic = TopicName::new("t").unwrap();
    let both = |address| {
        let shown = |question: Question| {
            question.url(address).map(|url| alloc::format!("{url} {}", url.target()))
        };
        (shown(Question::Lookup(topic)), shown(Question::Nodes))
    };
    for (address, lookup, nodes) in [
        ("h:1", "http://h:1/lookup /lookup?topic=t", "http://h:1/nodes /nodes"),
        ("h:1/", "http://h:1/lookup /lookup?topic=t", "http://h:1/nodes /nodes"),
        ("[::1]:9", "http://[::1]:9/lookup /lookup?topic=t", "http://[::1]:9/nodes /nodes"),
        ("https://h", "https://h/lookup /lookup?topic=t", "https://h/nodes /nodes"),
        ("h:1/x/lookup", "http://h:1/x/lookup /x/lookup?topic=t", "http://h:1/x/nodes /x/nodes"),
        ("http://h:1/x?a=b#c", "http://h:1/x /x?a=b&topic=t", "http://h:1/x /x?a=b"),
    ] {
        assert_eq!(both(address), (Ok(lookup.into()), Ok(nodes.into())), "{address}");
    }
    for (address, error) in [
        ("h", UrlError::Port),
        ("[::1]", UrlError::Port),
        ("h:", UrlError::Port),
        ("h:99999", UrlError::Port),
        ("", UrlError::Port),
        (":4161", UrlError::Host),
        ("ftp://h:1", UrlError::Scheme),
        ("a b:1", UrlError::Character),
    ] {
        assert_eq!(both(address), (Err(error), Err(error)), "{address}");
    }
}

#[test]
fn all_are_asked_at_once_and_the_union_is_found() {
    let mut rig = Rig::with(&["l1:4161", "l2:4161"]);
    let (one, two) = (&rig.net.calls[0].1, &rig.net.calls[1].1);
    assert_eq!((one.url.host(), two.url.host()), ("l1", "l2"));
    assert_eq!((one.timeout, one.body.as_ref()), (60 * SECOND, None));
    assert_eq!(rig.directory.add("http://l1:4161", rig.now, &mut rig.net), Ok(false));
    rig.answer(&[
        A,
        r#"{"producers":[{"broadcast_address":"a","tcp_port":4150},null,
        {"broadcast_address":"::1","tcp_port":1},{"broadcast_address":"[::2]","tcp_port":1},
        {"address":"old","tcp_port":2},{"broadcast_address":"","tcp_port":2},
        {"broadcast_address":"a\nb","tcp_port":2},{"broadcast_address":"c","tcp_port":0},
        {"broadcast_address":"c","tcp_port":65536},{"broadcast_address":"d","tcp_port":-1}]}"#,
    ]);
    assert_eq!(rig.found(), ["a:4150", "[::1]:1", "[::2]:1", "old:2"]);
    assert_eq!(rig.events(), Vec::<String>::new());
    rig.round(&[A, B]);
    assert_eq!(rig.found(), ["b:4150"]);
}

#[test]
fn legacy_answers_and_unknown_topics_are_answers() {
    let topic = TopicName::new("t").unwrap();
    for (status, body, expected) in [
        (
            200,
            r#"{"status_code":200,"status_txt":"OK","data":{"channels":[],"producers":[{"address":"x","broadcast_address":"a","tcp_port":1}]}}"#,
            vec!["a:1"],
        ),
        (200, r#"{"status_code":500,"status_txt":"TOPIC_NOT_FOUND","data":null}"#, vec![]),
        (404, r#"{"message":"TOPIC_NOT_FOUND"}"#, vec![]),
        (200, r#"{"channels":null,"producers":null}"#, vec![]),
    ] {
        let mut rig = Rig::new(Question::Lookup(topic));
        rig.directory.add("l:1", rig.now, &mut rig.net).unwrap();
        let (id, _) = rig.net.calls.remove(0);
        rig.called(id, Ok(CallAnswer { status, body: body.into() }));
        assert_eq!(rig.found(), expected, "{body}");
        assert_eq!(rig.events(), Vec::<String>::new(), "{body}");
    }
}

#[test]
fn what_is_no_answer_is_told_and_changes_nothing() {
    for (status, body, why) in [
        (500, r#"{"message":"INTERNAL_ERROR"}"#, "status 500 INTERNAL_ERROR"),
        (404, r#"{"message":"NOT_FOUND"}"#, "status 404 NOT_FOUND"),
        (502, "<html>\n", "status 502"),
        (200, r#"{"status_code":500,"status_txt":"INVALID","data":null}"#, "status 500 INVALID"),
        (200, "{}", "the answer lists no producers"),
        (200, "null", "the answer lists no producers"),
        (200, "[]", "expected an object"),
        (200, r#"{"producers":7}"#, "invalid type"),
    ] {
        let mut rig = Rig::with(&["l:1"]);
        rig.answer(&[A]);
        assert_eq!(rig.found(), ["a:4150"]);
        for _ in 0..5 {
            let at = rig.directory.poll_timeout().unwrap();
            rig.now = rig.now.after(at.saturating_since(rig.now.instant));
            rig.directory.handle_timeout(rig.now, &mut rig.net);
            let (id, _) = rig.net.calls.remove(0);
            rig.called(id, Ok(CallAnswer { status, body: body.into() }));
            let events = rig.events();
            assert_eq!(events.len(), 1);
            assert!(events[0].starts_with("nsqlookupd l:1 was asked in vain: "), "{events:?}");
            assert!(events[0].contains(why), "{events:?} of {body}");
        }
        assert_eq!((rig.found(), rig.vanished()), (vec![], vec![]));
    }
}

#[test]
fn who_is_listed_by_nobody_for_three_rounds_has_vanished() {
    let mut rig = Rig::with(&["l1:1", "l2:1"]);
    rig.answer(&[A, B]);
    assert_eq!(rig.found(), ["a:4150", "b:4150"]);
    for bodies in [[NONE, B], ["", B], [NONE, A], [B, NONE], [NONE, NONE]] {
        rig.round(&bodies);
        assert_eq!(rig.vanished(), Vec::<String>::new());
    }
    rig.round(&["", NONE]);
    assert_eq!(rig.vanished(), ["a:4150"]);
    rig.round(&[A, ""]);
    assert_eq!((rig.found(), rig.vanished()), (vec!["a:4150".into()], vec!["b:4150".into()]));
}

#[test]
fn a_server_that_fails_keeps_its_answer_and_one_that_is_removed_does_not() {
    let mut rig = Rig::with(&["l1:1", "l2:1"]);
    rig.answer(&[A, B]);
    for _ in 0..10 {
        rig.round(&["", B]);
    }
    assert_eq!(rig.vanished(), Vec::<String>::new());
    assert!(rig.directory.remove("l1:1"));
    assert!(!rig.directory.remove("l1:1"));
    for _ in 0..3 {
        assert_eq!(rig.vanished(), Vec::<String>::new());
        rig.round(&[B]);
    }
    assert_eq!(rig.vanished(), ["a:4150"]);
    assert!(rig.directory.remove("l2:1"));
    assert_eq!((rig.directory.poll_timeout(), rig.directory.is_empty()), (None, true));
}

#[test]
fn extra_rounds_are_a_second_apart_and_do_not_count() {
    let mut rig = Rig::with(&["l:1"]);
    rig.answer(&[A]);
    let regular = rig.directory.poll_timeout();
    for millis in [1000, 2000, 3000, 4000, 5000] {
        rig.directory.ask_soon(rig.now);
        rig.directory.ask_soon(rig.now);
        assert_eq!(rig.directory.poll_timeout(), Some(Instant::from_millis(millis)));
        rig.now = Now::from_millis(millis);
        rig.directory.handle_timeout(rig.now, &mut rig.net);
        rig.answer(&[NONE]);
        assert_eq!(rig.directory.poll_timeout(), regular);
    }
    assert_eq!(rig.vanished(), Vec::<String>::new());
    for _ in 0..3 {
        rig.round(&[NONE]);
    }
    assert_eq!(rig.vanished(), ["a:4150"]);
}

#[test]
fn one_request_per_server_and_late_outcomes_are_nobodys() {
    let mut rig = Rig::with(&["l1:1", "l2:1"]);
    let first = rig.net.calls.remove(0).0;
    rig.answer(&[NONE]);
    rig.now = Now::from_millis(60_000);
    rig.directory.handle_timeout(rig.now, &mut rig.net);
    assert_eq!(rig.net.calls.len(), 1, "l1 has not answered yet");
    assert!(rig.directory.remove("l1:1"));
    rig.called(first, Ok(CallAnswer { status: 200, body: A.into() }));
    assert_eq!(rig.found(), Vec::<String>::new());
}

#[test]
fn a_server_that_wants_tls_is_asked_over_tls() {
    let mut rig = Rig::with(&["l:1"]);
    let wants_tls = || Ok(CallAnswer { status: 403, body: r#"{"https_port":9}"#.into() });
    let (id, _) = rig.net.calls.remove(0);
    rig.called(id, wants_tls());
    let (id, call) = rig.net.calls.remove(0);
    assert_eq!(call.url.to_string(), "https://l:9/nodes");
    // Once is enough, even if it says so again.
    rig.called(id, wants_tls());
    assert_eq!((rig.net.calls.len(), rig.events().len()), (0, 1));
}

#[test]
fn too_many_are_left_out() {
    let mut body = String::from(r#"{"producers":["#);
    for n in 0..FOUND_MAX + 5 {
        let comma = if n == 0 { "" } else { "," };
        body.push_str(&alloc::format!(r#"{comma}{{"broadcast_address":"h{n}","tcp_port":1}}"#));
    }
    body.push_str("]}");
    let mut rig = Rig::with(&["l1:1", "l2:1"]);
    let (id, _) = rig.net.calls.remove(0);
    rig.called(id, Ok(CallAnswer { status: 200, body: body.into() }));
    assert_eq!(rig.found().len(), FOUND_MAX);
    assert_eq!(rig.events(), ["nsqlookupd l1:1 lists too many nsqds: 5 left out"]);
    rig.answer(&[A]);
    assert_eq!(rig.events(), ["nsqlookupd l2:1 lists too many nsqds: 1 left out"]);
}

/// The next question besides the rounds, and how long it took.
fn again(rig: &mut Rig, body: &'static str) -> Duration {
    let at = rig.directory.poll_timeout().unwrap();
    let wait = at.saturating_since(rig.now.instant);
    rig.now = rig.now.after(wait);
    rig.directory.handle_timeout(rig.now, &mut rig.net);
    rig.answer(&[body]);
    wait
}

#[test]
fn a_server_that_comes_up_late_is_soon_asked_again() {
    let mut rig = Rig::with(&["l1:4161"]);
    rig.answer(&[""]);
    let mut tries = 0;
    while rig.now.instant < Instant::from_millis(1500) {
        let wait = again(&mut rig, "");
        tries += 1;
        assert!((100..=100 << tries).contains(&wait.as_millis()), "{wait:?} at {tries}");
    }
    assert!(tries >= 3);
    // It is up: at the latest after the next wait that is known to it.
    assert!(again(&mut rig, A) < 4 * SECOND);
    assert_eq!(rig.found(), ["a:4150"]);
    // From now on there are rounds only, also when one of them is in vain.
    rig.round(&[""]);
    rig.round(&[A]);
}

#[test]
fn a_server_that_never_came_up_is_asked_on_with_waits_of_up_to_half_a_minute() {
    let mut rig = Rig::with(&["l1:4161", "l2:4161"]);
    // One that works does not hide the other.
    rig.answer(&[A, ""]);
    let waits: Vec<_> = (0..60).map(|_| again_or_round(&mut rig)).collect();
    assert!(waits.iter().all(|wait| *wait <= 30 * SECOND), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > 10 * SECOND), "{waits:?}");
}

/// The first server lists one nsqd, the second has no answer.
fn again_or_round(rig: &mut Rig) -> Duration {
    let at = rig.directory.poll_timeout().unwrap();
    let wait = at.saturating_since(rig.now.instant);
    rig.now = rig.now.after(wait);
    rig.directory.handle_timeout(rig.now, &mut rig.net);
    for (id, call) in core::mem::take(&mut rig.net.calls) {
        let result = match call.url.host() {
            "l1" => Ok(CallAnswer { status: 200, body: A.into() }),
            _ => Err(CallFailure::Failed("refused".into())),
        };
        rig.called(id, result);
    }
    wait
}

/// It was up before the nsqds that register with it; and there are topics that nobody ever has.
#[test]
fn a_server_that_lists_nothing_yet_is_asked_again_for_a_while() {
    let mut rig = Rig::with(&["l1:4161"]);
    rig.answer(&[NONE]);
    assert!(again(&mut rig, NONE) <= SECOND);
    again(&mut rig, A);
    assert_eq!(rig.found(), ["a:4150"]);
    rig.round(&[A]);
    let mut rig = Rig::with(&["l1:4161"]);
    rig.answer(&[NONE]);
    let mut asked = 1;
    while rig.now.instant < Instant::from_millis(600_000) {
        again(&mut rig, NONE);
        asked += 1;
    }
    // Ten rounds to fourteen, and not many more in all.
    assert!((20..=26).contains(&asked), "{asked}");
}
