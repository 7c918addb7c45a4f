use super::*;
use alloc::string::{String, ToString};
use alloc::vec;
use proptest::prelude::*;

const IDENTIFY: &str =
    "{\"broadcast_address\":\"n1\",\"tcp_port\":1,\"http_port\":2,\"version\":\"1\"}";

/// All commands of a stream and how it ends: the error's text, or that it just ends.
fn decode(wire: &[u8], piece: usize) -> (Vec<LookupCommand>, Option<Vec<u8>>) {
    let (mut decoder, mut input, mut commands) =
        (CommandDecoder::new(), BytesMut::new(), Vec::new());
    for chunk in wire.chunks(piece) {
        input.extend_from_slice(chunk);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => break,
                Err(error) => return (commands, Some(error.text())),
            }
        }
    }
    (commands, decoder.finish().err().map(|error| error.text()))
}

fn anonymous(wire: &[u8]) -> (Vec<LookupCommand>, Option<String>) {
    let (commands, error) = decode(&[b"  V1", wire].concat(), usize::MAX);
    (commands, error.map(|text| String::from_utf8_lossy(&text).into_owned()))
}

/// What follows a good IDENTIFY.
fn known(wire: &[u8]) -> (Vec<LookupCommand>, Option<String>) {
    let mut hello = b"IDENTIFY\n".to_vec();
    hello.extend_from_slice(&(IDENTIFY.len() as u32).to_be_bytes());
    hello.extend_from_slice(IDENTIFY.as_bytes());
    let (mut commands, error) = anonymous(&[&hello, wire].concat());
    assert!(matches!(commands.first(), Some(LookupCommand::Identify(_))));
    commands.remove(0);
    (commands, error)
}

fn identify(body: &str) -> Option<String> {
    let mut wire = b"IDENTIFY\n".to_vec();
    wire.extend_from_slice(&(body.len() as u32).to_be_bytes());
    wire.extend_from_slice(body.as_bytes());
    anonymous(&wire).1
}

fn registration(topic: &str, channel: Option<&str>) -> Registration {
    Registration {
        topic: TopicName::new(topic).unwrap(),
        channel: channel.map(|name| ChannelName::new(name).unwrap()),
    }
}

#[test]
fn magic() {
    assert_eq!(decode(b"  V2", 4).1, Some(b"E_BAD_PROTOCOL".to_vec()));
    assert_eq!(decode(b"GET / HTTP", 1).1, Some(b"E_BAD_PROTOCOL".to_vec()));
    assert_eq!(decode(b"  V", 4), (vec![], None));
    assert_eq!(decode(b"  V1", 1), (vec![], None));
}

#[test]
fn lines_are_trimmed_and_split_at_each_blank() {
    for line in
        ["PING\n", "PING\r\n", "  \tPING \t \n", "\u{a0}\u{3000}PING\u{85}\u{b}\n", "PING a b\n"]
    {
        assert_eq!(anonymous(line.as_bytes()), (vec![LookupCommand::Ping], None), "{line:?}");
    }
    let registered = |line: &[u8]| match known(line) {
        (commands, None) => commands,
        (_, Some(error)) => panic!("{error}"),
    };
    assert_eq!(registered(b"REGISTER t\n"), [LookupCommand::Register(registration("t", None))]);
    assert_eq!(registered(b"REGISTER t  c\n"), [LookupCommand::Register(registration("t", None))]);
    assert_eq!(
        registered(b"UNREGISTER t c \r\n"),
        [LookupCommand::Unregister(registration("t", Some("c")))]
    );
    assert_eq!(
        registered(b"REGISTER t c d e\n"),
        [LookupCommand::Register(registration("t", Some("c")))]
    );
}

#[test]
fn errors_have_the_references_texts() {
    for (line, text) in [
        (&b"\n"[..], "E_INVALID invalid command "),
        (b"ping\n", "E_INVALID invalid command ping"),
        (b"REGISTER\n", "E_INVALID client must IDENTIFY"),
        (b"UNREGISTER t\n", "E_INVALID client must IDENTIFY"),
        (b"PING\tx\n", "E_INVALID invalid command PING\tx"),
    ] {
        assert_eq!(anonymous(line).1.as_deref(), Some(text));
    }
    for (line, text) in [
        (&b"IDENTIFY\n"[..], "E_INVALID cannot IDENTIFY again"),
        (b"REGISTER\n", "E_INVALID REGISTER insufficient number of params"),
        (b"UNREGISTER \n", "E_INVALID UNREGISTER insufficient number of params"),
        (b"REGISTER  t c\n", "E_BAD_TOPIC REGISTER topic name '' is not valid"),
        (b"UNREGISTER a$b c$\n", "E_BAD_TOPIC UNREGISTER topic name 'a$b' is not valid"),
        (b"REGISTER t *\n", "E_BAD_CHANNEL REGISTER channel name '*' is not valid"),
        (
            b"UNREGISTER t #ephemeral\n",
            "E_BAD_CHANNEL UNREGISTER channel name '#ephemeral' is not valid",
        ),
    ] {
        assert_eq!(known(line).1.as_deref(), Some(text));
    }
    let raw = decode(b"  V1\xff\xfe PING\n", usize::MAX).1.unwrap();
    assert_eq!(raw, b"E_INVALID invalid command \xff\xfe");
    let shown = LookupProtocolError::InvalidCommand(Bytes::from_static(b"\xff\x07\n")).to_string();
    assert_eq!(shown, "E_INVALID invalid command \u{FFFD}\\u{7}\\n");
}

