//! `/config`: an nsqd's options as they are shown and, two of them, changed (http-and-ops.md
//! section 2.9).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::refusal;
use crate::http::HttpReply;
use crate::log::Level;
use crate::nsqd::config::LOOKUPDS_MAX;
use crate::protocol::json;

/// What an option is set to, as `/config` shows it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
pub enum OptionValue {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
    /// Several texts; `None` is shown as `null`.
    Texts(Option<Vec<String>>),
    /// Several numbers.
    Numbers(#[serde(serialize_with = "numbers")] Vec<f64>),
    /// Shown in nanoseconds.
    Duration(#[serde(serialize_with = "nanoseconds")] Duration),
}

/// Options by their names in the config file. Names that are not in it are answered with
/// `INVALID_OPTION`, also if they are to be changed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct OptionValues(BTreeMap<String, OptionValue>);

/// A request to `/config`.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionRequest {
    /// Show the option of this name.
    Show(String),
    /// Change the list of nsqlookupds.
    SetLookupds(Option<Vec<String>>),
    /// Change how quiet the log is.
    SetLogLevel(Level),
}

impl FromIterator<(String, OptionValue)> for OptionValues {
    fn from_iter<T: IntoIterator<Item = (String, OptionValue)>>(options: T) -> Self {
        Self(options.into_iter().collect())
    }
}

impl OptionValues {
    /// The value of an option.
    pub fn get(&self, name: &str) -> Option<&OptionValue> {
        self.0.get(name)
    }

    /// Changes the value of an option, if it is shown at all. Returns whether it is.
    pub fn set(&mut self, name: &str, value: OptionValue) -> bool {
        let place = self.0.get_mut(name);
        let is_known = place.is_some();
        place.into_iter().for_each(|place| *place = value.clone());
        is_known
    }

    /// Takes note of a change, unless nothing is asked but to see a value, and answers the request.
    pub fn answer(&mut self, request: &OptionRequest) -> HttpReply {
        let name = match request {
            OptionRequest::Show(name) => name,
            OptionRequest::SetLookupds(addresses) => {
                self.set(LOOKUPDS, OptionValue::Texts(addresses.clone()));
                LOOKUPDS
            }
            OptionRequest::SetLogLevel(level) => {
                self.set(LOG_LEVEL, OptionValue::Integer(level.number().into()));
                LOG_LEVEL
            }
        };
        match self.0.get(name) {
            Some(OptionValue::Text(value)) => HttpReply::text(value.clone()),
            Some(value) => HttpReply::json(json::encode(value)),
            None => refusal(INVALID_OPTION),
        }
    }
}

/// Reads a PUT; `too_big` as in [`parse`](super::parse).
pub(super) fn parse_change(
    name: &str,
    body: &[u8],
    too_big: bool,
) -> Result<OptionRequest, HttpReply> {
    if too_big || body.is_empty() {
        return Err(HttpReply::message(413, INVALID_VALUE));
    }
    let request = match name {
        LOOKUPDS => json::texts(body)
            .ok()
            .filter(|addresses| addresses.as_ref().is_none_or(|all| all.len() <= LOOKUPDS_MAX))
            .map(OptionRequest::SetLookupds),
        LOG_LEVEL => {
            let level = core::str::from_utf8(body).ok().and_then(Level::parse);
            level.map(OptionRequest::SetLogLevel)
        }
        _ => return Err(refusal(INVALID_OPTION)),
    };
    request.ok_or_else(|| refusal(INVALID_VALUE))
}

fn numbers<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Number(#[serde(serialize_with = "json::number")] f64);
    serializer.collect_seq(values.iter().copied().map(Number))
}

fn nanoseconds<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(value.as_nanos())
}

