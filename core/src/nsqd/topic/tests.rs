use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;

use super::*;
use crate::arena::{Key, TicketId};
use crate::message::Bodies;
use crate::nsqd::ids::{ReplyToken, ShardId};
use crate::storage::{DiskEvent, DiskOutput, Durability, Op};

/// Channels that hold what they get, and the outcomes that were told.
#[derive(Default)]
struct Sink {
    channels: BTreeMap<ChannelId, Vec<(String, Option<Instant>)>>,
    limit: usize,
    /// The publishes that were begun; their places are their tickets.
    begun: Vec<u64>,
    outcomes: Vec<(u64, Result<(), NotPublished>)>,
    bodies: Bodies,
}

impl BacklogOutput for Sink {
    fn hold(&mut self, _: Ticket) {}

    fn bodies(&mut self) -> &mut Bodies {
        &mut self.bodies
    }
}

impl DiskOutput for Sink {
    fn ask(&mut self, _: Op) -> RequestId {
        RequestId(0)
    }

    fn stored(&mut self, _: Ticket, _: Result<Durability, &Failure>) {}
    fn event(&mut self, _: DiskEvent) {}
}

const fn token(origin: Origin) -> u64 {
    match origin {
        Origin::Admin { token, .. } => token.0,
        Origin::Client { slot, .. } => slot,
    }
}

impl TopicOutput for Sink {
    fn room(&self, channel: ChannelId) -> usize {
        self.limit - self.channels.get(&channel).map_or(0, Vec::len)
    }

    fn put(
        &mut self,
        channel: ChannelId,
        message: Message,
        due: Option<Instant>,
        _: Option<Ticket>,
    ) {
        let body = String::from_utf8(message.body.to_vec()).unwrap();
        self.channels.entry(channel).or_default().push((body, due));
    }

    fn begin(&mut self, origin: Origin, _: Volume) -> Ticket {
        self.begun.push(token(origin));
        Ticket::publish(TicketId::new(self.begun.len() as u32 - 1, 0))
    }

    fn begin_move(&mut self, _: RecordId) -> Ticket {
        panic!("there is no disk");
    }

    fn end(&mut self, ticket: Ticket) {
        self.outcomes.push((self.begun[ticket.id.index() as usize], Ok(())));
    }

    fn memory_room(&self, _: ChannelId) -> usize {
        usize::MAX
    }

    fn accepted(&mut self, origin: Origin) {
        self.outcomes.push((token(origin), Ok(())));
    }

    fn refuse(&mut self, origin: Origin, why: NotPublished) {
        self.outcomes.push((token(origin), Err(why)));
    }
}

struct Bench {
    topic: Topic,
    ids: IdGenerator,
    out: Sink,
    publishes: u64,
}

impl Bench {
    fn new(name: &str, limit: usize) -> Self {
        let name = TopicName::new(name).unwrap();
        let mut out = Sink { limit, ..Sink::default() };
        let beyond = if name.is_ephemeral() { Beyond::Dropped } else { Beyond::Nowhere };
        let topic = Topic::new(name, limit, beyond, Duration::from_secs(5), &mut out);
        Self { topic, ids: IdGenerator::new(0, 0, 1), out, publishes: 0 }
    }

    fn publish(&mut self, bodies: &[&str], delay_ms: u64, now_ms: u64) {
        self.publishes += 1;
        let bodies = bodies.iter().collect();
        let publish = Publish {
            origin: Origin::Admin { shard: ShardId(0), token: ReplyToken(self.publishes) },
            topic: *self.topic.name(),
            batch: Batch::Many(bodies),
            delay: Duration::from_millis(delay_ms),
        };
        self.topic.publish(publish, Now::from_millis(now_ms), &mut self.ids, &mut self.out);
    }

    fn pump(&mut self, now_ms: u64) {
        self.topic.pump(Now::from_millis(now_ms), &mut self.ids, &mut self.out);
    }

    fn bodies(&mut self, channel: ChannelId) -> Vec<String> {
        let taken = self.out.channels.remove(&channel).unwrap_or_default();
        taken.into_iter().map(|(body, _)| body).collect()
    }
}

const A: u32 = 1;
const B: u32 = 2;

fn id(index: u32) -> ChannelId {
    ChannelId::new(index, 0)
}

