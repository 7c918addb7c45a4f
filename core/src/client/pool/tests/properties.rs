//! What holds for a pool whatever the world does.

use proptest::prelude::*;

use super::*;

type Completed = (PublishId, Result<(), PublishError>);

const NSQDS: [&str; 3] = ["a:1", "b:1", "c:1"];

/// One thing that happens to a pool.
#[derive(Clone, Debug)]
enum Step {
    /// With a deadline of its own, in milliseconds from now, if not 0.
    Publish(u64),
    Write,
    Connected(usize),
    DialFailed(usize),
    RefuseClient(usize),
    Ok(usize),
    Failed(usize),
    BadTopic(usize),
    Closed(usize),
    Add(usize),
    Remove(usize),
    /// The n-th of those outstanding.
    Abandon(usize),
    Elapse(u64),
    Timeout,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let nsqd = 0_usize..3;
    let step = prop_oneof![
        12 => prop_oneof![Just(0), 1_u64..5000].prop_map(Step::Publish),
        8 => Just(Step::Write),
        6 => nsqd.clone().prop_map(Step::Connected),
        1 => nsqd.clone().prop_map(Step::DialFailed),
        1 => nsqd.clone().prop_map(Step::RefuseClient),
        10 => nsqd.clone().prop_map(Step::Ok),
        3 => nsqd.clone().prop_map(Step::Failed),
        1 => nsqd.clone().prop_map(Step::BadTopic),
        2 => nsqd.clone().prop_map(Step::Closed),
        2 => nsqd.clone().prop_map(Step::Add),
        1 => nsqd.prop_map(Step::Remove),
        1 => (0_usize..20).prop_map(Step::Abandon),
        2 => (0_u64..20_000).prop_map(Step::Elapse),
        4 => Just(Step::Timeout),
        1 => Just(Step::Close),
    ];
    proptest::collection::vec(step, 0..150)
}

fn policies() -> impl Strategy<Value = RetryPolicy> {
    prop_oneof![Just(RetryPolicy::Never), Just(RetryPolicy::NotStored), Just(RetryPolicy::Always)]
}

/// A driver, three brokers, and what is known about each publish.
struct Harness {
    rig: Rig,
    /// What each broker was sent and has not answered, stored unless it refuses.
    unanswered: BTreeMap<&'static str, Vec<String>>,
    /// How often a message was stored for certain or perhaps, by body.
    stored: BTreeMap<String, usize>,
    /// What is taken and not completed, with its body and its deadline.
    outstanding: BTreeMap<PublishId, (String, Instant)>,
    published: usize,
}

impl Harness {
    fn new(retry: RetryPolicy) -> Self {
        let producer = ProducerOptions {
            max_outstanding: 20,
            max_outstanding_bytes: 80,
            ..ProducerOptions::default()
        };
        let rig = Rig::new(PoolOptions { producer, retry, ..PoolOptions::default() });
        Self {
            rig,
            unanswered: BTreeMap::new(),
            stored: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            published: 0,
        }
    }

    fn is_up(&self, nsqd: &str) -> bool {
        self.rig.conns.contains_key(nsqd)
    }

    /// The broker takes its next command off its list, if there is one.
    fn next(&mut self, nsqd: &str) -> Option<String> {
        let waiting = self.unanswered.get_mut(nsqd)?;
        (!waiting.is_empty()).then(|| waiting.remove(0))
    }

    /// The connection is gone: what was sent may be stored, says this broker, and does store it.
    fn store_rest(&mut self) {
        for (nsqd, waiting) in &mut self.unanswered {
            if !self.rig.conns.contains_key(*nsqd) {
                for body in waiting.drain(..) {
                    *self.stored.entry(body).or_default() += 1;
                }
            }
        }
    }

