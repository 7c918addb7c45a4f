use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::arena::Key;
use crate::message::Bodies;
use crate::storage::{self, DiskEvent, DiskOutput, Failure};
use crate::time::UnixNanos;

/// Takes down what is delivered; connections in `full` take one message and no more.
#[derive(Default)]
struct Sink {
    delivered: Vec<(ConnId, MessageId, u16)>,
    full: Vec<ConnId>,
    bodies: Bodies,
}

impl BacklogOutput for Sink {
    fn hold(&mut self, _: Ticket) {}

    fn bodies(&mut self) -> &mut Bodies {
        &mut self.bodies
    }
}

impl DiskOutput for Sink {
    fn ask(&mut self, _: storage::Op) -> storage::RequestId {
        storage::RequestId(0)
    }

    fn stored(&mut self, _: Ticket, _: Result<storage::Durability, &Failure>) {}
    fn event(&mut self, _: DiskEvent) {}
}

impl ChannelOutput for Sink {
    fn deliver(&mut self, conn: ConnId, message: &Message) -> bool {
        self.delivered.push((conn, message.id, message.attempts));
        !self.full.contains(&conn)
    }
}

impl Sink {
    /// What was delivered since the last call: connection, id, attempts.
    fn take(&mut self) -> Vec<(u32, u64, u16)> {
        let taken = core::mem::take(&mut self.delivered);
        taken.into_iter().map(|(conn, id, attempts)| (conn.index(), id.0, attempts)).collect()
    }
}

const OPTIONS: ChannelOptions = ChannelOptions {
    latency_window: None,
    mem_queue_size: 3,
    max_msg_timeout: Duration::from_secs(5),
    max_channel_consumers: 2,
    beyond: Beyond::Nowhere,
};
const TIMEOUT: Duration = Duration::from_secs(2);

fn channel(name: &str) -> Channel {
    make(name, OPTIONS)
}

fn make(name: &str, options: ChannelOptions) -> Channel {
    let name = ChannelName::new(name).unwrap();
    let beyond = if name.is_ephemeral() { Beyond::Dropped } else { options.beyond };
    let options = ChannelOptions { beyond, ..options };
    Channel::new(name, TopicId::new(0, 0), options, 1, &mut Sink::default())
}

fn conn(index: u32) -> ConnId {
    ConnId::new(index, 0)
}

fn message(id: u64) -> Message {
    let body = Bytes::from_static(b"x");
    Message { id: MessageId(id), timestamp: UnixNanos(0), attempts: 0, record: None, body }
}

fn at(millis: u64) -> Now {
    Now::from_millis(millis)
}

#[test]
fn delivers_as_far_as_rdy_allows_and_turns_about() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    let b = channel.subscribe(conn(2), TIMEOUT, 0).unwrap();
    for id in 1..=5 {
        channel.put(message(id), None, at(0), &mut out);
    }
    assert_eq!((out.take(), channel.depth()), (Vec::new(), 5));
    channel.ready(a, 2, at(0), &mut out);
    assert_eq!(out.take(), [(1, 1, 1), (1, 2, 1)]);
    channel.ready(b, 1, at(0), &mut out);
    assert_eq!(out.take(), [(2, 3, 1)]);
    channel.finish(a, MessageId(1), at(0), &mut out).unwrap();
    assert_eq!(out.take(), [(1, 4, 1)]);
    channel.finish(b, MessageId(3), at(0), &mut out).unwrap();
    assert_eq!(out.take(), [(2, 5, 1)]);
    channel.ready(a, 9, at(0), &mut out);
    channel.ready(b, 9, at(0), &mut out);
    for id in 6..=9 {
        channel.put(message(id), None, at(0), &mut out);
    }
    assert_eq!(out.take(), [(1, 6, 1), (2, 7, 1), (1, 8, 1), (2, 9, 1)]);
    assert_eq!(channel.in_flight_count(), 7);
}

#[test]
fn a_lowered_rdy_counts_what_is_in_flight() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    channel.ready(a, 5, at(0), &mut out);
    for id in 1..=6 {
        channel.put(message(id), None, at(0), &mut out);
    }
    assert_eq!(out.take().len(), 5);
    channel.ready(a, 3, at(0), &mut out);
    for id in 1..=2 {
        channel.finish(a, MessageId(id), at(0), &mut out).unwrap();
    }
    assert_eq!(out.take(), []);
    channel.finish(a, MessageId(3), at(0), &mut out).unwrap();
    assert_eq!(out.take(), [(1, 6, 1)]);
}

