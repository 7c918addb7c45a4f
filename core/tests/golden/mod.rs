//! The transcripts of nsqd-protocol.md section 25, each of them probed on the reference: what is
//! sent and what comes back, to the byte and to the close.

use sansq_core::client::frame::Frame;
use sansq_core::nsqd::Config;
use sansq_core::testing::Node;

/// What ends a transcript.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The connection stays.
    Open,
    /// The broker closes it.
    Closed,
    /// The client sends nothing more, and the broker closes.
    HalfClosed,
}

use End::{Closed, HalfClosed, Open};

/// What is sent, the answers (`E_…` is an error frame, all else a response), and the end.
type Transcript = (Vec<u8>, Vec<String>, End);

/// A 4-byte length.
fn int32(n: i32) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A command with a body of its true length.
fn with_body(line: &str, body: &[u8]) -> Vec<u8> {
    bytes(&[line.as_bytes(), &int32(body.len() as i32), body])
}

fn transcript(sent: impl AsRef<[u8]>, answers: &[&str], end: End) -> Transcript {
    let answers = answers.iter().map(|answer| (*answer).to_owned());
    (bytes(&[b"  V2", sent.as_ref()]), answers.collect(), end)
}

/// The same, behind a successful `SUB t ch`.
fn subscribed(sent: impl AsRef<[u8]>, answers: &[&str], end: End) -> Transcript {
    let sent = bytes(&[b"SUB t ch\n", sent.as_ref()]);
    transcript(sent, &[&["OK"], answers].concat(), end)
}

fn lines() -> Vec<Transcript> {
    let word = "X".repeat(16383);
    vec![
        (b"  V1".to_vec(), vec!["E_BAD_PROTOCOL".into()], Closed),
        transcript("\n", &["E_INVALID invalid command "], Closed),
        transcript("\r\n", &["E_INVALID invalid command "], Closed),
        transcript(" NOP\n", &["E_INVALID invalid command "], Closed),
        transcript("NOP \nNOP a b\r\nBAD x\n", &["E_INVALID invalid command BAD"], Closed),
        transcript("NOP\r\r\n", &["E_INVALID invalid command NOP\r"], Closed),
        transcript("nop\n", &["E_INVALID invalid command nop"], Closed),
        transcript(format!("{word}\n"), &[&format!("E_INVALID invalid command {word}")], Closed),
        transcript(format!("{word}X"), &[], Closed),
    ]
}

fn publishing() -> Vec<Transcript> {
    let max = int32(1_048_577);
    let two = bytes(&[&int32(2), &int32(2), b"aa", &int32(2), b"bb"]);
    let bad = bytes(&[&int32(2), &int32(1), b"a", &int32(-1)]);
    vec![
        transcript("PUB\n", &["E_INVALID PUB insufficient number of parameters"], Closed),
        transcript("PUB  t\n", &["E_BAD_TOPIC PUB topic name \"\" is not valid"], Closed),
        transcript(with_body("PUB t extra\r\n", b"x"), &["OK"], Open),
        transcript(
            with_body("PUB t\n", b""),
            &["E_BAD_MESSAGE PUB invalid message body size 0"],
            Closed,
        ),
        transcript(
            bytes(&[b"PUB t\n", &max]),
            &["E_BAD_MESSAGE PUB message too big 1048577 > 1048576"],
            Closed,
        ),
        transcript(
            bytes(&[b"PUB t\n", &int32(10), b"abc"]),
            &["E_BAD_MESSAGE PUB failed to read message body"],
            HalfClosed,
        ),
        transcript(
            "MPUB a$\n",
            &["E_BAD_TOPIC E_BAD_TOPIC MPUB topic name \"a$\" is not valid"],
            Closed,
        ),
        transcript(
            bytes(&[b"MPUB t\n", &int32(5_242_881)]),
            &["E_BAD_BODY MPUB body too big 5242881 > 5242880"],
            Closed,
        ),
        transcript(
            bytes(&[b"MPUB t\n", &int32(5), &int32(1_048_576)]),
            &["E_BAD_BODY MPUB invalid message count 1048576"],
            Closed,
        ),
        // The declared size is not checked.
        transcript(bytes(&[b"MPUB t\n", &int32(1), &two]), &["OK"], Open),
        transcript(
            bytes(&[b"MPUB t\n", &int32(5), &bad]),
            &["E_BAD_MESSAGE MPUB invalid message(1) body size -1"],
            Closed,
        ),
        transcript(with_body("DPUB t \n", b"x"), &["OK"], Open),
        transcript("DPUB t -1\n", &["E_INVALID DPUB could not parse timeout -1"], Closed),
        transcript(
            "DPUB t 3600001\n",
            &["E_INVALID DPUB timeout 3600001 out of range 0-3600000"],
            Closed,
        ),
        transcript(
            "DPUB t 18446744073709551615\n",
            &["E_INVALID DPUB timeout 18446744073709551615 out of range 0-3600000"],
            Closed,
        ),
    ]
}

