//! PUBs that are sent together.

use super::*;
use proptest::prelude::*;

const MILLI: Duration = Duration::from_millis(1);

fn lingering() -> ProducerOptions {
    ProducerOptions { linger: 2 * MILLI, ..ProducerOptions::default() }
}

/// A command as a broker reads it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Sent {
    verb: String,
    topic: String,
    bodies: Vec<String>,
}

/// The commands in `bytes`.
fn commands(mut bytes: &[u8]) -> Vec<Sent> {
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').expect("a line");
        let line = String::from_utf8(bytes[..end].to_vec()).unwrap();
        bytes = &bytes[end + 1..];
        let mut words = line.split(' ').map(String::from);
        let (verb, topic) = (words.next().unwrap(), words.next().unwrap_or_default());
        if verb == "NOP" {
            continue;
        }
        let mut body = take_sized(&mut bytes);
        let mut bodies = Vec::new();
        if verb == "MPUB" {
            let count = take_number(&mut body);
            bodies.extend((0..count).map(|_| text(take_sized(&mut body))));
            assert!(body.is_empty());
        } else {
            bodies.push(text(body));
        }
        commands.push(Sent { verb, topic, bodies });
    }
    commands
}

fn take_number(bytes: &mut &[u8]) -> usize {
    let (number, rest) = bytes.split_first_chunk::<4>().expect("a number");
    *bytes = rest;
    u32::from_be_bytes(*number) as usize
}

fn take_sized<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let len = take_number(bytes);
    let (body, rest) = bytes.split_at(len);
    *bytes = rest;
    body
}

fn text(body: &[u8]) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

impl Rig {
    fn sent(&mut self) -> Vec<Sent> {
        self.write();
        commands(&self.take_socket())
    }

    /// What was sent, in short: `PUB one`, `MPUB one two`.
    fn sent_lines(&mut self) -> Vec<String> {
        let line = |sent: Sent| sent.verb + " " + &sent.bodies.join(" ");
        self.sent().into_iter().map(line).collect()
    }

    fn publish_to(&mut self, name: &str, body: &'static str) {
        let (topic, body) = (TopicName::new(name).unwrap(), Bytes::from_static(body.as_bytes()));
        self.producer.publish(&topic, body, self.now, &mut self.out).unwrap();
    }
}

#[test]
fn what_comes_within_the_time_is_one_batch_and_each_completes() {
    let mut rig = Rig::open_with(lingering());
    rig.at(100);
    rig.publish("one").unwrap();
    assert_eq!(rig.sent_lines(), [""; 0]);
    assert_eq!(rig.producer.poll_timeout(), Some(Instant::from_millis(102)));
    rig.at(101);
    rig.publish("two").unwrap();
    assert_eq!(rig.producer.poll_timeout(), Some(Instant::from_millis(102)));
    rig.at(102);
    assert_eq!(rig.sent_lines(), ["MPUB one two"]);
    assert_eq!((rig.completed(), rig.producer.outstanding()), (vec![], 2));
    rig.response(OK);
    assert_eq!(rig.completed(), [(0, Ok(())), (1, Ok(()))]);
    assert_eq!((rig.producer.outstanding(), rig.producer.outstanding_bytes()), (0, 0));
    // The next one begins anew, and alone it is no batch.
    rig.publish("three").unwrap();
    assert_eq!(rig.sent_lines(), [""; 0]);
    rig.at(104);
    assert_eq!(rig.sent_lines(), ["PUB three"]);
    rig.response(OK);
    assert_eq!(rig.completed(), [(2, Ok(()))]);
}

#[test]
fn without_linger_nothing_is_sent_together() {
    let mut rig = Rig::open();
    rig.publish("one").unwrap();
    rig.publish("two").unwrap();
    assert_eq!(rig.sent_lines(), ["PUB one", "PUB two"]);
}

#[test]
fn what_waited_for_a_connection_goes_at_once_and_together() {
    let mut rig = Rig::new(lingering());
    for body in ["one", "two", "three"] {
        rig.publish(body).unwrap();
    }
    rig.at(1);
    rig.come_up();
    assert_eq!(rig.sent_lines(), ["MPUB one two three"]);
}

#[test]
fn other_topics_and_other_commands_part_batches_and_keep_their_place() {
    let mut rig = Rig::open_with(lingering());
    for (topic, body) in [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4"), ("a", "5")] {
        rig.publish_to(topic, body);
    }
    let now = rig.now;
    // It is for now, so what waits before it goes too.
    rig.producer.publish_many(&topic(), &["6", "7"], now, &mut rig.out).unwrap();
    rig.publish_to("a", "8");
    let delayed = Bytes::from_static(b"9");
    rig.producer.publish_after(&topic(), MILLI, delayed, now, &mut rig.out).unwrap();
    assert_eq!(rig.sent_lines(), ["MPUB 1 2", "PUB 3", "MPUB 4 5", "MPUB 6 7", "PUB 8", "DPUB 9"]);
}

