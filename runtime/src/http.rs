//! HTTP/1 around the core's pure mappings, between hyper's types and theirs. The adapter has hyper
//! read and write; a [`Site`] answers.

use core::convert::Infallible;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::rc::Rc;
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
use sansq_core::input::READ_LEN_MAX;
use sansq_core::log::Level;
use sansq_core::nsqd::Peer;
use sansq_core::nsqd::config::BODY_PATIENCE;

use crate::log::Program;
use crate::reply_room::{PendingReply, ReplyRoom, Unread};
use crate::room::{HttpRoom, Permit};
use crate::visitors::{Stage, Visit, Visitors};

/// What stands behind an HTTP listener.
pub trait Site: 'static {
    /// Whose log the requests are in.
    const PROGRAM: Program;
    /// How long the body of a request to `path` may be, in bytes.
    fn body_limit(&self, method: &str, path: &str) -> usize;
    /// The room that bodies take; `None` where they are so short that they need none.
    fn room(&self) -> Option<&HttpRoom> {
        None
    }
    /// The room that answers take.
    fn answers(&self) -> &ReplyRoom;
    /// Answers. `too_big` says that the body is longer than the limit; it is left out then.
    /// `permit` is its room, which is to be kept until everything is done that the request asks
    /// for.
    fn answer(
        &self,
        request: &http::HttpRequest<'_>,
        too_big: bool,
        permit: Option<Permit>,
    ) -> impl Future<Output = PendingReply>;
}

/// Answers a request of one of `visitors`. `visit` is told how far it is, and says when the answer
/// has to be given up because others want the place. `sleep` is over after so long.
///
/// # Errors
/// If the body does not come. The connection is to be closed.
pub async fn handle<S: Site, F: Future<Output = ()>>(
    site: &S,
    peer: Peer,
    visitors: &Visitors,
    visit: &Rc<Visit>,
    request: Request<Incoming>,
    sleep: impl Fn(Duration) -> F,
) -> io::Result<Response<Full<Unread>>> {
    let respond = |reply, room| respond(reply, room, visit);
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
        return Ok(respond(HttpReply::plain(400, text).with_header("Connection", "close"), None));
    }
    let (method, path) = (head.method.as_str(), head.uri.path());
    let limit = site.body_limit(method, path);
    let waits = head.headers.contains_key(EXPECT);
    let late = async {
        sleep(BODY_TIME).await;
        Err(ErrorKind::TimedOut.into())
    };
    let read = read_body(body, limit, waits, site.room(), &sleep);
    let Some(Taken { body, too_big, permit }) = future::or(read, late).await? else {
        visit.note(Stage::Answering);
        return Ok(respond(HttpReply::message(503, "NO_ROOM"), None));
    };
    let request = http::HttpRequest { method, path, query: head.uri.query(), body: &body };
    visit.note(Stage::Working);
    let given_up = async {
        visit.hurried().await;
        (HttpReply::message(503, "TOO_MANY_CONNECTIONS"), None)
    };
    let answer = async {
        let PendingReply { reply, pass, permit } = site.answer(&request, too_big, permit).await;
        let len = reply.body.len();
        let room = visitors.room(S::PROGRAM, site.answers(), len, &sleep).await;
        // Now others may make theirs.
        drop((pass, permit));
        (reply, room)
    };
    let (mut reply, room) = future::or(answer, given_up).await;
    if visit.is_wanted() {
        // Whichever of the two it is: its place is another one's now.
        reply = reply.with_header("Connection", "close");
    }
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
    Ok(respond(reply, room))
}

/// Reads a body up to `limit` bytes, and whether there is more. Memory grows with what arrives, not
/// with what is announced.
///
/// What is more is read too, up to a point, and dropped: to close a connection with unread input
/// would reset it, and the client would never see the answer. But a client that asks first
/// (`waits`) is not asked for a body that is too long.
///
/// What it takes of `room` is in the permit. `None` if there was none for [`ROOM_TIME`].
async fn read_body<F: Future<Output = ()>>(
    mut body: Incoming,
    limit: usize,
    waits: bool,
    room: Option<&HttpRoom>,
    sleep: impl Fn(Duration) -> F,
) -> io::Result<Option<Taken>> {
    let announced = body.size_hint();
    let enough = limit.saturating_add(DROPPED_LEN_MAX) as u64;
    let too_big = Taken { body: Bytes::new(), too_big: true, permit: None };
    if announced.lower() > enough || (waits && announced.lower() > limit as u64) {
        return Ok(Some(too_big));
    }
    let most = announced.upper().and_then(|len| usize::try_from(len).ok());
    let take = async |len: usize| match room {
        None => Some(None),
        Some(room) => {
            let take = async { Some(Some(room.take(len).await)) };
            let late = async {
                sleep(ROOM_TIME).await;
                None
            };
            future::or(take, late).await
        }
    };
    let (mut whole, mut dropped, mut permit) = (BytesMut::new(), 0, None);
    // Who holds shared room has to be done soon, if others want it.
    let mut hurry = None;
    loop {
        let frame = match &mut hurry {
            None => body.frame().await,
            Some(hurry) => {
                let hurried = async {
                    Pin::as_mut(hurry).await;
                    Err(io::Error::from(ErrorKind::TimedOut))
                };
                future::or(async { Ok(body.frame().await) }, hurried).await?
            }
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        if dropped > 0 || data.len() > limit - whole.len() {
            whole = BytesMut::new();
            (permit, hurry) = (None, None);
            dropped += data.len();
            if dropped > DROPPED_LEN_MAX {
                break;
            }
            continue;
        }
        if permit.is_none() && whole.len() + data.len() > READ_LEN_MAX {
            match take(most.unwrap_or(limit).min(limit)).await {
                Some(taken) => permit = taken,
                None => return Ok(None),
            }
            hurry = room.map(|room| {
                Box::pin(async {
                    sleep(BODY_PATIENCE).await;
                    room.is_wanted().await;
                })
            });
        }
        whole.extend_from_slice(&data);
    }
    if dropped > 0 {
        return Ok(Some(too_big));
    }
    if permit.is_none() && !whole.is_empty() {
        match take(whole.len()).await {
            Some(taken) => permit = taken,
            None => return Ok(None),
        }
    }
    Ok(Some(Taken { body: whole.freeze(), too_big: false, permit }))
}

/// A body that was read.
struct Taken {
    body: Bytes,
    too_big: bool,
    permit: Option<Permit>,
}

fn respond(reply: HttpReply, room: Option<Permit>, visit: &Rc<Visit>) -> Response<Full<Unread>> {
    let mut response = Response::new(Full::new(Unread::new(reply.body, room, visit)));
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

/// How long a request may wait for room for its body.
pub const ROOM_TIME: Duration = Duration::from_secs(30);

/// Bytes of a connection that hyper keeps at most: of a request's head, and of answers of which the
/// next one may still be made.
pub const BUFFER_LEN_MAX: usize = 64 * 1024;

/// How long a client may take no byte of an answer.
pub const ANSWER_TIME: Duration = Duration::from_secs(60);
