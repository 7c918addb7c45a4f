//! When there may be more than `max_in_flight`, and for how long.

use super::*;

/// The RDY count that a connection was told last, if it was told anything.
fn rdy(rig: &mut Rig, id: DialId) -> Option<String> {
    rig.commands(id).into_iter().rfind(|line| line.starts_with("RDY "))
}

#[test]
fn messages_that_are_under_way_when_rdy_moves_come_on_top() {
    let mut rig = Rig::with(4);
    let a = rig.connect("a:1");
    assert_eq!(rdy(&mut rig, a).as_deref(), Some("RDY 4"));
    // The nsqd has sent four messages. Nobody here knows of them when another one comes up.
    let b = rig.connect("b:1");
    assert_eq!(
        (rdy(&mut rig, a).as_deref(), rdy(&mut rig, b).as_deref()),
        (Some("RDY 2"), Some("RDY 2"))
    );
    let mut of_a: Vec<_> = ['a', 'b', 'c', 'd'].map(|name| rig.message(a, name, 1)).into();
    let of_b = ['e', 'f'].map(|name| rig.message(b, name, 1));
    assert_eq!(rig.consumer.stats().in_flight, 6);
    // From now on they count: what the one loses the other one does not get.
    rig.closed(b);
    assert_eq!(rig.finish(of_b[0]), Err(AnswerError::ConnectionLost));
    assert_eq!(rig.consumer.stats().in_flight, 4);
    assert_eq!(rdy(&mut rig, a).as_deref(), Some("RDY 4"));
    rig.out.net.dial.clear();
    let c = rig.connect("c:1");
    assert_eq!((rdy(&mut rig, a).as_deref(), rdy(&mut rig, c)), (Some("RDY 2"), None));
    rig.finish(of_a.remove(0)).unwrap();
    assert_eq!(rdy(&mut rig, c).as_deref(), Some("RDY 1"));
    rig.finish(of_a.remove(0)).unwrap();
    assert_eq!(rdy(&mut rig, c).as_deref(), Some("RDY 2"));
}

#[test]
fn what_a_lost_connection_left_in_hand_does_not_count() {
    let mut rig = Rig::with(2);
    let old = rig.connect("a:1");
    let kept = ['a', 'b'].map(|name| rig.message(old, name, 1));
    // Long enough for the connection to be dialled again at once.
    rig.secs(30);
    rig.closed(old);
    assert_eq!(rig.consumer.stats().in_flight, 0);
    let new = rig.take_dial("a:1");
    rig.come_up(new);
    assert_eq!(rdy(&mut rig, new).as_deref(), Some("RDY 2"));
    // The nsqd sends the very messages again, to a program that has them still.
    let again = ['a', 'b'].map(|name| rig.message(new, name, 2));
    assert_eq!(rig.consumer.stats().in_flight, 2);
    for key in kept {
        assert_eq!(rig.finish(key), Err(AnswerError::ConnectionLost));
    }
    assert_eq!(rig.consumer.stats().in_flight, 2);
    for key in again {
        rig.finish(key).unwrap();
    }
}

#[test]
fn what_was_let_go_does_not_count() {
    let mut rig = Rig::with(1);
    let id = rig.connect("a:1");
    let kept = rig.message(id, 'a', 1);
    rig.secs(61);
    assert_eq!(rig.consumer.stats().in_flight, 0);
    let other = rig.message(id, 'b', 1);
    assert_eq!(rig.consumer.stats().in_flight, 1);
    assert_eq!(rig.finish(kept), Err(AnswerError::TimedOut));
    rig.finish(other).unwrap();
}

#[test]
fn a_smaller_maximum_takes_nothing_back() {
    let mut rig = Rig::with(3);
    let id = rig.connect("a:1");
    let keys = ['a', 'b', 'c'].map(|name| rig.message(id, name, 1));
    rig.commands(id);
    rig.consumer.change_max_in_flight(1, rig.now, &mut rig.out);
    assert_eq!(rig.commands(id), ["RDY 1"]);
    assert_eq!(rig.consumer.stats().in_flight, 3);
    for key in keys {
        rig.finish(key).unwrap();
    }
}
