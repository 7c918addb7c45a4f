//! Wrong observations have to be caught; an oracle that never speaks proves nothing.

use bytes::Bytes;

use super::counts::Look;
use super::*;
use crate::model::{RawId, body_of};
use crate::net::LinkId;
use sansq_core::message::ATTEMPTS_MAX;
use sansq_core::name::ChannelName;
use sansq_core::nsqd::{ChannelStats, LatencyStats, TopicStats};
use sansq_core::storage::Store;

const ID: RawId = *b"0000000000000001";
const TIMEOUT: Duration = Duration::from_secs(10);

struct Scene {
    oracles: Oracles,
    now: Instant,
}

impl Scene {
    /// One message of 20 bytes, published a second after the channel was made; one consumer, RDY 1.
    fn new() -> Self {
        let mut scene =
            Self { oracles: Oracles::new(Duration::from_secs(60), false), now: Instant::ZERO };
        let place = place();
        scene.sees(Observation::ChannelCreated(place)).unwrap();
        scene.now = Instant::from_millis(1000);
        scene.publishes();
        for link in [LinkId(1), LinkId(2)] {
            scene.sees(Observation::Subscribed { link, place, msg_timeout: TIMEOUT }).unwrap();
            scene.sees(Observation::Ready { link, count: 1 }).unwrap();
        }
        scene
    }

    fn sees(&mut self, observation: Observation) -> Result<(), Violation> {
        self.oracles.observe(self.now, observation)
    }

    fn publishes(&mut self) {
        let (target, topic, delay) = (Target::Nsqd(0), place().topic, Duration::ZERO);
        self.sees(Observation::Published { target, topic, len: 20, delay }).unwrap();
    }

    fn delivers(&mut self, link: usize, attempts: u16) -> Result<(), Violation> {
        self.sees(Self::delivery(link, attempts))
    }

    fn delivery(link: usize, attempts: u16) -> Observation {
        let body = body_of(MessageNumber(0), 20).into();
        Observation::Delivered { link: LinkId(link), id: ID, attempts, body }
    }

    fn finishes(&mut self, link: usize) -> Result<(), Violation> {
        self.sees(Observation::Finished { link: LinkId(link), id: ID })
    }

    fn counts(&self, topic: &TopicStats) -> Result<(), Violation> {
        let look = Look { node: 0, now: self.now, is_settled: true, stands_still: false };
        self.oracles.check_counts(look, topic)
    }

    fn accepts(&mut self) {
        let (message, outcome) = (MessageNumber(0), PublishOutcome::Accepted);
        self.sees(Observation::Completed { message, outcome }).unwrap();
    }
}

fn place() -> ChannelKey {
    let (topic, channel) = (TopicName::new("t").unwrap(), ChannelName::new("c").unwrap());
    ChannelKey { node: 0, topic, channel }
}

