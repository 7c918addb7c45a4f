use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::{format, vec};

use bytes::BytesMut;

use super::*;
use crate::client::{ClientMachine, ConnectionOptions, DialId, Secret};
use crate::http::call::{CallAnswer, CallFailure};
use crate::machine::MachineActions;

mod properties;

const ANSWER: &[u8] = br#"{"max_rdy_count":2500,"version":"1.3.0"}"#;
const FAILED: &str = "E_PUB_FAILED PUB failed exiting";

/// A pool, its driver, and brokers that do only what the test says.
struct Rig {
    pool: ProducerPool,
    out: ProducerActions,
    now: Now,
    /// Dials that are asked for.
    dials: BTreeMap<String, DialId>,
    conns: BTreeMap<String, Conn>,
}

/// A connection that is up.
struct Conn {
    id: DialId,
    /// What was written and not looked at yet.
    socket: Vec<u8>,
}

impl Rig {
    fn new(options: PoolOptions) -> Self {
        Self {
            pool: ProducerPool::new(options, 7).unwrap(),
            out: ProducerActions::default(),
            now: Now::from_millis(0),
            dials: BTreeMap::new(),
            conns: BTreeMap::new(),
        }
    }

    fn open(retry: RetryPolicy, nsqds: &[&str]) -> Self {
        let mut rig = Self::new(PoolOptions { retry, ..PoolOptions::default() });
        for nsqd in nsqds {
            assert!(rig.pool.add_nsqd(nsqd, rig.now, &mut rig.out));
        }
        for nsqd in nsqds {
            rig.up(nsqd);
        }
        rig
    }

    /// Notes what the pool asks for.
    fn carry_out(&mut self) {
        for id in self.out.net.close.drain(..) {
            self.conns.retain(|_, conn| conn.id != id);
            self.dials.retain(|_, dial| *dial != id);
        }
        for dial in self.out.net.dial.drain(..) {
            assert_eq!(self.dials.insert(dial.address, dial.id), None, "one dial at a time");
        }
        let mut spare = b"left over".to_vec();
        for id in core::mem::take(&mut self.out.net.transmit) {
            while {
                self.pool.swap_transmit(id, self.now, &mut spare);
                !spare.is_empty()
            } {
                let conn = self.conns.values_mut().find(|conn| conn.id == id);
                conn.expect("bytes are for a connection").socket.extend_from_slice(&spare);
            }
        }
    }

    /// The dial to this nsqd succeeds, up to the answer to IDENTIFY.
    fn up(&mut self, nsqd: &str) {
        self.dialled(nsqd);
        self.input(nsqd, 0, ANSWER);
    }

    fn dialled(&mut self, nsqd: &str) {
        self.carry_out();
        let id = self.dials.remove(nsqd).expect("a dial is asked for");
        self.conns.insert(nsqd.into(), Conn { id, socket: Vec::new() });
        self.pool.handle_connected(id, self.now, &mut self.out);
        self.carry_out();
        assert!(self.take_socket(nsqd).starts_with(b"  V2IDENTIFY\n"));
    }

    fn dial_fails(&mut self, nsqd: &str) {
        self.carry_out();
        let id = self.dials.remove(nsqd).expect("a dial is asked for");
        self.pool.handle_connect_failed(id, "refused", self.now, &mut self.out);
    }

    fn take_socket(&mut self, nsqd: &str) -> Vec<u8> {
        self.conns.get_mut(nsqd).map(|conn| core::mem::take(&mut conn.socket)).unwrap_or_default()
    }

    /// The bodies that this nsqd was sent since the last look.
    fn sent(&mut self, nsqd: &str) -> Vec<String> {
        self.carry_out();
        bodies(&self.take_socket(nsqd))
    }

    fn input(&mut self, nsqd: &str, kind: u8, payload: &[u8]) {
        let id = self.conns.get(nsqd).expect("it is connected").id;
        let mut input = BytesMut::from(&frame(kind, payload)[..]);
        self.pool.handle_input(id, &mut input, self.now, &mut self.out);
        assert!(input.is_empty());
    }

    fn ok(&mut self, nsqd: &str) {
        self.input(nsqd, 0, b"OK");
    }

