use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    max_msg_size: 1024 * 1024,
    max_body_size: 5 * 1024 * 1024,
    mpub_count_max: 1_048_575,
    max_req_timeout: Duration::from_secs(3600),
    max_rdy_count: 2500,
    line_len_max: 16 * 1024,
    auth_secret_len_max: 64 * 1024,
};
const INIT: Gate =
    Gate { state: ClientState::Init, heartbeats: true, lacks_tls: false, authorizes: false };
const SUBSCRIBED: Gate =
    Gate { state: ClientState::Subscribed, heartbeats: true, lacks_tls: false, authorizes: false };
const CLOSING: Gate =
    Gate { state: ClientState::Closing, heartbeats: true, lacks_tls: false, authorizes: false };

/// All commands of `bytes`, and how it ended.
fn decode_all(bytes: &[u8], gate: Gate) -> (Vec<Command>, Result<(), DecodeError>) {
    decode_pieces(&[bytes], gate)
}

fn decode_pieces(pieces: &[&[u8]], gate: Gate) -> (Vec<Command>, Result<(), DecodeError>) {
    let (mut decoder, mut bodies) = (Decoder::default(), Bodies::default());
    let (mut input, mut commands) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input, gate, &LIMITS, &mut bodies) {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => break,
                Err(error) => return (commands, Err(error)),
            }
        }
    }
    (commands, Ok(()))
}

