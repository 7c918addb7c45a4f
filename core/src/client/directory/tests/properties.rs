//! What holds for a directory whatever nsqlookupds answer.

use alloc::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SERVERS: [&str; 3] = ["l1:1", "l2:1", "l3:1"];

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Remove(usize),
    /// The n-th request under way gets an answer: which of four nsqds it lists, or `None` for a
    /// failure.
    Answer(usize, Option<u8>),
    AskSoon,
    Elapse(u64),
    /// To the next timeout.
    Timeout,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..3_usize).prop_map(Step::Add),
        1 => (0..3_usize).prop_map(Step::Remove),
        8 => (0..3_usize, prop::option::weighted(0.8, 0..16_u8))
            .prop_map(|(at, listed)| Step::Answer(at, listed)),
        1 => Just(Step::AskSoon),
        1 => (0..30_000_u64).prop_map(Step::Elapse),
        4 => Just(Step::Timeout),
    ];
    prop::collection::vec(step, 0..120)
}

/// A directory, and what is known about it.
struct Harness {
    rig: Rig,
    /// Requests that are not answered, and whom they ask.
    calls: BTreeMap<LookupCallId, String>,
    /// Who is asked, and the last good answer of each.
    listed: BTreeMap<&'static str, u8>,
    known: BTreeSet<String>,
}

impl Harness {
    fn apply(&mut self, step: &Step) {
        let now = self.rig.now;
        match *step {
            Step::Add(at) => {
                let is_new = self.rig.directory.add(SERVERS[at], now, &mut self.rig.net);
                assert_eq!(is_new, Ok(!self.listed.contains_key(SERVERS[at])));
                self.listed.entry(SERVERS[at]).or_default();
            }
            Step::Remove(at) => {
                let was_asked = self.listed.remove(SERVERS[at]).is_some();
                assert_eq!(self.rig.directory.remove(SERVERS[at]), was_asked);
                self.calls.retain(|_, host| !SERVERS[at].starts_with(host.as_str()));
            }
            Step::Answer(at, listed) => {
                let Some((id, host)) = self.calls.iter().nth(at) else { return };
                let (id, host) = (*id, host.clone());
                self.calls.remove(&id);
                let result = match listed {
                    None => Err(CallFailure::TimedOut),
                    Some(bits) => {
                        let asked =
                            self.listed.iter_mut().find(|(name, _)| name.starts_with(&host));
                        *asked.unwrap().1 = bits;
                        Ok(CallAnswer { status: 200, body: body(bits).into() })
                    }
                };
                self.rig.called(id, result);
            }
            Step::AskSoon => self.rig.directory.ask_soon(now),
            Step::Elapse(millis) => self.elapse(Duration::from_millis(millis)),
            Step::Timeout => {
                let Some(at) = self.rig.directory.poll_timeout() else { return };
                self.elapse(at.saturating_since(now.instant));
            }
        }
    }

    fn elapse(&mut self, time: Duration) {
        self.rig.now = self.rig.now.after(time);
        self.rig.directory.handle_timeout(self.rig.now, &mut self.rig.net);
        let next = self.rig.directory.poll_timeout();
        assert!(next.is_none_or(|next| next > self.rig.now.instant), "a round that is over is due");
    }

    fn check(&mut self) {
        for (id, call) in self.rig.net.calls.drain(..) {
            let host = call.url.host().to_owned();
            assert!(self.calls.values().all(|other| *other != host), "{host} is asked twice");
            assert!(self.calls.insert(id, host).is_none());
        }
        let is_listed =
            |address: &String| self.listed.values().any(|bits| addresses(*bits).contains(address));
        for address in self.rig.changes.vanished.drain(..) {
            assert!(!is_listed(&address), "{address} is listed");
            assert!(self.known.remove(&address), "{address} was never found");
        }
        for address in self.rig.changes.found.drain(..) {
            assert!(is_listed(&address), "{address} is listed by nobody");
            assert!(self.known.insert(address), "found twice");
        }
        let listed = self.listed.values().flat_map(|bits| addresses(*bits));
        assert!(listed.into_iter().all(|address| self.known.contains(&address)), "not found");
        assert_eq!(self.rig.directory.poll_timeout().is_some(), !self.listed.is_empty());
    }
}

fn addresses(bits: u8) -> Vec<String> {
    let listed = (0..4).filter(|at| bits >> at & 1 == 1);
    listed.map(|at| alloc::format!("n{at}:1")).collect()
}

fn body(bits: u8) -> String {
    let listed = (0..4).filter(|at| bits >> at & 1 == 1);
    let listed: Vec<_> = listed
        .map(|at| alloc::format!(r#"{{"broadcast_address":"n{at}","tcp_port":1}}"#))
        .collect();
    alloc::format!(r#"{{"producers":[{}]}}"#, listed.join(","))
}

proptest! {
    /// What is listed is found, once, and vanishes only when nobody lists it; nobody is asked twice
    /// at once; and what nobody lists any more vanishes in time.
    #[test]
    fn what_is_known_is_what_is_listed(steps in steps()) {
        let mut world = Harness {
            rig: Rig::new(Question::Nodes),
            calls: BTreeMap::new(),
            listed: BTreeMap::new(),
            known: BTreeSet::new(),
        };
        for step in [Step::Add(0)].iter().chain(&steps) {
            world.apply(step);
            world.check();
        }
        if world.listed.is_empty() {
            return Ok(());
        }
        for _ in 0..2 * (VANISHED_AFTER + 2) {
            while !world.calls.is_empty() {
                world.apply(&Step::Answer(0, Some(1)));
                world.check();
            }
            world.apply(&Step::Timeout);
            world.check();
        }
        prop_assert_eq!(world.known, BTreeSet::from(["n0:1".to_owned()]));
    }
}
