//! HTTP listeners on hyper.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;

use futures_rustls::TlsAcceptor;
use futures_rustls::server::TlsStream;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use sansq_core::log::Level;
use sansq_core::nsqd::Peer;
use sansq_core::upgrade::ServerTls;
use sansq_runtime::Impatient;
use sansq_runtime::http::{
    ANSWER_TIME, BODY_TIME, HANDSHAKE_TIME, HEAD_TIME, PLAIN_TO_HTTPS, Site, handle, is_plain,
};
use sansq_runtime::listen::error_text;
use sansq_runtime::socket::{ListenSocket, Stream};
use smol::Async;
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use smol::lock::Semaphore;
use smol_hyper::rt::{FuturesIo, SmolTimer};

use crate::net;
use crate::time::{sleep, timeout};
use crate::turn::{Driven, Driver};

/// Accepts HTTP connections as long as there are not too many; more wait in the kernel's queue. With
/// `tls` over TLS.
pub(crate) async fn serve<M: Driven, S: Site>(
    driver: Rc<Driver<M>>,
    listener: Async<ListenSocket>,
    places: usize,
    site: Rc<S>,
    tls: Option<ServerTls>,
) {
    let name = if tls.is_some() { "HTTPS" } else { "HTTP" };
    let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::clone(tls.config())));
    let places = Arc::new(Semaphore::new(places));
    loop {
        let place = places.acquire_arc().await;
        let (stream, peer) = net::accept(&listener, S::PROGRAM, name).await;
        let (own, site, acceptor) = (Rc::clone(&driver), Rc::clone(&site), acceptor.clone());
        let task = driver.spawn(async move {
            // A socket that the reactor does not take is closed.
            match (stream, acceptor) {
                (stream, None) => {
                    if let Ok(socket) = own.socket(stream) {
                        converse(socket, peer, site).await;
                    }
                }
                (Stream::Tcp(socket), Some(acceptor)) => {
                    match timeout(HANDSHAKE_TIME, shake(acceptor, socket)).await {
                        Some(Ok(socket)) => converse(socket, peer, site).await,
                        Some(Err(error)) => warn::<S>(peer, &error),
                        None => warn::<S>(peer, &ErrorKind::TimedOut.into()),
                    }
                }
                // TLS is spoken on ports only.
                #[cfg(unix)]
                (Stream::Unix(_), Some(_)) => {}
            }
            drop(place);
        });
        task.detach();
    }
}

/// Serves one connection to its end.
async fn converse<S: Site>(socket: impl AsyncRead + AsyncWrite + Unpin, peer: Peer, site: Rc<S>) {
    let service = service_fn(|request| {
        let site = Rc::clone(&site);
        async move { handle(&*site, peer, request, sleep(BODY_TIME)).await }
    });
    let io = Impatient::new(FuturesIo::new(socket), || sleep(ANSWER_TIME));
    // How a connection ends is its client's business: nothing of ours is lost with it.
    let _ = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(HEAD_TIME)
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(io, service)
        .await;
}

/// Makes TLS of a connection. One that speaks plain HTTP is told so.
async fn shake(
    acceptor: TlsAcceptor,
    socket: TcpStream,
) -> io::Result<TlsStream<Async<TcpStream>>> {
    let mut socket = Async::new(socket)?;
    let mut first = [0; 3];
    let len = socket.peek(&mut first).await?;
    if len > 0 && is_plain(&first[..len]) {
        // What was sent is taken first: the answer would not survive a reset.
        let _ = socket.read(&mut [0; 4096]).await?;
        socket.write_all(PLAIN_TO_HTTPS).await?;
        socket.close().await?;
        return Err(io::Error::other("client sent an HTTP request to an HTTPS server"));
    }
    acceptor.accept(socket).await
}

fn warn<S: Site>(peer: Peer, error: &io::Error) {
    let text = error_text(error);
    S::PROGRAM.log(Level::Warn, format_args!("http: TLS handshake error from {peer}: {text}"));
}