const LOG_LEVEL: &str = "log_level";
const LOOKUPDS: &str = "nsqlookupd_tcp_addresses";
const INVALID_OPTION: &str = "INVALID_OPTION";
const INVALID_VALUE: &str = "INVALID_VALUE";

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use alloc::vec;
    use proptest::prelude::*;

    proptest! {
        /// A list is shown as it was put, or it is too long; a level in any letter case is the
        /// level.
        #[test]
        fn what_is_put_is_shown(
            addresses in prop::collection::vec(".{0,12}", 0..8),
            more in prop_oneof![3 => Just(0), 1 => LOOKUPDS_MAX - 8..LOOKUPDS_MAX + 8],
            blanks in "[ \\n]{0,3}",
            level in "(?i)debug|info|warn|error|fatal",
        ) {
            let addresses = [addresses, vec![String::from("x:1"); more]].concat();
            let mut options = options();
            let body = alloc::format!("{blanks}{}{blanks}", serde_json::to_string(&addresses).unwrap());
            match parse_change(LOOKUPDS, body.as_bytes(), false) {
                Ok(request) => {
                    prop_assert!(addresses.len() <= LOOKUPDS_MAX);
                    let put = options.answer(&request);
                    let shown = options.answer(&OptionRequest::Show(LOOKUPDS.into()));
                    prop_assert_eq!(&put, &shown);
                    let read: Vec<String> = serde_json::from_slice(&shown.body).unwrap();
                    prop_assert_eq!(&read, &addresses);
                    prop_assert_eq!(options.get(LOOKUPDS), Some(&OptionValue::Texts(Some(addresses))));
                }
                Err(reply) => {
                    prop_assert!(addresses.len() > LOOKUPDS_MAX);
                    prop_assert_eq!(reply, refusal(INVALID_VALUE));
                }
            }
            let request = parse_change(LOG_LEVEL, level.as_bytes(), false).unwrap();
            let words = ["debug", "info", "warn", "error", "fatal"];
            let at = words.iter().position(|word| level.eq_ignore_ascii_case(word)).unwrap();
            let number = (at + 1).to_string();
            prop_assert_eq!(&options.answer(&request).body[..], number.as_bytes());
        }

        /// Any body is refused or means one of two things; what is refused or only looked at
        /// changes nothing, and no name becomes known.
        #[test]
        fn any_change_is_judged(
            name in prop_oneof![Just(LOOKUPDS), Just(LOG_LEVEL), Just("deflate"), Just("")],
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..12),
                "[\\[\",x:1null\\]\\\\ ]{0,12}".prop_map(String::into_bytes),
                "(?i)[ \\n]?(debug|info|warn|error|fatal)[ \\n]?".prop_map(String::into_bytes),
                "nul|null|\\[\\]|\\{\\}".prop_map(String::into_bytes),
            ],
            too_big in prop::bool::weighted(0.1),
        ) {
            let mut options = options();
            match parse_change(name, &body, too_big) {
                Ok(OptionRequest::SetLookupds(_)) => prop_assert_eq!(name, LOOKUPDS),
                Ok(OptionRequest::SetLogLevel(level)) => {
                    prop_assert_eq!(name, LOG_LEVEL);
                    prop_assert!(level.word().as_bytes().eq_ignore_ascii_case(&body));
                }
                Ok(request) => prop_assert!(false, "{request:?}"),
                Err(reply) => {
                    let is_absent = too_big || body.is_empty();
                    prop_assert_eq!(reply.status, if is_absent { 413 } else { 400 });
                    let before = options.clone();
                    options.answer(&OptionRequest::Show(name.into()));
                    prop_assert_eq!(&options, &before);
                }
            }
            let before = options.0.len();
            if let Ok(request) = parse_change(name, &body, too_big) {
                prop_assert_eq!(options.answer(&request).status, 200);
            }
            prop_assert_eq!(options.0.len(), before);
        }
    }

    fn options() -> OptionValues {
        [
            ("deflate", OptionValue::Bool(true)),
            ("log_level", OptionValue::Integer(2)),
            ("msg_timeout", OptionValue::Duration(Duration::from_secs(60))),
            ("e2e_processing_latency_percentiles", OptionValue::Numbers(vec![1.0, 0.99])),
            ("tls_cert", OptionValue::Text(String::new())),
            ("log_prefix", OptionValue::Text("[nsqd] ".into())),
            ("nsqlookupd_tcp_addresses", OptionValue::Texts(Some(vec!["a\"b".into(), "c".into()]))),
        ]
        .map(|(name, value)| (String::from(name), value))
        .into_iter()
        .collect()
    }

    #[track_caller]
    fn shows(reply: &HttpReply, status: u16, content_type: Option<&str>, body: &str) {
        let kind = content_type.map(|kind| alloc::format!("{kind}; charset=utf-8"));
        assert_eq!((reply.status, reply.header("Content-Type")), (status, kind.as_deref()));
        assert_eq!(core::str::from_utf8(&reply.body), Ok(body));
    }

    #[test]
    fn values_are_shown_by_their_kind() {
        let mut options = options();
        let (json, text) = (Some("application/json"), Some("text/plain"));
        for (name, status, kind, body) in [
            ("deflate", 200, json, "true"),
            ("log_level", 200, json, "2"),
            ("msg_timeout", 200, json, "60000000000"),
            ("e2e_processing_latency_percentiles", 200, json, "[1,0.99]"),
            ("tls_cert", 200, None, ""),
            ("log_prefix", 200, text, "[nsqd] "),
            ("nsqlookupd_tcp_addresses", 200, json, "[\"a\\\"b\",\"c\"]"),
            ("log-level", 400, json, "{\"message\":\"INVALID_OPTION\"}"),
        ] {
            shows(&options.answer(&OptionRequest::Show(name.into())), status, kind, body);
        }
    }

    #[test]
    fn changes_are_checked_whole_and_then_shown() {
        let change = |name: &str, body: &[u8]| {
            parse_change(name, body, false).map_err(|reply| (reply.status, reply.body))
        };
        let set = |addresses: Option<&[&str]>| {
            let addresses = addresses.map(|all| all.iter().map(|text| (*text).into()).collect());
            Ok(OptionRequest::SetLookupds(addresses))
        };
        assert_eq!(change(LOOKUPDS, b" [\"a:1\"] \n"), set(Some(&["a:1"])));
        assert_eq!(change(LOOKUPDS, b"[]"), set(Some(&[])));
        assert_eq!(
            change(LOOKUPDS, b"[null,\"\\ud800\xff\"]"),
            set(Some(&["", "\u{FFFD}\u{FFFD}"]))
        );
        assert_eq!(change(LOOKUPDS, b"null"), set(None));
        assert_eq!(change(LOG_LEVEL, b"WARN"), Ok(OptionRequest::SetLogLevel(Level::Warn)));
        let refused = |status, word: &str| Err((status, HttpReply::message(status, word).body));
        for body in [&b"[\"x:1\", 5]"[..], b"[\"a:1\"] x", b"\"x\"", b"{}", b"not a list"] {
            assert_eq!(change(LOOKUPDS, body), refused(400, "INVALID_VALUE"));
        }
        let many = alloc::format!("[{}\"\"]", "\"\",".repeat(LOOKUPDS_MAX));
        assert_eq!(change(LOOKUPDS, many.as_bytes()), refused(400, "INVALID_VALUE"));
        for body in [&b" warn"[..], b"warning", b"\"info\"", b"fatal\n", b"\xff"] {
            assert_eq!(change(LOG_LEVEL, body), refused(400, "INVALID_VALUE"));
        }
        for name in ["max_rdy_count", "no_such_option"] {
            assert_eq!(change(name, b"5"), refused(400, "INVALID_OPTION"));
            assert_eq!(change(name, b""), refused(413, "INVALID_VALUE"));
        }
        assert_eq!(parse_change(LOG_LEVEL, b"", true).unwrap_err().status, 413);

        let mut options = options();
        shows(
            &options.answer(&OptionRequest::SetLookupds(None)),
            200,
            Some("application/json"),
            "null",
        );
        shows(
            &options.answer(&OptionRequest::SetLogLevel(Level::Fatal)),
            200,
            Some("application/json"),
            "5",
        );
        shows(
            &options.answer(&OptionRequest::Show(LOG_LEVEL.into())),
            200,
            Some("application/json"),
            "5",
        );
        assert!(!options.set("unknown", OptionValue::Bool(true)));
        assert_eq!(options.get("unknown"), None);
    }
}
