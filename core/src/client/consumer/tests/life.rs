//! Connections, messages and lookups from their beginning to their end.

use super::super::super::options::ConnectionOptions;
use super::*;

fn disconnected(events: Vec<ConsumerEvent>) -> Vec<(ConnectionError, Option<Duration>)> {
    let lost = |event| {
        let ConsumerEvent::Disconnected { error, redial_after, .. } = event else { return None };
        Some((error, redial_after))
    };
    events.into_iter().filter_map(lost).collect()
}

fn given_up(events: Vec<ConsumerEvent>) -> Vec<ConnectionError> {
    let given_up = |event| {
        if let ConsumerEvent::GaveUp { error, .. } = event { Some(error) } else { None }
    };
    events.into_iter().filter_map(given_up).collect()
}

#[test]
fn nothing_is_asked_for_before_sub_is_answered() {
    let mut rig = Rig::with(5);
    rig.consumer.add_nsqd("a:1", rig.now, &mut rig.out);
    assert!(!rig.consumer.add_nsqd("a:1", rig.now, &mut rig.out));
    let id = rig.take_dial("a:1");
    rig.handshake(id, ANSWER);
    assert_eq!(rig.commands(id), ["SUB t c"]);
    rig.response(id, b"OK");
    assert_eq!(rig.commands(id), ["RDY 5"]);
    assert!(
        rig.events()
            .iter()
            .any(|event| matches!(event, ConsumerEvent::Subscribed { max_rdy_count: 2500, .. }))
    );
}

