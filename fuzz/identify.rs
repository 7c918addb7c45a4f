//! IDENTIFY's JSON against rules that are written for [`serde_json::Value`]: accepted exactly when
//! the rules say so, refused with the field that they name, and the answer is JSON that says what
//! is in force (nsqd-protocol.md sections 8.1 to 8.3).

use core::fmt;

use bytes::BytesMut;
use sansq_core::client::frame::{self, Frame};
use sansq_core::nsqd::Config;
use sansq_core::protocol::identify::Identify;
use sansq_core::testing::Node;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Checks one body. Bit 0 of its first byte, which is not part of it, lets clients have
/// compression.
///
/// # Panics
/// If the negotiation is wrong.
pub fn check(data: &[u8]) {
    let Some((flags, body)) = data.split_first() else { return };
    let compression = flags & 1 == 1;
    let config = Config { deflate: compression, snappy: compression, ..Config::default() };
    if body.is_empty() || body.len() > config.max_body_size {
        return;
    }
    let asked = Asked::read(body);
    match (&asked, Identify::decode(body)) {
        (Some(asked), Ok(identify)) => {
            let texts = [
                identify.client_id,
                identify.hostname,
                identify.user_agent,
                identify.topology_region,
                identify.topology_zone,
            ];
            assert_eq!(texts.as_slice(), asked.texts);
        }
        (None, Err(_)) => {}
        (asked, identify) => panic!("{identify:?}, where the rules say {asked:?}"),
    }
    let expected = asked.map_or_else(
        || Err("E_BAD_BODY IDENTIFY failed to decode JSON body".to_owned()),
        |asked| asked.judge(compression),
    );
    match (answer(config, body), expected) {
        (Frame::Response(text), Ok(in_force)) => in_force.compare(&text),
        (Frame::Error(text), Err(expected)) => assert_eq!(text, expected.as_bytes()),
        (frame, expected) => panic!("{frame:?}, where the rules say {expected:?}"),
    }
}

/// The first frame that an nsqd answers.
fn answer(config: Config, body: &[u8]) -> Frame {
    let mut node = Node::new(1, config);
    let client = node.client(0);
    node.send(client, &[b"IDENTIFY\n", &(body.len() as u32).to_be_bytes()[..], body].concat());
    // What is behind it may be packed.
    let mut bytes = BytesMut::from(&node.received(client)[..]);
    frame::decode(&mut bytes, 1 << 20).expect("it is a frame").expect("there is an answer")
}

/// What a client asks for, by the rules.
#[derive(Debug)]
struct Asked {
    /// In the order of section 8.1.
    texts: Vec<String>,
    negotiates: bool,
    snappy: bool,
    deflate: bool,
    heartbeat_interval: i64,
    output_buffer_size: i64,
    output_buffer_timeout: i64,
    sample_rate: i64,
    msg_timeout: i64,
}

