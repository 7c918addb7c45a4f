use core::pin::pin;
use core::task::Context;

use bytes::{Buf as _, Bytes};

use super::*;
use crate::reply_room::Unread;

fn visitors(max: usize) -> Rc<Visitors> {
    Visitors::new(Clock::start(), max, Arc::default())
}

fn enter(visitors: &Rc<Visitors>) -> Option<Visitor> {
    visitors.admit()
}

fn make_room(visitors: &Visitors, millis: u64) {
    visitors.make_room(Program::Nsqd, Instant::from_millis(millis));
}

/// Who was told to end or to hurry.
fn told(visitors: &[Visitor]) -> Vec<(bool, bool)> {
    visitors.iter().map(|it| (it.visit.is_ending.get(), it.visit.is_hurried.get())).collect()
}

#[test]
fn places_come_back_and_are_counted() {
    let visitors = visitors(2);
    let (first, second) = (enter(&visitors).unwrap(), enter(&visitors).unwrap());
    assert!(enter(&visitors).is_none());
    drop(first);
    let third = enter(&visitors).unwrap();
    assert_eq!((visitors.open.borrow().len(), visitors.meter.visitors()), (2, (2, 0)));
    drop((second, third));
    assert_eq!(visitors.meter.visitors(), (0, 0));
    assert!(enter(&self::visitors(0)).is_some());
}

#[test]
fn whoever_has_moved_nothing_for_the_longest_goes_first() {
    let visitors = visitors(4);
    let all: Vec<_> = (0..4).map(|_| enter(&visitors).unwrap()).collect();
    let stages = [
        // Half a body, for twenty seconds; half a head, for a second; idle for two; at work.
        (Stage::Asking, 10_000),
        (Stage::Asking, 29_000),
        (Stage::Idle, 28_000),
        (Stage::Working, 1_000),
    ];
    for (visitor, (stage, moved)) in all.iter().zip(stages) {
        visitor.visit.stage.set(stage);
        visitor.visit.moved.set(Instant::from_millis(moved));
    }
    let (no, end) = ((false, false), (true, false));
    make_room(&visitors, 30_000);
    assert_eq!(told(&all), [end, no, no, no]);
    make_room(&visitors, 30_000);
    assert_eq!(told(&all), [end, no, end, no]);
    make_room(&visitors, 30_000);
    assert_eq!(told(&all), [end, end, end, no]);
    assert_eq!(visitors.meter.visitors(), (4, 3));
}

#[test]
fn whoever_has_just_come_or_waits_for_an_answer_has_a_moment() {
    let visitors = visitors(3);
    let all = [0; 3].map(|_| enter(&visitors).unwrap());
    let stages = [(Stage::Working, 9_000), (Stage::Working, 8_000), (Stage::Idle, 9_999)];
    for (visitor, (stage, moved)) in all.iter().zip(stages) {
        visitor.visit.stage.set(stage);
        visitor.visit.moved.set(Instant::from_millis(moved));
    }
    let (no, hurry, end) = ((false, false), (false, true), (true, false));
    for millis in [10_000, 10_050] {
        make_room(&visitors, millis);
        assert_eq!(told(&all), [no, no, no]);
    }
    all[2].visit.moved.set(Instant::from_millis(10_240));
    make_room(&visitors, 10_250);
    assert_eq!(told(&all), [no, hurry, no]);
    // Those who come next do not wait for as long again.
    make_room(&visitors, 10_251);
    assert_eq!(told(&all), [hurry, hurry, no]);
    all[2].visit.moved.set(Instant::from_millis(10_248));
    make_room(&visitors, 10_252);
    assert_eq!(told(&all), [hurry, hurry, no]);
    make_room(&visitors, 10_253);
    assert_eq!(told(&all), [hurry, hurry, end]);
    // It has been told, and does not take the answer.
    all[1].visit.stage.set(Stage::Answering);
    make_room(&visitors, 10_254);
    assert_eq!(told(&all), [hurry, (true, true), end]);
}

#[test]
fn patience_comes_back_when_nobody_has_waited_for_a_while() {
    let visitors = visitors(1);
    let only = enter(&visitors).unwrap();
    only.visit.stage.set(Stage::Working);
    let is_hurried = |millis| {
        make_room(&visitors, millis);
        only.visit.is_hurried.get()
    };
    assert!(![0, 200, 1_200, 1_449].into_iter().any(is_hurried));
    assert!(is_hurried(1_450));
}

