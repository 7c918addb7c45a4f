use super::super::frame::FrameError;
use super::*;
use crate::machine::MachineActions;
use crate::protocol::frame::HEARTBEAT;
use alloc::string::ToString;
use alloc::vec;

mod linger;
mod properties;

const ANSWER: &[u8] = br#"{"max_rdy_count":2500,"version":"1.3.0"}"#;

/// A producer, its driver and a broker that does only what the test says.
struct Rig {
    producer: Producer,
    out: ProducerActions,
    now: Now,
    /// The latest dial.
    dial: Option<DialId>,
    /// What was written and not looked at yet.
    socket: Vec<u8>,
}

impl Rig {
    fn new(options: ProducerOptions) -> Self {
        let producer = Producer::new("nsqd:4150", options, 7).unwrap();
        let out = ProducerActions::default();
        Self { producer, out, now: Now::from_millis(0), dial: None, socket: Vec::new() }
    }

    fn open() -> Self {
        Self::open_with(ProducerOptions::default())
    }

    fn open_with(options: ProducerOptions) -> Self {
        let mut rig = Self::new(options);
        rig.producer.connect(rig.now, &mut rig.out);
        rig.come_up();
        rig
    }

    /// Carries out the dial that is asked for, up to the answer to IDENTIFY.
    fn come_up(&mut self) {
        let id = self.take_dial();
        self.producer.handle_connected(id, self.now, &mut self.out);
        self.write();
        assert!(self.take_socket().starts_with(b"  V2IDENTIFY\n"));
        self.response(ANSWER);
        assert!(self.producer.is_connected());
    }

    fn take_dial(&mut self) -> DialId {
        let dial = self.out.net.dial.pop().expect("a dial is asked for");
        assert_eq!((dial.address.as_str(), self.out.net.dial.len()), ("nsqd:4150", 0));
        self.dial = Some(dial.id);
        dial.id
    }

    fn publish(&mut self, body: &'static str) -> Result<PublishId, PublishError> {
        let body = Bytes::from_static(body.as_bytes());
        self.producer.publish(&topic(), body, self.now, &mut self.out)
    }

    /// Writes as long as the producer wants to.
    fn write(&mut self) {
        let mut spare = b"left over".to_vec();
        while self.out.net.transmit.pop().is_some() {
            while {
                self.producer.swap_transmit(self.now, &mut spare);
                !spare.is_empty()
            } {
                self.socket.extend_from_slice(&spare);
            }
        }
    }