    fn refuse(&mut self, nsqd: &str, text: &str) {
        self.input(nsqd, 1, text.as_bytes());
    }

    fn closed(&mut self, nsqd: &str) {
        let conn = self.conns.remove(nsqd).expect("it is connected");
        self.pool.handle_closed(conn.id, None, self.now, &mut self.out);
    }

    fn publish(&mut self, body: &'static str) -> PublishId {
        self.try_publish(body).unwrap()
    }

    fn try_publish(&mut self, body: &'static str) -> Result<PublishId, PublishError> {
        self.pool.publish(&topic(), Bytes::from_static(body.as_bytes()), self.now, &mut self.out)
    }

    fn at(&mut self, millis: u64) {
        self.now = Now::from_millis(millis);
        self.pool.handle_timeout(self.now, &mut self.out);
    }

    /// Goes from deadline to deadline until there is a dial to this nsqd.
    fn until_dialled(&mut self, nsqd: &str) {
        self.carry_out();
        while !self.dials.contains_key(nsqd) {
            let at = self.pool.poll_timeout().expect("a redial is due");
            self.now = self.now.after(at.saturating_since(self.now.instant));
            self.pool.handle_timeout(self.now, &mut self.out);
            self.carry_out();
        }
    }

    fn completed(&mut self) -> Vec<(PublishId, Result<(), PublishError>)> {
        core::mem::take(&mut self.out.completed)
    }

    fn events(&mut self) -> Vec<String> {
        self.out.events.drain(..).map(|event| event.to_string()).collect()
    }

    /// Answers the calls that are asked for; `""`: the nsqlookupd cannot be reached.
    fn answer_calls(&mut self, bodies: &[&'static str]) {
        let calls = core::mem::take(&mut self.out.net.calls);
        assert_eq!(calls.len(), bodies.len());
        for ((id, _), body) in calls.into_iter().zip(bodies) {
            let result = match *body {
                "" => Err(CallFailure::Failed("refused".into())),
                body => Ok(CallAnswer { status: 200, body: body.into() }),
            };
            self.pool.handle_called(id, result, self.now, &mut self.out);
        }
    }

    /// The next question, answered; the nsqds live on.
    fn lookup_round(&mut self, body: &'static str) {
        for nsqd in self.conns.keys().cloned().collect::<Vec<_>>() {
            self.input(&nsqd, 0, b"_heartbeat_");
        }
        let next = self.pool.directory.poll_timeout().unwrap();
        self.now = self.now.after(next.saturating_since(self.now.instant));
        self.pool.handle_timeout(self.now, &mut self.out);
        self.answer_calls(&[body]);
    }
}

fn topic() -> TopicName {
    TopicName::new("t").unwrap()
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + payload.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 0, kind]);
    bytes.extend_from_slice(payload);
    bytes
}

