//! HTTP listeners on hyper.

use core::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sansq_runtime::Impatient;
use sansq_runtime::http::{ANSWER_TIME, BODY_TIME, CONNECTIONS_MAX, HEAD_TIME, Site, handle};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::net;
use crate::turn::{Driven, Driver};

/// Accepts HTTP connections as long as there are not too many.
pub(crate) async fn serve<M: Driven, S: Site>(
    driver: Rc<Driver<M>>,
    listener: TcpListener,
    site: Rc<S>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (socket, remote) = net::accept(&listener, S::PROGRAM, "HTTP").await;
        let site = Rc::clone(&site);
        driver.spawn(async move {
            converse(socket, remote, site).await;
            drop(place);
        });
    }
}

/// Serves one connection to its end.
async fn converse<S: Site>(socket: TcpStream, remote: SocketAddr, site: Rc<S>) {
    let service = service_fn(|request| {
        let site = Rc::clone(&site);
        async move { handle(&*site, remote, request, sleep(BODY_TIME)).await }
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
