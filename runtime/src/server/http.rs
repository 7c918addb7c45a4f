//! HTTP listeners on hyper.

use core::cell::Cell;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io::{self, ErrorKind, IoSlice};
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
use super::connection::linger;
use super::turn::{Driven, Driver};
use crate::http::{
    ANSWER_TIME, BODY_TIME, HANDSHAKE_TIME, HEAD_TIME, PLAIN_TO_HTTPS, Site, handle, is_plain,
};
use crate::impatient::Impatient;
use crate::io::{HyperIo, Stream};
use crate::listen::error_text;
use crate::runtime::{Runtime, Socket, Task, Thread, within, writable};
use crate::signal::Signal;

/// Accepts HTTP connections as long as there are not too many; more wait in the kernel's queue. With
/// `tls` over TLS.
pub(super) async fn serve<M: Driven, T: Thread, S: Site>(
    driver: Rc<Driver<M, T>>,
    listener: T::Listener,
    places: usize,
    site: Rc<S>,
    tls: Option<ServerTls>,
) {
    let name = if tls.is_some() { "HTTPS" } else { "HTTP" };
    let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::clone(tls.config())));
    let places = Rc::new(Free { count: Cell::new(places), one: Signal::default() });
    loop {
        let place = places.take().await;
        let (stream, peer) = accept::<T>(&listener, S::PROGRAM, name).await;
        let Ok(socket) = driver.adopt(stream) else { continue };
        let (own, site, acceptor) = (Rc::clone(&driver), Rc::clone(&site), acceptor.clone());
        let task = driver.spawn(async move {
            match acceptor {
                None => converse::<T, S>(Stream::new(socket), peer, site).await,
                Some(acceptor) => {
                    let shake = shake(&own, acceptor, socket);
                    match within::<T::Runtime, _>(HANDSHAKE_TIME, shake).await {
                        Some(Ok(stream)) => converse::<T, S>(stream, peer, site).await,
                        Some(Err(error)) => warn::<S>(peer, &error),
                        None => warn::<S>(peer, &ErrorKind::TimedOut.into()),
                    }
                }
            }
            drop(place);
        });
        task.detach();
    }
}

/// The places that are free.
struct Free {
    count: Cell<usize>,
    one: Signal,
}

/// A place, which is free again when this is dropped.
struct Place(Rc<Free>);

impl Free {
    async fn take(self: &Rc<Self>) -> Place {
        while self.count.get() == 0 {
            self.one.wait().await;
        }
        self.count.set(self.count.get() - 1);
        Place(Rc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() + 1);
        self.0.one.ring();
    }
}

/// Serves one connection to its end.
async fn converse<T: Thread, S: Site>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    site: Rc<S>,
) {
    let service = service_fn(|request| {
        let site = Rc::clone(&site);
        async move { handle(&*site, peer, request, T::Runtime::sleep(BODY_TIME)).await }
    });
    let io = Impatient::new(HyperIo::new(stream), || T::Runtime::sleep(ANSWER_TIME));
    // How a connection ends is its client's business: nothing of ours is lost with it.
    let _ = http1::Builder::new()
        .timer(HyperTimer(T::Runtime::sleep))
        .header_read_timeout(HEAD_TIME)
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(io, service)
        .await;
}

/// Makes TLS of a connection. One that speaks plain HTTP is told so.
async fn shake<M: Driven, T: Thread>(
    driver: &Rc<Driver<M, T>>,
    acceptor: TlsAcceptor,
    socket: T::Socket,
) -> io::Result<TlsStream<Stream<T::Socket>>> {
    let mut stream = Stream::new(socket);
    let plain = poll_fn(|context| {
        stream.poll_first(context).map_ok(|first| !first.is_empty() && is_plain(first))
    });
    if plain.await? {
        let socket = stream.into_socket();
        writable(&socket).await?;
        socket.try_write(&[IoSlice::new(PLAIN_TO_HTTPS)])?;
        linger(driver, &socket).await;
        return Err(io::Error::other("client sent an HTTP request to an HTTPS server"));
    }
    acceptor.accept(stream).await
}

fn warn<S: Site>(peer: Peer, error: &io::Error) {
    let text = error_text(error);
    S::PROGRAM.log(Level::Warn, format_args!("http: TLS handshake error from {peer}: {text}"));
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
