//! HTTP listeners on hyper.

use std::rc::Rc;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sansq_core::nsqd::Peer;
use sansq_runtime::Impatient;
use sansq_runtime::http::{ANSWER_TIME, BODY_TIME, HEAD_TIME, Site, handle};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::net::{Listener, Socket};
use crate::turn::{Driven, Driver};

/// Accepts HTTP connections as long as there are not too many; more wait in the kernel's queue.
pub(crate) async fn serve<M: Driven, S: Site>(
    driver: Rc<Driver<M>>,
    listener: Listener,
    places: usize,
    site: Rc<S>,
) {
    let places = Arc::new(Semaphore::new(places));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (socket, peer) = listener.accept(S::PROGRAM, "HTTP").await;
        let site = Rc::clone(&site);
        driver.spawn(async move {
            match socket {
                Socket::Tcp(socket) => converse(socket, peer, site).await,
                #[cfg(unix)]
                Socket::Unix(socket) => converse(socket, peer, site).await,
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
