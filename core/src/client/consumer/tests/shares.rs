//! Shares after rates, backoff of single connections, and figures.

use super::*;

const BUSY: [char; 8] = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

/// Two connections that share 40, of which one has messages.
fn lopsided() -> (Rig, [DialId; 2]) {
    let options =
        ConsumerOptions { max_in_flight: 40, rdy_shares: RdyShares::Rate, ..Default::default() };
    let mut rig = Rig::new(options);
    let ids = [rig.connect("a:1"), rig.connect("b:1")];
    assert_eq!(ids.map(|id| rig.commands(id).join(",")), ["RDY 40,RDY 20", "RDY 20"]);
    (rig, ids)
}

fn messages(rig: &mut Rig, id: DialId) {
    for name in BUSY {
        let key = rig.message(id, name, 1);
        rig.finish(key).unwrap();
    }
    rig.commands(id);
}

#[test]
fn whoever_has_messages_gets_more_and_the_others_keep_enough_to_begin() {
    let (mut rig, [a, b]) = lopsided();
    messages(&mut rig, a);
    rig.secs(5);
    assert_eq!((rig.commands(a), rig.commands(b)), (vec!["RDY 29".into()], vec!["RDY 11".into()]));
    // Now it is the other one's turn: what was before counts less and less.
    for round in 2..8 {
        messages(&mut rig, b);
        rig.secs(5 * round);
    }
    let rdys: Vec<u32> = rig.consumer.stats().connections.iter().map(|each| each.rdy).collect();
    assert_eq!(rdys, [11, 29]);
    // Without messages everybody is equal again, and nothing is left to be looked at.
    rig.commands(a);
    rig.secs(200);
    assert_eq!(rig.commands(a).pop().as_deref(), Some("RDY 20"));
    assert_eq!(rig.consumer.measure_at, None);
}

#[test]
fn equal_shares_need_no_timer() {
    let (mut rig, id) = Rig::open(ConsumerOptions { max_in_flight: 9, ..Default::default() });
    messages(&mut rig, id);
    assert_eq!(rig.consumer.measure_at, None);
}

#[test]
fn one_nsqd_is_left_alone_and_the_others_go_on() {
    let options = ConsumerOptions {
        backoff_scope: BackoffScope::Connection,
        ..backoff(Duration::from_millis(10), 10)
    };
    let mut rig = Rig::new(options);
    let [a, b] = [rig.connect("a:1"), rig.connect("b:1")];
    rig.commands(a);
    rig.commands(b);
    rig.events();
    let key = rig.message(a, 'x', 0);
    rig.requeue(key, true).unwrap();
    // What one does not use is for the other.
    assert_eq!(rig.commands(a), ["RDY 0", "REQ x 0"]);
    assert_eq!(rig.commands(b), ["RDY 10"]);
    let nsqd = || Some(Arc::from("a:1"));
    let wait = Duration::from_millis(20);
    assert_eq!(rig.events(), [ConsumerEvent::Backoff { nsqd: nsqd(), level: 1, wait }]);
    let levels = |rig: &Rig| {
        let stats = rig.consumer.stats();
        (
            stats.backoff_level,
            stats.connections[0].backoff_level,
            stats.connections[1].backoff_level,
        )
    };
    assert_eq!(levels(&rig), (0, 1, 0));
    // A success elsewhere says nothing about it.
    let key = rig.message(b, 'y', 0);
    rig.finish(key).unwrap();
    assert_eq!((rig.commands(b), levels(&rig)), (vec!["FIN y".into()], (0, 1, 0)));
    rig.at(20);
    assert_eq!(rig.events(), [ConsumerEvent::BackoffTest { nsqd: nsqd() }]);
    assert_eq!((rig.commands(b), rig.commands(a)), (vec!["RDY 9".into()], vec!["RDY 1".into()]));
    let key = rig.message(a, 'z', 0);
    rig.finish(key).unwrap();
    assert_eq!(rig.events(), [ConsumerEvent::BackoffOver { nsqd: nsqd() }]);
    assert_eq!(
        (rig.commands(b), rig.commands(a)),
        (vec!["RDY 5".into()], vec!["RDY 5".into(), "FIN z".into()])
    );
}

#[test]
fn the_backoff_of_an_nsqd_outlives_its_connection() {
    let options = ConsumerOptions {
        backoff_scope: BackoffScope::Connection,
        ..backoff(Duration::from_secs(10), 10)
    };
    let (mut rig, id) = Rig::open(options);
    let key = rig.message(id, 'x', 0);
    rig.requeue(key, true).unwrap();
    rig.closed(id);
    rig.secs(1);
    let id = rig.take_dial("a:1");
    rig.come_up(id);
    assert_eq!(rig.commands(id), Vec::<String>::new());
    rig.secs(20);
    assert_eq!(rig.commands(id), ["RDY 1"]);
}

