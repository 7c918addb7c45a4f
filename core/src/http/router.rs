//! From method and path to a handler, with the reference's answers to everything else
//! (http-and-ops.md section 1.2).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;

use bytes::Bytes;

use super::query::decode_percent;
use super::{HttpReply, HttpRequest};

/// One row of a routing table.
#[derive(Clone, Copy, Debug)]
pub struct Route<H> {
    /// The path. A last segment that begins with `:` stands for any segment that is not empty.
    pub path: &'static str,
    /// The methods, in capitals.
    pub methods: &'static [&'static str],
    /// What the owner of the table calls the handler.
    pub handler: H,
}

/// A table of routes. Several rows may have the same path and different methods.
#[derive(Clone, Copy, Debug)]
pub struct Router<H: 'static>(pub &'static [Route<H>]);

/// Where a request goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Routed<H> {
    /// To a handler.
    Handler {
        /// The table's entry.
        handler: H,
        /// What the path has in place of the `:` segment, decoded; empty for other routes.
        parameter: String,
    },
    /// To nobody: the request is answered already.
    Reply(HttpReply),
}

impl<H: Copy> Router<H> {
    /// Finds the handler of a request, or the answer if there is none: a redirect to the path that
    /// was meant, the methods for OPTIONS, 405 or 404.
    pub fn route(&self, request: &HttpRequest<'_>) -> Routed<H> {
        let Some(path) = decode_percent(request.path, false) else {
            return Routed::Reply(HttpReply::plain(400, "400 Bad Request"));
        };
        let method = request.method;
        for route in self.0.iter().filter(|route| route.methods.contains(&method)) {
            if let Some(parameter) = match_path(route.path, &path, false) {
                return Routed::Handler {
                    handler: route.handler,
                    parameter: parameter.to_string(),
                };
            }
        }
        Routed::Reply(self.without_handler(method, &path, request.query))
    }

    fn without_handler(&self, method: &str, path: &str, query: Option<&str>) -> HttpReply {
        if let Some(meant) = self.meant_path(method, path) {
            return redirect(method, &meant, query);
        }
        if method == "OPTIONS" && path == "*" {
            return HttpReply::new(200, None, Bytes::new()).unlogged();
        }
        let allowed = self.allowed(path);
        if allowed.is_empty() {
            HttpReply::message(404, "NOT_FOUND")
        } else if method == "OPTIONS" {
            HttpReply::new(200, None, Bytes::new()).with_header("Allow", allowed).unlogged()
        } else {
            HttpReply::message(405, "METHOD_NOT_ALLOWED").with_header("Allow", allowed)
        }
    }

    /// The path of a route that `path` misses only by a slash at the end, letter case, or segments
    /// that are empty, `.` or `..`.
    fn meant_path(&self, method: &str, path: &str) -> Option<String> {
        let clean = clean_path(path);
        let toggled = match clean.strip_suffix('/') {
            Some(shorter) => shorter.to_string(),
            None => format!("{clean}/"),
        };
        let routes = || self.0.iter().filter(|route| route.methods.contains(&method));
        [&clean, &toggled].into_iter().find_map(|candidate| {
            routes().find_map(|route| {
                let parameter = match_path(route.path, candidate, true)?;
                let stem = route.path.find("/:").map_or(route.path, |at| &route.path[..=at]);
                Some(format!("{stem}{parameter}"))
            })
        })
    }

    /// The methods of a path with OPTIONS, sorted; empty if the path is unknown.
    fn allowed(&self, path: &str) -> String {
        let mut methods: Vec<&str> = self
            .0
            .iter()
            .filter(|route| match_path(route.path, path, false).is_some())
            .flat_map(|route| route.methods.iter().copied())
            .collect();
        if methods.is_empty() {
            return String::new();
        }
        methods.push("OPTIONS");
        methods.sort_unstable();
        methods.dedup();
        methods.join(", ")
    }
}

/// What `path` has for the `:` segment of `pattern` (nothing, if there is none); `None` if it does
/// not match.
fn match_path<'a>(pattern: &str, path: &'a str, any_case: bool) -> Option<&'a str> {
    let is_equal = |a: &str, b: &str| if any_case { a.eq_ignore_ascii_case(b) } else { a == b };
    match pattern.rfind("/:") {
        None => is_equal(pattern, path).then_some(""),
        Some(at) => {
            let (stem, parameter) = path.split_at_checked(at + 1)?;
            let is_match = is_equal(&pattern[..=at], stem);
            (is_match && !parameter.is_empty() && !parameter.contains('/')).then_some(parameter)
        }
    }
}

/// The path without empty, `.` and `..` segments; a slash at the end stays.
fn clean_path(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut clean = format!("/{}", segments.join("/"));
    if !segments.is_empty() && (path.ends_with('/') || path.ends_with("/.")) {
        clean.push('/');
    }
    clean
}

/// 301 with a few bytes of HTML for GET, 308 without a body for the others.
fn redirect(method: &str, path: &str, query: Option<&str>) -> HttpReply {
    let mut location = String::with_capacity(path.len());
    push_uri(&mut location, path, true);
    if let Some(query) = query {
        location.push('?');
        push_uri(&mut location, query, false);
    }
    let reply = if method == "GET" {
        let mut body = String::from("<a href=\"");
        push_html(&mut body, &location);
        body.push_str("\">Moved Permanently</a>.\n\n");
        HttpReply::new(301, Some("text/html; charset=utf-8"), body.into())
    } else {
        HttpReply::new(308, None, Bytes::new())
    };
    reply.with_header("Location", location).unlogged()
}

