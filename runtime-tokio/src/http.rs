//! HTTP listeners on hyper.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sansq_core::log::Level;
use sansq_core::nsqd::Peer;
use sansq_core::upgrade::ServerTls;
use sansq_runtime::Impatient;
use sansq_runtime::http::{
    ANSWER_TIME, BODY_TIME, HANDSHAKE_TIME, HEAD_TIME, PLAIN_TO_HTTPS, Site, handle, is_plain,
};
use sansq_runtime::listen::error_text;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::net::{Listener, Socket};
use crate::turn::{Driven, Driver};

/// Accepts HTTP connections as long as there are not too many; more wait in the kernel's queue. With
/// `tls` over TLS.
pub(crate) async fn serve<M: Driven, S: Site>(
    driver: Rc<Driver<M>>,
    listener: Listener,
    places: usize,
    site: Rc<S>,
    tls: Option<ServerTls>,
) {
    let name = if tls.is_some() { "HTTPS" } else { "HTTP" };
    let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::clone(tls.config())));
    let places = Arc::new(Semaphore::new(places));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (socket, peer) = listener.accept(S::PROGRAM, name).await;
        let (site, acceptor) = (Rc::clone(&site), acceptor.clone());
        driver.spawn(async move {
            match (socket, acceptor) {
                (Socket::Tcp(socket), None) => converse(socket, peer, site).await,
                (Socket::Tcp(socket), Some(acceptor)) => {
                    match timeout(HANDSHAKE_TIME, shake(acceptor, socket)).await {
                        Ok(Ok(socket)) => converse(socket, peer, site).await,
                        Ok(Err(error)) => warn::<S>(peer, &error),
                        Err(_) => warn::<S>(peer, &ErrorKind::TimedOut.into()),
                    }
                }
                #[cfg(unix)]
                (Socket::Unix(socket), None) => converse(socket, peer, site).await,
                // TLS is spoken on ports only.
                #[cfg(unix)]
                (Socket::Unix(_), Some(_)) => {}
            }
            drop(place);
        });
    }
}

/// Serves one connection to its end.
async fn converse<S: Site>(socket: impl AsyncRead + AsyncWrite + Unpin, peer: Peer, site: Rc<S>) {
    let service = service_fn(|request| {
        let site = Rc::clone(&site);
        async move { handle(&*site, peer, request, sleep(BODY_TIME)).await }
    });
    let io = Impatient::new(TokioIo::new(socket), || sleep(ANSWER_TIME));
    // How a connection ends is its client's business: nothing of ours is lost with it.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(io, service)
        .await;
}

/// Makes TLS of a connection. One that speaks plain HTTP is told so.
async fn shake(acceptor: TlsAcceptor, mut socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0; 3];
    let len = socket.peek(&mut first).await?;
    if len > 0 && is_plain(&first[..len]) {
        // What was sent is taken first: the answer would not survive a reset.
        let _ = socket.read(&mut [0; 4096]).await?;
        socket.write_all(PLAIN_TO_HTTPS).await?;
        socket.shutdown().await?;
        return Err(io::Error::other("client sent an HTTP request to an HTTPS server"));
    }
    acceptor.accept(socket).await
}

fn warn<S: Site>(peer: Peer, error: &io::Error) {
    let text = error_text(error);
    S::PROGRAM.log(Level::Warn, format_args!("http: TLS handshake error from {peer}: {text}"));
}