fn refusal(bytes: &[u8], gate: Gate) -> String {
    match decode_all(bytes, gate).1 {
        Err(DecodeError::Protocol(error)) => error.to_string(),
        other => alloc::format!("{other:?}"),
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

#[test]
fn commands_as_clients_write_them() {
    let mpub = Command::Mpub { topic: topic("t"), bodies: ["aa", "b"].into_iter().collect() };
    let (commands, end) = decode_all(
        b"NOP\r\nPUB t\n\0\0\0\x02hiPUB t extra\n\0\0\0\x01xMPUB t\n\0\0\0\x01\0\0\0\x02\0\0\0\x02aa\0\0\0\x01b\
          DPUB t 5\n\0\0\0\x01dSUB t c\nIDENTIFY x\n\0\0\0\x02{}AUTH\n\0\0\0\x01s",
        INIT,
    );
    assert_eq!(end, Ok(()));
    assert_eq!(
        commands,
        [
            Command::Nop,
            Command::Pub { topic: topic("t"), body: Bytes::from_static(b"hi") },
            Command::Pub { topic: topic("t"), body: Bytes::from_static(b"x") },
            mpub,
            Command::Dpub {
                topic: topic("t"),
                delay: Duration::from_millis(5),
                body: Bytes::from_static(b"d")
            },
            Command::Sub { topic: topic("t"), channel: ChannelName::new("c").unwrap() },
            Command::Identify(Bytes::from_static(b"{}")),
            Command::Auth(Bytes::from_static(b"s")),
        ]
    );
    let id = *b"0123456789abcdef";
    let (commands, end) = decode_all(
        b"RDY\nRDY \nRDY 007\nRDY 18446744073709551621\nFIN 0123456789abcdef\nTOUCH 0123456789abcdef x\n\
          REQ 0123456789abcdef \nREQ 0123456789abcdef 99999999999\nCLS\n",
        SUBSCRIBED,
    );
    assert_eq!(end, Ok(()));
    assert_eq!(
        commands,
        [
            Command::Rdy(1),
            Command::Rdy(0),
            Command::Rdy(7),
            Command::Rdy(5),
            Command::Fin(id),
            Command::Touch(id),
            Command::Req { id, delay: Duration::ZERO },
            Command::Req { id, delay: LIMITS.max_req_timeout },
            Command::Cls,
        ]
    );
    assert_eq!(decode_all(b"RDY x\n", CLOSING), (vec![Command::Nop], Ok(())));
}

/// The golden transcripts of nsqd-protocol.md section 25 that the decoder alone decides, and
/// the catalogue of errors.
#[test]
fn refusals_word_for_word() {
    let long = [&[b'X'; 16383][..], b"\n"].concat();
    let long_text = "E_INVALID invalid command ".to_string() + &"X".repeat(16383);
    let cases: &[(&[u8], Gate, &str)] = &[
        (b"\n", INIT, "E_INVALID invalid command "),
        (b"\r\n", INIT, "E_INVALID invalid command "),
        (b" NOP\n", INIT, "E_INVALID invalid command "),
        (b"NOP\r\r\n", INIT, "E_INVALID invalid command NOP\r"),
        (b"nop\n", INIT, "E_INVALID invalid command nop"),
        (b"NOP \nNOP a b\r\nBAD x\n", INIT, "E_INVALID invalid command BAD"),
        (&long, INIT, &long_text),
        (&[b'X'; 16384], INIT, "Err(LineTooLong)"),
        (b"PUB\n", INIT, "E_INVALID PUB insufficient number of parameters"),
        (b"PUB  t\n", INIT, "E_BAD_TOPIC PUB topic name \"\" is not valid"),
        (b"PUB t\n\0\0\0\0", INIT, "E_BAD_MESSAGE PUB invalid message body size 0"),
        (b"PUB t\n\x80\0\0\0", INIT, "E_BAD_MESSAGE PUB invalid message body size -2147483648"),
        (b"PUB t\n\0\x10\0\x01", INIT, "E_BAD_MESSAGE PUB message too big 1048577 > 1048576"),
        (b"MPUB\n", INIT, "E_INVALID MPUB insufficient number of parameters"),
        (b"MPUB a$\n", INIT, "E_BAD_TOPIC E_BAD_TOPIC MPUB topic name \"a$\" is not valid"),
        (b"MPUB t\n\0\x50\0\x01", INIT, "E_BAD_BODY MPUB body too big 5242881 > 5242880"),
        (b"MPUB t\n\0\0\0\0", INIT, "E_BAD_BODY MPUB invalid body size 0"),
        (b"MPUB t\n\0\0\0\x05\0\x10\0\0", INIT, "E_BAD_BODY MPUB invalid message count 1048576"),
        (b"MPUB t\n\0\0\0\x05\0\0\0\0", INIT, "E_BAD_BODY MPUB invalid message count 0"),
        (
            b"MPUB t\n\0\0\0\x05\0\0\0\x02\0\0\0\x01a\xff\xff\xff\xff",
            INIT,
            "E_BAD_MESSAGE MPUB invalid message(1) body size -1",
        ),
        (
            b"MPUB t\n\0\0\0\x05\0\0\0\x02\0\x10\0\x01",
            INIT,
            "E_BAD_MESSAGE MPUB message too big 1048577 > 1048576",
        ),
        (b"DPUB t\n", INIT, "E_INVALID DPUB insufficient number of parameters"),
        (b"DPUB ! 1\n", INIT, "E_BAD_TOPIC DPUB topic name \"!\" is not valid"),
        (b"DPUB t -1\n", INIT, "E_INVALID DPUB could not parse timeout -1"),
        (b"DPUB t 3600001\n", INIT, "E_INVALID DPUB timeout 3600001 out of range 0-3600000"),
        (
            b"DPUB t 18446744073709551615\n",
            INIT,
            "E_INVALID DPUB timeout 18446744073709551615 out of range 0-3600000",
        ),
        (b"SUB t\n", INIT, "E_INVALID SUB insufficient number of parameters"),
        (b"SUB t \n", INIT, "E_BAD_CHANNEL SUB channel name \"\" is not valid"),
        (b"SUB\n", SUBSCRIBED, "E_INVALID cannot SUB in current state"),
        (
            b"SUB\n",
            Gate { heartbeats: false, ..INIT },
            "E_INVALID cannot SUB with heartbeats disabled",
        ),
        (b"IDENTIFY\n", SUBSCRIBED, "E_INVALID cannot IDENTIFY in current state"),
        (b"IDENTIFY\n\0\x50\0\x01", INIT, "E_BAD_BODY IDENTIFY body too big 5242881 > 5242880"),
        (b"IDENTIFY\n\0\0\0\0", INIT, "E_BAD_BODY IDENTIFY invalid body size 0"),
        (b"AUTH \n", INIT, "E_INVALID AUTH invalid number of parameters"),
        (b"AUTH\n", CLOSING, "E_INVALID cannot AUTH in current state"),
        (b"AUTH\n\xff\xff\xff\xff", INIT, "E_BAD_BODY AUTH invalid body size -1"),
        (b"RDY 1\n", INIT, "E_INVALID cannot RDY in current state"),
        (b"RDY -1\n", SUBSCRIBED, "E_INVALID RDY could not parse count -1"),
        (b"RDY 2501\n", SUBSCRIBED, "E_INVALID RDY count 2501 out of range 0-2500"),
        (b"RDY 18446744073709551615\n", SUBSCRIBED, "E_INVALID RDY count -1 out of range 0-2500"),
        (b"FIN x\n", INIT, "E_INVALID cannot FIN in current state"),
        (b"FIN\n", SUBSCRIBED, "E_INVALID FIN insufficient number of params"),
        (b"FIN abc\n", SUBSCRIBED, "E_INVALID invalid message ID"),
        (b"REQ abc\n", SUBSCRIBED, "E_INVALID REQ insufficient number of params"),
        (b"REQ abc x\n", SUBSCRIBED, "E_INVALID invalid message ID"),
        (b"REQ 0123456789abcdef -1\n", SUBSCRIBED, "E_INVALID REQ could not parse timeout -1"),
        (b"CLS\n", INIT, "E_INVALID cannot CLS in current state"),
        (b"CLS\n", CLOSING, "E_INVALID cannot CLS in current state"),
    ];
    for (bytes, gate, text) in cases {
        assert_eq!(refusal(bytes, *gate), *text, "{}", bytes.escape_ascii());
    }
}

#[test]
fn an_mpub_is_held_to_the_body_limit_whatever_it_declares() {
    let mut bytes = b"MPUB t\n\0\0\0\x05\0\0\0\x06".to_vec();
    for _ in 0..6 {
        bytes.extend_from_slice(&[0, 0x10, 0, 0]);
        bytes.extend_from_slice(&vec![0; 1024 * 1024]);
    }
    assert_eq!(refusal(&bytes, INIT), "E_BAD_BODY MPUB body too big 5242904 > 5242880");
}

#[test]
fn an_interrupted_command_is_named() {
    let cases: &[(&[u8], Option<&str>)] = &[
        (b"PUB t", None),
        (b"PUB t\n\0\0", Some("E_BAD_MESSAGE PUB failed to read message body size")),
        (b"PUB t\n\0\0\0\x0aabc", Some("E_BAD_MESSAGE PUB failed to read message body")),
        (b"DPUB t 1\n", Some("E_BAD_MESSAGE DPUB failed to read message body size")),
        (b"IDENTIFY\n", Some("E_BAD_BODY IDENTIFY failed to read body size")),
        (b"IDENTIFY\n\0\0\0\x02{", Some("E_BAD_BODY IDENTIFY failed to read body")),
        (b"AUTH\n\0\0\0\x02{", Some("E_BAD_BODY AUTH failed to read body")),
        (b"MPUB t\n", Some("E_BAD_BODY MPUB failed to read body size")),
        (b"MPUB t\n\0\0\0\x09", Some("E_BAD_BODY MPUB failed to read message count")),
        (
            b"MPUB t\n\0\0\0\x09\0\0\0\x02\0\0\0\x01a\0\0",
            Some("E_BAD_MESSAGE MPUB failed to read message(1) body size"),
        ),
        (
            b"MPUB t\n\0\0\0\x09\0\0\0\x01\0\0\0\x02a",
            Some("E_BAD_MESSAGE MPUB failed to read message body"),
        ),
    ];
    for (bytes, text) in cases {
        let (mut decoder, mut bodies) = (Decoder::default(), Bodies::default());
        let mut input = BytesMut::from(*bytes);
        assert_eq!(decoder.decode(&mut input, INIT, &LIMITS, &mut bodies), Ok(None));
        let told = decoder.interrupted().map(|error| error.to_string());
        assert_eq!(told.as_deref(), *text, "{}", bytes.escape_ascii());
    }
}

proptest! {
    /// However the input is cut, the same commands and the same end come out.
    #[test]
    fn any_split_decodes_alike(
        picks in prop::collection::vec((0_usize..14, 1_usize..600), 1..12),
        cuts in prop::collection::vec(1_usize..300, 1..20),
        subscribed in any::<bool>(),
    ) {
        let gate = if subscribed { SUBSCRIBED } else { INIT };
        let mut bytes = Vec::new();
        for (pick, len) in picks {
            let body = [&(len as u32).to_be_bytes()[..], &vec![b'x'; len]].concat();
            let line: &[u8] = match pick {
                0 => b"NOP\n",
                1 => b"NOP\r\n",
                2 | 3 => b"PUB topic\n",
                4 => b"DPUB topic 10\n",
                5 => b"SUB topic channel\n",
                6 => b"RDY 10\n",
                7 => b"FIN 0123456789abcdef\n",
                8 => b"REQ 0123456789abcdef 1\n",
                9 => b"IDENTIFY\n",
                10 | 11 => b"MPUB topic\n",
                12 => b"TOUCH 0123456789abcdef\n",
                _ => b"WHAT is this\n",
            };
            bytes.extend_from_slice(line);
            match pick {
                2..=4 | 9 => bytes.extend_from_slice(&body),
                10 | 11 => {
                    bytes.extend_from_slice(&[0, 0, 0, 9, 0, 0, 0, 3]);
                    for _ in 0..3 { bytes.extend_from_slice(&body) }
                }
                _ => {}
            }
        }
        let whole = decode_all(&bytes, gate);
        let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        prop_assert_eq!(decode_pieces(&pieces, gate), whole);
    }

    /// No bytes at all make the decoder panic or take more than it was given.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), pick in 0_u8..3) {
        let gate = [INIT, SUBSCRIBED, CLOSING][usize::from(pick)];
        let _ = decode_all(&bytes, gate);
    }
}