    fn apply(&mut self, step: &Step) {
        let now = self.rig.now;
        match *step {
            Step::Publish(millis) => {
                let body = format!("{:04}", self.published);
                let result = self.rig.pool.publish(
                    &topic(),
                    Bytes::from(body.clone()),
                    now,
                    &mut self.rig.out,
                );
                match result {
                    Ok(id) => {
                        let last = self.outstanding.keys().next_back();
                        assert!(last.is_none_or(|last| *last < id), "ids rise");
                        let mut deadline = now.instant + Duration::from_secs(30);
                        if millis > 0 {
                            deadline = now.instant + Duration::from_millis(millis);
                            assert!(self.rig.pool.set_deadline(id, deadline));
                        }
                        self.outstanding.insert(id, (body, deadline));
                        self.published += 1;
                    }
                    Err(PublishError::Full | PublishError::Closed) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Write => {
                for nsqd in NSQDS {
                    let sent = self.rig.sent(nsqd);
                    self.unanswered.entry(nsqd).or_default().extend(sent);
                }
            }
            Step::Connected(n) if self.rig.dials.contains_key(NSQDS[n]) => self.rig.up(NSQDS[n]),
            Step::DialFailed(n) if self.rig.dials.contains_key(NSQDS[n]) => {
                self.rig.dial_fails(NSQDS[n]);
            }
            Step::RefuseClient(n) if self.rig.dials.contains_key(NSQDS[n]) => {
                self.rig.dialled(NSQDS[n]);
                self.rig.refuse(NSQDS[n], "E_INVALID no");
            }
            Step::Ok(n) if self.is_up(NSQDS[n]) => {
                if let Some(body) = self.next(NSQDS[n]) {
                    *self.stored.entry(body).or_default() += 1;
                    self.rig.ok(NSQDS[n]);
                }
            }
            Step::Failed(n) if self.is_up(NSQDS[n]) && self.next(NSQDS[n]).is_some() => {
                self.rig.refuse(NSQDS[n], FAILED);
            }
            Step::BadTopic(n) if self.is_up(NSQDS[n]) && self.next(NSQDS[n]).is_some() => {
                self.rig.refuse(NSQDS[n], "E_BAD_TOPIC PUB");
            }
            Step::Closed(n) if self.is_up(NSQDS[n]) => self.rig.closed(NSQDS[n]),
            Step::Add(n) => {
                self.rig.pool.add_nsqd(NSQDS[n], now, &mut self.rig.out);
            }
            Step::Remove(n) => {
                self.rig.pool.remove_nsqd(NSQDS[n], now, &mut self.rig.out);
            }
            Step::Abandon(n) => {
                if let Some(id) = self.outstanding.keys().nth(n).copied() {
                    self.outstanding.remove(&id);
                    assert!(self.rig.pool.abandon(id, now, &mut self.rig.out));
                }
            }
            Step::Elapse(millis) => {
                self.rig.now = now.after(Duration::from_millis(millis));
                self.rig.pool.handle_timeout(self.rig.now, &mut self.rig.out);
            }
            Step::Timeout => {
                if let Some(at) = self.rig.pool.poll_timeout() {
                    self.rig.now = now.after(at.saturating_since(now.instant));
                    self.rig.pool.handle_timeout(self.rig.now, &mut self.rig.out);
                    assert!(
                        self.rig.pool.poll_timeout().is_none_or(|next| next > self.rig.now.instant),
                        "a deadline that has passed is done with"
                    );
                }
            }
            Step::Close => self.rig.pool.close(now, &mut self.rig.out),
            // What cannot happen now.
            Step::Connected(_)
            | Step::DialFailed(_)
            | Step::RefuseClient(_)
            | Step::Ok(_)
            | Step::Failed(_)
            | Step::BadTopic(_)
            | Step::Closed(_) => {}
        }
        // A driver drops connections before it does anything else.
        for id in self.rig.out.net.close.drain(..) {
            self.rig.conns.retain(|_, conn| conn.id != id);
            self.rig.dials.retain(|_, dial| *dial != id);
        }
        for dial in self.rig.out.net.dial.drain(..) {
            self.rig.dials.insert(dial.address, dial.id);
        }
        self.store_rest();
    }

    /// Looks at what is completed now, and at what has to be.
    fn check(&mut self, policy: RetryPolicy, is_timeout: bool) -> Vec<Completed> {
        let completed = self.rig.completed();
        for (id, result) in completed.clone() {
            let (body, _) =
                self.outstanding.remove(&id).expect("completed once, and only if taken");
            let stored = self.stored.get(&body).copied().unwrap_or(0);
            match result {
                Ok(()) => assert!(stored > 0, "{body} is not stored"),
                Err(PublishError::NotSent(_) | PublishError::Rejected(_)) => {
                    assert_eq!(stored, 0, "{body} is stored");
                }
                // A late one whose answer is still to come is stored later, or not.
                Err(PublishError::Unknown(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        if policy != RetryPolicy::Always {
            assert!(self.stored.values().all(|times| *times == 1), "a duplicate");
        }
        let pool = &self.rig.pool;
        assert_eq!(pool.outstanding(), self.outstanding.len());
        assert_eq!(pool.outstanding_bytes(), 4 * self.outstanding.len());
        assert!(pool.outstanding() <= 20 && pool.outstanding_bytes() <= 80);
        let now = self.rig.now.instant;
        if is_timeout {
            assert!(self.outstanding.values().all(|(_, at)| *at > now), "a deadline was missed");
        }
        let earliest = self.outstanding.values().map(|(_, at)| *at).min();
        assert!(earliest.is_none_or(|at| pool.poll_timeout().is_some_and(|next| next <= at)));
        completed
    }
}

proptest! {
    /// Whatever happens, each publish completes exactly once unless it was abandoned, with an
    /// outcome that is true, and at its deadline at the latest; and a closed pool stops.
    #[test]
    fn every_publish_completes_exactly_once_and_truly(steps in steps(), policy in policies()) {
        let mut world = Harness::new(policy);
        for step in [Step::Add(0), Step::Connected(0)].iter().chain(&steps) {
            world.apply(step);
            world.check(policy, matches!(step, Step::Elapse(_) | Step::Timeout));
        }
        world.apply(&Step::Close);
        for _ in 0..200 {
            world.apply(&Step::Timeout);
            world.check(policy, true);
        }
        prop_assert!(world.rig.pool.is_stopped());
        prop_assert_eq!(world.rig.pool.poll_timeout(), None);
        prop_assert!(world.outstanding.is_empty());
        prop_assert!(world.rig.conns.is_empty() && world.rig.dials.is_empty());
    }

    /// The same steps give the same bytes, actions and deadlines.
    #[test]
    fn same_inputs_same_outputs(steps in steps()) {
        let (mut one, mut two) = (Harness::new(RetryPolicy::Always), Harness::new(RetryPolicy::Always));
        for step in &steps {
            one.apply(step);
            two.apply(step);
            prop_assert_eq!(one.rig.pool.poll_timeout(), two.rig.pool.poll_timeout());
            prop_assert_eq!(&one.unanswered, &two.unanswered);
            let policy = RetryPolicy::Always;
            prop_assert_eq!(one.check(policy, false), two.check(policy, false));
            prop_assert_eq!(one.rig.events(), two.rig.events());
        }
    }
}
