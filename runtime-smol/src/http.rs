//! HTTP listeners on hyper.

use core::net::SocketAddr;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;

use futures_rustls::TlsAcceptor;
use futures_rustls::server::TlsStream;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use sansq_core::log::Level;
use sansq_core::upgrade::ServerTls;
use sansq_runtime::Impatient;
use sansq_runtime::http::{
    ANSWER_TIME, BODY_TIME, CONNECTIONS_MAX, HANDSHAKE_TIME, HEAD_TIME, PLAIN_TO_HTTPS, Site,
    handle, is_plain,
};
use sansq_runtime::listen::error_text;
use smol::Async;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::lock::Semaphore;
use smol_hyper::rt::{FuturesIo, SmolTimer};

use crate::net;
use crate::time::{sleep, timeout};
use crate::turn::{Driven, Driver};

/// Accepts HTTP connections as long as there are not too many; with `tls` over TLS.
pub(crate) async fn serve<M: Driven, S: Site>(
    driver: Rc<Driver<M>>,
    listener: Async<TcpListener>,
    site: Rc<S>,
    tls: Option<ServerTls>,
) {
    let name = if tls.is_some() { "HTTPS" } else { "HTTP" };
    let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::clone(tls.config())));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.acquire_arc().await;
        let (socket, remote) = net::accept(&listener, S::PROGRAM, name).await;
        let (site, acceptor) = (Rc::clone(&site), acceptor.clone());
        let task = driver.spawn(async move {
            match acceptor {
                None => converse(FuturesIo::new(socket), remote, site).await,
                Some(acceptor) => match timeout(HANDSHAKE_TIME, shake(acceptor, socket)).await {
                    Some(Ok(socket)) => converse(FuturesIo::new(socket), remote, site).await,
                    Some(Err(error)) => warn::<S>(remote, &error),
                    None => warn::<S>(remote, &ErrorKind::TimedOut.into()),
                },
            }
            drop(place);
        });
        task.detach();
    }
}

/// Serves one connection to its end.
async fn converse<T, S>(io: T, remote: SocketAddr, site: Rc<S>)
where
    T: Read + Write + Unpin,
    S: Site,
{
    let service = service_fn(|request| {
        let site = Rc::clone(&site);
        async move { handle(&*site, remote, request, sleep(BODY_TIME)).await }
    });
    let io = Impatient::new(io, || sleep(ANSWER_TIME));
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
    mut socket: Async<TcpStream>,
) -> io::Result<TlsStream<Async<TcpStream>>> {
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

fn warn<S: Site>(remote: SocketAddr, error: &io::Error) {
    let text = error_text(error);
    S::PROGRAM.log(Level::Warn, format_args!("http: TLS handshake error from {remote}: {text}"));
}