/// The bodies of the PUBs in `bytes`; NOPs are passed over.
fn bodies(mut bytes: &[u8]) -> Vec<String> {
    let mut bodies = Vec::new();
    while !bytes.is_empty() {
        if let Some(rest) = bytes.strip_prefix(b"NOP\n") {
            bytes = rest;
            continue;
        }
        let rest = bytes.strip_prefix(b"PUB t\n").expect("a PUB");
        let (len, rest) = rest.split_first_chunk::<4>().unwrap();
        let (body, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        bodies.push(String::from_utf8(body.to_vec()).unwrap());
        bytes = rest;
    }
    bodies
}

fn unknown(error: ConnectionError) -> Result<(), PublishError> {
    Err(PublishError::Unknown(error))
}

fn not_sent(error: ConnectionError) -> Result<(), PublishError> {
    Err(PublishError::NotSent(error))
}

fn rejected(text: &str) -> Result<(), PublishError> {
    Err(PublishError::Rejected(text.into()))
}

// Choice.

#[test]
fn equals_take_turns_and_the_least_busy_is_chosen() {
    let mut rig = Rig::open(RetryPolicy::Never, &["a:1", "b:1", "c:1"]);
    for body in ["1", "2", "3", "4", "5", "6"] {
        rig.publish(body);
    }
    assert_eq!(rig.sent("a:1"), ["1", "4"]);
    assert_eq!(rig.sent("b:1"), ["2", "5"]);
    assert_eq!(rig.sent("c:1"), ["3", "6"]);
    rig.ok("b:1");
    rig.ok("b:1");
    for body in ["7", "8"] {
        rig.publish(body);
    }
    assert_eq!(rig.sent("b:1"), ["7", "8"]);
    assert_eq!(rig.pool.outstanding(), 6);
}

#[test]
fn one_nsqd_is_sent_everything_in_order_and_at_once() {
    let mut rig = Rig::open(RetryPolicy::NotStored, &["a:1"]);
    let ids = ["1", "2", "3"].map(|body| rig.publish(body));
    assert!(ids.is_sorted());
    assert_eq!(rig.sent("a:1"), ["1", "2", "3"]);
    for id in ids {
        rig.ok("a:1");
        assert_eq!(rig.completed(), [(id, Ok(()))]);
    }
    assert_eq!((rig.pool.outstanding(), rig.pool.outstanding_bytes()), (0, 0));
}

#[test]
fn publishes_wait_for_whichever_connects_first_and_are_bound_to_none() {
    let mut rig = Rig::new(PoolOptions::default());
    let first = rig.publish("1");
    rig.pool.add_nsqd("a:1", rig.now, &mut rig.out);
    rig.pool.add_nsqd("b:1", rig.now, &mut rig.out);
    let second = rig.publish("2");
    rig.dial_fails("a:1");
    rig.up("b:1");
    assert_eq!(rig.sent("b:1"), ["1", "2"]);
    rig.ok("b:1");
    rig.ok("b:1");
    assert_eq!(rig.completed(), [(first, Ok(())), (second, Ok(()))]);
}

#[test]
fn what_was_not_written_goes_to_another_when_the_connection_is_lost() {
    let mut rig = Rig::open(RetryPolicy::Never, &["a:1", "b:1"]);
    let [one, two, three, four] = ["1", "2", "3", "4"].map(|body| rig.publish(body));
    // Nothing is written to either yet.
    rig.closed("a:1");
    assert_eq!(rig.sent("b:1"), ["2", "4", "1", "3"]);
    for _ in 0..4 {
        rig.ok("b:1");
    }
    assert_eq!(rig.completed(), [two, four, one, three].map(|id| (id, Ok(()))));
}

#[test]
fn one_that_failed_lately_is_used_last() {
    let mut rig = Rig::open(RetryPolicy::Never, &["a:1", "b:1"]);
    rig.closed("a:1");
    rig.until_dialled("a:1");
    rig.up("a:1");
    for body in ["1", "2", "3"] {
        rig.publish(body);
    }
    assert_eq!(rig.sent("b:1"), ["1", "2", "3"]);
    rig.at(10_001);
    rig.publish("4");
    assert_eq!(rig.sent("a:1"), ["4"]);
}

#[test]
fn an_nsqd_that_answers_nothing_is_given_no_more_than_its_share() {
    let producer = ProducerOptions { max_outstanding: 2, ..ProducerOptions::default() };
    let mut rig = Rig::new(PoolOptions { producer, ..PoolOptions::default() });
    rig.pool.add_nsqd("a:1", rig.now, &mut rig.out);
    rig.up("a:1");
    for body in ["1", "2"] {
        let id = rig.publish(body);
        assert!(rig.pool.set_deadline(id, Instant::from_millis(10)));
    }
    assert_eq!(rig.sent("a:1"), ["1", "2"]);
    rig.at(10);
    assert_eq!(rig.completed().len(), 2);
    // Their answers are still to come, so this waits.
    rig.publish("3");
    assert_eq!(rig.sent("a:1"), Vec::<String>::new());
    rig.ok("a:1");
    assert_eq!(rig.sent("a:1"), ["3"]);
    assert_eq!(rig.completed(), []);
}

// Retries.

#[test]
fn what_was_certainly_not_stored_is_tried_elsewhere() {
    let mut rig = Rig::open(RetryPolicy::NotStored, &["a:1", "b:1"]);
    let id = rig.publish("1");
    assert_eq!(rig.sent("a:1"), ["1"]);
    rig.refuse("a:1", FAILED);
    assert_eq!(rig.completed(), []);
    assert_eq!(rig.sent("b:1"), ["1"]);
    rig.ok("b:1");
    assert_eq!(rig.completed(), [(id, Ok(()))]);
}

#[test]
fn with_one_nsqd_it_is_tried_again_there() {
    let mut rig = Rig::open(RetryPolicy::NotStored, &["a:1"]);
    let (first, second) = (rig.publish("1"), rig.publish("2"));
    rig.carry_out();
    assert_eq!(rig.sent("a:1"), ["1", "2"]);
    rig.refuse("a:1", FAILED);
    let refused = ConnectionError::Refused(FAILED.into());
    assert_eq!(rig.completed(), [(second, unknown(refused))]);
    rig.until_dialled("a:1");
    rig.up("a:1");
    assert_eq!(rig.sent("a:1"), ["1"]);
    rig.ok("a:1");
    assert_eq!(rig.completed(), [(first, Ok(()))]);
}

#[test]
fn what_no_nsqd_would_take_is_not_tried_again() {
    for text in [
        "E_BAD_TOPIC PUB topic name \"t\" is not valid",
        "E_BAD_MESSAGE PUB message too big",
        "E_UNAUTHORIZED AUTH failed for PUB on \"t\"",
        "E_BAD_BODY MPUB body too big",
    ] {
        for policy in [RetryPolicy::Never, RetryPolicy::NotStored, RetryPolicy::Always] {
            let mut rig = Rig::open(policy, &["a:1", "b:1"]);
            let id = rig.publish("1");
            rig.carry_out();
            rig.refuse("a:1", text);
            assert_eq!(rig.completed(), [(id, rejected(text))]);
            assert_eq!(rig.sent("b:1"), Vec::<String>::new());
        }
    }
}

#[test]
fn the_policies_differ_in_what_they_try_again() {
    for policy in [RetryPolicy::Never, RetryPolicy::NotStored, RetryPolicy::Always] {
        let mut rig = Rig::open(policy, &["a:1", "b:1"]);
        let id = rig.publish("1");
        rig.carry_out();
        rig.refuse("a:1", FAILED);
        let is_retried = policy != RetryPolicy::Never;
        let expected = if is_retried { vec![] } else { vec![(id, rejected(FAILED))] };
        assert_eq!(rig.completed(), expected);

        let mut rig = Rig::open(policy, &["a:1", "b:1"]);
        let id = rig.publish("1");
        rig.carry_out();
        rig.closed("a:1");
        if policy == RetryPolicy::Always {
            assert_eq!((rig.completed(), rig.sent("b:1")), (vec![], vec!["1".to_string()]));
        } else {
            assert_eq!(rig.completed(), [(id, unknown(ConnectionError::Closed))]);
            assert_eq!(rig.sent("b:1"), Vec::<String>::new());
        }
    }
}

#[test]
fn what_was_sent_once_stays_in_doubt_whatever_the_last_try_says() {
    let mut rig = Rig::open(RetryPolicy::Always, &["a:1"]);
    let id = rig.publish("1");
    rig.carry_out();
    rig.closed("a:1");
    rig.at(30_000);
    assert_eq!(rig.completed(), [(id, unknown(ConnectionError::Closed))]);

    let mut rig = Rig::open(RetryPolicy::Always, &["a:1", "b:1"]);
    let id = rig.publish("1");
    rig.carry_out();
    rig.closed("a:1");
    rig.carry_out();
    rig.refuse("b:1", "E_BAD_MESSAGE x");
    let refused = ConnectionError::Refused("E_BAD_MESSAGE x".into());
    assert_eq!(rig.completed(), [(id, unknown(refused))]);
}

#[test]
fn retries_end_at_the_deadline() {
    let mut rig = Rig::open(RetryPolicy::NotStored, &["a:1"]);
    let id = rig.publish("1");
    let mut tries = 0;
    while rig.now.instant < Instant::from_millis(29_000) {
        assert_eq!(rig.sent("a:1"), ["1"]);
        tries += 1;
        rig.refuse("a:1", FAILED);
        rig.until_dialled("a:1");
        rig.up("a:1");
        assert_eq!(rig.completed(), []);
    }
    assert!(tries > 100);
    rig.carry_out();
    rig.now = Now::from_millis(30_000);
    rig.refuse("a:1", FAILED);
    assert_eq!(rig.completed(), [(id, rejected(FAILED))]);
}

// Deadlines.

#[test]
fn each_publish_has_its_own_deadline() {
    let mut rig = Rig::open(RetryPolicy::NotStored, &["a:1"]);
    let [one, two, three] = ["1", "2", "3"].map(|body| rig.publish(body));
    assert_eq!(rig.sent("a:1"), ["1", "2", "3"]);
    let four = rig.publish("4");
    for (id, millis) in [(three, 100), (one, 300), (four, 200)] {
        assert!(rig.pool.set_deadline(id, Instant::from_millis(millis)));
    }
    rig.at(99);
    assert_eq!(rig.completed(), []);
    rig.at(100);
    assert_eq!(rig.completed(), [(three, unknown(ConnectionError::TimedOut))]);
    rig.at(200);
    assert_eq!(rig.completed(), [(four, not_sent(ConnectionError::TimedOut))]);
    assert_eq!(rig.sent("a:1"), Vec::<String>::new(), "what is late is not sent");
    rig.at(300);
    assert_eq!(rig.completed(), [(one, unknown(ConnectionError::TimedOut))]);
    // The answers are matched to what was sent, whether anybody waits or not.
    rig.ok("a:1");
    rig.ok("a:1");
    assert_eq!(rig.completed(), [(two, Ok(()))]);
    rig.ok("a:1");
    assert!(!rig.pool.set_deadline(one, Instant::from_millis(900)));
    assert_eq!(rig.pool.outstanding(), 0);
}

#[test]
fn a_later_deadline_counts_too() {
    let mut rig = Rig::new(PoolOptions::default());
    rig.pool.add_nsqd("a:1", rig.now, &mut rig.out);
    let id = rig.publish("1");
    rig.pool.set_deadline(id, Instant::from_millis(40_000));
    rig.dial_fails("a:1");
    rig.at(39_999);
    assert_eq!(rig.completed(), []);
    rig.at(40_000);
    let why = ConnectionError::DialTimeout;
    let (done, result) = rig.completed().remove(0);
    assert_eq!(done, id);
    assert!([not_sent(why), not_sent(ConnectionError::Dial("refused".into()))].contains(&result));
}

#[test]
fn a_late_one_in_front_does_not_hold_up_the_others() {
    let mut rig = Rig::open(RetryPolicy::NotStored, &["a:1"]);
    let late = rig.publish("1");
    rig.pool.set_deadline(late, Instant::from_millis(5));
    rig.publish("2");
    rig.now = Now::from_millis(5);
    assert_eq!(rig.sent("a:1"), Vec::<String>::new());
    assert_eq!(rig.pool.poll_timeout(), Some(Instant::from_millis(5)));
    rig.at(5);
    assert_eq!(rig.completed(), [(late, not_sent(ConnectionError::TimedOut))]);
    assert_eq!(rig.sent("a:1"), ["2"]);
}

#[test]
fn without_an_nsqd_the_reason_says_so() {
    let mut rig = Rig::new(PoolOptions::default());
    let id = rig.publish("1");
    assert_eq!(rig.pool.poll_timeout(), Some(Instant::from_millis(30_000)));
    rig.at(30_000);
    assert_eq!(rig.completed(), [(id, not_sent(ConnectionError::NoNsqd))]);
    assert_eq!(rig.pool.poll_timeout(), None);
}

#[test]
fn a_refusal_of_all_fails_what_waits_and_of_one_does_not() {
    let mut rig = Rig::new(PoolOptions::default());
    rig.pool.add_nsqd("a:1", rig.now, &mut rig.out);
    rig.pool.add_nsqd("b:1", rig.now, &mut rig.out);
    let id = rig.publish("1");
    rig.dialled("a:1");
    rig.refuse("a:1", "E_BAD_BODY IDENTIFY");
    assert_eq!(rig.completed(), []);
    rig.dialled("b:1");
    rig.refuse("b:1", "E_INVALID no");
    let reason = ConnectionError::IdentifyRefused("E_INVALID no".into());
    assert_eq!(rig.completed(), [(id, not_sent(reason))]);
}

// Abandoning.

#[test]
fn an_abandoned_publish_is_not_sent_and_not_completed() {
    let mut rig = Rig::new(PoolOptions::default());
    let waiting = rig.publish("0");
    assert!(rig.pool.abandon(waiting, rig.now, &mut rig.out));
    rig.pool.add_nsqd("a:1", rig.now, &mut rig.out);
    rig.up("a:1");
    let one = rig.publish("1");
    rig.carry_out();
    let (two, three) = (rig.publish("2"), rig.publish("3"));
    assert!(rig.pool.abandon(one, rig.now, &mut rig.out));
    assert!(rig.pool.abandon(two, rig.now, &mut rig.out));
    assert!(!rig.pool.abandon(two, rig.now, &mut rig.out));
    assert_eq!(rig.sent("a:1"), ["1", "3"]);
    assert_eq!(rig.pool.outstanding(), 1);
    rig.ok("a:1");
    rig.ok("a:1");
    assert_eq!(rig.completed(), [(three, Ok(()))]);
}

#[test]
fn bodies_of_abandoned_publishes_do_not_pile_up() {
    let mut rig = Rig::new(PoolOptions::default());
    for connected in [false, true] {
        if connected {
            rig.pool.add_nsqd("a:1", rig.now, &mut rig.out);
            rig.up("a:1");
        }
        rig.publish("stays");
        for _ in 0..1000 {
            let id = rig.publish("goes");
            rig.pool.abandon(id, rig.now, &mut rig.out);
        }
        let member = rig.pool.members.first().map_or(0, |member| member.producer.load());
        assert!(member <= 4, "{member}");
        assert!(format!("{:?}", rig.pool.queue).matches("Publish ").count() <= 4);
    }
}

// Limits.

#[test]
fn the_pool_as_a_whole_is_bounded() {
    let producer =
        ProducerOptions { max_outstanding: 3, max_outstanding_bytes: 10, ..<_>::default() };
    let mut rig = Rig::new(PoolOptions { producer, ..PoolOptions::default() });
    for nsqd in ["a:1", "b:1"] {
        rig.pool.add_nsqd(nsqd, rig.now, &mut rig.out);
        rig.up(nsqd);
    }
    rig.publish("12345");
    assert_eq!(rig.try_publish("123456"), Err(PublishError::Full));
    rig.publish("1");
    rig.publish("1");
    assert_eq!(rig.try_publish("1"), Err(PublishError::Full));
    assert!(!rig.out.room);
    rig.carry_out();
    rig.ok("b:1");
    assert!(rig.out.room);
    rig.out.room = false;
    rig.publish("1");
    rig.ok("a:1");
    assert!(!rig.out.room, "nobody was refused since");
    assert_eq!(rig.try_publish(""), Err(PublishError::EmptyBody));
}

// Nsqds that come and go.

#[test]
fn an_nsqd_that_is_removed_is_drained() {
    let mut rig = Rig::open(RetryPolicy::NotStored, &["a:1", "b:1"]);
    let id = rig.publish("1");
    assert_eq!(rig.sent("a:1"), ["1"]);
    let [two, three] = ["2", "3"].map(|body| rig.publish(body));
    assert!(!rig.pool.add_nsqd("a:1", rig.now, &mut rig.out), "it does already");
    assert!(rig.pool.remove_nsqd("a:1", rig.now, &mut rig.out));
    assert!(!rig.pool.remove_nsqd("a:1", rig.now, &mut rig.out));
    assert_eq!(rig.pool.addresses(), ["b:1"]);
    assert_eq!((rig.pool.connected(), rig.sent("b:1").len()), (1, 2));
    rig.ok("a:1");
    assert_eq!(rig.completed(), [(id, Ok(()))]);
    rig.carry_out();
    assert!(!rig.conns.contains_key("a:1"), "its connection is closed");
    rig.ok("b:1");
    rig.ok("b:1");
    assert_eq!(rig.completed().len(), [two, three].len());
    // An nsqd without a connection goes at once.
    rig.closed("b:1");
    assert!(rig.pool.remove_nsqd("b:1", rig.now, &mut rig.out));
    assert_eq!(rig.pool.poll_timeout(), None);
}

#[test]
fn an_nsqd_that_is_given_again_while_it_drains_stays() {
    let mut rig = Rig::open(RetryPolicy::NotStored, &["a:1"]);
    rig.publish("1");
    rig.carry_out();
    rig.pool.remove_nsqd("a:1", rig.now, &mut rig.out);
    assert!(rig.pool.add_nsqd("a:1", rig.now, &mut rig.out));
    rig.ok("a:1");
    assert_eq!(rig.pool.connected(), 1);
}

#[test]
fn nsqds_are_found_and_vanish_but_not_those_that_were_given() {
    const BOTH: &str = r#"{"producers":[{"broadcast_address":"a","tcp_port":1},
        {"broadcast_address":"b","tcp_port":1}]}"#;
    const NONE: &str = r#"{"producers":[]}"#;
    let mut rig = Rig::open(RetryPolicy::NotStored, &["a:1"]);
    rig.events();
    assert_eq!(rig.pool.add_nsqlookupd("l:1", rig.now, &mut rig.out), Ok(true));
    assert_eq!(rig.pool.add_nsqlookupd("l:1", rig.now, &mut rig.out), Ok(false));
    assert_eq!(rig.pool.add_nsqlookupd("l", rig.now, &mut rig.out), Err(UrlError::Port));
    assert_eq!(rig.out.net.calls[0].1.url.to_string(), "http://l:1/nodes");
    rig.answer_calls(&[BOTH]);
    assert_eq!(rig.pool.addresses(), ["a:1", "b:1"]);
    let found =
        ["(a:1) found by nsqlookupd", "(b:1) connecting to nsqd", "(b:1) found by nsqlookupd"];
    assert_eq!(rig.events(), found);
    rig.up("b:1");
    rig.lookup_round("");
    rig.lookup_round(NONE);
    rig.lookup_round(NONE);
    assert_eq!(rig.pool.connected(), 2);
    rig.events();
    rig.lookup_round(NONE);
    assert_eq!((rig.pool.addresses(), rig.pool.connected()), (vec!["a:1".into()], 1));
    let vanished = ["a", "b"].map(|n| format!("({n}:1) not known to any nsqlookupd any more"));
    assert_eq!(rig.events()[..2], vanished);
    rig.carry_out();
    assert!(!rig.conns.contains_key("b:1"));
    assert!(rig.pool.remove_nsqlookupd("l:1"));
}