#[test]
fn answers_are_refused_for_what_is_not_in_flight_to_the_asker() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    let b = channel.subscribe(conn(2), TIMEOUT, 0).unwrap();
    assert_eq!(channel.subscribe(conn(3), TIMEOUT, 0), Err(TooManyConsumers));
    channel.ready(a, 1, at(0), &mut out);
    channel.put(message(1), None, at(0), &mut out);
    let id = MessageId(1);
    assert_eq!(channel.finish(b, id, at(0), &mut out), Err(NotInFlight::NotOwner));
    assert_eq!(channel.touch(b, id, TIMEOUT, at(0)), Err(NotInFlight::NotOwner));
    let requeued = channel.requeue(b, id, Duration::ZERO, at(0), &mut out);
    assert_eq!(requeued, Err(NotInFlight::NotOwner));
    assert_eq!(channel.finish(a, MessageId(2), at(0), &mut out), Err(NotInFlight::Unknown));
    assert_eq!(channel.finish(a, id, at(0), &mut out), Ok(()));
    assert_eq!(channel.finish(a, id, at(0), &mut out), Err(NotInFlight::Unknown));
}

#[test]
fn an_unanswered_message_comes_back_with_one_attempt_more() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    channel.ready(a, 1, at(0), &mut out);
    channel.put(message(1), None, at(0), &mut out);
    assert_eq!(channel.poll_timeout(), Some(at(2000).instant));
    channel.handle_timeout(at(1999), &mut out);
    assert_eq!(out.take(), [(1, 1, 1)]);
    channel.handle_timeout(at(2000), &mut out);
    assert_eq!(out.take(), [(1, 1, 2)]);
    assert_eq!(channel.counters().timeouts, 1);
    // While paused it is taken back and kept.
    channel.set_paused(true, at(2000), &mut out);
    channel.handle_timeout(at(4000), &mut out);
    assert_eq!((out.take(), channel.depth(), channel.in_flight_count()), (Vec::new(), 1, 0));
    channel.set_paused(false, at(4001), &mut out);
    assert_eq!(out.take(), [(1, 1, 3)]);
}

/// By a requeue, a timeout, a lost consumer; a message of another server's file comes with more.
#[test]
fn attempts_stay_where_a_signed_number_ends() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    channel.ready(a, 1, at(0), &mut out);
    channel.put(Message { attempts: ATTEMPTS_MAX - 1, ..message(1) }, None, at(0), &mut out);
    assert_eq!(out.take(), [(1, 1, 32_767)]);
    channel.handle_timeout(at(2000), &mut out);
    assert_eq!(out.take(), [(1, 1, 32_767)]);
    channel.requeue(a, MessageId(1), Duration::ZERO, at(2000), &mut out).unwrap();
    assert_eq!(out.take(), [(1, 1, 32_767)]);
    channel.finish(a, MessageId(1), at(2000), &mut out).unwrap();
    channel.put(Message { attempts: u16::MAX, ..message(2) }, None, at(2000), &mut out);
    assert_eq!(out.take(), [(1, 2, 32_767)]);
}

#[test]
fn touch_extends_up_to_the_cap() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    channel.ready(a, 2, at(0), &mut out);
    channel.put(message(1), None, at(0), &mut out);
    channel.put(message(2), None, at(0), &mut out);
    out.take();
    for time in (500..5000).step_by(500) {
        channel.touch(a, MessageId(1), TIMEOUT, at(time)).unwrap();
        channel.handle_timeout(at(time), &mut out);
    }
    // The other one timed out twice on the way, and came back each time.
    assert_eq!(out.take(), [(1, 2, 2), (1, 2, 3)]);
    channel.finish(a, MessageId(2), at(4500), &mut out).unwrap();
    channel.handle_timeout(at(4999), &mut out);
    assert_eq!(out.take(), []);
    channel.handle_timeout(at(5000), &mut out);
    assert_eq!(out.take(), [(1, 1, 2)]);
}

