//! Replies of the HTTP interfaces, and the access log's line.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::duration::go_duration;
use crate::log::OneLine;
use crate::protocol::json;

/// A reply without the headers that the adapter adds (`Content-Length`, `Date`, `Connection`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// Header names in the letter case of the reference's wire, with their values.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body.
    pub body: Bytes,
    /// Whether the request has a line in the access log (http-and-ops.md section 1.5).
    pub is_logged: bool,
}

impl HttpReply {
    /// 200 with a JSON document.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self::new(200, Some(JSON), body.into()).with_header(NSQ_CONTENT_TYPE, VERSION_1)
    }

    /// 200 with a text.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::new(200, Some(TEXT), body.into()).with_header(NSQ_CONTENT_TYPE, VERSION_1)
    }

    /// 200 with metrics in the text form of OpenMetrics 1.0.
    pub fn metrics(body: impl Into<Bytes>) -> Self {
        Self::new(200, Some(OPEN_METRICS), body.into())
    }

    /// 200 with an empty body.
    pub fn empty() -> Self {
        Self::text(Bytes::new())
    }

    /// An error: `status` with the body `{"message":"<message>"}`.
    pub fn message(status: u16, message: &str) -> Self {
        #[derive(Serialize)]
        struct Refusal<'a> {
            message: &'a str,
        }
        Self { status, ..Self::json(json::encode(&Refusal { message })) }
    }

    /// A plain answer: status and text without NSQ's header, as `/ping` gives it.
    pub fn plain(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, Some(TEXT), body.into())
    }

    /// The reply without `Content-Type` if its body is empty, otherwise with `content_type`.
    pub(super) fn new(status: u16, content_type: Option<&'static str>, body: Bytes) -> Self {
        let reply = Self { status, headers: Vec::with_capacity(2), body, is_logged: true };
        match content_type {
            Some(content_type) if !reply.body.is_empty() => {
                reply.with_header(CONTENT_TYPE, content_type)
            }
            _ => reply,
        }
    }

    /// The reply with one more header. The value has no control characters.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The reply without a line in the access log.
    #[must_use]
    pub fn unlogged(mut self) -> Self {
        self.is_logged = false;
        self
    }

    /// The value of a header, whatever the letter case of `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// The access log's line, at level INFO: `<status> <METHOD> <uri> (<remote>) <duration>`.
///
/// Control characters in the method and the target are shown as escapes, so that a request cannot
/// forge a line.
#[derive(Clone, Copy, Debug)]
pub struct AccessLine<'a> {
    /// The reply's status.
    pub status: u16,
    /// The request's method.
    pub method: &'a str,
    /// The request's target as it came: path and query.
    pub uri: &'a str,
    /// Who asked; `None` (a Unix socket, for example) shows as `@`.
    pub remote: Option<SocketAddr>,
    /// How long the handler took.
    pub duration: Duration,
}

impl fmt::Display for AccessLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.status, OneLine(self.method), OneLine(self.uri))?;
        match self.remote {
            Some(remote) => write!(f, " ({remote})")?,
            None => f.write_str(" (@)")?,
        }
        write!(f, " {}", go_duration(self.duration))
    }
}

const CONTENT_TYPE: &str = "Content-Type";
const JSON: &str = "application/json; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
/// The spelling of the reference's wire; HTTP does not care about the letter case.
const NSQ_CONTENT_TYPE: &str = "X-Nsq-Content-Type";
const VERSION_1: &str = "nsq; version=1.0";

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn headers_follow_the_kind_of_reply() {
        let json = HttpReply::json("{}");
        assert_eq!(json.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(json.header("X-NSQ-Content-Type"), Some("nsq; version=1.0"));
        let text = HttpReply::text("OK");
        assert_eq!(text.header("Content-Type"), Some("text/plain; charset=utf-8"));
        assert_eq!(text.header("X-NSQ-Content-Type"), Some("nsq; version=1.0"));
        let empty = HttpReply::empty();
        assert_eq!((empty.status, empty.header("Content-Type")), (200, None));
        assert_eq!(empty.header("X-NSQ-Content-Type"), Some("nsq; version=1.0"));
        let error = HttpReply::message(404, "NOT \"FOUND\"");
        assert_eq!(error.status, 404);
        assert_eq!(&error.body[..], br#"{"message":"NOT \"FOUND\""}"#);
        assert_eq!(error.header("X-NSQ-Content-Type"), Some("nsq; version=1.0"));
        let plain = HttpReply::plain(200, "OK");
        assert_eq!(plain.headers, [("Content-Type", Cow::Borrowed("text/plain; charset=utf-8"))]);
        assert!(plain.is_logged && !plain.unlogged().is_logged);
    }

    #[test]
    fn access_line() {
        let line = AccessLine {
            status: 200,
            method: "GET",
            uri: "/ping?a=\u{7}b",
            remote: Some("127.0.0.1:47160".parse().unwrap()),
            duration: Duration::from_nanos(827),
        };
        assert_eq!(format!("{line}"), "200 GET /ping?a=\\u{7}b (127.0.0.1:47160) 827ns");
        assert_eq!(
            format!("{}", AccessLine { remote: None, uri: "/", ..line }),
            "200 GET / (@) 827ns"
        );
    }
}