/// Appends `text`, with what may not stand in a header's URI percent-encoded.
fn push_uri(out: &mut String, text: &str, is_decoded: bool) {
    for byte in text.bytes() {
        let is_kept = match byte {
            b'%' | b'?' | b'#' | b';' => !is_decoded,
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => !is_decoded,
            _ => byte.is_ascii_graphic(),
        };
        if is_kept {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes all text");
        }
    }
}

/// Appends `text`, safe inside a quoted HTML attribute.
fn push_html(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    static TABLE: [Route<u8>; 5] = [
        Route { path: "/ping", methods: &["GET"], handler: 1 },
        Route { path: "/pub", methods: &["POST"], handler: 2 },
        Route { path: "/config/:opt", methods: &["GET", "PUT"], handler: 3 },
        Route { path: "/debug/pprof", methods: &["GET"], handler: 4 },
        Route { path: "/debug/pprof", methods: &["POST"], handler: 5 },
    ];

    fn ask(method: &str, uri: &str) -> Routed<u8> {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(p, q)| (p, Some(q)));
        Router(&TABLE).route(&HttpRequest { method, path, query, body: &Bytes::new() })
    }

    fn reply(method: &str, uri: &str) -> HttpReply {
        match ask(method, uri) {
            Routed::Reply(reply) => reply,
            Routed::Handler { handler, .. } => panic!("{method} {uri} went to handler {handler}"),
        }
    }

    fn handler(method: &str, uri: &str) -> (u8, String) {
        match ask(method, uri) {
            Routed::Handler { handler, parameter } => (handler, parameter),
            Routed::Reply(reply) => panic!("{method} {uri} was answered with {reply:?}"),
        }
    }

    #[test]
    fn known_paths_find_their_handlers() {
        assert_eq!(handler("GET", "/ping"), (1, String::new()));
        assert_eq!(handler("GET", "/%70ing?x"), (1, String::new()));
        assert_eq!(handler("PUT", "/config/log_level"), (3, "log_level".into()));
        assert_eq!(handler("POST", "/debug/pprof"), (5, String::new()));
    }

    #[test]
    fn unknown_paths_and_wrong_methods() {
        for uri in ["/", "", "/nope", "/config", "/config/", "/config/a/b", "*", "/ping/x"] {
            let reply = reply("GET", uri);
            assert_eq!((reply.status, &reply.body[..]), (404, &b"{\"message\":\"NOT_FOUND\"}"[..]));
        }
        for (method, uri, allow) in [
            ("POST", "/ping", "GET, OPTIONS"),
            ("HEAD", "/ping", "GET, OPTIONS"),
            ("GET", "/pub", "OPTIONS, POST"),
            ("DELETE", "/config/x", "GET, OPTIONS, PUT"),
            ("PUT", "/debug/pprof", "GET, OPTIONS, POST"),
        ] {
            let reply = reply(method, uri);
            assert_eq!((reply.status, reply.header("Allow")), (405, Some(allow)), "{method} {uri}");
            assert_eq!(&reply.body[..], b"{\"message\":\"METHOD_NOT_ALLOWED\"}");
            assert!(reply.is_logged && reply.header("X-NSQ-Content-Type").is_some());
        }
        assert_eq!(reply("GET", "/%zz").status, 400);
    }

    #[test]
    fn options_are_told() {
        let known = reply("OPTIONS", "/config/x");
        assert_eq!((known.status, known.header("Allow")), (200, Some("GET, OPTIONS, PUT")));
        assert!(known.body.is_empty() && known.headers.len() == 1 && !known.is_logged);
        let all = reply("OPTIONS", "*");
        assert!(all.status == 200 && all.headers.is_empty());
        assert_eq!(reply("OPTIONS", "/nope").status, 404);
    }

    #[test]
    fn near_misses_are_redirected() {
        for (uri, location) in [
            ("/ping/", "/ping"),
            ("/PING?a=b&c", "/ping?a=b&c"),
            ("//ping", "/ping"),
            ("/x/../ping", "/ping"),
            ("/./ping/.", "/ping"),
            ("/CONFIG/Log_Level/", "/config/Log_Level"),
            ("/debug/pprof/", "/debug/pprof"),
            ("/config/a%3fb%0d/", "/config/a%3Fb%0D"),
        ] {
            let reply = reply("GET", uri);
            assert_eq!((reply.status, reply.header("Location")), (301, Some(location)), "{uri}");
            assert!(reply.header("X-NSQ-Content-Type").is_none() && !reply.is_logged);
        }
        assert_eq!(
            &reply("GET", "/ping/?a=1&b=\"").body[..],
            b"<a href=\"/ping?a=1&amp;b=&#34;\">Moved Permanently</a>.\n\n"
        );
        let post = reply("POST", "/pub/?topic=t");
        assert_eq!((post.status, post.header("Location")), (308, Some("/pub?topic=t")));
        assert!(post.body.is_empty() && post.header("Content-Type").is_none());
        // Only towards a route that takes the method.
        assert_eq!(reply("POST", "/ping/").status, 404);
    }

    proptest! {
        #[test]
        fn any_target_is_answered(method in "GET|POST|PUT|OPTIONS|X", path in "[/.a-c%]{0,12}|.{0,12}") {
            let body = Bytes::new();
            let request = HttpRequest { method: &method, path: &path, query: Some("q"), body: &body };
            if let Routed::Reply(reply) = Router(&TABLE).route(&request) {
                for (_, value) in &reply.headers {
                    prop_assert!(value.bytes().all(|byte| (b' '..0x7f).contains(&byte)));
                }
                if let Some(location) = reply.header("Location") {
                    // A redirect leads to a handler, so it cannot go in a circle or away.
                    let (path, _) = location.split_once('?').unwrap();
                    let again = HttpRequest { path, ..request };
                    let is_handler = matches!(Router(&TABLE).route(&again), Routed::Handler { .. });
                    prop_assert!(is_handler);
                }
            }
        }
    }
}
