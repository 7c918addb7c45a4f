//! Lanes and doorbells under every interleaving: run by `.ci/run interleavings`.

use std::os::unix::net::UnixStream;

use sansq_core::nsqd::ReplyToken;
use sansq_core::storage::{Durability, Owner, RequestId, Success};

use super::*;
use crate::connection_limit::ConnectionLimit;
use crate::interleavings::{explore, explore_to, start};
use crate::server::Ending;

const HOME: ShardId = ShardId(0);
const OTHER: ShardId = ShardId(1);

/// Two shards post to a third, each twice, and ring once per turn. All of it arrives, what is of
/// one shard in its order.
#[test]
fn what_is_posted_is_found_behind_the_ring_in_the_order_of_each_shard() {
    explore(|| {
        let lanes = Arc::new(Lanes::new(1));
        let posters = [10, 20].map(|from| {
            let lanes = Arc::clone(&lanes);
            start(async move {
                lanes.post(HOME, &mut vec![note(from), note(from + 1)]);
                lanes.post(HOME, &mut vec![note(from + 2)]);
                lanes.ring(HOME);
            })
        });
        let notes = loom::future::block_on(gather(&lanes, 6));
        for from in [10, 20] {
            let of_one: Vec<u16> =
                notes.iter().copied().filter(|note| (from..from + 3).contains(note)).collect();
            assert_eq!(of_one, [from, from + 1, from + 2]);
        }
        posters.into_iter().for_each(|poster| poster.join().unwrap());
    });
}

/// A shard goes to sleep again and again while another rings at each turn.
#[test]
fn no_ring_is_lost_between_two_waits() {
    explore(|| {
        let lanes = Arc::new(Lanes::new(1));
        let poster = {
            let lanes = Arc::clone(&lanes);
            start(async move {
                for number in 1..=3 {
                    lanes.post(HOME, &mut vec![note(number)]);
                    lanes.ring(HOME);
                }
            })
        };
        assert_eq!(loom::future::block_on(gather(&lanes, 3)), [1, 2, 3]);
        poster.join().unwrap();
    });
}

/// As a wait that a timer ends, in the last seconds of a server.
#[test]
fn no_ring_is_lost_when_a_wait_is_given_up() {
    explore(|| {
        let lanes = Arc::new(Lanes::new(1));
        let poster = {
            let lanes = Arc::clone(&lanes);
            start(async move {
                lanes.post_completions(HOME, &mut vec![completion()]);
                lanes.ring(HOME);
            })
        };
        let mut mail = Mail::default();
        loom::future::block_on(async {
            let _ = futures_lite::future::poll_once(lanes.wait(HOME)).await;
            lanes.collect(HOME, &mut mail);
            while mail.completions.is_empty() {
                lanes.wait(HOME).await;
                lanes.collect(HOME, &mut mail);
            }
        });
        assert_eq!(mail.completions, [completion()]);
        poster.join().unwrap();
    });
}

/// However many rings there were, there is one to answer: afterwards all is found, and none is left
/// for later.
#[test]
fn rings_before_they_are_answered_are_one() {
    explore(|| {
        let lanes = Arc::new(Lanes::new(1));
        let ringers = [1, 2].map(|number| {
            let lanes = Arc::clone(&lanes);
            start(async move {
                lanes.post(HOME, &mut vec![note(number)]);
                lanes.ring(HOME);
            })
        });
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
        loom::future::block_on(async {
            lanes.wait(HOME).await;
            let more = futures_lite::future::poll_once(lanes.wait(HOME)).await;
            assert_eq!(more, None, "rang twice");
        });
        let mut mail = Mail::default();
        lanes.collect(HOME, &mut mail);
        assert_eq!(mail.batch.len(), 2);
    });
}