#[test]
fn identify_bodies() {
    assert_eq!(identify(IDENTIFY), None);
    let missing = Some("E_BAD_BODY IDENTIFY missing fields".to_string());
    let not_json = Some("E_BAD_BODY IDENTIFY failed to decode JSON body".to_string());
    for body in ["{}", "null", &IDENTIFY.replace("n1", ""), &IDENTIFY.replace(":1,", ":0,")] {
        assert_eq!(identify(body), missing, "{body}");
    }
    for body in ["", "[]", "x", &IDENTIFY.replace(":1,", ":1.0,"), &IDENTIFY.replace('}', "}x")] {
        assert_eq!(identify(body), not_json, "{body}");
    }
    assert_eq!(identify(&IDENTIFY.replace(":1,", ":-5,").replace(":2,", ":99999,")), None);
}

#[test]
fn lengths_and_ends_inside_identify() {
    let text = |wire: &[u8]| anonymous(wire).1.unwrap();
    assert_eq!(text(b"IDENTIFY\n\xff\xff\xff\xff"), "E_BAD_BODY IDENTIFY invalid body size -1");
    assert_eq!(
        text(b"IDENTIFY\n\x00\x01\x00\x01"),
        "E_BAD_BODY IDENTIFY body too big 65537 > 65536"
    );
    assert_eq!(text(b"IDENTIFY\n"), "E_BAD_BODY IDENTIFY failed to read body size");
    assert_eq!(text(b"IDENTIFY\n\0\0\0"), "E_BAD_BODY IDENTIFY failed to read body size");
    assert_eq!(text(b"IDENTIFY\n\0\0\0\x05{}"), "E_BAD_BODY IDENTIFY failed to read body");
    assert_eq!(anonymous(b"PING").1, None);
}

#[test]
fn the_longest_line() {
    let line = |len: usize| {
        let mut line = b"PING ".to_vec();
        line.resize(len - 1, b'x');
        line.push(b'\n');
        line
    };
    assert_eq!(anonymous(&line(LINE_LEN_MAX)), (vec![LookupCommand::Ping], None));
    for wire in [line(LINE_LEN_MAX + 1), vec![b'x'; LINE_LEN_MAX]] {
        let (commands, error) = anonymous(&wire);
        assert_eq!(
            (commands, error.unwrap()),
            (vec![], "E_INVALID line longer than 4096 bytes".into())
        );
    }
    assert_eq!(anonymous(&vec![b'x'; LINE_LEN_MAX - 1]).1, None);
}

#[test]
fn nothing_is_taken_after_an_error() {
    let (mut decoder, mut input) = (CommandDecoder::new(), BytesMut::from("  V1X\nPING\n"));
    assert!(decoder.next(&mut input).is_err());
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert_eq!(decoder.finish(), Ok(()));
}

fn commands() -> impl Strategy<Value = Vec<LookupCommand>> {
    let name = "[.a-zA-Z0-9_-]{1,54}(#ephemeral)?";
    let registration = (name, prop::option::of(name)).prop_map(|(topic, channel)| Registration {
        topic: TopicName::new(topic).unwrap(),
        channel: channel.map(|name| ChannelName::new(name).unwrap()),
    });
    let command = prop_oneof![
        Just(LookupCommand::Ping),
        registration.clone().prop_map(LookupCommand::Register),
        registration.prop_map(LookupCommand::Unregister),
    ];
    let info = (prop::array::uniform2(".{1,9}"), prop::array::uniform3(".{0,9}"), 1..9_i64);
    let identify = info.prop_map(|([broadcast_address, version], [a, b, c], port)| {
        LookupCommand::Identify(PeerInfo {
            broadcast_address,
            hostname: a,
            http_port: -port,
            tcp_port: port,
            topology_region: b,
            topology_zone: c,
            version,
        })
    });
    (prop::collection::vec(command, 0..8), identify).prop_map(|(mut commands, identify)| {
        commands.insert(0, identify);
        commands
    })
}

proptest! {
    #[test]
    fn what_is_encoded_is_read_back(commands in commands(), piece in 1..99_usize) {
        let mut wire = MAGIC.to_vec();
        for command in &commands {
            command.encode(&mut wire);
        }
        prop_assert_eq!(decode(&wire, piece), (commands, None));
    }

    #[test]
    fn pieces_do_not_matter(
        tail in prop::collection::vec(
            prop_oneof![
                Just(b"PING \n".to_vec()),
                Just(b"IDENTIFY\n\0\0\0\x02{}".to_vec()),
                Just([b"IDENTIFY\n\0\0\0\x43", IDENTIFY.as_bytes()].concat()),
                Just(b"REGISTER a b\n".to_vec()),
                Just(vec![b'x'; 1400]),
                prop::collection::vec(any::<u8>(), 0..9),
            ],
            0..6,
        ),
        piece in 1..99_usize,
    ) {
        let wire = [b"  V1".to_vec(), tail.concat()].concat();
        prop_assert_eq!(decode(&wire, piece), decode(&wire, usize::MAX));
    }
}
