//! HTTP requests that a machine asks its driver for, and what became of them.
//!
//! nsqd asks auth servers who a client is, and nsqlookupds which channels a topic has elsewhere. A
//! machine says what to ask, where, and how long that may take; the driver connects, sends, reads,
//! and reports exactly one outcome. Redirects are not followed; no proxy is used.
//!
//! Source: nsqd-protocol.md sections 16 and 18.5.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use crate::protocol::json::Fields;
use crate::secret::Secret;

/// A request to carry out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Call {
    /// Where to.
    pub url: Url,
    /// The JSON to POST; `None` for a GET.
    pub body: Option<Bytes>,
    /// What goes into the header `Authorization`, behind `Bearer`.
    pub authorization: Option<Secret>,
    /// How long the connection may take to be made, its TLS handshake included.
    pub connect_timeout: Duration,
    /// How long everything may take, the making of the connection included.
    pub timeout: Duration,
    /// How many bytes the answer's body may have. One more, and the call has failed.
    pub answer_len_max: usize,
}

/// The header `Accept` of every call.
pub const ACCEPT: &str = "application/vnd.nsq; version=1.0";

/// The outcome of a [`Call`]: whatever was answered, or why there is no answer.
pub type CallResult = Result<CallAnswer, CallFailure>;

/// An answer that was read to its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CallAnswer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CallFailure {
    /// The connection could not be made, or ended too early, or what came is not HTTP.
    Failed(String),
    /// It took too long.
    TimedOut,
    /// The answer is longer than allowed.
    TooBig,
    /// The URL cannot be asked.
    Url(UrlError),
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(reason) => f.write_str(reason),
            Self::TimedOut => f.write_str("i/o timeout"),
            Self::TooBig => f.write_str("the answer is too long"),
            Self::Url(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CallFailure {}

/// What of a URL a request needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Url {
    is_https: bool,
    host: String,
    port: Option<u16>,
    target: String,
}

/// The text is not a URL that can be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum UrlError {
    /// A character that cannot stand in a request.
    Character,
    /// No host, or a damaged one.
    Host,
    /// The port is not a number up to 65535.
    Port,
    /// Neither `http` nor `https`.
    Scheme,
    /// A user's name stands before the host.
    User,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Character => "invalid character in URL",
            Self::Host => "no Host in request URL",
            Self::Port => "invalid port in URL",
            Self::Scheme => "unsupported protocol scheme",
            Self::User => "a user in the URL is not supported",
        })
    }
}

impl core::error::Error for UrlError {}

impl Url {
    /// Reads `http://host:port/path?query` or the same with `https`. A fragment is left out.
    /// Characters beyond ASCII in path and query are escaped.
    ///
    /// # Errors
    /// [`UrlError`] if it cannot be asked.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let is_https = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ => return Err(UrlError::Scheme),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        let (host, port) = split_port(authority)?;
        let mut target = String::with_capacity(tail.len() + 1);
        if !tail.starts_with('/') {
            target.push('/');
        }
        for c in tail.chars() {
            match c {
                '\0'..='\x1f' | '\x7f' => return Err(UrlError::Character),
                ' ' | '"' | '<' | '>' => push_percent(&mut target, &[c as u8]),
                _ if c.is_ascii() => target.push(c),
                _ => push_percent(&mut target, c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(Self { is_https, host: host.to_owned(), port, target })
    }

    /// Whether it is asked over TLS.
    pub const fn is_https(&self) -> bool {
        self.is_https
    }

    /// The name or address to connect to, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.is_https { 443 } else { 80 })
    }

    /// What stands in the request line: path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What stands in the header `Host`.
    pub fn authority(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        let mut authority = alloc::format!("{open}{}{close}", self.host);
        if let Some(port) = self.port {
            authority.push_str(&alloc::format!(":{port}"));
        }
        authority
    }

    /// Where to ask again over TLS, if `answer` to this plain URL says so: status 403 and
    /// `{"https_port":N}`.
    pub fn over_tls(&self, answer: &CallAnswer) -> Option<Self> {
        if self.is_https || answer.status != 403 {
            return None;
        }
        let port = Fields::decode(&answer.body).ok()?.integer("https_port").ok()?;
        let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
        Some(Self { is_https: true, port: Some(port), ..self.clone() })
    }
}

impl fmt::Display for Url {
    /// Without the query, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

/// Host and port of `host:port`, `[v6]:port`, or either without a port.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), UrlError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
            (host, if port.is_empty() { "" } else { port.strip_prefix(':').ok_or(UrlError::Port)? })
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    if host.is_empty() {
        return Err(UrlError::Host);
    }
    // What a host cannot hold must not get into a header.
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte)) {
        return Err(UrlError::Character);
    }
    if port.is_empty() {
        return Ok((host, None));
    }
    // Rust would read a sign as well.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::Port);
    }
    Ok((host, Some(port.parse().map_err(|_| UrlError::Port)?)))
}

/// Appends `value` as a form's value: unreserved characters as they are, `+` for a blank, any other
/// byte as `%` and two digits.
pub fn push_form_value(out: &mut String, value: &[u8]) {
    for byte in value {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(*byte));
            }
            b' ' => out.push('+'),
            _ => push_percent(out, &[*byte]),
        }
    }
}