/// A connection's new home has to know all that its old one had said before.
#[test]
fn a_socket_does_not_overtake_what_was_posted_before_it() {
    explore(|| {
        let lanes = Arc::new(Lanes::new(1));
        let sender = {
            let lanes = Arc::clone(&lanes);
            start(async move {
                lanes.post(HOME, &mut vec![note(1)]);
                let (socket, _) = UnixStream::pair().unwrap();
                let permit = ConnectionLimit::new(1).take().unwrap();
                lanes.send(HOME, Arrival::Accepted(Stream::Unix(socket), Peer::Unix, permit));
            })
        };
        loom::future::block_on(async {
            let (mut mail, mut noted) = (Mail::default(), 0);
            loop {
                lanes.wait(HOME).await;
                lanes.collect(HOME, &mut mail);
                noted += mail.batch.drain(..).count();
                if mail.arrivals.drain(..).count() > 0 {
                    break;
                }
            }
            assert_eq!(noted, 1);
        });
        sender.join().unwrap();
    });
}

/// Both shards of a node post until they see that it ends. Each hears of it, waits for the other,
/// and gets all that the other had posted by then.
#[test]
fn a_node_that_ends_while_its_shards_post_loses_nothing() {
    // With three it takes ten times as long.
    explore_to(2, || {
        let lanes = Arc::new(Lanes::new(2));
        let shards = [(HOME, OTHER), (OTHER, HOME)].map(|(shard, other)| {
            let lanes = Arc::clone(&lanes);
            start(live(lanes, shard, other))
        });
        lanes.shut_down();
        let [first, second] = shards.map(|shard| shard.join().unwrap());
        assert_eq!((first.posted, second.posted), (second.found, first.found));
    });
}

/// A shard that ended badly has connections for ever.
#[test]
fn a_shard_that_fails_ends_the_others() {
    explore(|| {
        let lanes = Arc::new(Lanes::new(2));
        let survivor = start(live(Arc::clone(&lanes), HOME, OTHER));
        let ending = Ending::new(Arc::clone(&lanes));
        drop(ending);
        survivor.join().unwrap();
        assert!(lanes.is_stopping() && lanes.is_empty());
    });
}

/// What a shard posted until it was empty, and what it found in the end.
#[derive(Debug, Default)]
struct Life {
    posted: usize,
    found: usize,
}

/// The life of a shard's thread, as in the runtimes' `server.rs`, which posts once at the beginning
/// and once when its last connection goes.
async fn live(lanes: Arc<Lanes>, shard: ShardId, other: ShardId) -> Life {
    let (mut mail, mut life) = (Mail::default(), Life::default());
    let receive = |mail: &mut Mail, life: &mut Life| {
        lanes.collect(shard, mail);
        life.found += mail.batch.drain(..).count();
    };
    while !lanes.is_stopping() {
        lanes.wait(shard).await;
        receive(&mut mail, &mut life);
    }
    lanes.post(other, &mut vec![note(1)]);
    life.posted += 1;
    lanes.ring(other);
    lanes.note_empty();
    while !lanes.is_empty() {
        lanes.wait(shard).await;
        receive(&mut mail, &mut life);
    }
    receive(&mut mail, &mut life);
    life
}

/// The numbers of so many notes, in the order in which they come.
async fn gather(lanes: &Lanes, count: usize) -> Vec<u16> {
    let (mut mail, mut notes) = (Mail::default(), Vec::new());
    while notes.len() < count {
        lanes.wait(HOME).await;
        lanes.collect(HOME, &mut mail);
        notes.extend(mail.batch.drain(..).map(|message| {
            let ShardMessage::Persist { from, .. } = message else {
                panic!("nobody posted {message:?}");
            };
            from.0
        }));
    }
    notes
}

/// A message that says a number.
fn note(number: u16) -> ShardMessage {
    ShardMessage::Persist { from: ShardId(number), token: ReplyToken(0) }
}

fn completion() -> Completion {
    Completion {
        id: RequestId(1),
        owner: Owner::Metadata,
        result: Ok(Success::Stored(Durability::Synced)),
    }
}