fn consuming() -> Vec<Transcript> {
    vec![
        transcript("SUB t \n", &["E_BAD_CHANNEL SUB channel name \"\" is not valid"], Closed),
        // The state is looked at before the parameters are counted.
        subscribed("SUB\n", &["E_INVALID cannot SUB in current state"], Closed),
        subscribed("RDY\nRDY \nRDY 2500\n", &[], Open),
        subscribed(
            "RDY 18446744073709551615\n",
            &["E_INVALID RDY count -1 out of range 0-2500"],
            Closed,
        ),
        // 2^64 + 5 is 5 (section 4.1).
        subscribed("RDY 18446744073709551621\n", &[], Open),
        subscribed("RDY 2501\n", &["E_INVALID RDY count 2501 out of range 0-2500"], Closed),
        subscribed("RDY -1\n", &["E_INVALID RDY could not parse count -1"], Closed),
        subscribed("FIN abc\n", &["E_INVALID invalid message ID"], Closed),
        subscribed(
            "FIN 0123456789abcdef\nREQ 0123456789abcdef 0\nTOUCH 0123456789abcdef\n",
            &[
                "E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight",
                "E_REQ_FAILED REQ 0123456789abcdef failed ID not in flight",
                "E_TOUCH_FAILED TOUCH 0123456789abcdef failed ID not in flight",
            ],
            Open,
        ),
        subscribed(
            "REQ 0123456789abcdef -1\n",
            &["E_INVALID REQ could not parse timeout -1"],
            Closed,
        ),
        subscribed(
            "CLS a\nRDY x\nNOP\nCLS\n",
            &["CLOSE_WAIT", "E_INVALID cannot CLS in current state"],
            Closed,
        ),
    ]
}

fn negotiating() -> Vec<Transcript> {
    let identify = with_body("IDENTIFY\n", br#"{"heartbeat_interval":-1}"#);
    vec![
        transcript("AUTH \n", &["E_INVALID AUTH invalid number of parameters"], Closed),
        transcript(with_body("AUTH\n", b"x"), &["E_AUTH_DISABLED AUTH disabled"], Closed),
        transcript(with_body("IDENTIFY x\n", b"null"), &["OK"], Open),
        transcript(
            bytes(&[&identify, b"SUB\n"]),
            &["OK", "E_INVALID cannot SUB with heartbeats disabled"],
            Closed,
        ),
        // Without the feature neither can be had, and so not both.
        #[cfg(feature = "upgrade")]
        transcript(
            with_body(
                "IDENTIFY\n",
                br#"{"feature_negotiation":true,"snappy":true,"deflate":true}"#,
            ),
            &["E_IDENTIFY_FAILED cannot enable both deflate and snappy compression"],
            Closed,
        ),
    ]
}

#[test]
fn transcripts() {
    let all = [lines(), publishing(), consuming(), negotiating()].concat();
    for (sent, answers, end) in all {
        // In one piece, in pieces, and byte by byte; with the topic at home or elsewhere.
        for (shards, piece) in [(1, sent.len()), (3, sent.len()), (3, 1000), (2, 7), (1, 1)] {
            let mut node = Node::new(shards, Config::default());
            let client = node.connect(0);
            for piece in sent.chunks(piece) {
                node.send(client, piece);
            }
            if end == HalfClosed {
                assert!(!node.is_closed(client), "{}", sent.escape_ascii());
                node.half_close(client);
            }
            let frames = node.frames(client);
            let expected = answers.iter().map(|answer| match answer.starts_with("E_") {
                true => Frame::Error(answer.clone().into()),
                false => Frame::Response(answer.clone().into()),
            });
            assert!(
                frames.iter().eq(expected.collect::<Vec<_>>().iter()),
                "{} gives {frames:?}",
                sent.escape_ascii()
            );
            assert_eq!(node.is_closed(client), end != Open, "{}", sent.escape_ascii());
        }
    }
}

/// The texts of section 6.1 that stand for a state in which a command is not allowed.
#[test]
fn commands_out_of_state() {
    for command in ["RDY 1", "FIN 0123456789abcdef", "REQ 0123456789abcdef 0", "TOUCH x", "CLS"] {
        let mut node = Node::new(2, Config::default());
        let client = node.client(0);
        node.send(client, format!("{command}\n").as_bytes());
        let word = command.split(' ').next().unwrap_or_default();
        let text = format!("E_INVALID cannot {word} in current state");
        assert_eq!(node.frames(client), [Frame::Error(text.into())]);
        assert!(node.is_closed(client));
    }
    for command in ["IDENTIFY", "AUTH", "SUB a b"] {
        let mut node = Node::new(2, Config::default());
        let client = node.consumer(0, "t", "c", 0);
        node.send(client, format!("{command}\n").as_bytes());
        let word = command.split(' ').next().unwrap_or_default();
        let text = format!("E_INVALID cannot {word} in current state");
        assert_eq!(node.frames(client), [Frame::Error(text.into())]);
        assert!(node.is_closed(client));
    }
}
