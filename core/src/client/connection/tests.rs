use super::super::frame::FrameError;
use super::*;
use alloc::vec;

#[derive(Debug, Eq, PartialEq)]
enum Told {
    Authenticated(Identity),
    Opened(Negotiated),
    Response(Bytes),
    Error(Bytes),
    Message(Received),
}

impl ClientConnectionOutput for Vec<Told> {
    fn authenticated(&mut self, identity: Identity) {
        self.push(Told::Authenticated(identity));
    }
    fn opened(&mut self, negotiated: &Negotiated) {
        self.push(Told::Opened(negotiated.clone()));
    }
    fn response(&mut self, text: Bytes) {
        self.push(Told::Response(text));
    }
    fn error(&mut self, text: Bytes) {
        self.push(Told::Error(text));
    }
    fn message(&mut self, message: Received) {
        self.push(Told::Message(message));
    }
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + payload.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 0, kind]);
    bytes.extend_from_slice(payload);
    bytes
}

fn feed(
    connection: &mut ClientConnection,
    bytes: &[u8],
    millis: u64,
) -> (Vec<Told>, Result<(), ConnectionError>) {
    let mut told = Vec::new();
    let mut input = BytesMut::from(bytes);
    let result = connection.handle_input(&mut input, Now::from_millis(millis), &mut told);
    (told, result)
}

fn sent(connection: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = b"left over".to_vec();
    connection.swap_transmit(&mut bytes);
    bytes
}

fn connected(options: &ConnectionOptions) -> ClientConnection {
    let mut connection = ClientConnection::dial(options, "nsqd.example:4150", Now::from_millis(0));
    connection.handle_connected(Now::from_millis(0));
    assert!(connection.wants_transmit());
    sent(&mut connection);
    connection
}

fn open() -> ClientConnection {
    let mut connection = connected(&ConnectionOptions::default());
    feed(&mut connection, &frame(0, b"OK"), 0).1.unwrap();
    connection
}

fn with_secret() -> ConnectionOptions {
    ConnectionOptions { auth_secret: Some(Secret::new("s3")), ..ConnectionOptions::default() }
}

#[test]
fn magic_and_identify_wait_for_the_socket_and_leave_together() {
    let options = ConnectionOptions::default();
    let mut connection = ClientConnection::dial(&options, "nsqd.example:4150", Now::from_millis(0));
    assert!(!connection.wants_transmit());
    assert_eq!(sent(&mut connection), b"");
    connection.handle_connected(Now::from_millis(10));
    let body = options.identify_body();
    let mut expected = b"  V2IDENTIFY\n".to_vec();
    expected.extend_from_slice(&(body.len() as u32).to_be_bytes());
    expected.extend_from_slice(body.as_bytes());
    assert_eq!(sent(&mut connection), expected);
    assert!(!connection.wants_transmit());
}

#[test]
fn the_reference_servers_answer_opens() {
    let mut connection = connected(&ConnectionOptions::default());
    let answer = concat!(
        r#"{"max_rdy_count":100,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":60000,"#,
        r#""tls_v1":false,"deflate":false,"deflate_level":6,"max_deflate_level":6,"snappy":false,"#,
        r#""sample_rate":0,"auth_required":false,"output_buffer_size":16384,"#,
        r#""output_buffer_timeout":250,"topology_region":"","topology_zone":""}"#
    );
    let (told, result) = feed(&mut connection, &frame(0, answer.as_bytes()), 0);
    let negotiated = Negotiated {
        max_rdy_count: 100,
        version: "1.3.0".into(),
        msg_timeout: Some(Duration::from_secs(60)),
        max_msg_timeout: Some(Duration::from_secs(900)),
        auth_required: false,
        ..Negotiated::default()
    };
    assert_eq!(result, Ok(()));
    assert_eq!(*connection.negotiated(), negotiated);
    assert_eq!(told, [Told::Opened(negotiated)]);
    assert!(connection.is_open());
    assert!(!connection.wants_transmit());
}