#[test]
fn a_delay_is_kept_to_the_instant() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    channel.ready(a, 1, at(0), &mut out);
    channel.put_deferred(message(1), at(300).instant, None, at(0), &mut out);
    channel.put_deferred(message(2), at(100).instant, None, at(0), &mut out);
    assert_eq!((channel.deferred_count(), channel.depth()), (2, 0));
    assert_eq!(channel.poll_timeout(), Some(at(100).instant));
    channel.handle_timeout(at(100), &mut out);
    assert_eq!(out.take(), [(1, 2, 1)]);
    channel.requeue(a, MessageId(2), Duration::from_millis(50), at(120), &mut out).unwrap();
    channel.handle_timeout(at(169), &mut out);
    assert_eq!(out.take(), []);
    channel.handle_timeout(at(170), &mut out);
    assert_eq!(out.take(), [(1, 2, 2)]);
    assert_eq!(channel.counters().requeues, 1);
}

#[test]
fn what_a_lost_consumer_had_goes_to_the_others_at_once() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    channel.ready(a, 3, at(0), &mut out);
    for id in 1..=3 {
        channel.put(message(id), None, at(0), &mut out);
    }
    let b = channel.subscribe(conn(2), TIMEOUT, 0).unwrap();
    channel.ready(b, 2, at(0), &mut out);
    out.take();
    assert!(!channel.unsubscribe(a, at(0), &mut out));
    assert_eq!(out.take(), [(2, 1, 2), (2, 2, 2)]);
    assert_eq!((channel.depth(), channel.in_flight_count()), (1, 2));
    assert!(channel.unsubscribe(b, at(0), &mut out));
    assert_eq!((channel.depth(), channel.in_flight_count()), (3, 0));
    // Nobody is left: the old deadlines find nothing.
    channel.handle_timeout(at(9000), &mut out);
    assert_eq!((channel.counters().timeouts, channel.poll_timeout()), (0, None));
}

#[test]
fn emptying_frees_the_consumers() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    channel.ready(a, 1, at(0), &mut out);
    channel.put(message(1), None, at(0), &mut out);
    channel.put(message(2), None, at(0), &mut out);
    channel.put_deferred(message(3), at(5).instant, None, at(0), &mut out);
    out.take();
    channel.empty(at(0), &mut out);
    let counts = (channel.depth(), channel.in_flight_count(), channel.deferred_count());
    assert_eq!(counts, (0, 0, 0));
    assert_eq!(channel.finish(a, MessageId(1), at(0), &mut out), Err(NotInFlight::Unknown));
    channel.put(message(4), None, at(0), &mut out);
    assert_eq!(out.take(), [(1, 4, 1)]);
}

#[test]
fn a_full_connection_gets_no_more_until_it_is_unblocked() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    out.full.push(conn(1));
    channel.ready(a, 9, at(0), &mut out);
    for id in 1..=3 {
        channel.put(message(id), None, at(0), &mut out);
    }
    assert_eq!(out.take(), [(1, 1, 1)]);
    out.full.clear();
    channel.unblock(a, at(0), &mut out);
    assert_eq!(out.take(), [(1, 2, 1), (1, 3, 1)]);
}

#[test]
fn room_and_what_happens_without() {
    let (mut lasting, mut out) = (channel("c"), Sink::default());
    let mut ephemeral = channel("c#ephemeral");
    for id in 1..=5 {
        lasting.put(message(id), None, at(0), &mut out);
        ephemeral.put(message(id), None, at(0), &mut out);
    }
    assert_eq!((lasting.depth(), lasting.room()), (5, 0));
    assert_eq!((ephemeral.depth(), ephemeral.room()), (3, usize::MAX));
    assert_eq!(ephemeral.counters().messages, 5);
}