#[test]
fn figures_of_an_nsqd() {
    let (mut rig, id) = Rig::open(ConsumerOptions { max_in_flight: 5, ..Default::default() });
    let key = rig.message(id, 'x', 1);
    rig.at(300);
    rig.finish(key).unwrap();
    rig.closed(id);
    rig.consumer.handle_connect_failed(DialId(9), "nobody asked", rig.now, &mut rig.out);
    rig.secs(1);
    let id = rig.take_dial("a:1");
    rig.consumer.handle_connect_failed(id, "refused", rig.now, &mut rig.out);
    let stats = &rig.consumer.stats().connections[0];
    assert_eq!((stats.latencies.count(), stats.latencies.max()), (1, Duration::from_millis(300)));
    let codes: Vec<_> =
        stats.errors.by_code.iter().map(|(code, count)| (&**code, *count)).collect();
    assert_eq!(codes, [("closed", 1), ("dial", 1)]);
    assert_eq!(stats.errors.last.as_deref(), Some("refused"));
}

/// Two nsqds of which the second has one message: it comes and fails while the first one's wait
/// begins.
fn one_busy_one_idle() -> (Rig, [DialId; 2]) {
    let mut rig = Rig::new(backoff(Duration::from_secs(1), 4));
    let [busy, idle] = [rig.connect("a:1"), rig.connect("b:1")];
    let first = rig.message(busy, 'x', 1);
    let (second, last) = (rig.message(busy, 'y', 1), rig.message(idle, 'z', 1));
    rig.commands(busy);
    rig.commands(idle);
    rig.requeue(first, true).unwrap();
    for (millis, key) in [(10, second), (20, last)] {
        rig.at(millis);
        rig.requeue(key, true).unwrap();
    }
    assert_eq!(rig.commands(idle), ["RDY 0", "REQ z 90000"]);
    rig.commands(busy);
    (rig, [busy, idle])
}

#[test]
fn a_test_does_not_begin_at_an_nsqd_that_ran_dry() {
    let (mut rig, [busy, idle]) = one_busy_one_idle();
    rig.secs(2);
    assert_eq!((rig.commands(busy), rig.commands(idle)), (vec!["RDY 1".into()], vec![]));
    // It fails: the next test begins there again, since that is where something came from.
    let key = rig.message(busy, 'x', 1);
    rig.requeue(key, true).unwrap();
    rig.secs(6);
    assert_eq!(rig.commands(busy), ["RDY 0", "REQ x 90000", "RDY 1"]);
    assert_eq!(rig.commands(idle), Vec::<String>::new());
    // And again after a success.
    let key = rig.message(busy, 'x', 1);
    rig.finish(key).unwrap();
    rig.secs(8);
    assert_eq!(rig.commands(busy), ["RDY 0", "FIN x", "RDY 1"]);
}

/// It is the idle one's message that fails first.
#[test]
fn a_test_prefers_an_nsqd_that_had_no_rdy_left() {
    let mut rig = Rig::new(backoff(Duration::from_secs(1), 4));
    let [busy, idle] = [rig.connect("a:1"), rig.connect("b:1")];
    let only = rig.message(idle, 'z', 1);
    rig.message(busy, 'x', 1);
    rig.message(busy, 'y', 1);
    rig.commands(busy);
    rig.commands(idle);
    rig.requeue(only, true).unwrap();
    rig.secs(2);
    assert_eq!(rig.commands(idle), ["RDY 0", "REQ z 90000"]);
    assert_eq!(rig.commands(busy), ["RDY 0", "RDY 1"]);
}

#[test]
fn a_test_moves_on_when_nothing_comes_for_the_wait() {
    let (mut rig, [busy, idle]) = one_busy_one_idle();
    rig.at(3_999);
    assert_eq!((rig.commands(busy), rig.commands(idle)), (vec!["RDY 1".into()], vec![]));
    // The wait before was 2 s.
    rig.secs(4);
    assert_eq!(
        (rig.commands(busy), rig.commands(idle)),
        (vec!["RDY 0".into()], vec!["RDY 1".into()])
    );
    rig.secs(6);
    assert_eq!(
        (rig.commands(busy), rig.commands(idle)),
        (vec!["RDY 1".into()], vec!["RDY 0".into()])
    );
    // Something is being worked on: the test stays until it is answered.
    let key = rig.message(busy, 'x', 1);
    rig.secs(20);
    assert_eq!((rig.commands(busy), rig.commands(idle)), (vec![], vec![]));
    rig.finish(key).unwrap();
    assert_eq!(rig.consumer.stats().backoff_level, 0);
}

/// Nor do waits of milliseconds make idle nsqds hear RDY all the time.
#[test]
fn a_test_does_not_hurry_from_one_idle_nsqd_to_the_next() {
    let mut rig = Rig::new(backoff(Duration::from_millis(1), 4));
    let [a, b] = [rig.connect("a:1"), rig.connect("b:1")];
    let key = rig.message(a, 'x', 1);
    rig.requeue(key, true).unwrap();
    rig.commands(a);
    rig.commands(b);
    rig.secs(1);
    let count = rig.commands(a).len() + rig.commands(b).len();
    assert!((8..=20).contains(&count), "{count}");
}