fn push_percent(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        out.push_str(&alloc::format!("%{byte:02X}"));
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::http::query::Query;

    proptest! {
        /// Any text is judged, and what is accepted can be put into a request as it is: it is one
        /// line, is read again as the same, and keeps its query to itself.
        #[test]
        fn what_is_accepted_can_be_sent(
            text in prop_oneof![
                ".{0,30}",
                "(?i)https?://[a-z0-9.%:@\\[\\]+-]{0,12}([/?#].{0,16})?",
                "https?://([a-z.]{1,5}|\\[[0-9a-f:]{1,6}\\])(:[0-9]{0,6})?([/?][a-z \"<?&%/=\u{e9}]{0,12})?",
            ],
        ) {
            let Ok(url) = Url::parse(&text) else { return Ok(()) };
            let (target, authority) = (url.target(), url.authority());
            prop_assert!(target.starts_with('/') && !url.host().is_empty());
            let is_plain = |text: &str| text.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
            prop_assert!(is_plain(target) && is_plain(&authority) && !authority.contains('/'));
            let scheme = if url.is_https() { "https" } else { "http" };
            let again = Url::parse(&alloc::format!("{scheme}://{authority}{target}"));
            prop_assert_eq!(again.as_ref(), Ok(&url));
            prop_assert!(!url.to_string().contains('?'));
            // The port is a number as people write it, or the scheme's.
            let written = authority.rsplit_once("]").map_or(&authority[..], |(_, rest)| rest);
            let written = written.split_once(':').map(|(_, port)| port.to_owned());
            let default = if url.is_https() { 443 } else { 80 };
            prop_assert_eq!(written.unwrap_or_else(|| default.to_string()), url.port().to_string());
        }

        /// What is escaped as a form is read as it was: by a parser of queries, whatever it holds.
        #[test]
        fn forms_are_read_as_they_were(pairs in prop::collection::vec((".{0,6}", ".{0,12}"), 0..6)) {
            let mut text = String::new();
            for (name, value) in &pairs {
                push_form_value(&mut text, name.as_bytes());
                text.push('=');
                push_form_value(&mut text, value.as_bytes());
                text.push('&');
            }
            let query = Query::parse(&text).unwrap();
            for (name, _) in &pairs {
                let values: Vec<&String> =
                    pairs.iter().filter(|(other, _)| other == name).map(|(_, value)| value).collect();
                prop_assert_eq!(query.first(name), Some(values[0].as_str()));
            }
            prop_assert_eq!(query.first("a name of more than six characters"), None);
        }
    }

    fn parts(text: &str) -> Result<(bool, String, u16, String, String), UrlError> {
        let url = Url::parse(text)?;
        let (authority, target) = (url.authority(), url.target().to_owned());
        Ok((url.is_https(), url.host().to_owned(), url.port(), authority, target))
    }

    #[test]
    fn urls_are_taken_apart() {
        let good = [
            ("http://h:1/auth?a=b", (false, "h", 1, "h:1", "/auth?a=b")),
            ("HTTPS://h", (true, "h", 443, "h", "/")),
            ("http://h?x=1?y=2#z", (false, "h", 80, "h", "/?x=1?y=2")),
            ("http://[::1]:8/a b", (false, "::1", 8, "[::1]:8", "/a%20b")),
            ("http://[::1]/é", (false, "::1", 80, "[::1]", "/%C3%A9")),
        ];
        for (text, (https, host, port, authority, target)) in good {
            let expected = (https, host.into(), port, authority.into(), target.into());
            assert_eq!(parts(text), Ok(expected), "{text}");
        }
        let bad = [
            ("h:1/auth", UrlError::Scheme),
            ("ftp://h", UrlError::Scheme),
            ("http://", UrlError::Host),
            ("http:///auth", UrlError::Host),
            ("http://[::1", UrlError::Host),
            ("http://h:70000", UrlError::Port),
            ("http://h:x", UrlError::Port),
            ("http://h:+80", UrlError::Port),
            ("http://[::1]8", UrlError::Port),
            ("http://u:p@h", UrlError::User),
            ("http://h/\r\nX: y", UrlError::Character),
            ("http://h\r\nX/", UrlError::Character),
        ];
        for (text, error) in bad {
            assert_eq!(Url::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn only_a_403_to_a_plain_request_leads_to_tls() {
        let plain = Url::parse("http://h:1/auth?secret=x").unwrap();
        let answer = |status, body: &'static str| CallAnswer { status, body: body.into() };
        let tls = plain.over_tls(&answer(403, r#"{"https_port":9}"#)).unwrap();
        assert_eq!(tls, Url::parse("https://h:9/auth?secret=x").unwrap());
        assert_eq!(tls.to_string(), "https://h:9/auth");
        assert_eq!(tls.over_tls(&answer(403, r#"{"https_port":9}"#)), None);
        for (status, body) in [
            (401, r#"{"https_port":9}"#),
            (403, r#"{"https_port":0}"#),
            (403, r#"{"https_port":65536}"#),
            (403, "forbidden"),
            (403, "null"),
        ] {
            assert_eq!(plain.over_tls(&answer(status, body)), None, "{body}");
        }
    }

    #[test]
    fn form_values_are_escaped_like_the_references() {
        let mut out = String::new();
        push_form_value(&mut out, b"s3 cr&t=?~*+/\xff");
        assert_eq!(out, "s3+cr%26t%3D%3F~%2A%2B%2F%FF");
    }
}
