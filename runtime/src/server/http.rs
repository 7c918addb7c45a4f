//! HTTP listeners on hyper.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use futures_lite::io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsAcceptor;
use futures_rustls::server::TlsStream;
use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use sansq_core::log::Level;
use sansq_core::nsqd::Peer;
use sansq_core::upgrade::ServerTls;

use super::accept;
use super::turn::{Driven, Driver};
use crate::http::{BUFFER_LEN_MAX, HANDSHAKE_TIME, HEAD_TIME, Site, handle, is_plain, turn_away};
use crate::impatient::Impatient;
use crate::io::{HyperIo, Stream};
use crate::listen::error_text;
use crate::runtime::{Runtime, Task, Thread, within};
use crate::visitors::{Visit, Visitors};

/// Accepts HTTP connections. If there are too many, others go for them. With `tls` over TLS.
pub(super) async fn serve<M: Driven, T: Thread, S: Site>(
    driver: Rc<Driver<M, T>>,
    listener: T::Listener,
    visitors: Rc<Visitors>,
    site: Rc<S>,
    tls: Option<ServerTls>,
) {
    let name = if tls.is_some() { "HTTPS" } else { "HTTP" };
    let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::clone(tls.config())));
    loop {
        let (stream, peer) = accept::<T>(&listener, S::PROGRAM, name).await;
        let Ok(socket) = driver.adopt(stream) else { continue };
        let visitor = visitors.enter(S::PROGRAM, T::Runtime::sleep).await;
        let (site, acceptor) = (Rc::clone(&site), acceptor.clone());
        let guest = Guest { peer, visitors: Rc::clone(&visitors), visit: visitor.visit() };
        let task = driver.spawn(visitor.stay(async move {
            match acceptor {
                None => converse::<T, S>(Stream::new(socket), site, guest).await,
                Some(acceptor) => {
                    let shake = shake::<T>(acceptor, socket, &guest.visit);
                    match within::<T::Runtime, _>(HANDSHAKE_TIME, shake).await {
                        Some(Ok(stream)) => converse::<T, S>(stream, site, guest).await,
                        Some(Err(error)) => warn::<S>(peer, &error),
                        None => warn::<S>(peer, &ErrorKind::TimedOut.into()),
                    }
                }
            }
        }));
        task.detach();
    }
}

/// Who is connected.
struct Guest {
    peer: Peer,
    visitors: Rc<Visitors>,
    visit: Rc<Visit>,
}

/// Serves one connection to its end.
async fn converse<T: Thread, S: Site>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    site: Rc<S>,
    Guest { peer, visitors, visit }: Guest,
) {
    let io = Impatient::new(HyperIo::new(stream), Rc::clone(&visit), T::Runtime::sleep);
    let service = service_fn(|request| {
        let (site, visitors, visit) = (Rc::clone(&site), Rc::clone(&visitors), Rc::clone(&visit));
        async move { handle(&*site, peer, &visitors, &visit, request, T::Runtime::sleep).await }
    });
    // How a connection ends is its client's business: nothing of ours is lost with it.
    let _ = http1::Builder::new()
        .timer(HyperTimer(T::Runtime::sleep))
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(BUFFER_LEN_MAX)
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(io, service)
        .await;
}

/// Makes TLS of a connection. One that speaks plain HTTP is told so.
async fn shake<T: Thread>(
    acceptor: TlsAcceptor,
    socket: T::Socket,
    visit: &Rc<Visit>,
) -> io::Result<TlsStream<Stream<T::Socket>>> {
    let mut stream = Stream::new(socket);
    let plain = poll_fn(|context| {
        stream.poll_first(context).map_ok(|first| !first.is_empty() && is_plain(first))
    });
    if plain.await? {
        let io = Impatient::new(HyperIo::new(stream), Rc::clone(visit), T::Runtime::sleep);
        match turn_away(io).await? {}
    }
    acceptor.accept(stream).await
}

fn warn<S: Site>(peer: Peer, error: &io::Error) {
    let text = error_text(error);
    S::PROGRAM.log_kind(
        Level::Warn,
        Some("TLS handshakes"),
        format_args!("http: TLS handshake error from {peer}: {text}"),
    );
}

/// A runtime's time, as hyper wants it.
#[derive(Clone, Copy)]
struct HyperTimer<F>(F);

/// A wait of hyper's.
struct HyperSleep(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl<F, S> Timer for HyperTimer<F>
where
    F: Fn(Duration) -> S,
    S: Future<Output = ()> + Send + Sync + 'static,
{
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(HyperSleep(Box::pin((self.0)(time))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }
}

impl Future for HyperSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl Sleep for HyperSleep {}