// Closing.

#[test]
fn close_waits_for_what_is_outstanding() {
    let mut rig = Rig::open(RetryPolicy::NotStored, &["a:1", "b:1"]);
    let id = rig.publish("1");
    rig.carry_out();
    rig.pool.close(rig.now, &mut rig.out);
    assert_eq!(rig.try_publish("2"), Err(PublishError::Closed));
    assert!(!rig.pool.add_nsqd("c:1", rig.now, &mut rig.out));
    assert_eq!(rig.pool.add_nsqlookupd("l:1", rig.now, &mut rig.out), Ok(false));
    assert!(!rig.pool.is_stopped());
    rig.ok("a:1");
    assert_eq!(rig.completed(), [(id, Ok(()))]);
    assert!(rig.pool.is_stopped());
    assert_eq!((rig.pool.poll_timeout(), rig.out.net.close.len()), (None, 2));
    assert_eq!(rig.events().last().map(String::as_str), Some("stopped"));
}

#[test]
fn close_gives_up_at_its_deadline() {
    let producer =
        ProducerOptions { close_timeout: Duration::from_secs(1), ..ProducerOptions::default() };
    let mut rig = Rig::new(PoolOptions { producer, ..PoolOptions::default() });
    rig.pool.add_nsqd("a:1", rig.now, &mut rig.out);
    rig.up("a:1");
    let sent = rig.publish("1");
    rig.carry_out();
    let not = rig.publish("2");
    rig.pool.close(rig.now, &mut rig.out);
    rig.at(1000);
    let stopped = ConnectionError::Stopped;
    assert_eq!(rig.completed(), [(sent, unknown(stopped.clone())), (not, not_sent(stopped))]);
    assert!(rig.pool.is_stopped());
}