    fn take_socket(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.socket)
    }

    fn input(&mut self, bytes: &[u8]) {
        let id = self.dial.expect("a dial was taken");
        let mut input = BytesMut::from(bytes);
        self.producer.handle_input(id, &mut input, self.now, &mut self.out);
        assert!(input.is_empty(), "whole frames are taken, and the rest is thrown away on error");
    }

    fn response(&mut self, text: &[u8]) {
        self.input(&frame(0, text));
    }

    fn error(&mut self, text: &str) {
        self.input(&frame(1, text.as_bytes()));
    }

    fn closed(&mut self) {
        let id = self.dial.expect("a dial was taken");
        self.producer.handle_closed(id, None, self.now, &mut self.out);
    }

    fn at(&mut self, millis: u64) {
        self.now = Now::from_millis(millis);
        self.producer.handle_timeout(self.now, &mut self.out);
    }

    fn completed(&mut self) -> Vec<(u64, Result<(), PublishError>)> {
        self.out.completed.drain(..).map(|(id, result)| (id.0, result)).collect()
    }

    fn events(&mut self) -> Vec<ProducerEvent> {
        core::mem::take(&mut self.out.events)
    }

    /// The error of the one lost connection that was told about.
    fn disconnected(&mut self) -> ConnectionError {
        let mut errors = self.events().into_iter().filter_map(|event| {
            if let ProducerEvent::Disconnected { error, .. } = event { Some(error) } else { None }
        });
        let error = errors.next().expect("a connection was lost");
        assert_eq!(errors.next(), None);
        error
    }

    /// The deadline, rounded up to the grain of the tests' clock.
    fn timeout_millis(&self) -> Option<u64> {
        self.producer.poll_timeout().map(|at| at.as_nanos().div_ceil(1_000_000))
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

fn unknown(error: ConnectionError) -> Result<(), PublishError> {
    Err(PublishError::Unknown(error))
}

fn not_sent(error: ConnectionError) -> Result<(), PublishError> {
    Err(PublishError::NotSent(error))
}

fn rejected(text: &str) -> Result<(), PublishError> {
    Err(PublishError::Rejected(text.into()))
}

#[test]
fn it_can_be_moved_to_another_thread() {
    const fn check(_: &(impl Send + 'static)) {}
    let rig = Rig::open();
    check(&rig.producer);
    check(&rig.out);
}

// clients.md section 2.1: states.

#[test]
fn nothing_happens_before_the_first_call() {
    let rig = Rig::new(ProducerOptions::default());
    assert_eq!(rig.timeout_millis(), None);
    assert!(rig.out.is_empty());
}

#[test]
fn a_publish_connects_and_is_sent_when_the_handshake_is_over() {
    let mut rig = Rig::new(ProducerOptions::default());
    assert_eq!(rig.publish("a"), Ok(PublishId(0)));
    assert_eq!(rig.publish("b"), Ok(PublishId(1)));
    assert!(rig.out.net.transmit.is_empty(), "there is no socket yet");
    rig.come_up();
    rig.write();
    assert_eq!(rig.take_socket(), b"PUB t\n\0\0\0\x01aPUB t\n\0\0\0\x01b");
    rig.response(OK);
    assert_eq!(rig.completed(), [(0, Ok(()))]);
    rig.response(OK);
    assert_eq!(rig.completed(), [(1, Ok(()))]);
    assert_eq!(
        rig.events(),
        [ProducerEvent::Connecting, ProducerEvent::Connected { version: "1.3.0".into() }]
    );
}

#[test]
fn a_closed_producer_takes_nothing() {
    let mut rig = Rig::new(ProducerOptions::default());
    rig.producer.close(rig.now, &mut rig.out);
    assert!(rig.producer.is_stopped());
    assert_eq!(rig.publish("a"), Err(PublishError::Closed));
    rig.producer.connect(rig.now, &mut rig.out);
    assert_eq!(rig.events(), [ProducerEvent::Stopped]);
    rig.out.clear();
    assert!(rig.out.is_empty());
    assert_eq!(rig.timeout_millis(), None);
}

// clients.md section 2.2: calls.

#[test]
fn the_three_commands() {
    let mut rig = Rig::open();
    let (now, delay) = (rig.now, Duration::from_millis(1500));
    let body = Bytes::from_static(b"a");
    rig.producer.publish_after(&topic(), delay, body, now, &mut rig.out).unwrap();
    rig.producer.publish_many(&topic(), &["a", "bc"], now, &mut rig.out).unwrap();
    rig.publish("x").unwrap();
    assert_eq!(rig.producer.outstanding(), 3);
    rig.write();
    assert_eq!(
        rig.take_socket(),
        [
            &b"DPUB t 1500\n\0\0\0\x01a"[..],
            b"MPUB t\n\0\0\0\x0f\0\0\0\x02\0\0\0\x01a\0\0\0\x02bc",
            b"PUB t\n\0\0\0\x01x"
        ]
        .concat()
    );
    rig.input(&frame(0, OK).repeat(3));
    assert_eq!(rig.completed(), [(0, Ok(())), (1, Ok(())), (2, Ok(()))]);
    assert_eq!((rig.producer.outstanding(), rig.producer.outstanding_bytes()), (0, 0));
}

#[test]
fn what_the_broker_would_refuse_is_not_taken() {
    let options = ProducerOptions {
        max_msg_size: 3,
        max_body_size: 16,
        max_req_timeout: Duration::from_secs(1),
        ..ProducerOptions::default()
    };
    let mut rig = Rig::new(options);
    let (now, out) = (rig.now, &mut rig.out);
    let many = |bodies: &[&str], producer: &mut Producer, out: &mut ProducerActions| {
        producer.publish_many(&topic(), bodies, now, out).unwrap_err()
    };
    assert_eq!(many(&[], &mut rig.producer, out), PublishError::EmptyBatch);
    assert_eq!(many(&["a", ""], &mut rig.producer, out), PublishError::EmptyBody);
    let too_big = PublishError::BodyTooBig { size: 4, max: 3 };
    assert_eq!(many(&["a", "abcd"], &mut rig.producer, out), too_big);
    let batch_too_big = PublishError::BatchTooBig { size: 17, max: 16 };
    assert_eq!(many(&["abc", "ab"], &mut rig.producer, out), batch_too_big);
    let delay = Duration::from_millis(1001);
    assert_eq!(
        rig.producer.publish_after(&topic(), delay, Bytes::from_static(b"a"), now, out),
        Err(PublishError::DelayTooLong { max: Duration::from_secs(1) })
    );
    assert_eq!(rig.publish("abcd"), Err(too_big));
    assert_eq!(rig.publish(""), Err(PublishError::EmptyBody));
    assert!(rig.out.is_empty(), "not even a dial");
    let (producer, out) = (&mut rig.producer, &mut rig.out);
    assert!(producer.publish_many(&topic(), &["abc", "a"], now, out).is_ok());
}

// clients.md section 2.3: transactions.

#[test]
fn only_ok_is_success() {
    let mut rig = Rig::open();
    rig.publish("a").unwrap();
    rig.write();
    rig.response(b"WHATEVER");
    let error = ConnectionError::UnexpectedResponse("WHATEVER".into());
    assert_eq!(rig.completed(), [(0, unknown(error.clone()))]);
    assert_eq!(rig.out.net.close, [rig.dial.unwrap()]);
    assert_eq!(rig.disconnected(), error);
}

#[test]
fn an_answer_to_nothing_closes() {
    let mut rig = Rig::open();
    rig.publish("not written yet").unwrap();
    rig.response(OK);
    assert_eq!(rig.out.net.close, [rig.dial.unwrap()]);
    assert_eq!(rig.disconnected(), ConnectionError::UnexpectedResponse("OK".into()));
    assert_eq!(rig.completed(), [], "what was not written waits for the next connection");

    let mut rig = Rig::open();
    rig.error("E_INVALID whatever");
    assert_eq!(rig.disconnected(), ConnectionError::UnexpectedError("E_INVALID whatever".into()));
}

#[test]
fn a_refused_publish_leaves_those_sent_behind_in_doubt() {
    let text = "E_BAD_TOPIC PUB topic name \"bad$\" is not valid";
    let mut rig = Rig::open();
    for body in ["a", "b", "c"] {
        rig.publish(body).unwrap();
    }
    rig.write();
    rig.publish("d").unwrap();
    rig.take_socket();
    // An answer behind an error counts no more, but the broker may have carried out what is behind:
    // to send it again could publish it twice.
    rig.input(&[frame(0, OK), frame(1, text.as_bytes()), frame(0, OK)].concat());
    let refused = ConnectionError::Refused(text.into());
    assert_eq!(rig.completed(), [(0, Ok(())), (1, rejected(text)), (2, unknown(refused))]);
    assert_eq!(rig.out.net.close, [rig.dial.unwrap()]);
    assert_eq!(rig.disconnected(), ConnectionError::Refused(text.into()));
    rig.closed();
    assert_eq!(rig.completed(), [], "a late report about the old connection");

    let redial = rig.timeout_millis().unwrap();
    assert!((100..=200).contains(&redial), "the broker lives: the shortest wait, not {redial}");
    rig.at(redial);
    rig.come_up();
    rig.write();
    assert_eq!(rig.take_socket(), b"PUB t\n\0\0\0\x01d");
    rig.input(&frame(0, OK));
    assert_eq!(rig.completed(), [(3, Ok(()))]);
}

#[test]
fn heartbeats_are_no_answers() {
    let mut rig = Rig::open();
    rig.publish("a").unwrap();
    rig.write();
    rig.take_socket();
    rig.input(&frame(0, HEARTBEAT).repeat(3));
    assert_eq!(rig.completed(), []);
    rig.write();
    assert_eq!(rig.take_socket(), b"NOP\n");
}

#[test]
fn a_stray_message_is_dropped() {
    let mut rig = Rig::open();
    rig.events();
    rig.publish("a").unwrap();
    rig.write();
    rig.input(&[frame(2, &[b'0'; 30]), frame(0, OK)].concat());
    assert_eq!(rig.completed(), [(0, Ok(()))]);
    assert_eq!(rig.events(), [ProducerEvent::StrayMessage]);
}

#[test]
fn the_number_outstanding_is_bounded() {
    let options = ProducerOptions { max_outstanding: 2, ..ProducerOptions::default() };
    let mut rig = Rig::open_with(options);
    rig.publish("a").unwrap();
    rig.publish("b").unwrap();
    assert_eq!(rig.publish("c"), Err(PublishError::Full));
    rig.write();
    assert_eq!(rig.publish("c"), Err(PublishError::Full), "written is not answered");
    assert!(!rig.out.room);
    rig.response(OK);
    assert!(rig.out.room);
    rig.out.clear();
    assert_eq!(rig.publish("c"), Ok(PublishId(2)), "a refusal uses up no id");
    rig.write();
    rig.response(OK);
    assert!(!rig.out.room, "nobody was refused since");
}

#[test]
fn room_that_came_before_the_refusal_is_not_announced() {
    let options = ProducerOptions { max_outstanding: 1, ..ProducerOptions::default() };
    let mut rig = Rig::open_with(options);
    rig.publish("a").unwrap();
    rig.write();
    rig.response(OK);
    rig.publish("b").unwrap();
    assert_eq!(rig.publish("c"), Err(PublishError::Full));
    rig.at(1);
    assert!(!rig.out.room);
}

#[test]
fn the_bytes_outstanding_are_bounded_but_one_publish_always_fits() {
    let options = ProducerOptions { max_outstanding_bytes: 4, ..ProducerOptions::default() };
    let mut rig = Rig::open_with(options);
    rig.publish("larger than the limit").unwrap();
    assert_eq!(rig.publish("x"), Err(PublishError::Full));
    rig.write();
    rig.response(OK);
    assert!(rig.out.room);
    rig.publish("abc").unwrap();
    rig.publish("d").unwrap();
    assert_eq!(rig.producer.outstanding_bytes(), 4);
    assert_eq!(rig.publish("e"), Err(PublishError::Full));
}

#[test]
fn one_write_is_bounded() {
    let mut rig = Rig::open();
    let body = Bytes::from(vec![b'x'; TRANSMIT_LEN_MAX / 2]);
    for _ in 0..5 {
        rig.producer.publish(&topic(), body.clone(), rig.now, &mut rig.out).unwrap();
    }
    let mut spare = Vec::new();
    let mut lens = Vec::new();
    loop {
        rig.producer.swap_transmit(rig.now, &mut spare);
        if spare.is_empty() {
            break;
        }
        lens.push(spare.len() / body.len());
    }
    assert_eq!(lens, [2, 2, 1]);
}

// clients.md section 2.4: what the caller sees.

#[test]
fn a_refused_dial_is_the_reason_when_time_is_up() {
    let mut rig = Rig::new(ProducerOptions::default());
    rig.publish("a").unwrap();
    let id = rig.take_dial();
    let text = "dial tcp 127.0.0.1:4150: connect: connection refused";
    rig.producer.handle_connect_failed(id, text, rig.now, &mut rig.out);
    assert_eq!(rig.completed(), [], "it waits for a better dial");
    rig.at(29_999);
    assert_eq!(rig.completed(), []);
    rig.at(30_000);
    assert_eq!(rig.completed(), [(0, not_sent(ConnectionError::Dial(text.into())))]);
}

#[test]
fn a_broker_that_refuses_the_client_fails_what_waits() {
    let auth = br#"{"auth_required":true}"#;
    let text = "E_BAD_BODY IDENTIFY heartbeat interval (100) is invalid";
    for (answer, error, shown) in [
        (
            frame(1, text.as_bytes()),
            ConnectionError::IdentifyRefused(text.into()),
            "not sent: failed to IDENTIFY - E_BAD_BODY IDENTIFY heartbeat interval (100) is invalid",
        ),
        (frame(0, auth), ConnectionError::AuthRequired, "not sent: Auth Required"),
    ] {
        let mut rig = Rig::new(ProducerOptions::default());
        rig.publish("a").unwrap();
        let id = rig.take_dial();
        rig.producer.handle_connected(id, rig.now, &mut rig.out);
        rig.write();
        rig.input(&answer);
        assert_eq!(rig.out.net.close, [id]);
        let completed = rig.completed();
        assert_eq!(completed, [(0, not_sent(error))]);
        assert_eq!(completed[0].1.clone().unwrap_err().to_string(), shown);
        assert!(rig.timeout_millis().is_some(), "it dials on");
    }
}

#[test]
fn a_wrong_secret_fails_what_waits() {
    let secret = Some(crate::secret::Secret::new("s"));
    let connection = ConnectionOptions { auth_secret: secret, ..ConnectionOptions::default() };
    let mut rig = Rig::new(ProducerOptions { connection, ..ProducerOptions::default() });
    rig.publish("a").unwrap();
    let id = rig.take_dial();
    rig.producer.handle_connected(id, rig.now, &mut rig.out);
    rig.response(br#"{"auth_required":true}"#);
    rig.write();
    assert!(rig.take_socket().ends_with(b"AUTH\n\0\0\0\x01s"));
    assert_eq!(rig.completed(), [], "no PUB before AUTH is answered");
    rig.error("E_AUTH_FAILED AUTH failed");
    let error = ConnectionError::AuthRefused("E_AUTH_FAILED AUTH failed".into());
    assert_eq!(rig.completed(), [(0, not_sent(error))]);
}

#[test]
fn a_publish_after_a_loss_waits_for_the_next_connection() {
    let mut rig = Rig::open();
    rig.closed();
    assert_eq!(rig.publish("a"), Ok(PublishId(0)));
    let redial = rig.timeout_millis().unwrap();
    rig.at(redial);
    rig.come_up();
    rig.write();
    rig.response(OK);
    assert_eq!(rig.completed(), [(0, Ok(()))]);
}

#[test]
fn close_waits_for_answers_and_for_what_is_not_sent_yet() {
    let mut rig = Rig::open();
    rig.publish("a").unwrap();
    rig.write();
    rig.publish("b").unwrap();
    rig.producer.close(rig.now, &mut rig.out);
    assert_eq!(rig.publish("c"), Err(PublishError::Closed));
    rig.write();
    rig.response(OK);
    assert!(!rig.producer.is_stopped());
    rig.response(OK);
    assert_eq!(rig.completed(), [(0, Ok(())), (1, Ok(()))]);
    assert!(rig.producer.is_stopped());
    assert_eq!(rig.out.net.close, [rig.dial.unwrap()]);
    assert_eq!(rig.timeout_millis(), None);
}

#[test]
fn close_gives_up_at_its_deadline() {
    let options =
        ProducerOptions { close_timeout: Duration::from_secs(5), ..ProducerOptions::default() };
    let mut rig = Rig::open_with(options);
    rig.publish("a").unwrap();
    rig.write();
    rig.publish("b").unwrap();
    rig.producer.close(rig.now, &mut rig.out);
    assert_eq!(rig.timeout_millis(), Some(5000));
    rig.at(5000);
    let stopped = || ConnectionError::Stopped;
    assert_eq!(rig.completed(), [(0, unknown(stopped())), (1, not_sent(stopped()))]);
    assert!(rig.producer.is_stopped());
    assert_eq!(rig.out.net.close, [rig.dial.unwrap()]);
    // Whatever the world still reports about it is ignored.
    rig.response(OK);
    rig.closed();
    rig.at(100_000);
    assert_eq!(rig.completed(), []);
    assert_eq!(rig.out.net.dial, []);
}

#[test]
fn a_loss_while_closing_dials_again_only_for_what_waits() {
    let mut rig = Rig::open();
    rig.publish("a").unwrap();
    rig.write();
    rig.producer.close(rig.now, &mut rig.out);
    rig.closed();
    assert_eq!(rig.completed(), [(0, unknown(ConnectionError::Closed))]);
    assert!(rig.producer.is_stopped());
    assert_eq!(rig.out.net.dial, []);

    let mut rig = Rig::open();
    rig.publish("a").unwrap();
    rig.producer.close(rig.now, &mut rig.out);
    rig.closed();
    let redial = rig.timeout_millis().unwrap();
    rig.at(redial);
    rig.come_up();
    rig.write();
    rig.response(OK);
    assert_eq!(rig.completed(), [(0, Ok(()))]);
    assert!(rig.producer.is_stopped());
}

// clients.md section 2.5: a connection is lost.

#[test]
fn a_loss_completes_what_was_sent_at_once_and_in_order() {
    let mut rig = Rig::open();
    for body in ["a", "b", "c"] {
        rig.publish(body).unwrap();
    }
    rig.write();
    rig.publish("not written").unwrap();
    rig.closed();
    let lost = || unknown(ConnectionError::Closed);
    assert_eq!(rig.completed(), [(0, lost()), (1, lost()), (2, lost())]);
    assert_eq!(rig.out.net.close, [], "the broker has closed it already");
    let redial = rig.timeout_millis().unwrap();
    rig.at(redial);
    rig.take_socket();
    rig.come_up();
    rig.write();
    assert_eq!(rig.take_socket(), b"PUB t\n\0\0\0\x0bnot written");
}

#[test]
fn a_broken_socket_and_a_bad_frame_are_losses() {
    let mut rig = Rig::open();
    rig.publish("a").unwrap();
    rig.write();
    let id = rig.dial.unwrap();
    rig.producer.handle_closed(id, Some("broken pipe"), rig.now, &mut rig.out);
    assert_eq!(rig.completed(), [(0, unknown(ConnectionError::Io("broken pipe".into())))]);

    let mut rig = Rig::open();
    rig.publish("a").unwrap();
    rig.write();
    rig.input(b"HTTP/1.1 400 Bad Request");
    let error = ConnectionError::Frame(FrameError::UnexpectedHttp);
    assert_eq!(rig.completed(), [(0, unknown(error))]);
    assert_eq!(rig.out.net.close, [rig.dial.unwrap()]);
}

#[test]
fn a_connection_that_lived_is_replaced_at_once_and_others_after_growing_waits() {
    let mut rig = Rig::open();
    rig.now = Now::from_millis(10_000);
    rig.closed();
    let id = rig.take_dial();
    rig.events();
    for failures in 1..12 {
        let id = if failures == 1 { id } else { rig.take_dial() };
        let before = rig.now.instant.as_nanos() / 1_000_000;
        rig.producer.handle_connect_failed(id, "no", rig.now, &mut rig.out);
        assert_eq!(rig.out.net.dial, []);
        let redial = rig.producer.poll_timeout().unwrap();
        let wait = redial.saturating_since(rig.now.instant).as_millis();
        assert!((100..=(100 << failures).min(30_000)).contains(&wait), "{wait} after {failures}");
        rig.at(before + wait as u64);
        assert_eq!(rig.out.net.dial, [], "early by less than a millisecond");
        rig.at(before + wait as u64 + 1);
        rig.events();
    }
}

#[test]
fn an_answered_publish_ends_a_series_of_failures() {
    for (answered, longest) in [(true, 200), (false, 30_000)] {
        let mut rig = Rig::new(ProducerOptions::default());
        rig.producer.connect(rig.now, &mut rig.out);
        for _ in 0..12 {
            let id = rig.take_dial();
            rig.producer.handle_connect_failed(id, "no", rig.now, &mut rig.out);
            rig.at(rig.timeout_millis().unwrap());
        }
        rig.come_up();
        rig.publish("a").unwrap();
        rig.write();
        if answered {
            rig.response(OK);
        }
        rig.closed();
        let wait = rig.producer.poll_timeout().unwrap().saturating_since(rig.now.instant);
        let range = if answered { 100..=longest } else { 201..=longest };
        assert!(range.contains(&wait.as_millis()), "{wait:?}");
    }
}

#[test]
fn an_old_failure_is_no_reason_once_connected() {
    let mut rig = Rig::open();
    rig.closed();
    rig.at(rig.timeout_millis().unwrap());
    rig.come_up();
    rig.publish("a").unwrap();
    let deadline = rig.timeout_millis().unwrap();
    // Its time is up before it is written: the driver is late, but nothing is sent in vain.
    rig.now = Now::from_millis(deadline);
    rig.write();
    assert_eq!(rig.take_socket(), b"");
    rig.at(deadline);
    assert_eq!(rig.completed(), [(0, not_sent(ConnectionError::TimedOut))]);
}

#[test]
fn a_dial_that_takes_too_long_is_dropped() {
    let mut rig = Rig::new(ProducerOptions::default());
    rig.producer.connect(rig.now, &mut rig.out);
    let first = rig.take_dial();
    rig.producer.connect(rig.now, &mut rig.out);
    assert_eq!(rig.out.net.dial, [], "one dial at a time");
    rig.at(1000);
    assert_eq!(rig.out.net.close, [first]);
    assert_eq!(rig.disconnected(), ConnectionError::DialTimeout);
    rig.out.clear();
    // It succeeds all the same, too late: its socket is to be closed.
    rig.producer.handle_connected(first, rig.now, &mut rig.out);
    assert_eq!(rig.out.net.close, [first]);
    rig.producer.handle_connect_failed(first, "no", rig.now, &mut rig.out);
    assert_eq!(rig.events(), []);
}

#[test]
fn a_silent_line_is_dropped() {
    let options =
        ProducerOptions { publish_timeout: Duration::from_secs(90), ..ProducerOptions::default() };
    let mut rig = Rig::open_with(options);
    rig.publish("a").unwrap();
    rig.write();
    assert_eq!(rig.timeout_millis(), Some(60_000));
    rig.at(60_000);
    assert_eq!(rig.completed(), [(0, unknown(ConnectionError::ReadTimeout))]);
    assert_eq!(rig.out.net.close, [rig.dial.unwrap()]);
}

#[test]
fn a_broker_that_only_sends_heartbeats_is_dropped() {
    let mut rig = Rig::open();
    rig.publish("a").unwrap();
    rig.now = Now::from_millis(10_000);
    rig.write();
    rig.now = Now::from_millis(20_000);
    rig.publish("b").unwrap();
    rig.write();
    rig.response(HEARTBEAT);
    // The first has been in the machine for 30 s, but the broker has had it for 20 s only.
    assert_eq!(rig.timeout_millis(), Some(30_000));
    rig.at(30_000);
    assert_eq!(rig.completed(), [(0, unknown(ConnectionError::TimedOut))]);
    assert!(rig.producer.is_connected());
    assert_eq!(rig.timeout_millis(), Some(40_000));
    rig.at(40_000);
    assert_eq!(rig.completed(), [(1, unknown(ConnectionError::NoAnswer))]);
    assert_eq!(rig.disconnected(), ConnectionError::NoAnswer);
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken_for_the_next_ones() {
    let mut rig = Rig::open();
    rig.publish("a").unwrap();
    rig.now = Now::from_millis(10_000);
    rig.write();
    rig.publish("b").unwrap();
    rig.write();
    rig.at(30_000);
    assert_eq!(rig.completed(), [(0, unknown(ConnectionError::TimedOut))]);
    rig.response(OK);
    assert_eq!(rig.completed(), []);
    rig.response(OK);
    assert_eq!(rig.completed(), [(1, Ok(()))]);
}

#[test]
fn an_abandoned_publish_keeps_its_place_but_not_its_bytes() {
    let options = ProducerOptions {
        max_outstanding: 1,
        publish_timeout: Duration::from_secs(20),
        ..ProducerOptions::default()
    };
    let mut rig = Rig::open_with(options);
    rig.publish("a").unwrap();
    rig.now = Now::from_millis(15_000);
    rig.write();
    rig.at(20_000);
    assert_eq!(rig.completed(), [(0, unknown(ConnectionError::TimedOut))]);
    assert_eq!((rig.producer.outstanding(), rig.producer.outstanding_bytes()), (0, 0));
    assert_eq!(rig.publish("b"), Err(PublishError::Full), "its answer may still come");
    rig.response(OK);
    assert!(rig.out.room);
    assert_eq!(rig.publish("b"), Ok(PublishId(1)));
}

#[test]
fn a_publish_that_nobody_could_write_is_not_in_doubt() {
    let mut rig = Rig::open();
    rig.publish("a").unwrap();
    // The socket takes nothing: the driver does not come for the bytes.
    rig.at(30_000);
    assert_eq!(rig.completed(), [(0, not_sent(ConnectionError::TimedOut))]);
    rig.write();
    assert_eq!(rig.take_socket(), b"");
}

#[test]
fn early_and_repeated_timeouts_change_nothing() {
    let mut rig = Rig::open();
    rig.publish("a").unwrap();
    rig.write();
    rig.closed();
    rig.out.clear();
    let before = rig.producer.poll_timeout();
    rig.producer.handle_timeout(rig.now, &mut rig.out);
    rig.producer.handle_timeout(rig.now, &mut rig.out);
    assert!(rig.out.is_empty());
    assert_eq!(rig.producer.poll_timeout(), before);
}

#[test]
fn options_out_of_range_are_named() {
    let good = ProducerOptions::default();
    assert_eq!(good.check(), Ok(()));
    let connection = ConnectionOptions { sample_rate: 100, ..ConnectionOptions::default() };
    for (bad, name) in [
        (ProducerOptions { connection, ..good.clone() }, "sample_rate"),
        (ProducerOptions { publish_timeout: Duration::ZERO, ..good.clone() }, "publish_timeout"),
        (ProducerOptions { max_outstanding: 0, ..good.clone() }, "max_outstanding"),
        (ProducerOptions { max_msg_size: 0, ..good.clone() }, "max_msg_size"),
        (ProducerOptions { max_body_size: 1 << 31, ..good.clone() }, "max_body_size"),
        (ProducerOptions { backoff_min: Duration::ZERO, ..good.clone() }, "backoff_min"),
        (ProducerOptions { backoff_max: Duration::ZERO, ..good }, "backoff_max"),
    ] {
        assert_eq!(Producer::new("a", bad, 0).map_err(|error| error.name).err(), Some(name));
    }
}
