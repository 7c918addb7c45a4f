//! HTTP listeners on hyper.

use std::rc::Rc;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use sansq_core::nsqd::Peer;
use sansq_runtime::Impatient;
use sansq_runtime::http::{ANSWER_TIME, BODY_TIME, HEAD_TIME, Site, handle};
use sansq_runtime::socket::{ListenSocket, Stream};
use smol::Async;
use smol::io::{AsyncRead, AsyncWrite};
use smol::lock::Semaphore;
use smol_hyper::rt::{FuturesIo, SmolTimer};

use crate::net;
use crate::time::sleep;
use crate::turn::{Driven, Driver};

/// Accepts HTTP connections as long as there are not too many; more wait in the kernel's queue.
pub(crate) async fn serve<M: Driven, S: Site>(
    driver: Rc<Driver<M>>,
    listener: Async<ListenSocket>,
    places: usize,
    site: Rc<S>,
) {
    let places = Arc::new(Semaphore::new(places));
    loop {
        let place = places.acquire_arc().await;
        let (stream, peer) = net::accept(&listener, S::PROGRAM, "HTTP").await;
        let site = Rc::clone(&site);
        let task = driver.spawn(async move {
            // A socket that the reactor does not take is closed.
            match stream {
                Stream::Tcp(socket) => {
                    if let Ok(socket) = Async::new(socket) {
                        converse(socket, peer, site).await;
                    }
                }
                #[cfg(unix)]
                Stream::Unix(socket) => {
                    if let Ok(socket) = Async::new(socket) {
                        converse(socket, peer, site).await;
                    }
                }
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