#[test]
fn answers_to_identify() {
    let json = |max_rdy_count| Ok(Negotiated { max_rdy_count, ..Negotiated::default() });
    for (kind, answer, expected) in [
        (0, "OK", json(2500)),
        (0, "{}", json(2500)),
        (0, r#"{"max_rdy_count":70000}"#, json(70_000)),
        (0, r#"{"max_rdy_count":9999999999}"#, json(u32::MAX)),
        (0, "", Err(ConnectionError::IdentifyAnswer)),
        (0, "WHATEVER", Err(ConnectionError::IdentifyAnswer)),
        (0, "{", Err(ConnectionError::IdentifyAnswer)),
        (0, r#"{"max_rdy_count":"1"}"#, Err(ConnectionError::IdentifyAnswer)),
        (0, r#"{"snappy":1}"#, Err(ConnectionError::IdentifyAnswer)),
        (0, r#"{"tls_v1":true}"#, Err(ConnectionError::UnexpectedUpgrade("tls_v1"))),
        (0, r#"{"snappy":true}"#, Err(ConnectionError::UnexpectedUpgrade("snappy"))),
        (0, r#"{"auth_required":true}"#, Err(ConnectionError::AuthRequired)),
        (1, "E_BAD_BODY no", Err(ConnectionError::IdentifyRefused("E_BAD_BODY no".into()))),
        (2, &"x".repeat(30), Err(ConnectionError::UnexpectedMessage)),
    ] {
        let mut connection = connected(&ConnectionOptions::default());
        let (told, result) = feed(&mut connection, &frame(kind, answer.as_bytes()), 0);
        match expected {
            Ok(negotiated) => {
                assert_eq!((told, result), (vec![Told::Opened(negotiated)], Ok(())), "{answer}");
            }
            Err(error) => {
                assert_eq!((told, result), (vec![], Err(error)), "{answer}");
                assert!(!connection.wants_transmit(), "nothing is sent after {answer}");
            }
        }
    }
}

#[test]
fn a_secret_is_sent_where_it_is_required_only() {
    let mut connection = connected(&with_secret());
    let (told, _) = feed(&mut connection, &frame(0, br#"{"auth_required":false}"#), 0);
    assert_eq!(told.len(), 1);
    assert!(!connection.wants_transmit());

    let mut connection = connected(&with_secret());
    let (told, result) = feed(&mut connection, &frame(0, br#"{"auth_required":true}"#), 0);
    assert_eq!((told, result), (vec![], Ok(())));
    assert_eq!(sent(&mut connection), b"AUTH\n\0\0\0\x02s3");
    assert!(!connection.is_open());
    // The auth server is slow: heartbeats in between are answered and are not taken for the answer.
    let (told, result) = feed(&mut connection, &frame(0, HEARTBEAT), 0);
    assert_eq!((told, result), (vec![], Ok(())));
    assert_eq!(sent(&mut connection), b"NOP\n");
    let answer = br#"{"identity":"me","identity_url":"http://me","permission_count":3}"#;
    let (told, result) = feed(&mut connection, &frame(0, answer), 0);
    let identity =
        Identity { identity: "me".into(), identity_url: "http://me".into(), permission_count: 3 };
    let negotiated = Negotiated { auth_required: true, ..Negotiated::default() };
    assert_eq!(told, [Told::Authenticated(identity), Told::Opened(negotiated)]);
    assert_eq!(result, Ok(()));
}

#[test]
fn a_refused_secret_ends_the_connection() {
    let mut connection = connected(&with_secret());
    feed(&mut connection, &frame(0, br#"{"auth_required":true}"#), 0).1.unwrap();
    let (_, result) = feed(&mut connection, &frame(1, b"E_AUTH_FAILED AUTH failed"), 0);
    let error = ConnectionError::AuthRefused("E_AUTH_FAILED AUTH failed".into());
    assert!(error.is_refusal());
    assert_eq!(alloc::format!("{error}"), "Error authenticating E_AUTH_FAILED AUTH failed");
    assert_eq!(result, Err(error));
}

#[test]
fn heartbeats_owe_one_nop_in_every_state() {
    let mut connection = connected(&ConnectionOptions::default());
    feed(&mut connection, &frame(0, HEARTBEAT).repeat(1000), 0).1.unwrap();
    assert!(connection.wants_transmit());
    assert_eq!(sent(&mut connection), b"NOP\n");
    assert!(!connection.wants_transmit());
    let (told, _) = feed(&mut connection, &frame(0, b"OK"), 0);
    assert_eq!(told.len(), 1);
    let (told, _) = feed(&mut connection, &frame(0, HEARTBEAT), 0);
    assert_eq!(told, []);
    assert_eq!(sent(&mut connection), b"NOP\n");
}

#[test]
fn frames_of_an_open_connection_are_handed_up_in_order() {
    let mut connection = open();
    let message = [&[0; 9][..], &[1], b"0123456789abcdef", b"body"].concat();
    let bytes = [frame(2, &message), frame(0, b"OK"), frame(1, b"E_FIN_FAILED x")].concat();
    let (told, result) = feed(&mut connection, &bytes, 0);
    assert_eq!(result, Ok(()));
    let [Told::Message(message), Told::Response(ok), Told::Error(error)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((&message.id, message.attempts), (b"0123456789abcdef", 1));
    assert_eq!(
        (&message.body[..], &ok[..], &error[..]),
        (&b"body"[..], OK, &b"E_FIN_FAILED x"[..])
    );
}

#[test]
fn a_bad_frame_ends_the_connection() {
    let (_, result) = feed(&mut open(), b"HTTP/1.1 400", 0);
    assert_eq!(result, Err(ConnectionError::Frame(FrameError::UnexpectedHttp)));
}

#[test]
fn deadlines_of_the_connect_the_handshake_and_of_silence() {
    let at = Instant::from_millis;
    let now = Now::from_millis;
    let options = ConnectionOptions::default();
    let mut connection = ClientConnection::dial(&options, "nsqd.example:4150", now(5));
    assert_eq!(connection.poll_timeout(), Some(at(1005)));
    assert_eq!(connection.handle_timeout(now(1004)), Ok(()));
    assert_eq!(connection.handle_timeout(now(1005)), Err(ConnectionError::DialTimeout));

    let mut connection = ClientConnection::dial(&options, "nsqd.example:4150", now(0));
    connection.handle_connected(now(100));
    // A heartbeat proves that the server lives, not that it will answer.
    feed(&mut connection, &frame(0, HEARTBEAT), 20_000).1.unwrap();
    assert_eq!(connection.poll_timeout(), Some(at(30_100)));
    assert_eq!(connection.handle_timeout(now(30_100)), Err(ConnectionError::HandshakeTimeout));

    let mut connection = open();
    assert_eq!(connection.poll_timeout(), Some(at(60_000)));
    feed(&mut connection, &frame(0, HEARTBEAT), 59_999).1.unwrap();
    assert_eq!(connection.handle_timeout(now(60_000)), Ok(()));
    assert_eq!(connection.handle_timeout(now(119_999)), Err(ConnectionError::ReadTimeout));

    let quiet = ConnectionOptions { heartbeat_interval: None, ..options };
    let mut connection = connected(&quiet);
    feed(&mut connection, &frame(0, b"OK"), 0).1.unwrap();
    assert_eq!(connection.poll_timeout(), None);
    assert_eq!(connection.handle_timeout(now(u64::MAX / 2_000_000)), Ok(()));
}

#[test]
fn commands_of_a_consumer_up_to_the_close() {
    let mut connection = open();
    let id = b"0123456789abcdef";
    connection.subscribe(&TopicName::new("t").unwrap(), &ChannelName::new("c").unwrap());
    connection.ready(2);
    connection.touch(id);
    connection.start_close();
    assert!(!connection.is_open());
    connection.finish(id);
    connection.requeue(id, Duration::from_secs(1));
    assert_eq!(
        sent(&mut connection),
        [
            &b"SUB t c\nRDY 2\nTOUCH 0123456789abcdef\nCLS\n"[..],
            b"FIN 0123456789abcdef\nREQ 0123456789abcdef 1000\n"
        ]
        .concat()
    );
    let (told, _) = feed(&mut connection, &frame(0, crate::protocol::frame::CLOSE_WAIT), 0);
    assert_eq!(told, [Told::Response(Bytes::from_static(b"CLOSE_WAIT"))]);
    feed(&mut connection, &frame(0, HEARTBEAT), 0).1.unwrap();
    assert_eq!(sent(&mut connection), b"NOP\n");
}