#[test]
fn a_right_course_passes() {
    let mut scene = Scene::new();
    scene.accepts();
    scene.delivers(1, 1).unwrap();
    let (link, delay) = (LinkId(1), Duration::from_secs(1));
    scene.sees(Observation::Requeued { link, id: ID, delay }).unwrap();
    scene.now = Instant::from_millis(2000);
    scene.delivers(2, 2).unwrap();
    scene.now = scene.now + TIMEOUT;
    scene.delivers(1, 3).unwrap();
    scene.sees(Observation::Left(LinkId(1))).unwrap();
    scene.delivers(2, 4).unwrap();
    assert_eq!(
        scene.oracles.check_drained(),
        Err(Violation::Lost(MessageNumber(0), Box::new(place())))
    );
    scene.finishes(2).unwrap();
    assert_eq!(scene.oracles.check_drained(), Ok(()));
    let counted = TopicStats { message_count: 1, ..topic_of(vec![]) };
    let requeue_count = 1;
    let right = ChannelStats { message_count: 1, requeue_count, ..channel_of(0, 0, 0) };
    let counts =
        |channel: &ChannelStats| TopicStats { channels: vec![channel.clone()], ..counted.clone() };
    assert_eq!(scene.counts(&counts(&right)), Ok(()));
    for wrong in [
        TopicStats { message_count: 0, ..counts(&right) },
        TopicStats { message_count: 2, ..counts(&right) },
        counts(&ChannelStats { requeue_count: 0, ..right.clone() }),
        counts(&ChannelStats { message_count: 0, ..right.clone() }),
        counts(&ChannelStats { message_count: 2, ..right.clone() }),
    ] {
        assert!(scene.counts(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_delivery_after_a_finish_is_caught() {
    let mut scene = Scene::new();
    scene.delivers(1, 1).unwrap();
    scene.finishes(1).unwrap();
    scene.now = scene.now + TIMEOUT;
    assert_eq!(
        scene.delivers(1, 2),
        Err(Violation::AfterFinish(MessageNumber(0), Box::new(place())))
    );
}

#[test]
fn attempts_that_do_not_rise_by_one_are_caught() {
    for found in [0, 2] {
        let expected = Violation::Attempts { message: MessageNumber(0), expected: 1, found };
        assert_eq!(Scene::new().delivers(1, found), Err(expected));
    }
}

/// They stay where a signed number ends.
#[test]
fn attempts_that_rise_too_far_are_caught() {
    for found in [ATTEMPTS_MAX + 1, 0, 1] {
        let mut scene = Scene::new();
        for attempts in (1..=ATTEMPTS_MAX).chain([ATTEMPTS_MAX; 2]) {
            scene.delivers(1, attempts).unwrap();
            let link = LinkId(1);
            let delay = Duration::ZERO;
            scene.sees(Observation::Requeued { link, id: ID, delay }).unwrap();
        }
        let (message, expected) = (MessageNumber(0), ATTEMPTS_MAX);
        let expected = Violation::Attempts { message, expected, found };
        assert_eq!(scene.delivers(1, found), Err(expected));
    }
}

#[test]
fn more_in_flight_than_ready_is_caught() {
    let mut scene = Scene::new();
    scene.publishes();
    scene.delivers(1, 1).unwrap();
    scene.now = Instant::from_millis(1001);
    let (link, id) = (LinkId(1), *b"0000000000000002");
    let body = Bytes::from(body_of(MessageNumber(1), 20));
    assert_eq!(
        scene.sees(Observation::Delivered { link, id, attempts: 1, body }),
        Err(Violation::OverReady { link, in_flight: 2, ready: 1 })
    );
}

#[test]
fn two_copies_of_one_message_count_each_for_itself() {
    let mut scene = Scene::new();
    scene.accepts();
    let (node, damaged, kept) = (0, BTreeSet::new(), BTreeSet::new());
    let died = Observation::Died { node, has_all_on_disk: true, damaged, kept };
    scene.sees(died).unwrap();
    scene.sees(Observation::ChannelLoaded(place())).unwrap();
    let place = place();
    for link in [LinkId(1), LinkId(2), LinkId(3)] {
        scene.sees(Observation::Subscribed { link, place, msg_timeout: TIMEOUT }).unwrap();
        scene.sees(Observation::Ready { link, count: 1 }).unwrap();
    }
    scene.delivers(1, 1).unwrap();
    scene.delivers(2, 1).unwrap();
    scene.finishes(1).unwrap();
    scene.now = Instant::from_millis(5000);
    scene.delivers(3, 1).unwrap();
    // The answer to the first does not mean the second, nor does the third give that more time.
    let over = Violation::OverReady { link: LinkId(2), in_flight: 2, ready: 1 };
    let mut early = scene.oracles.clone();
    assert_eq!(early.observe(scene.now, Scene::delivery(2, 1)), Err(over));
    scene.now = Instant::from_millis(1000) + TIMEOUT;
    scene.publishes();
    let (link, id) = (LinkId(2), *b"0000000000000002");
    let body = Bytes::from(body_of(MessageNumber(1), 20));
    scene.sees(Observation::Delivered { link, id, attempts: 1, body }).unwrap();
}

#[test]
fn two_consumers_with_one_message_are_caught() {
    let mut scene = Scene::new();
    scene.delivers(1, 1).unwrap();
    scene.now = Instant::from_millis(10_999);
    assert_eq!(
        scene.delivers(2, 2),
        Err(Violation::TwiceInFlight(MessageNumber(0), Box::new(place())))
    );
    // One millisecond later the time of the first is up.
    let mut scene = Scene::new();
    scene.delivers(1, 1).unwrap();
    scene.now = Instant::from_millis(11_000);
    assert_eq!(scene.delivers(2, 2), Ok(()));
    assert!(matches!(scene.finishes(1), Err(Violation::NotInFlight(LinkId(1), _))));
}

#[test]
fn deliveries_before_their_time_are_caught() {
    let mut scene = Scene::new();
    scene.delivers(1, 1).unwrap();
    let (link, delay) = (LinkId(1), Duration::from_secs(1));
    scene.sees(Observation::Requeued { link, id: ID, delay }).unwrap();
    scene.now = Instant::from_millis(1999);
    assert_eq!(scene.delivers(2, 2), Err(Violation::TooEarly(MessageNumber(0))));
}

#[test]
fn what_nobody_published_is_caught() {
    for body in [&b"00000007"[..], b"no number", b"", &body_of(MessageNumber(0), 21)] {
        let body = Bytes::copy_from_slice(body);
        let seen = Observation::Delivered { link: LinkId(1), id: ID, attempts: 1, body };
        assert!(matches!(Scene::new().sees(seen), Err(Violation::NotPublished(_))));
    }
    assert_eq!(Scene::new().delivers(9, 1), Err(Violation::NotSubscribed(LinkId(9))));
}

#[test]
fn refused_messages_that_are_there_are_caught() {
    let (message, outcome) = (MessageNumber(0), PublishOutcome::Refused);
    let mut before = Scene::new();
    before.sees(Observation::Completed { message, outcome }).unwrap();
    assert_eq!(before.delivers(1, 1), Err(Violation::Refused(message)));
    let mut after = Scene::new();
    after.delivers(1, 1).unwrap();
    let told = after.sees(Observation::Completed { message, outcome });
    assert_eq!(told, Err(Violation::Refused(message)));
}

#[test]
fn a_message_under_two_ids_is_caught() {
    let mut scene = Scene::new();
    scene.delivers(1, 1).unwrap();
    scene.finishes(1).unwrap();
    let body = body_of(MessageNumber(0), 20).into();
    let seen =
        Observation::Delivered { link: LinkId(1), id: *b"0000000000000002", attempts: 1, body };
    assert_eq!(scene.sees(seen), Err(Violation::Ids(MessageNumber(0))));
}

#[test]
fn a_channel_that_came_later_is_owed_nothing_unless_it_is_the_first() {
    let mut scene = Scene::new();
    scene.accepts();
    scene.delivers(1, 1).unwrap();
    scene.finishes(1).unwrap();
    scene.now = Instant::from_millis(2000);
    let second = ChannelKey { channel: ChannelName::new("d").unwrap(), ..place() };
    scene.sees(Observation::ChannelCreated(second)).unwrap();
    assert_eq!(scene.oracles.check_drained(), Ok(()));
}

/// A message that may be stored on nsqds 0 and 1, both of which have the channel.
fn scene_of_a_pool(once: bool) -> Scene {
    let mut scene =
        Scene { oracles: Oracles::new(Duration::from_secs(60), false), now: Instant::ZERO };
    for node in [0, 1] {
        let place = ChannelKey { node, ..place() };
        scene.sees(Observation::ChannelCreated(place)).unwrap();
        let (link, msg_timeout) = (LinkId(node + 1), TIMEOUT);
        scene.sees(Observation::Subscribed { link, place, msg_timeout }).unwrap();
        scene.sees(Observation::Ready { link, count: 1 }).unwrap();
    }
    scene.now = Instant::from_millis(1000);
    let (target, topic, delay) = (Target::Anywhere { once }, place().topic, Duration::ZERO);
    scene.sees(Observation::Published { target, topic, len: 20, delay }).unwrap();
    scene
}

fn reached(node: usize) -> Observation {
    Observation::Reached { node, topic: place().topic, messages: vec![MessageNumber(0)] }
}

#[test]
fn a_message_of_a_pool_is_owed_by_the_nsqd_that_it_reached() {
    let mut scene = scene_of_a_pool(true);
    assert!(matches!(scene.delivers(1, 1), Err(Violation::NotPublished(_))));
    scene.sees(reached(1)).unwrap();
    scene.accepts();
    let place = ChannelKey { node: 1, ..place() };
    let lost = Violation::Lost(MessageNumber(0), Box::new(place));
    assert_eq!(scene.oracles.check_drained(), Err(lost));
    assert_eq!(scene.oracles.unfinished(), [(MessageNumber(0), place.topic, place.channel)]);
    scene.delivers(2, 1).unwrap();
    scene.finishes(2).unwrap();
    assert_eq!(scene.oracles.check_drained(), Ok(()));
    assert_eq!(scene.oracles.unfinished(), []);
}

#[test]
fn each_copy_of_a_deferred_message_may_come_late() {
    let mut scene = scene_of_a_pool(false);
    scene.sees(reached(0)).unwrap();
    assert_eq!(scene.oracles.delayed(), 0);
    let (topic, delay) = (place().topic, Duration::from_secs(1));
    let at = scene.oracles.next_number();
    let target = Target::Anywhere { once: false };
    scene.sees(Observation::Published { target, topic, len: 20, delay }).unwrap();
    assert_eq!(scene.oracles.delayed(), 0);
    for copies in 1..4 {
        scene.sees(Observation::Reached { node: 0, topic, messages: vec![at] }).unwrap();
        assert_eq!(scene.oracles.delayed(), copies);
    }
    let target = Target::Nsqd(0);
    scene.sees(Observation::Published { target, topic, len: 20, delay }).unwrap();
    assert_eq!(scene.oracles.delayed(), 4);
}

#[test]
fn a_message_that_is_stored_twice_is_caught_if_it_should_not_be() {
    for once in [false, true] {
        let mut scene = scene_of_a_pool(once);
        scene.sees(reached(0)).unwrap();
        scene.sees(reached(1)).unwrap();
        scene.delivers(1, 1).unwrap();
        let expected = if once { Err(Violation::StoredTwice(MessageNumber(0))) } else { Ok(()) };
        assert_eq!(scene.delivers(2, 1), expected);
    }
}

#[test]
fn a_refused_message_of_a_pool_that_is_there_is_caught() {
    let mut scene = scene_of_a_pool(false);
    scene.sees(reached(0)).unwrap();
    scene.delivers(1, 1).unwrap();
    let (message, outcome) = (MessageNumber(0), PublishOutcome::Refused);
    let refused = Err(Violation::Refused(message));
    assert_eq!(scene.sees(Observation::Completed { message, outcome }), refused);
}

#[test]
fn a_message_that_is_finished_and_was_not_handled_is_caught() {
    for is_handled in [false, true] {
        let mut scene = Scene::new();
        let ChannelKey { topic, channel, .. } = place();
        scene.oracles.expect_handling(topic, channel);
        scene.delivers(1, 1).unwrap();
        if is_handled {
            let message = MessageNumber(0);
            scene.sees(Observation::Handled { topic, channel, message }).unwrap();
        }
        assert_eq!(scene.finishes(1).is_ok(), is_handled);
    }
}

#[test]
fn figures_that_are_wrong_are_caught() {
    let mut scene = Scene::new();
    scene.accepts();
    let check = |scene: &Scene, depth, in_flight, deferred| {
        let channel = ChannelStats { message_count: 1, ..channel_of(depth, in_flight, deferred) };
        scene.counts(&TopicStats { message_count: 1, ..topic_of(vec![channel]) }).is_ok()
    };
    let only = |scene: &Scene, right| {
        for depth in 0..3 {
            for in_flight in 0..3 {
                for deferred in 0..3 {
                    let counts = (depth, in_flight, deferred);
                    assert_eq!(
                        check(scene, depth, in_flight, deferred),
                        counts == right,
                        "{counts:?}"
                    );
                }
            }
        }
    };
    only(&scene, (1, 0, 0));
    scene.delivers(1, 1).unwrap();
    only(&scene, (0, 1, 0));
    let (link, delay) = (LinkId(1), Duration::from_secs(1));
    scene.sees(Observation::Requeued { link, id: ID, delay }).unwrap();
    let channel = ChannelStats { message_count: 1, requeue_count: 1, ..channel_of(0, 0, 1) };
    let deferred = TopicStats { message_count: 1, ..topic_of(vec![channel]) };
    assert_eq!(scene.counts(&deferred), Ok(()));
    scene.now = Instant::from_millis(2000);
    scene.delivers(1, 2).unwrap();
    assert!(scene.counts(&deferred).is_err());
}

/// Counters begin at 0 with each process, and what one that died has twice is not known.
#[test]
fn figures_after_a_restart() {
    for has_died in [false, true] {
        let mut scene = Scene::new();
        scene.accepts();
        scene.now = Instant::from_millis(2000);
        scene
            .sees(if has_died {
                let (damaged, kept) = (BTreeSet::new(), BTreeSet::new());
                Observation::Died { node: 0, has_all_on_disk: true, damaged, kept }
            } else {
                Observation::Stopped { node: 0, has_failed: false }
            })
            .unwrap();
        scene.sees(Observation::ChannelLoaded(place())).unwrap();
        let counts = |depth, message_count| TopicStats {
            message_count,
            ..topic_of(vec![channel_of(depth, 0, 0)])
        };
        assert_eq!(scene.counts(&counts(1, 0)), Ok(()));
        assert!(scene.counts(&counts(1, 1)).is_err());
        assert!(scene.counts(&counts(0, 0)).is_err());
        assert_eq!(scene.counts(&counts(2, 0)).is_ok(), has_died);
    }
}

fn channel_of(depth: u64, in_flight_count: u64, deferred_count: u64) -> ChannelStats {
    ChannelStats {
        name: place().channel,
        depth,
        backend_depth: 0,
        in_flight_count,
        deferred_count,
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
        paused: false,
        latency: LatencyStats::default(),
    }
}

fn topic_of(channels: Vec<ChannelStats>) -> TopicStats {
    TopicStats {
        name: place().topic,
        channels,
        depth: 0,
        backend_depth: 0,
        message_count: 0,
        message_bytes: 0,
        paused: false,
        latency: LatencyStats::default(),
    }
}

#[test]
fn what_is_emptied_or_deleted_is_owed_to_nobody() {
    let ChannelKey { node, topic, channel } = place();
    for discard in [None, Some(channel)] {
        let mut scene = Scene::new();
        scene.accepts();
        let discard = Discard { node, topic, channel: discard };
        scene.sees(Observation::Discarding(discard)).unwrap();
        assert!(scene.oracles.check_drained().is_err());
        scene.sees(Observation::Discarded(discard)).unwrap();
        assert_eq!(scene.oracles.check_drained(), Ok(()));
    }
}

/// Records have no checksum. But nothing else is forgiven: no hole that the disk does not have, no
/// body that is too short.
#[test]
fn what_the_power_left_of_a_body_is_known_to_the_byte() {
    let hole = |from: usize, to: usize| {
        let mut body = body_of(MessageNumber(0), 20);
        body[from..to].fill(0);
        body
    };
    let mut scene = Scene::new();
    scene.accepts();
    let (damaged, kept) = (BTreeSet::from([(ID, hole(2, 10))]), BTreeSet::new());
    let died = Observation::Died { node: 0, has_all_on_disk: false, damaged, kept };
    scene.sees(died).unwrap();
    scene.sees(Observation::ChannelLoaded(place())).unwrap();
    let (link, msg_timeout) = (LinkId(1), TIMEOUT);
    scene.sees(Observation::Subscribed { link, place: place(), msg_timeout }).unwrap();
    scene.sees(Observation::Ready { link, count: 1 }).unwrap();
    let other = *b"0000000000000007";
    let mut delivers = |id, body: Vec<u8>| {
        scene.sees(Observation::Delivered { link, id, attempts: 1, body: Bytes::from(body) })
    };
    for body in [hole(2, 9), hole(2, 11), hole(2, 10)[..19].to_vec(), hole(0, 20)] {
        assert!(matches!(delivers(ID, body), Err(Violation::NotPublished(_))));
    }
    assert!(matches!(delivers(other, hole(2, 10)), Err(Violation::NotPublished(_))));
    assert_eq!(delivers(ID, hole(2, 10)), Ok(()));
}

/// With its memory an nsqd may lose a message, but not what is on its disk.
#[test]
fn what_is_on_the_disk_and_does_not_come_again_is_caught() {
    let store = Store::Queue(place().topic, Some(place().channel));
    for kept in [BTreeSet::new(), BTreeSet::from([(store, MessageNumber(0))])] {
        let mut scene = Scene::new();
        scene.accepts();
        let is_kept = !kept.is_empty();
        let (has_all_on_disk, damaged) = (false, BTreeSet::new());
        scene.sees(Observation::Died { node: 0, has_all_on_disk, damaged, kept }).unwrap();
        scene.sees(Observation::ChannelLoaded(place())).unwrap();
        assert_eq!(scene.oracles.check_drained().is_err(), is_kept);
        let (link, msg_timeout) = (LinkId(1), TIMEOUT);
        scene.sees(Observation::Subscribed { link, place: place(), msg_timeout }).unwrap();
        scene.sees(Observation::Ready { link, count: 1 }).unwrap();
        scene.delivers(1, 1).unwrap();
        scene.finishes(1).unwrap();
        assert_eq!(scene.oracles.check_drained(), Ok(()));
    }
}