/// What is in force then; `None` if the client does not negotiate, and is told `OK`.
#[derive(Debug)]
struct InForce(Option<[(&'static str, i64); 4]>);

/// An object's members in their order, or none for `null`.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or null")
            }

            fn visit_unit<E>(self) -> Result<Members, E> {
                Ok(Members(Vec::new()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_any(Object)
    }
}

impl Asked {
    /// `None` if the body can't be decoded.
    fn read(body: &[u8]) -> Option<Self> {
        let body = mended(&String::from_utf8_lossy(body));
        let Members(members) = serde_json::from_str(&body).ok()?;
        let values = |field: &str| -> Vec<&Value> {
            let named = members.iter().filter(|(key, _)| is_named(key, field));
            named.map(|(_, value)| value).filter(|value| !value.is_null()).collect()
        };
        // Each value of a field has to be of its type; the last one counts.
        let text = |field| -> Option<String> {
            let texts: Option<Vec<_>> = values(field).into_iter().map(Value::as_str).collect();
            Some(texts?.last().copied().unwrap_or_default().to_owned())
        };
        let truth = |field| -> Option<bool> {
            let truths: Option<Vec<_>> = values(field).into_iter().map(Value::as_bool).collect();
            Some(truths?.last().copied().unwrap_or_default())
        };
        let integer = |field| -> Option<i64> {
            let integers: Option<Vec<_>> = values(field).into_iter().map(Value::as_i64).collect();
            Some(integers?.last().copied().unwrap_or_default())
        };
        let names = ["client_id", "hostname", "user_agent", "topology_region", "topology_zone"];
        truth("tls_v1")?;
        integer("deflate_level")?;
        Some(Self {
            texts: names.into_iter().map(text).collect::<Option<_>>()?,
            negotiates: truth("feature_negotiation")?,
            snappy: truth("snappy")?,
            deflate: truth("deflate")?,
            heartbeat_interval: integer("heartbeat_interval")?,
            output_buffer_size: integer("output_buffer_size")?,
            output_buffer_timeout: integer("output_buffer_timeout")?,
            sample_rate: integer("sample_rate").filter(|rate| i32::try_from(*rate).is_ok())?,
            msg_timeout: integer("msg_timeout")?,
        })
    }

    /// What is in force with the default options, or the error's payload.
    fn judge(&self, compression: bool) -> Result<InForce, String> {
        let invalid = |what, n: i64| Err(format!("E_BAD_BODY IDENTIFY {what} ({n}) is invalid"));
        if !matches!(self.heartbeat_interval, -1 | 0 | 1000..=60_000) {
            return invalid("heartbeat interval", self.heartbeat_interval);
        }
        let mut timeout = match self.output_buffer_timeout {
            -1 => 0,
            0 => 250,
            ms @ 25..=30_000 => ms,
            ms => return invalid("output buffer timeout", ms),
        };
        let size = match self.output_buffer_size {
            -1 => 1,
            0 => 16_384,
            size @ 64..=65_536 => size,
            size => return invalid("output buffer size", size),
        };
        if self.output_buffer_size == -1 {
            timeout = 0;
        }
        if !(0..=99).contains(&self.sample_rate) {
            return invalid("sample rate", self.sample_rate);
        }
        let msg_timeout = match self.msg_timeout {
            0 => 60_000,
            ms @ 1000..=900_000 => ms,
            ms => return invalid("msg timeout", ms),
        };
        if !self.negotiates {
            return Ok(InForce(None));
        }
        if compression && self.snappy && self.deflate {
            let text = "E_IDENTIFY_FAILED cannot enable both deflate and snappy compression";
            return Err(text.into());
        }
        Ok(InForce(Some([
            ("msg_timeout", msg_timeout),
            ("sample_rate", self.sample_rate),
            ("output_buffer_size", size),
            ("output_buffer_timeout", timeout),
        ])))
    }
}

impl InForce {
    fn compare(&self, answer: &[u8]) {
        let Self(Some(settings)) = self else { return assert_eq!(answer, b"OK") };
        let answer: Value = serde_json::from_slice(answer).expect("the answer is JSON");
        for (key, expected) in settings {
            assert_eq!(answer[key], *expected, "{key}");
        }
        for key in ["tls_v1", "snappy", "deflate", "auth_required"] {
            assert!(answer[key].is_boolean(), "{key} in {answer}");
        }
        assert_eq!(answer["version"], "1.3.0");
    }
}

/// Whether a key names a field: in any letter case, and Unicode has two letters more that are a `k`
/// or an `s` in another case.
fn is_named(key: &str, field: &str) -> bool {
    let plain = |c: char| match c {
        '\u{212A}' => 'k',
        '\u{17F}' => 's',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(plain).eq(field.chars())
}

/// The text with U+FFFD for every escape that names half a character.
fn mended(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let unit = |at: usize| -> Option<u32> {
        let [b'\\', b'u', digits @ ..] = ascii::<6>(&chars, at)?.map(|c| c as u8) else {
            return None;
        };
        let all_digits = digits.iter().all(u8::is_ascii_hexdigit);
        let digits = core::str::from_utf8(&digits).ok().filter(|_| all_digits)?;
        u32::from_str_radix(digits, 16).ok()
    };
    let (mut mended, mut at) = (String::new(), 0);
    while at < chars.len() {
        let len = match (unit(at), unit(at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                mended.push_str("\\uFFFD");
                at += 6;
                continue;
            }
            _ if chars[at] == '\\' => 2,
            _ => 1,
        };
        mended.extend(&chars[at..chars.len().min(at + len)]);
        at += len;
    }
    mended
}

/// `N` characters from `at` on, if they are there and all ASCII.
fn ascii<const N: usize>(chars: &[char], at: usize) -> Option<[char; N]> {
    let slice: [char; N] = chars.get(at..at + N)?.try_into().ok()?;
    slice.iter().all(char::is_ascii).then_some(slice)
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("identify", super::check);
    }
}