/// Two servers' data in one folder: each of two messages with one id is tracked, answered by
/// whoever has it, and comes back in time (nsqd-protocol.md W24).
#[test]
fn an_id_that_comes_twice_is_two_messages() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let consumers = [1, 2].map(|n| channel.subscribe(conn(n), TIMEOUT, 0).unwrap());
    for consumer in consumers {
        channel.ready(consumer, 1, at(0), &mut out);
    }
    for _ in 0..3 {
        channel.put(message(7), None, at(0), &mut out);
    }
    assert_eq!((out.take(), channel.depth()), (vec![(1, 7, 1), (2, 7, 1)], 1));
    let [a, b] = consumers;
    channel.ready(a, 0, at(0), &mut out);
    channel.ready(b, 0, at(0), &mut out);
    channel.touch(b, MessageId(7), TIMEOUT, at(100)).unwrap();
    assert_eq!(channel.finish(b, MessageId(7), at(100), &mut out), Ok(()));
    assert_eq!(channel.finish(b, MessageId(7), at(100), &mut out), Err(NotInFlight::NotOwner));
    channel.handle_timeout(at(2000), &mut out);
    assert_eq!((channel.in_flight_count(), channel.depth()), (0, 2));
    assert_eq!(channel.finish(a, MessageId(7), at(2000), &mut out), Err(NotInFlight::Unknown));
}

/// What a consumer gives back, or lets time out, is not dropped while that consumer has room for
/// it.
#[test]
fn an_ephemeral_channel_keeps_what_can_be_delivered_again() {
    let (mut channel, mut out) = (channel("c#ephemeral"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    channel.ready(a, 5, at(0), &mut out);
    for id in 1..=8 {
        channel.put(message(id), None, at(0), &mut out);
    }
    assert_eq!((out.take().len(), channel.depth()), (5, 3));
    channel.requeue(a, MessageId(1), Duration::ZERO, at(0), &mut out).unwrap();
    assert_eq!((out.take(), channel.depth()), (vec![(1, 6, 1)], 3));
    channel.handle_timeout(at(2000), &mut out);
    assert_eq!((out.take().len(), channel.depth(), channel.in_flight_count()), (5, 3, 5));
}

#[test]
fn a_burst_leaves_no_memory_behind() {
    let options = ChannelOptions { mem_queue_size: 10_000, ..OPTIONS };
    let (mut channel, mut out) = (make("c", options), Sink::default());
    for id in 1..=5000 {
        channel.put(message(id), None, at(0), &mut out);
    }
    assert!(channel.backlog.kept() >= 5000);
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    channel.ready(a, 6000, at(0), &mut out);
    assert_eq!(out.take().len(), 5000);
    assert!(channel.backlog.kept() <= 512);
}

#[test]
fn a_sampling_consumer_gets_its_share() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 25).unwrap();
    channel.ready(a, 100_000, at(0), &mut out);
    for id in 1..=10_000 {
        channel.put(message(id), None, at(0), &mut out);
    }
    let share = out.take().len();
    assert!((2300..2700).contains(&share), "{share} of 10000");
    assert_eq!((channel.depth(), channel.in_flight_count()), (0, share));
    assert_eq!(channel.counters().deliveries, share as u64);
}

#[test]
fn consumers_that_come_and_go_leave_nothing_behind() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let stays = channel.subscribe(conn(0), TIMEOUT, 0).unwrap();
    channel.ready(stays, 1, at(0), &mut out);
    for index in 1..1000 {
        let consumer = channel.subscribe(conn(index), TIMEOUT, 0).unwrap();
        channel.ready(consumer, 1, at(0), &mut out);
        channel.unsubscribe(consumer, at(0), &mut out);
    }
    assert!(channel.ready.len() <= 20, "{} stand in line", channel.ready.len());
    channel.put(message(1), None, at(0), &mut out);
    assert_eq!(out.take(), [(0, 1, 1)]);
}

#[test]
fn a_stopped_channel_keeps_what_comes_back() {
    let (mut channel, mut out) = (channel("c"), Sink::default());
    let a = channel.subscribe(conn(1), TIMEOUT, 0).unwrap();
    let b = channel.subscribe(conn(2), TIMEOUT, 0).unwrap();
    channel.ready(a, 1, at(0), &mut out);
    channel.put(message(1), None, at(0), &mut out);
    assert_eq!(out.take(), [(1, 1, 1)]);
    channel.ready(b, 5, at(0), &mut out);
    channel.stop();
    channel.unsubscribe(a, at(0), &mut out);
    channel.put(message(2), None, at(0), &mut out);
    channel.handle_timeout(at(100_000), &mut out);
    assert_eq!((out.take(), channel.depth()), (vec![], 2));
}