#[test]
fn a_pool_of_nobody_stops_at_once_and_bad_options_are_named() {
    let mut rig = Rig::new(PoolOptions::default());
    rig.pool.close(rig.now, &mut rig.out);
    assert!(rig.pool.is_stopped());
    let lookupd = DirectoryOptions { poll_interval: Duration::ZERO, ..<_>::default() };
    let error = ProducerPool::new(PoolOptions { lookupd, ..<_>::default() }, 0).unwrap_err();
    assert_eq!(error.name, "lookupd_poll_interval");
}

#[test]
fn reports_about_nobody_are_ignored() {
    let mut rig = Rig::open(RetryPolicy::NotStored, &["a:1"]);
    rig.out.clear();
    let nobody = DialId(77 << 32);
    rig.pool.handle_closed(nobody, None, rig.now, &mut rig.out);
    rig.pool.handle_connect_failed(nobody, "x", rig.now, &mut rig.out);
    let mut input = BytesMut::from(&b"x"[..]);
    rig.pool.handle_input(nobody, &mut input, rig.now, &mut rig.out);
    assert!(input.is_empty() && rig.out.is_empty());
    rig.pool.handle_connected(nobody, rig.now, &mut rig.out);
    assert_eq!(rig.out.net.close, [nobody]);
    let mut spare = b"x".to_vec();
    rig.pool.swap_transmit(nobody, rig.now, &mut spare);
    assert!(spare.is_empty());
}