#[test]
fn a_full_batch_does_not_wait_and_none_is_too_long() {
    let size = ProducerOptions { max_body_size: 4 + 3 * (4 + 3), ..lingering() };
    let mut rig = Rig::open_with(size);
    for body in ["aaa", "bbb", "ccc", "ddd", "eeeeeeeeeeeeeeeeeeeeeeeeee"] {
        rig.publish(body).unwrap();
    }
    assert_eq!(rig.sent_lines(), ["MPUB aaa bbb ccc", "PUB ddd", "PUB eeeeeeeeeeeeeeeeeeeeeeeeee"]);

    let mut rig = Rig::open_with(lingering());
    for _ in 0..511 {
        rig.publish("x").unwrap();
    }
    assert_eq!(rig.sent(), []);
    for _ in 0..2 {
        rig.publish("x").unwrap();
    }
    let counts: Vec<_> = rig.sent().iter().map(|sent| sent.bodies.len()).collect();
    assert_eq!(counts, [512, 1]);
}

#[test]
fn a_batch_that_is_refused_for_one_message_is_sent_one_by_one() {
    for text in ["E_BAD_MESSAGE MPUB message too big 9 > 8", "E_BAD_BODY MPUB body too big 9 > 8"] {
        let mut rig = Rig::open_with(lingering());
        for body in ["one", "two", "three"] {
            rig.publish(body).unwrap();
        }
        rig.at(2);
        assert_eq!(rig.sent_lines(), ["MPUB one two three"]);
        rig.publish("behind").unwrap();
        rig.at(4);
        assert_eq!(rig.sent_lines(), ["PUB behind"]);
        rig.publish("last").unwrap();
        rig.error(text);
        let lost = ConnectionError::Refused(text.into());
        assert_eq!(rig.completed(), [(3, Err(PublishError::Unknown(lost)))]);
        assert_eq!(rig.producer.outstanding(), 4);
        assert_eq!(rig.producer.outstanding_bytes(), "onetwothreelast".len());
        rig.at(200);
        rig.come_up();
        assert_eq!(rig.sent_lines(), ["PUB one", "PUB two", "PUB three", "PUB last"]);
        rig.response(OK);
        rig.error("E_BAD_MESSAGE PUB message too big 9 > 8");
        let result = |n: usize| rig.out.completed[n].1.clone();
        assert_eq!(result(0), Ok(()));
        assert!(matches!(result(1), Err(PublishError::Rejected(_))));
        assert!(matches!(result(2), Err(PublishError::Unknown(_))));
    }
}

#[test]
fn a_batch_that_is_refused_for_what_all_have_fails() {
    for text in ["E_BAD_TOPIC MPUB", "E_MPUB_FAILED MPUB failed exiting", "E_UNAUTHORIZED AUTH"] {
        let mut rig = Rig::open_with(lingering());
        rig.publish("one").unwrap();
        rig.publish("two").unwrap();
        rig.at(2);
        assert_eq!(rig.sent_lines(), ["MPUB one two"]);
        rig.error(text);
        let rejected = || Err(PublishError::Rejected(text.into()));
        assert_eq!(rig.completed(), [(0, rejected()), (1, rejected())]);
        assert_eq!(rig.producer.outstanding(), 0);
    }
}

#[test]
fn a_lost_batch_is_unknown_and_a_late_one_keeps_its_place() {
    let options = ProducerOptions { publish_timeout: 100 * MILLI, ..lingering() };
    let mut rig = Rig::open_with(options);
    rig.publish("one").unwrap();
    rig.at(1);
    rig.publish("two").unwrap();
    rig.at(2);
    assert_eq!(rig.sent_lines(), ["MPUB one two"]);
    rig.at(99);
    rig.publish("three").unwrap();
    rig.at(100);
    let late = || Err(PublishError::Unknown(ConnectionError::TimedOut));
    assert_eq!(rig.completed(), [(0, late())]);
    // Its answer is still to come, and is that of the second too.
    rig.at(101);
    assert_eq!(rig.completed(), [(1, late())]);
    assert_eq!(rig.sent_lines(), ["PUB three"]);
    rig.response(OK);
    assert_eq!(rig.completed(), []);
    rig.response(OK);
    assert_eq!(rig.completed(), [(2, Ok(()))]);

    rig.publish("four").unwrap();
    rig.publish("five").unwrap();
    rig.at(103);
    assert_eq!(rig.sent_lines(), ["MPUB four five"]);
    rig.closed();
    let lost = || Err(PublishError::Unknown(ConnectionError::Closed));
    assert_eq!(rig.completed(), [(3, lost()), (4, lost())]);
}

