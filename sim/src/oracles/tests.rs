//! Wrong observations have to be caught; an oracle that never speaks proves nothing.

use bytes::Bytes;

use super::*;
use crate::model::{RawId, body_of};
use crate::net::LinkId;
use sansq_core::name::ChannelName;

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
        let body = body_of(MessageNumber(0), 20).into();
        self.sees(Observation::Delivered { link: LinkId(link), id: ID, attempts, body })
    }

    fn finishes(&mut self, link: usize) -> Result<(), Violation> {
        self.sees(Observation::Finished { link: LinkId(link), id: ID })
    }

    fn accepts(&mut self) {
        let (message, outcome) = (MessageNumber(0), Outcome::Accepted);
        self.sees(Observation::Completed { message, outcome }).unwrap();
    }
}

fn place() -> Place {
    let (topic, channel) = (TopicName::new("t").unwrap(), ChannelName::new("c").unwrap());
    Place { node: 0, topic, channel }
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
    assert_eq!(scene.oracles.check_count(0, &place().topic, 1), Ok(()));
    assert!(scene.oracles.check_count(0, &place().topic, 2).is_err());
    assert_eq!(scene.oracles.check_requeues(&place(), 1), Ok(()));
    assert!(scene.oracles.check_requeues(&place(), 0).is_err());
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
    let (message, outcome) = (MessageNumber(0), Outcome::Refused);
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
    let second = Place { channel: ChannelName::new("d").unwrap(), ..place() };
    scene.sees(Observation::ChannelCreated(second)).unwrap();
    assert_eq!(scene.oracles.check_drained(), Ok(()));
}