#[test]
fn the_first_channel_gets_what_collected_and_a_later_one_only_what_follows() {
    let mut bench = Bench::new("t", 10);
    bench.publish(&["1", "2"], 0, 0);
    bench.publish(&["3"], 0, 0);
    assert_eq!(
        (bench.topic.depth(), bench.topic.message_count(), bench.topic.message_bytes()),
        (3, 3, 3)
    );
    bench.topic.insert_channel(0, id(A));
    bench.pump(0);
    bench.topic.insert_channel(1, id(B));
    bench.publish(&["4"], 0, 0);
    assert_eq!(bench.bodies(id(A)), ["1", "2", "3", "4"]);
    assert_eq!(bench.bodies(id(B)), ["4"]);
    assert_eq!(bench.out.outcomes, [(1, Ok(())), (2, Ok(())), (3, Ok(()))]);
}

#[test]
fn a_full_topic_makes_publishers_wait_in_order_and_refuses_them_in_the_end() {
    let mut bench = Bench::new("t", 2);
    bench.publish(&["1"], 0, 0);
    // Whole or not at all: one over the limit is taken, because there was room when it came.
    bench.publish(&["2", "3"], 0, 0);
    bench.publish(&["4"], 0, 1000);
    bench.publish(&["5"], 0, 2000);
    bench.publish(&["6"], 0, 3000);
    assert_eq!(bench.out.outcomes, [(1, Ok(())), (2, Ok(()))]);
    assert_eq!(bench.topic.poll_timeout(), Some(Instant::from_millis(6000)));
    bench.topic.handle_timeout(Now::from_millis(6000), &mut bench.out);
    assert_eq!(bench.out.outcomes[2..], [(3, Err(NotPublished::Full))]);
    bench.topic.insert_channel(0, id(A));
    bench.pump(6500);
    // The channel took two and is full: the third stays, with one publish that was let in behind
    // it.
    assert_eq!(bench.bodies(id(A)), ["1", "2"]);
    assert_eq!(bench.out.outcomes[3..], [(4, Ok(()))]);
    bench.pump(6600);
    assert_eq!(bench.bodies(id(A)), ["3", "5"]);
    assert_eq!(bench.out.outcomes[4..], [(5, Ok(()))]);
    bench.pump(6700);
    assert_eq!((bench.bodies(id(A)), bench.topic.depth()), (vec!["6".to_string()], 0));
}

#[test]
fn a_pause_collects_and_the_end_refuses() {
    let mut bench = Bench::new("t", 1);
    bench.topic.insert_channel(0, id(A));
    bench.topic.set_paused(true);
    bench.publish(&["1"], 0, 0);
    bench.publish(&["2"], 0, 0);
    bench.pump(0);
    assert_eq!((bench.bodies(id(A)).len(), bench.topic.depth()), (0, 1));
    bench.topic.exit(&mut bench.out);
    assert_eq!(bench.out.outcomes, [(1, Ok(())), (2, Err(NotPublished::Exiting))]);
    bench.topic.set_paused(false);
    bench.pump(0);
    assert_eq!(bench.bodies(id(A)), ["1"]);
    bench.publish(&["3"], 0, 0);
    bench.topic.empty(Now::from_millis(0), &mut bench.out);
    bench.topic.remove_channel(id(A));
    assert_eq!(bench.topic.channels(), []);
}

#[test]
fn a_delay_runs_from_the_publish_however_long_the_topic_kept_it() {
    let mut bench = Bench::new("t", 10);
    bench.publish(&["1"], 500, 100);
    bench.topic.insert_channel(0, id(A));
    bench.pump(400);
    bench.publish(&["2"], 500, 400);
    let due = |ms| Some(Instant::from_millis(ms));
    let expected = [("1".to_string(), due(600)), ("2".to_string(), due(900))];
    assert_eq!(bench.out.channels[&id(A)], expected);
}

#[test]
fn an_ephemeral_topic_drops_what_does_not_fit() {
    let mut bench = Bench::new("t#ephemeral", 2);
    for body in ["1", "2", "3"] {
        bench.publish(&[body], 0, 0);
    }
    assert_eq!((bench.topic.depth(), bench.topic.message_count()), (2, 3));
    assert_eq!(bench.out.outcomes.len(), 3);
}