#[test]
fn its_bounds() {
    for (linger, publish_timeout, is_good) in
        [(5 * MILLI, 6 * MILLI, true), (6 * MILLI, MILLI * 9, false), (MILLI, MILLI, false)]
    {
        let options = ProducerOptions { linger, publish_timeout, ..ProducerOptions::default() };
        let error = options.check().map_err(|error| error.name);
        assert_eq!(error, if is_good { Ok(()) } else { Err("linger") });
    }
}

/// A message that a caller publishes, after so many milliseconds.
#[derive(Clone, Debug)]
struct Planned {
    wait: u64,
    topic: &'static str,
    len: usize,
    is_delayed: bool,
    is_bad: bool,
    /// What waits is written and answered first.
    is_write: bool,
}

fn planned() -> impl Strategy<Value = Planned> {
    let topic = prop_oneof![3 => Just("a"), 1 => Just("b")];
    let flag = |weight| proptest::bool::weighted(weight);
    (0_u64..3, topic, 5_usize..40, flag(0.1), flag(0.05), flag(0.2)).prop_map(
        |(wait, topic, len, is_delayed, is_bad, is_write)| Planned {
            wait,
            topic,
            len,
            is_delayed,
            is_bad,
            is_write,
        },
    )
}

/// A broker that stores what it is sent until a message begins with `x`, which it refuses.
fn answer_all(rig: &mut Rig, stored: &mut Vec<String>) {
    if !rig.producer.is_connected() {
        return;
    }
    for sent in rig.sent() {
        assert!(sent.verb != "MPUB" || sent.bodies.len() > 1);
        let size = 4 + sent.bodies.iter().map(|body| 4 + body.len()).sum::<usize>();
        assert!(sent.verb != "MPUB" || size <= 200, "{size}");
        if sent.bodies.iter().any(|body| body.starts_with('x')) {
            rig.error("E_BAD_MESSAGE no");
            return;
        }
        stored.extend(sent.bodies);
        rig.response(OK);
    }
}

proptest! {
    /// Each message completes once, with the truth; nothing overtakes, nothing comes twice, and a
    /// bad message takes down at most what was sent behind it.
    #[test]
    fn every_message_completes_once_and_in_order(
        plan in proptest::collection::vec(planned(), 1..60),
        linger in 0_u64..6,
    ) {
        let linger = Duration::from_millis(linger);
        let options = ProducerOptions { linger, max_body_size: 200, ..ProducerOptions::default() };
        let mut rig = Rig::open_with(options);
        let (mut bodies, mut stored) = (Vec::new(), Vec::new());
        for Planned { wait, topic, len, is_delayed, is_bad, is_write } in plan {
            rig.now = rig.now.after(Duration::from_millis(wait));
            if rig.producer.poll_timeout().is_some_and(|at| at <= rig.now.instant) {
                rig.producer.handle_timeout(rig.now, &mut rig.out);
            }
            let kind = if is_bad { 'x' } else { 'm' };
            let body = alloc::format!("{kind}{:04}{}", bodies.len(), "-".repeat(len - 5));
            let (topic, bytes) = (TopicName::new(topic).unwrap(), Bytes::from(body.clone()));
            bodies.push(body);
            let (now, out) = (rig.now, &mut rig.out);
            if is_delayed {
                rig.producer.publish_after(&topic, MILLI, bytes, now, out).unwrap();
            } else {
                rig.producer.publish(&topic, bytes, now, out).unwrap();
            }
            if is_write {
                answer_all(&mut rig, &mut stored);
            }
        }
        for _ in 0..200 {
            if !rig.out.net.dial.is_empty() {
                rig.come_up();
            }
            answer_all(&mut rig, &mut stored);
            if rig.producer.outstanding() == 0 {
                break;
            }
            let at = rig.producer.poll_timeout().expect("something is due");
            rig.now = rig.now.after(at.saturating_since(rig.now.instant));
            rig.producer.handle_timeout(rig.now, &mut rig.out);
        }
        let in_order = stored.windows(2).all(|two| two[0][1..] < two[1][1..]);
        prop_assert!(in_order, "{stored:?}");
        let mut completed = rig.completed();
        completed.sort_by_key(|(id, _)| *id);
        prop_assert_eq!(completed.len(), bodies.len());
        for ((id, result), (at, body)) in completed.into_iter().zip((0..).zip(bodies)) {
            prop_assert_eq!(id, at);
            prop_assert_eq!(result.is_ok(), stored.contains(&body), "{} {:?}", body, result);
            match result {
                Ok(()) | Err(PublishError::Unknown(_)) => {}
                Err(PublishError::Rejected(_)) => prop_assert!(body.starts_with('x')),
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
    }
}