#[test]
fn many_go_at_a_time_where_there_are_many() {
    let visitors = visitors(64);
    let all: Vec<_> = (0..64).map(|_| enter(&visitors).unwrap()).collect();
    for (visitor, moved) in all.iter().zip(1_000..) {
        visitor.visit.moved.set(Instant::from_millis(moved));
    }
    // Who has had an answer has been idle for long enough.
    all[30].visit.is_served.set(true);
    make_room(&visitors, 1_000 + 30 + 24);
    assert!(told(&all).iter().all(|told| *told == (false, false)));
    make_room(&visitors, 1_000 + 30 + 25);
    assert_eq!(visitors.meter.visitors().1, 1);
    make_room(&visitors, 1_000 + 30 + 100);
    let told = told(&all);
    let gone: Vec<_> = (0..64).filter(|n| told[*n].0).collect();
    assert_eq!(gone, [0, 1, 2, 3, 30]);
}

/// Gives up those who owe, at `millis`, for `missing` bytes; says who was told to end.
fn given_up(visitors: &Visitors, all: &[Visitor], missing: usize, millis: u64) -> Vec<usize> {
    visitors.give_up(Program::Nsqd, missing, Instant::from_millis(millis));
    (0..all.len()).filter(|n| all[*n].visit.is_ending.get()).collect()
}

#[test]
fn who_takes_nothing_of_an_answer_goes_for_those_who_wait_for_its_room() {
    let visitors = visitors(8);
    let all: Vec<_> = (0..5).map(|_| enter(&visitors).unwrap()).collect();
    // Bytes, when it began, when it took some. The last one waits for another answer of its
    // own.
    let answers =
        [(0, 0, 0), (10, 1_000, 3_001), (10, 1_000, 3_000), (10, 0, 2_000), (10, 0, 1_900)];
    for (visitor, (owed, began, took)) in all.iter().zip(answers) {
        visitor.visit.owed.set(owed);
        visitor.visit.began.set(Instant::from_millis(began));
        visitor.visit.took.set(Instant::from_millis(took));
    }
    all[4].visit.stage.set(Stage::Working);
    assert_eq!(given_up(&visitors, &all, 0, 4_000), [0; 0]);
    assert_eq!(given_up(&visitors, &all, 5, 4_000), [4]);
    // What that one gives back is not there yet.
    assert_eq!(given_up(&visitors, &all, 10, 4_000), [4]);
    assert_eq!(given_up(&visitors, &all, 100, 4_000), [2, 3, 4]);
    assert_eq!(visitors.meter.visitors(), (5, 3));
}

#[test]
fn who_takes_a_little_now_and_then_has_a_limit_too() {
    let visitors = visitors(8);
    let all = [enter(&visitors).unwrap(), enter(&visitors).unwrap()];
    for (visitor, mib) in all.iter().zip([1, 64]) {
        visitor.visit.owed.set(mib << 20);
        visitor.visit.began.set(Instant::from_millis(10_000));
        visitor.visit.took.set(Instant::from_millis(100_000));
    }
    assert_eq!(given_up(&visitors, &all, 1 << 30, 15_124), [0; 0]);
    assert_eq!(given_up(&visitors, &all, 1 << 30, 15_125), [0]);
    assert_eq!(given_up(&visitors, &all, 1 << 30, 22_999), [0]);
    assert_eq!(given_up(&visitors, &all, 1 << 30, 23_000), [0, 1]);
}

#[test]
fn room_for_an_answer_comes_back_with_what_was_written() {
    let (visitors, answers) = (visitors(8), ReplyRoom::new());
    let visitor = enter(&visitors).unwrap();
    let visit = visitor.visit();
    let room = |len| {
        let never = |_| core::future::pending::<()>();
        visitors.room(Program::Nsqd, &answers, len, never)
    };
    future::block_on(async {
        let short = Bytes::from(vec![0; 64 * 1024]);
        let long = Bytes::from(vec![0; 64 * 1024 + 1]);
        assert!(room(short.len()).await.is_none());
        let permit = room(long.len()).await;
        let mut first = Unread::new(long.clone(), permit, &visit);
        let mut rest = pin!(room(usize::MAX));
        assert!(future::poll_once(rest.as_mut()).await.is_none());
        first.advance(long.len());
        assert_eq!((first.remaining(), visit.owed.get()), (0, long.len()));
        drop(first);
        assert_eq!(visit.owed.get(), 0);
        let all = Unread::new(short.clone(), rest.await, &visit);
        assert_eq!(answers.figures(), (64 << 20, 1));
        assert!(room(short.len()).await.is_none());
        drop(all);
        assert_eq!(answers.figures(), (0, 1));
    });
}

#[test]
fn a_newcomer_waits_until_somebody_has_left() {
    let visitors = visitors(1);
    let first = enter(&visitors).unwrap();
    let mut second = pin!(visitors.enter(Program::Nsqd, |_| core::future::pending::<()>()));
    let context = &mut Context::from_waker(Waker::noop());
    assert!(second.as_mut().poll(context).is_pending());
    make_room(&visitors, 1_000);
    let mut stay = pin!(first.stay(core::future::pending()));
    assert!(stay.as_mut().poll(context).is_ready());
    assert!(second.as_mut().poll(context).is_ready());
}
