//! The conformance vectors K1 to K8 of clients.md section 3.13; K5 is in `slowdown.rs`.

use super::*;

const TICK: Duration = Duration::from_millis(10);

#[test]
fn k1_failures_slow_down_and_successes_speed_up() {
    let (mut rig, id) = Rig::open(backoff(TICK, 5));
    assert_eq!(rig.commands(id), ["RDY 5"]);
    for name in ['a', 'b', 'c'] {
        let key = rig.message(id, name, 0);
        rig.finish(key).unwrap();
    }
    assert_eq!(rig.commands(id), ["FIN a", "FIN b", "FIN c"]);
    for name in ['d', 'e'] {
        let key = rig.message(id, name, 0);
        rig.requeue(key, true).unwrap();
        assert_eq!(rig.commands(id), ["RDY 0".into(), format!("REQ {name} 0")]);
        rig.wait_over();
        assert_eq!(rig.commands(id), ["RDY 1"]);
    }
    let key = rig.message(id, 'f', 0);
    rig.finish(key).unwrap();
    assert_eq!(rig.commands(id), ["RDY 0", "FIN f"]);
    rig.wait_over();
    let key = rig.message(id, 'a', 0);
    rig.finish(key).unwrap();
    assert_eq!(rig.commands(id), ["RDY 1", "RDY 5", "FIN a"]);
    let levels: Vec<(u32, u64)> = rig
        .events()
        .into_iter()
        .filter_map(|event| {
            let ConsumerEvent::Backoff { level, wait, .. } = event else { return None };
            Some((level, wait.as_millis() as u64))
        })
        .collect();
    assert_eq!(levels, [(1, 20), (2, 40), (1, 20)]);
}

#[test]
fn k2_a_requeue_without_backoff_keeps_the_level() {
    let (mut rig, id) = Rig::open(backoff(TICK, 1));
    assert_eq!(rig.commands(id), ["RDY 1"]);
    let key = rig.message(id, 'a', 0);
    rig.requeue(key, true).unwrap();
    assert_eq!(rig.commands(id), ["RDY 0", "REQ a 0"]);
    rig.wait_over();
    let key = rig.message(id, 'b', 0);
    rig.requeue(key, false).unwrap();
    assert_eq!(rig.commands(id), ["RDY 1", "RDY 0", "REQ b 0"]);
    rig.wait_over();
    let key = rig.message(id, 'c', 0);
    rig.finish(key).unwrap();
    assert_eq!(rig.commands(id), ["RDY 1", "FIN c"]);
    // Without a level it changes nothing.
    let key = rig.message(id, 'd', 0);
    rig.requeue(key, false).unwrap();
    assert_eq!(rig.commands(id), ["REQ d 0"]);
}

#[test]
fn k3_pause_and_resume() {
    let (mut rig, id) = Rig::open(backoff(TICK, 5));
    let key = rig.message(id, 'a', 0);
    rig.finish(key).unwrap();
    rig.consumer.change_max_in_flight(0, rig.now, &mut rig.out);
    rig.consumer.change_max_in_flight(5, rig.now, &mut rig.out);
    rig.consumer.change_max_in_flight(5, rig.now, &mut rig.out);
    assert_eq!(rig.commands(id), ["RDY 5", "FIN a", "RDY 0", "RDY 5"]);
}

#[test]
fn k4_the_level_outlives_the_connection() {
    let (mut rig, id) = Rig::open(backoff(TICK, 5));
    let key = rig.message(id, 'a', 0);
    rig.requeue(key, true).unwrap();
    rig.wait_over();
    rig.closed(id);
    rig.secs(1);
    let id = rig.take_dial("a:1");
    rig.come_up(id);
    let (a, b) = {
        assert_eq!(rig.commands(id), ["RDY 1"]);
        let a = rig.message(id, 'a', 0);
        rig.finish(a).unwrap();
        (rig.commands(id), rig.message(id, 'b', 0))
    };
    assert_eq!(a, ["RDY 5", "FIN a"]);
    rig.finish(b).unwrap();
    assert_eq!(rig.commands(id), ["FIN b"]);
}

#[test]
fn k6_shares_are_divided_without_a_loss() {
    let mut rig = Rig::with(10);
    let a = rig.connect("a:1");
    assert_eq!(rig.commands(a), ["RDY 10"]);
    let b = rig.connect("b:1");
    assert_eq!((rig.commands(a), rig.commands(b)), (vec!["RDY 5".into()], vec!["RDY 5".into()]));
    let c = rig.connect("c:1");
    let all = |rig: &mut Rig| [a, b, c].map(|id| rig.commands(id).join(","));
    assert_eq!(all(&mut rig), ["RDY 4", "RDY 3", "RDY 3"]);
    for (count, expected) in [
        (20, ["RDY 7", "RDY 7", "RDY 6"]),
        (0, ["RDY 0", "RDY 0", "RDY 0"]),
        (2, ["RDY 1", "RDY 1", ""]),
        (10, ["RDY 4", "RDY 3", "RDY 3"]),
    ] {
        rig.consumer.change_max_in_flight(count, rig.now, &mut rig.out);
        assert_eq!(all(&mut rig), expected, "{count}");
    }
}

#[test]
fn k7_what_was_attempted_too_often_is_finished_or_handed_over() {
    let (mut rig, id) = Rig::open(ConsumerOptions::default());
    rig.commands(id);
    rig.events();
    rig.input(id, &message('a', 6));
    assert_eq!((rig.commands(id), rig.delivered()), (vec!["FIN a".into()], vec![]));
    let exhausted =
        ConsumerEvent::Exhausted { nsqd: "a:1".into(), id: *b"a000000000000000", attempts: 6 };
    assert_eq!(rig.events(), [exhausted]);
    assert_eq!(rig.consumer.stats().exhausted, 1);
    let key = rig.message(id, 'b', 5);
    rig.finish(key).unwrap();

    let options = ConsumerOptions { hand_over_exhausted: true, ..ConsumerOptions::default() };
    let (mut rig, id) = Rig::open(options);
    rig.input(id, &message('a', 6));
    assert!(rig.delivered()[0].exhausted);
    let (mut rig, id) =
        Rig::open(ConsumerOptions { max_attempts: 0, ..ConsumerOptions::default() });
    rig.input(id, &message('a', u16::MAX));
    assert!(!rig.delivered()[0].exhausted);
}

#[test]
fn k8_stop_waits_for_what_is_in_flight() {
    let mut rig = Rig::with(5);
    let id = rig.connect("a:1");
    let keys = ['a', 'b', 'c'].map(|name| rig.message(id, name, 1));
    rig.commands(id);
    rig.events();
    rig.stop(30);
    rig.response(id, b"CLOSE_WAIT");
    rig.at(400);
    for key in keys {
        assert!(!rig.consumer.is_stopped());
        rig.finish(key).unwrap();
    }
    assert_eq!(rig.commands(id), ["CLS", "FIN a", "FIN b", "FIN c"]);
    assert_eq!(rig.closes(), []);
    // All is written, and the timer says so.
    rig.at(400);
    assert_eq!(rig.closes(), [id]);
    assert!(rig.consumer.is_stopped());
    let closed = ConsumerEvent::Closed { nsqd: "a:1".into() };
    assert_eq!(rig.events(), [ConsumerEvent::Stopping, closed, ConsumerEvent::Stopped]);
    assert_eq!(rig.consumer.poll_timeout(), None);
}