#[test]
fn a_servers_maximum_is_kept() {
    let mut rig = Rig::with(10);
    rig.consumer.add_nsqd("a:1", rig.now, &mut rig.out);
    let id = rig.take_dial("a:1");
    rig.handshake(id, br#"{"max_rdy_count":3}"#);
    rig.response(id, b"OK");
    assert_eq!(rig.commands(id), ["SUB t c", "RDY 3"]);
}

#[test]
fn refusals_that_will_not_change_end_the_tries_and_others_do_not() {
    for (text, is_final) in [
        ("E_BAD_TOPIC SUB topic name \"t\" is not valid", true),
        ("E_BAD_CHANNEL x", true),
        ("E_UNAUTHORIZED AUTH failed for SUB on \"t\" \"c\"", true),
        ("E_AUTH_FAILED AUTH failed", false),
        ("E_INVALID too many connections", false),
        ("E_SUB_FAILED SUB failed too many channel consumers", false),
        ("", false),
    ] {
        let mut rig = Rig::with(1);
        rig.consumer.add_nsqd("a:1", rig.now, &mut rig.out);
        let id = rig.take_dial("a:1");
        rig.handshake(id, ANSWER);
        rig.error(id, text);
        assert_eq!(rig.closes(), [id]);
        let events = rig.events();
        let error = ConnectionError::Refused(text.into());
        let is_known = rig.consumer.stats().connections[0].is_given_up;
        assert_eq!(is_known, is_final);
        if is_final {
            assert_eq!(given_up(events), [error]);
            assert_eq!(rig.consumer.poll_timeout(), None);
            assert!(rig.consumer.add_nsqd("a:1", rig.now, &mut rig.out), "it is tried again");
            rig.take_dial("a:1");
        } else {
            assert_eq!(disconnected(events)[0].0, error);
            assert!(rig.consumer.poll_timeout().is_some());
        }
    }
}

#[test]
fn an_identify_that_is_refused_ends_the_tries() {
    let mut rig = Rig::with(1);
    rig.consumer.add_nsqd("a:1", rig.now, &mut rig.out);
    let id = rig.take_dial("a:1");
    rig.consumer.handle_connected(id, rig.now, &mut rig.out);
    rig.error(id, "E_BAD_BODY IDENTIFY msg timeout (1) is invalid");
    assert_eq!(given_up(rig.events()).len(), 1);
    assert_eq!(rig.consumer.poll_timeout(), None);
}

#[test]
fn sub_without_an_answer_and_a_wrong_answer_end_the_connection() {
    let mut rig = Rig::with(1);
    rig.consumer.add_nsqd("a:1", rig.now, &mut rig.out);
    let id = rig.take_dial("a:1");
    rig.handshake(id, ANSWER);
    rig.secs(30);
    assert_eq!(disconnected(rig.events())[0].0, ConnectionError::NoAnswer);
    for (bytes, error) in [
        (frame(0, b"YES"), ConnectionError::UnexpectedResponse("YES".into())),
        (message('a', 1), ConnectionError::UnexpectedMessage),
    ] {
        let mut rig = Rig::with(1);
        rig.consumer.add_nsqd("a:1", rig.now, &mut rig.out);
        let id = rig.take_dial("a:1");
        rig.handshake(id, ANSWER);
        rig.input(id, &bytes);
        assert_eq!(disconnected(rig.events())[0].0, error);
    }
}

#[test]
fn redials_wait_longer_and_longer_unless_the_connection_was_healthy() {
    let mut rig = Rig::with(1);
    rig.consumer.add_nsqd("a:1", rig.now, &mut rig.out);
    let mut waits = Vec::new();
    for _ in 0..12 {
        let id = rig.take_dial("a:1");
        rig.consumer.handle_connect_failed(id, "refused", rig.now, &mut rig.out);
        let (error, wait) = disconnected(rig.events()).pop().unwrap();
        assert_eq!(error, ConnectionError::Dial("refused".into()));
        waits.push(wait.unwrap());
        let later = rig.now.instant + wait.unwrap();
        rig.at(later.as_nanos().div_ceil(1_000_000));
    }
    assert!(waits[..2].iter().all(|wait| *wait <= Duration::from_millis(400)));
    assert!(
        waits[11] >= Duration::from_millis(100)
            && waits.iter().max() > Some(&Duration::from_secs(5))
    );
    let id = rig.take_dial("a:1");
    rig.come_up(id);
    let start = rig.now.instant.as_nanos() / 1_000_000;
    rig.at(start + 10_000);
    rig.closed(id);
    assert_eq!(disconnected(rig.events()).pop().unwrap().1, Some(Duration::ZERO));
    let id = rig.take_dial("a:1");
    rig.come_up(id);
    rig.closed(id);
    let wait = disconnected(rig.events()).pop().unwrap().1.unwrap();
    assert!((100..=200).contains(&wait.as_millis()), "the failures are forgotten: {wait:?}");
    assert_eq!(rig.consumer.stats().connections[0].reconnects, 1);
}

#[test]
fn a_message_of_a_lost_connection_holds_nothing_up() {
    let mut rig = Rig::with(1);
    let old = rig.connect("a:1");
    let key = rig.message(old, 'a', 1);
    rig.closed(old);
    rig.secs(1);
    let new = rig.take_dial("a:1");
    rig.come_up(new);
    assert_eq!(rig.commands(new), ["RDY 1"]);
    for _ in 0..2 {
        assert_eq!(rig.finish(key), Err(AnswerError::ConnectionLost));
    }
    assert_eq!(rig.requeue(key, true), Err(AnswerError::ConnectionLost));
    assert_eq!(rig.commands(new), [""; 0]);
    // What races with the end of the old connection is of no concern.
    rig.closed(old);
    rig.input(old, &message('b', 1));
    rig.consumer.handle_connected(old, rig.now, &mut rig.out);
    assert_eq!((rig.closes(), rig.delivered()), (vec![old], vec![]));
}

#[test]
fn requeue_delays_follow_the_attempts() {
    let (mut rig, id) = Rig::open(backoff(Duration::ZERO, 1));
    rig.commands(id);
    for (attempts, delay, expected) in [
        (1, None, "REQ a 90000"),
        (4, None, "REQ a 360000"),
        (5, None, "REQ a 450000"),
        (5, Some(Duration::from_secs(1800)), "REQ a 1800000"),
        (5, Some(Duration::ZERO), "REQ a 0"),
    ] {
        let key = rig.message(id, 'a', attempts);
        rig.consumer.requeue(key, delay, true, rig.now, &mut rig.out).unwrap();
        assert_eq!(rig.commands(id), [expected]);
    }
    let options = ConsumerOptions { max_attempts: 0, ..backoff(Duration::ZERO, 1) };
    let (mut rig, id) = Rig::open(options);
    let key = rig.message(id, 'a', 12);
    rig.requeue(key, false).unwrap();
    assert_eq!(rig.commands(id), ["RDY 1", "REQ a 900000"]);
}

#[test]
fn a_message_is_answered_once() {
    let (mut rig, id) = Rig::open(ConsumerOptions::default());
    let key = rig.message(id, 'a', 1);
    rig.commands(id);
    let deadline = rig.consumer.touch(key, rig.now, &mut rig.out);
    assert_eq!(deadline, Ok(Some(Instant::from_millis(60_000))));
    rig.finish(key).unwrap();
    assert_eq!(rig.finish(key), Err(AnswerError::Answered));
    assert_eq!(rig.requeue(key, true), Err(AnswerError::Answered));
    assert_eq!(rig.consumer.touch(key, rig.now, &mut rig.out), Err(AnswerError::Answered));
    assert_eq!(rig.commands(id), ["TOUCH a", "FIN a"]);
    let stats = rig.consumer.stats();
    assert_eq!((stats.received, stats.finished, stats.requeued, stats.touched), (1, 1, 0, 1));
}

#[test]
fn a_message_that_is_not_answered_in_time_is_let_go() {
    let (mut rig, id) = Rig::open(ConsumerOptions::default());
    let key = rig.message(id, 'a', 1);
    rig.commands(id);
    rig.events();
    rig.secs(59);
    assert_eq!(rig.events(), []);
    rig.secs(60);
    assert_eq!(rig.events(), [ConsumerEvent::TimedOut { nsqd: "a:1".into(), key }]);
    assert_eq!(rig.consumer.stats().in_flight, 0);
    assert_eq!(rig.finish(key), Err(AnswerError::TimedOut));
    // The second delivery is not answered by the first one's answer.
    let again = rig.message(id, 'a', 2);
    assert_eq!(rig.finish(key), Err(AnswerError::TimedOut));
    rig.finish(again).unwrap();
    assert_eq!(rig.commands(id), ["FIN a"]);
}

#[test]
fn messages_are_touched_if_that_is_wanted() {
    let options = ConsumerOptions { auto_touch: true, ..ConsumerOptions::default() };
    let (mut rig, id) = Rig::open(options);
    let key = rig.message(id, 'a', 1);
    rig.commands(id);
    rig.events();
    rig.secs(100);
    assert_eq!(rig.commands(id), ["TOUCH a", "TOUCH a"]);
    rig.secs(899);
    assert_eq!(rig.events(), []);
    rig.secs(900);
    assert_eq!(rig.events(), [ConsumerEvent::TimedOut { nsqd: "a:1".into(), key }]);
}

#[test]
fn answers_that_the_server_refuses_are_events() {
    let (mut rig, id) = Rig::open(ConsumerOptions::default());
    rig.events();
    for text in ["E_FIN_FAILED FIN a failed", "E_REQ_FAILED x", "E_TOUCH_FAILED x"] {
        rig.error(id, text);
        let event = ConsumerEvent::Refused { nsqd: "a:1".into(), text: text.into() };
        assert_eq!(rig.events(), [event]);
    }
    assert_eq!(rig.closes(), []);
    let stats = &rig.consumer.stats().connections[0];
    assert_eq!((stats.errors.total, stats.errors.last.as_deref()), (3, Some("E_TOUCH_FAILED x")));
    let codes: Vec<_> =
        stats.errors.by_code.iter().map(|(code, count)| (&**code, *count)).collect();
    assert_eq!(codes, [("E_FIN_FAILED", 1), ("E_REQ_FAILED", 1), ("E_TOUCH_FAILED", 1)]);
}

#[test]
fn a_flood_ends_the_connection() {
    let (mut rig, id) = Rig::open(ConsumerOptions { max_in_flight: 2, ..Default::default() });
    rig.events();
    // Ids differ in their first byte.
    for name in (b'A'..).map(char::from).take(20) {
        rig.input(id, &message(name, 1));
        assert_eq!(rig.closes(), []);
    }
    rig.input(id, &[message('z', 1), message('y', 1)].concat());
    assert_eq!(rig.closes(), [id]);
    assert_eq!(disconnected(rig.events())[0].0, ConnectionError::TooManyMessages);
    assert_eq!((rig.delivered().len(), rig.consumer.stats().in_flight), (20, 0));
}

#[test]
fn with_too_little_for_all_rdy_goes_around() {
    let mut rig = Rig::with(1);
    let ids = ["a:1", "b:1", "c:1"].map(|address| rig.connect(address));
    let mut order = Vec::new();
    for second in 0..60 {
        rig.secs(second);
        for (at, id) in ids.iter().enumerate() {
            if rig.commands(*id).contains(&"RDY 1".into()) {
                order.push((second, at));
            }
        }
    }
    assert_eq!(order, [(0, 0), (10, 1), (20, 2), (30, 0), (40, 1), (50, 2)]);
}

#[test]
fn the_test_of_a_backoff_goes_where_the_failure_was() {
    let mut rig = Rig::new(backoff(Duration::from_secs(1), 6));
    let ids = ["a:1", "b:1", "c:1"].map(|address| rig.connect(address));
    rig.at(1);
    let key = rig.message(ids[1], 'a', 0);
    rig.requeue(key, true).unwrap();
    for id in ids {
        assert_eq!(
            rig.commands(id).last().map(String::as_str),
            if id == ids[1] { Some("REQ a 0") } else { Some("RDY 0") }
        );
    }
    rig.wait_over();
    assert_eq!(ids.map(|id| rig.commands(id).join(",")), ["", "RDY 1", ""]);
    // Nothing comes there: the next one is asked, after as long as the wait was.
    let start = rig.now.instant.as_nanos() / 1_000_000;
    rig.at(start + 1_900);
    assert_eq!(ids.map(|id| rig.commands(id).join(",")), ["", "", ""]);
    rig.at(start + 2_000);
    assert_eq!(ids.map(|id| rig.commands(id).join(",")), ["RDY 1", "RDY 0", ""]);
}

#[test]
fn what_is_in_flight_elsewhere_is_not_given_out_again() {
    let mut rig = Rig::with(4);
    let a = rig.connect("a:1");
    let keys = ['a', 'b', 'c', 'd'].map(|name| rig.message(a, name, 1));
    assert!(rig.consumer.is_starved());
    rig.commands(a);
    let b = rig.connect("b:1");
    assert_eq!((rig.commands(a), rig.commands(b)), (vec!["RDY 2".into()], vec![]));
    rig.finish(keys[0]).unwrap();
    assert_eq!(rig.commands(b), ["RDY 1"]);
    rig.finish(keys[1]).unwrap();
    rig.finish(keys[2]).unwrap();
    assert_eq!((rig.commands(b), rig.commands(a).len()), (vec!["RDY 2".into()], 3));
    rig.finish(keys[3]).unwrap();
    assert!(!rig.consumer.is_starved());
}

#[test]
fn an_nsqd_that_is_removed_is_drained() {
    let mut rig = Rig::with(4);
    let (a, b) = (rig.connect("a:1"), rig.connect("b:1"));
    let key = rig.message(a, 'a', 1);
    rig.commands(a);
    rig.commands(b);
    assert!(!rig.consumer.remove_nsqd("x:1", rig.now, &mut rig.out));
    assert!(rig.consumer.remove_nsqd("a:1", rig.now, &mut rig.out));
    assert_eq!((rig.commands(a), rig.commands(b)), (vec!["CLS".into()], vec!["RDY 3".into()]));
    // It was on its way already.
    rig.input(a, &message('b', 1));
    rig.response(a, b"CLOSE_WAIT");
    assert_eq!((rig.delivered(), rig.commands(a)), (vec![], vec!["REQ b 0".into()]));
    rig.finish(key).unwrap();
    assert_eq!((rig.commands(a), rig.commands(b)), (vec!["FIN a".into()], vec!["RDY 4".into()]));
    rig.at(1);
    assert_eq!(rig.closes(), [a]);
    assert_eq!(rig.consumer.stats().connections.len(), 1);
}

#[test]
fn stop_requeues_what_is_not_answered_and_does_not_wait_for_ever() {
    let mut rig = Rig::with(4);
    let a = rig.connect("a:1");
    let key = rig.message(a, 'a', 1);
    rig.commands(a);
    rig.consumer.add_nsqd("pending:1", rig.now, &mut rig.out);
    let pending = rig.take_dial("pending:1");
    rig.consumer.add_nsqlookupd("l:1", rig.now, &mut rig.out).unwrap();
    let call = rig.calls().remove(0).0;
    rig.stop(5);
    rig.stop(50);
    assert_eq!(rig.closes(), [pending]);
    // Too late for these.
    rig.answer(call, &["z:1"]);
    rig.consumer.handle_connected(pending, rig.now, &mut rig.out);
    assert_eq!((rig.closes(), rig.out.net.dial.len()), (vec![pending], 0));
    assert!(!rig.consumer.add_nsqd("y:1", rig.now, &mut rig.out));
    assert_eq!(rig.consumer.add_nsqlookupd("m:1", rig.now, &mut rig.out), Ok(false));
    rig.at(4_999);
    assert_eq!(rig.commands(a), ["CLS"]);
    rig.now = Now::from_millis(5_000);
    rig.consumer.handle_timeout(rig.now, &mut rig.out);
    assert_eq!(rig.finish(key), Err(AnswerError::TimedOut));
    // The socket takes nothing: it is closed all the same.
    rig.out.net.transmit.clear();
    assert_eq!(rig.consumer.poll_timeout(), Some(Instant::from_millis(6_000)));
    rig.now = Now::from_millis(6_000);
    rig.consumer.handle_timeout(rig.now, &mut rig.out);
    assert_eq!((rig.closes(), rig.consumer.is_stopped()), (vec![a], true));
    assert_eq!(rig.finish(key), Err(AnswerError::ConnectionLost));
    rig.events();
    rig.stop(0);
    assert!(rig.out.events.is_empty() && rig.consumer.stats().requeued == 1);
}

#[test]
fn stop_works_without_connections_and_in_backoff() {
    let mut rig = Rig::with(4);
    rig.stop(30);
    assert_eq!(rig.events(), [ConsumerEvent::Stopping, ConsumerEvent::Stopped]);
    let (mut rig, id) = Rig::open(backoff(Duration::from_secs(9), 4));
    let keys = ['a', 'b'].map(|name| rig.message(id, name, 0));
    rig.requeue(keys[0], true).unwrap();
    rig.commands(id);
    rig.stop(0);
    assert_eq!(rig.commands(id), ["CLS", "REQ b 0"]);
    rig.at(0);
    assert!(rig.consumer.is_stopped());
}

#[test]
fn all_nsqlookupds_are_asked_and_what_they_name_is_joined() {
    let mut rig = Rig::with(4);
    for (address, is_new) in [("l:1", true), ("http://l:1", false), ("m:1", true)] {
        assert_eq!(rig.consumer.add_nsqlookupd(address, rig.now, &mut rig.out), Ok(is_new));
    }
    let calls = rig.calls();
    assert_eq!(calls.iter().map(|(_, host)| host.as_str()).collect::<Vec<_>>(), ["l:1", "m:1"]);
    rig.answer(calls[0].0, &["a:1", "b:1"]);
    rig.answer(calls[1].0, &["b:1", "c:1"]);
    rig.answer(calls[1].0, &["again:1"]);
    let dialled: Vec<String> = rig.out.net.dial.drain(..).map(|dial| dial.address).collect();
    assert_eq!(dialled, ["a:1", "b:1", "c:1"]);
    let next = rig.consumer.directory.poll_timeout().unwrap();
    let range = Instant::from_millis(42_000)..=Instant::from_millis(60_000);
    assert!(range.contains(&next), "{next:?}");
    assert!(rig.consumer.remove_nsqlookupd("m:1") && !rig.consumer.remove_nsqlookupd("m:1"));
}

#[test]
fn nsqlookupds_get_the_secret_unless_it_is_kept_from_them() {
    for (lookupd_authorization, is_sent) in [(true, true), (false, false)] {
        let auth_secret = Some(crate::secret::Secret::new("s"));
        let connection = ConnectionOptions { auth_secret, ..ConnectionOptions::default() };
        let options = ConsumerOptions { connection, lookupd_authorization, ..Default::default() };
        let mut rig = Rig::new(options);
        rig.consumer.add_nsqlookupd("l:1", rig.now, &mut rig.out).unwrap();
        assert_eq!(rig.out.net.calls[0].1.authorization.is_some(), is_sent);
    }
}

#[test]
fn failures_of_lookups_change_nothing_and_not_found_is_no_failure() {
    let mut rig = Rig::with(4);
    rig.consumer.add_nsqlookupd("l:1", rig.now, &mut rig.out).unwrap();
    let call = |rig: &mut Rig, result| {
        let id = rig.calls().remove(0).0;
        rig.consumer.handle_called(id, result, rig.now, &mut rig.out);
        rig.events()
    };
    let answer = |status, body: &'static str| Ok(CallAnswer { status, body: body.into() });
    let not_found = answer(404, r#"{"message":"TOPIC_NOT_FOUND"}"#);
    assert_eq!(call(&mut rig, not_found), []);
    for result in [Err(CallFailure::TimedOut), Err(CallFailure::TooBig), answer(200, "garbage")] {
        let next = rig.consumer.directory.poll_timeout().unwrap();
        rig.at(next.as_nanos().div_ceil(1_000_000));
        let events = call(&mut rig, result);
        assert!(matches!(events[..], [ConsumerEvent::Directory(_)]), "{events:?}");
    }
    // It wants to be asked over TLS.
    let next = rig.consumer.directory.poll_timeout().unwrap();
    rig.at(next.as_nanos().div_ceil(1_000_000));
    assert_eq!(call(&mut rig, answer(403, r#"{"https_port":9}"#)), []);
    assert_eq!(rig.out.net.calls[0].1.url.authority(), "l:9");
    assert!(rig.out.net.calls[0].1.url.is_https());
}

#[test]
fn what_nobody_names_any_more_is_drained_after_some_rounds() {
    let mut rig = Rig::with(4);
    rig.consumer.add_nsqlookupd("l:1", rig.now, &mut rig.out).unwrap();
    let id = rig.calls().remove(0).0;
    rig.answer(id, &["a:1", "b:1"]);
    let a = rig.out.net.dial.remove(0).id;
    let b = rig.out.net.dial.remove(0).id;
    rig.come_up(a);
    rig.come_up(b);
    assert!(!rig.consumer.add_nsqd("b:1", rig.now, &mut rig.out), "it is there, and stays now");
    rig.commands(a);
    rig.commands(b);
    let round = |rig: &mut Rig, nsqds: &[&str]| {
        let next = rig.consumer.directory.poll_timeout().unwrap();
        rig.at(next.as_nanos().div_ceil(1_000_000));
        let id = rig.calls().remove(0).0;
        rig.answer(id, nsqds);
        rig.commands(a)
    };
    for nsqds in [&[][..], &[], &["a:1"], &[], &[]] {
        assert_eq!(round(&mut rig, nsqds), [""; 0]);
    }
    assert_eq!(round(&mut rig, &[]), ["CLS"]);
    assert_eq!(rig.commands(b), ["RDY 4"]);
    // Named again while it is drained: a new connection.
    assert_eq!(round(&mut rig, &["a:1"]), [""; 0]);
    rig.take_dial("a:1");
}

#[test]
fn the_end_of_a_healthy_connection_is_a_reason_to_ask() {
    let mut rig = Rig::with(4);
    rig.consumer.add_nsqlookupd("l:1", rig.now, &mut rig.out).unwrap();
    let id = rig.calls().remove(0).0;
    rig.answer(id, &["a:1"]);
    let a = rig.take_dial("a:1");
    rig.come_up(a);
    rig.secs(20);
    rig.closed(a);
    rig.take_dial("a:1");
    assert_eq!(rig.calls(), []);
    rig.secs(20);
    assert_eq!(rig.calls().len(), 1);
}
