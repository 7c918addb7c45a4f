//! The clerk without a shard: what it asks of the driver, of the shards, and when.

use super::*;
use crate::name::{ChannelName, TopicName};
use crate::nsqd::actions::PeerAction;
use crate::storage::{Durability, FailureKind};

struct Bench {
    clerk: Clerk,
    config: Config,
    rng: Rng,
    requests: RequestIds,
    actions: Actions,
}

impl Bench {
    fn new(shards: u16, config: Config) -> Self {
        Self {
            clerk: Clerk::new(shards, config.disk),
            config,
            rng: Rng::new(1),
            requests: RequestIds::default(),
            actions: Actions::default(),
        }
    }

    /// Calls the clerk, and hands out what it asks of its shard.
    fn call<R>(
        &mut self,
        millis: u64,
        call: impl FnOnce(&mut Clerk, Now, &mut ClerkSink<'_>) -> R,
    ) -> (R, Vec<Lookupds>) {
        let mut sink = ClerkSink {
            config: &self.config,
            rng: &mut self.rng,
            requests: &mut self.requests,
            actions: &mut self.actions,
            lookupds: Vec::new(),
        };
        let result = call(&mut self.clerk, Now::from_millis(millis), &mut sink);
        (result, sink.lookupds)
    }

    fn note(&mut self, change: Announcement) {
        self.call(0, |clerk, now, out| clerk.note(change, now, out));
    }

    /// Has the file written, if it is time: the request's number.
    fn save(&mut self, millis: u64) -> Option<RequestId> {
        self.call(millis, Clerk::save);
        self.actions.storage.pop().map(|request| request.id)
    }

    fn written(
        &mut self,
        id: RequestId,
        result: Result<Success, Failure>,
        millis: u64,
    ) -> Vec<(ShardId, ReplyToken)> {
        self.call(millis, |clerk, now, out| clerk.handle_written(id, result, now, out)).0
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn failure() -> Failure {
    Failure { kind: FailureKind::Full, text: "full".into() }
}

#[test]
fn changes_go_to_the_file_and_answers_wait_for_it() {
    let mut bench = Bench::new(1, Config { disk: true, ..Config::default() });
    bench.call(0, Clerk::start);
    let first = bench.actions.storage.pop().unwrap().id;
    assert_eq!(bench.written(first, Ok(Success::Stored(Durability::Synced)), 1), []);
    assert!(bench.clerk.is_saved() && !bench.clerk.wait(ShardId(0), ReplyToken(1)));
    // Nothing of it is kept.
    bench.note(Announcement::TopicCreated(topic("t#ephemeral")));
    assert!(bench.clerk.is_saved());
    bench.note(Announcement::TopicCreated(topic("t")));
    bench.note(Announcement::ChannelCreated(topic("t"), ChannelName::new("c").unwrap()));
    assert!(bench.clerk.wait(ShardId(0), ReplyToken(2)));
    let second = bench.save(2).unwrap();
    assert_eq!(bench.written(second, Err(failure()), 3), [(ShardId(0), ReplyToken(2))]);
    let text = bench.clerk.failure();
    assert_eq!(text.as_deref(), Some("failed to persist metadata - disk full - full"));
    // It is tried again by itself.
    bench.call(4, Clerk::save);
    let at = bench.clerk.poll_timeout().unwrap();
    let later = at.saturating_since(Instant::ZERO).as_millis() as u64;
    let (page, _) = bench.call(later, Clerk::handle_timeout);
    assert!(page.is_none() && bench.save(later).is_some());
}

#[test]
fn the_last_file_waits_for_every_shard() {
    let until = Instant::from_millis(10_000);
    let mut bench = Bench::new(2, Config { disk: true, ..Config::default() });
    // The other shard was faster, and nobody knows yet for how long a disk is waited for.
    bench.clerk.shard_flushed(None);
    assert!(!bench.clerk.is_flushed() && bench.save(0).is_none());
    bench.clerk.shard_flushed(Some(until));
    let last = bench.save(1).unwrap();
    assert!(!bench.clerk.is_flushed());
    bench.written(last, Ok(Success::Stored(Durability::Synced)), 2);
    assert!(bench.clerk.is_flushed() && !bench.clerk.is_list_lost());
}

#[test]
fn a_disk_that_hangs_is_given_up_whatever_other_shards_do() {
    let mut bench = Bench::new(2, Config { disk: true, ..Config::default() });
    bench.note(Announcement::TopicCreated(topic("t")));
    bench.clerk.abandon(Instant::from_millis(10_000), failure());
    assert!(bench.clerk.is_flushed() && bench.clerk.is_list_lost());
    // Without a disk there is nothing to give up.
    let mut bench = Bench::new(1, Config { disk: false, ..Config::default() });
    bench.call(0, Clerk::start);
    bench.note(Announcement::TopicCreated(topic("t")));
    assert!(bench.clerk.is_saved() && bench.actions.storage.is_empty());
    bench.clerk.abandon(Instant::from_millis(10_000), failure());
    assert!(bench.clerk.is_flushed() && !bench.clerk.is_list_lost());
}

#[test]
fn every_shard_hears_where_the_nsqlookupds_are() {
    let lookupd_tcp_addresses = ["a:4160", "b:4160", "a:4160"].map(String::from).to_vec();
    let mut bench = Bench::new(2, Config { lookupd_tcp_addresses, ..Config::default() });
    let ((), told) = bench.call(0, Clerk::start);
    // One that is named twice is one.
    let dials = core::mem::take(&mut bench.actions.peers);
    assert_eq!(dials.len(), 2);
    assert_eq!(told.iter().map(|told| told.undecided).collect::<Vec<_>>(), [1, 2]);
    let [(id, PeerAction::Dial(_)), _] = &dials[..] else { panic!("it dials: {dials:?}") };
    let (_, told) = bench.call(1, |clerk, now, out| {
        clerk.handle_peer_closed(*id, "refused", now, out);
    });
    assert_eq!((told[0].undecided, told[0].unreached), (1, 1));
    let to_others = bench.actions.lanes[1].iter();
    let is_lookupds = |message: &ShardMessage| matches!(message, ShardMessage::Lookupds(_));
    assert_eq!(to_others.filter(|message| is_lookupds(message)).count(), 3);
    // It is tried again by itself.
    let is_again =
        |(peer, action): &(PeerId, PeerAction)| peer == id && matches!(action, PeerAction::Dial(_));
    for _ in 0..10 {
        let at = bench.clerk.poll_timeout().unwrap().saturating_since(Instant::ZERO);
        bench.call(at.as_millis() as u64 + 1, Clerk::handle_timeout);
    }
    assert!(bench.actions.peers.iter().any(is_again));
}

#[test]
fn statsd_gets_page_after_page() {
    let mut config = Config::default();
    config.statsd.address = "statsd:8125".into();
    let interval = config.statsd.interval.as_millis() as u64;
    let mut bench = Bench::new(1, Config { disk: false, ..config });
    bench.call(0, Clerk::start);
    assert_eq!(bench.clerk.poll_timeout(), Some(Instant::from_millis(interval)));
    assert!(bench.call(interval - 1, Clerk::handle_timeout).0.is_none());
    let (page, _) = bench.call(interval, Clerk::handle_timeout);
    assert_eq!(page, Some(StatsPage::Topics(None)));
    bench.call(interval, |clerk, now, out| {
        clerk.handle_stats(ServerStats::default(), now, out);
    });
    assert!(!bench.actions.statsd.is_empty());
    bench.call(interval, |clerk, _, out| clerk.stop(out));
    assert!(matches!(&bench.actions.events[..], [Event::StatsdClosed]));
}
