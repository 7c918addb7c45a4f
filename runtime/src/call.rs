//! HTTP requests to others, on hyper: the part of
//! [`Actions::calls`](sansq_core::nsqd::Actions::calls) that is neither a socket nor a timer.

use core::future::Future;
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::BytesMut;
use futures_lite::future;
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::rt::{Read, Write};
use sansq_core::address::host_and_port;
use sansq_core::http::call::{self, Call, CallAnswer, CallFailure, CallResult, Url};
use sansq_core::upgrade::ClientTls;
use sansq_core::version::SANSQ_VERSION;

use crate::io::{HyperIo, Stream};
use crate::listen::error_text;
use crate::runtime::Runtime;

/// Carries out a call, with `tls` if its URL says so.
pub(crate) async fn carry_out<R: Runtime>(
    runtime: &R,
    call: &Call,
    tls: Option<ClientTls>,
) -> CallResult {
    let url = &call.url;
    if url.is_https() {
        talk(call, connect_tls(runtime, url, tls), R::sleep).await
    } else {
        talk(call, connect(runtime, url), R::sleep).await
    }
}

async fn connect<R: Runtime>(runtime: &R, url: &Url) -> io::Result<HyperIo<Stream<R::Socket>>> {
    let address = host_and_port(url.host(), url.port());
    Ok(HyperIo::new(Stream::new(runtime.connect(&address, None).await?)))
}

async fn connect_tls<R: Runtime>(
    runtime: &R,
    url: &Url,
    tls: Option<ClientTls>,
) -> io::Result<HyperIo<TlsStream<Stream<R::Socket>>>> {
    let tls = tls.ok_or(ErrorKind::Unsupported)?;
    let name = tls.server_name(url.host());
    let name = name.map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let address = host_and_port(url.host(), url.port());
    let socket = Stream::new(runtime.connect(&address, None).await?);
    let connector = TlsConnector::from(Arc::clone(tls.config()));
    Ok(HyperIo::new(connector.connect(name, socket).await?))
}

/// Carries out a call over the connection that `connect` makes, a TLS handshake included. `sleep`
/// is over after the time that it is given.
async fn talk<T, S>(
    call: &Call,
    connect: impl Future<Output = io::Result<T>>,
    sleep: impl Fn(Duration) -> S,
) -> CallResult
where
    T: Read + Write + Unpin,
    S: Future<Output = ()>,
{
    let connect = async {
        connect.await.map_err(|error| {
            let (url, text) = (&call.url, error_text(&error));
            CallFailure::Failed(format!("dial tcp {}:{}: {text}", url.host(), url.port()))
        })
    };
    let work = async {
        let io = within(connect, sleep(call.connect_timeout)).await?;
        exchange(io, call).await
    };
    within(work, sleep(call.timeout)).await
}

/// The outcome of `work`, unless `late` is over before.
async fn within<R>(
    work: impl Future<Output = Result<R, CallFailure>>,
    late: impl Future<Output = ()>,
) -> Result<R, CallFailure> {
    let late = async {
        late.await;
        Err(CallFailure::TimedOut)
    };
    future::or(work, late).await
}

/// Sends the request and reads the answer.
async fn exchange<T: Read + Write + Unpin>(io: T, call: &Call) -> CallResult {
    let mut builder = http1::Builder::new();
    builder.title_case_headers(true).max_buf_size(HEAD_LEN_MAX);
    let (mut sender, connection) = builder.handshake(io).await.map_err(failed)?;
    let request = request(call)?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let body = read_body(response.into_body(), call.answer_len_max).await?;
        Ok(CallAnswer { status, body: body.freeze() })
    };
    let drive = async {
        // Whatever ends it, the exchange sees it too, and says more.
        let _ = connection.await;
        future::pending().await
    };
    future::or(talk, drive).await
}

fn request(call: &Call) -> Result<Request<Full<bytes::Bytes>>, CallFailure> {
    let mut request = Request::builder()
        .method(if call.body.is_some() { "POST" } else { "GET" })
        .uri(call.url.target())
        .header(HOST, call.url.authority())
        .header(USER_AGENT, format!("sansq/{SANSQ_VERSION}"))
        .header(ACCEPT, call::ACCEPT)
        .header(CONNECTION, "close");
    if let Some(secret) = &call.authorization {
        request = request.header(AUTHORIZATION, format!("Bearer {}", secret.expose()));
    }
    if call.body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = call.body.clone().unwrap_or_default();
    request.body(Full::new(body)).map_err(|error| CallFailure::Failed(error.to_string()))
}

/// Reads a body of up to `limit` bytes. Memory grows with what arrives.
async fn read_body(mut body: Incoming, limit: usize) -> Result<BytesMut, CallFailure> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(failed)?.into_data() else { continue };
        if data.len() > limit - whole.len() {
            return Err(CallFailure::TooBig);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

/// hyper's error, with what is behind it.
fn failed(error: hyper::Error) -> CallFailure {
    use core::error::Error as _;
    CallFailure::Failed(match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// Bytes that an answer's head may have.
const HEAD_LEN_MAX: usize = 64 * 1024;