#[test]
fn nsqlookupds_get_the_secret_unless_it_is_kept_from_them() {
    for (lookupd_authorization, is_sent) in [(true, true), (false, false)] {
        let auth_secret = Some(Secret::new("hunter2"));
        let connection = ConnectionOptions { auth_secret, ..ConnectionOptions::default() };
        let producer = ProducerOptions { connection, ..ProducerOptions::default() };
        let mut rig =
            Rig::new(PoolOptions { producer, lookupd_authorization, ..PoolOptions::default() });
        rig.pool.add_nsqlookupd("l:1", rig.now, &mut rig.out).unwrap();
        let (_, call) = &rig.out.net.calls[0];
        assert_eq!(call.authorization.as_ref().map(Secret::expose), is_sent.then_some("hunter2"));
        assert!(!format!("{:?} {:?}", rig.pool, rig.out).contains("hunter2"));
    }
}

#[test]
fn a_batch_that_is_refused_is_sent_one_by_one_whatever_the_policy() {
    let linger = Duration::from_millis(2);
    let producer = ProducerOptions { linger, ..ProducerOptions::default() };
    let retry = RetryPolicy::Never;
    let mut rig = Rig::new(PoolOptions { producer, retry, ..PoolOptions::default() });
    rig.pool.add_nsqd("a:1", rig.now, &mut rig.out);
    rig.up("a:1");
    let ids = [rig.publish("one"), rig.publish("two")];
    assert_eq!(rig.sent("a:1"), [""; 0]);
    assert_eq!(rig.pool.poll_timeout(), Some(Instant::from_millis(2)));
    rig.at(2);
    rig.carry_out();
    let batch = b"MPUB t\n\0\0\0\x12\0\0\0\x02\0\0\0\x03one\0\0\0\x03two";
    assert_eq!(rig.take_socket("a:1"), batch);
    rig.refuse("a:1", "E_BAD_MESSAGE MPUB message too big 3 > 2");
    assert_eq!((rig.completed(), rig.pool.outstanding()), (vec![], 2));
    rig.until_dialled("a:1");
    rig.up("a:1");
    assert_eq!(rig.sent("a:1"), ["one", "two"]);
    rig.ok("a:1");
    rig.ok("a:1");
    assert_eq!(rig.completed(), ids.map(|id| (id, Ok(()))));
}

#[test]
fn a_message_with_little_time_is_not_held() {
    let linger = Duration::from_millis(5);
    let producer = ProducerOptions { linger, ..ProducerOptions::default() };
    let mut rig = Rig::new(PoolOptions { producer, ..PoolOptions::default() });
    rig.pool.add_nsqd("a:1", rig.now, &mut rig.out);
    rig.up("a:1");
    let id = rig.publish("one");
    rig.pool.set_deadline(id, Instant::from_millis(3));
    assert!(rig.pool.poll_timeout() <= Some(rig.now.instant));
    rig.at(0);
    assert_eq!(rig.sent("a:1"), ["one"]);
}
