//! HTTP/1 around the core's pure mappings, between hyper's types and theirs. The adapter has hyper read
//! and write; a [`Site`] answers.

use core::convert::Infallible;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_lite::future;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{EXPECT, HOST, HeaderName, HeaderValue};
use hyper::rt::Write;
use hyper::{Request, Response, StatusCode, Version};
use sansq_core::http::{self, AccessLine, HttpReply};
use sansq_core::log::Level;
use sansq_core::nsqd::Peer;

use crate::log::Program;
use crate::visitors::{Stage, Visit};

/// What stands behind an HTTP listener.
pub trait Site: 'static {
    /// Whose log the requests are in.
    const PROGRAM: Program;
    /// How long the body of a request to `path` may be, in bytes.
    fn body_limit(&self, method: &str, path: &str) -> usize;
    /// Answers. `too_big` says that the body is longer than the limit; it is left out then.
    fn answer(&self, request: &http::Request<'_>, too_big: bool)
    -> impl Future<Output = HttpReply>;
}

/// Answers a request. `visit` is told how far it is, and says when the answer has to be given up because
/// others want the place. `late` is over when the client has had enough time for the body.
///
/// # Errors
/// If the body does not come. The connection is to be closed.
pub async fn handle<S: Site>(
    site: &S,
    peer: Peer,
    visit: &Visit,
    request: Request<Incoming>,
    late: impl Future<Output = ()>,
) -> io::Result<Response<Full<Bytes>>> {
    let start = Instant::now();
    visit.note(Stage::Asking);
    let (head, body) = request.into_parts();
    let hosts = head.headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11) {
        let text = match hosts {
            0 => "400 Bad Request: missing required Host header",
            _ => "400 Bad Request: too many Host headers",
        };
        visit.note(Stage::Answering);
        return Ok(respond(HttpReply::plain(400, text).with_header("Connection", "close")));
    }
    let (method, path) = (head.method.as_str(), head.uri.path());
    let limit = site.body_limit(method, path);
    let waits = head.headers.contains_key(EXPECT);
    let late = async {
        late.await;
        Err(ErrorKind::TimedOut.into())
    };
    let (body, too_big) = future::or(read_body(body, limit, waits), late).await?;
    let request = http::Request { method, path, query: head.uri.query(), body: &body };
    visit.note(Stage::Working);
    let given_up = async {
        visit.hurried().await;
        HttpReply::message(503, "TOO_MANY_CONNECTIONS").with_header("Connection", "close")
    };
    let reply = future::or(site.answer(&request, too_big), given_up).await;
    visit.note(Stage::Answering);
    if reply.is_logged {
        let uri = head.uri.path_and_query().map_or(path, |uri| uri.as_str());
        let (status, duration) = (reply.status, start.elapsed());
        let remote = match peer {
            Peer::Tcp(address) => Some(address),
            Peer::Unix => None,
        };
        let line = AccessLine { status, method, uri, remote, duration };
        S::PROGRAM.log_kind(Level::Info, Some("HTTP requests"), line);
    }
    Ok(respond(reply))
}

/// Reads a body up to `limit` bytes, and whether there is more. Memory grows with what arrives, not
/// with what is announced.
///
/// What is more is read too, up to a point, and dropped: to close a connection with unread input
/// would reset it, and the client would never see the answer. But a client that asks first
/// (`waits`) is not asked for a body that is too long.
async fn read_body(mut body: Incoming, limit: usize, waits: bool) -> io::Result<(Bytes, bool)> {
    let announced = body.size_hint().lower();
    let enough = limit.saturating_add(DROPPED_LEN_MAX) as u64;
    if announced > enough || (waits && announced > limit as u64) {
        return Ok((Bytes::new(), true));
    }
    let (mut whole, mut dropped) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        if dropped > 0 || data.len() > limit - whole.len() {
            whole.clear();
            dropped += data.len();
            if dropped > DROPPED_LEN_MAX {
                break;
            }
        } else if whole.is_empty() && body.is_end_stream() {
            return Ok((data, false));
        } else {
            whole.extend_from_slice(&data);
        }
    }
    Ok((whole.freeze(), dropped > 0))
}

fn respond(reply: HttpReply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if reply.status == 413 {
        // Its name before RFC 9110, as in the reference: some clients show it.
        response.extensions_mut().insert(ReasonPhrase::from_static(b"Request Entity Too Large"));
    }
    for (name, value) in reply.headers {
        // The core makes no others; a header that hyper refuses is better left out than split.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value))
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// How much of a body that is too long is read and dropped.
const DROPPED_LEN_MAX: usize = 16 * 1024 * 1024;

/// Whether these first bytes of a connection are those of a request, and not of TLS.
pub fn is_plain(first: &[u8]) -> bool {
    first.iter().take(3).all(u8::is_ascii_uppercase)
}

/// Tells a client that it speaks plain HTTP where TLS is spoken (http-and-ops.md section 1.3).
///
/// # Errors
/// That it did; or the connection's own.
pub async fn turn_away(mut io: impl Write + Unpin) -> io::Result<Infallible> {
    let mut left = PLAIN_TO_HTTPS;
    while !left.is_empty() {
        let count = poll_fn(|context| Pin::new(&mut io).poll_write(context, left)).await?;
        left = left.get(count..).unwrap_or_default();
    }
    poll_fn(|context| Pin::new(&mut io).poll_shutdown(context)).await?;
    Err(io::Error::other("client sent an HTTP request to an HTTPS server"))
}

const PLAIN_TO_HTTPS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// How long a client may take for the handshake of TLS. It holds one of the listener's places.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How long a client may take to send a request's head, and may leave a connection idle.
pub const HEAD_TIME: Duration = Duration::from_secs(60);

/// How long a client may take to send a request's body.
pub const BODY_TIME: Duration = Duration::from_secs(60);

/// How long a client may take no byte of an answer.
pub const ANSWER_TIME: Duration = Duration::from_secs(60);
