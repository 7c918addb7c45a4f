//! HTTP requests that a shard asks for.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use sansq_core::arena::CallId;
use sansq_core::http::call::{Call, Url};
use sansq_core::nsqd::Shard;
use sansq_core::upgrade::ClientTls;
use sansq_runtime::{call, tls};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::turn::Driver;

/// Carries out one of [`Actions::calls`](sansq_core::nsqd::Actions::calls).
pub(crate) fn carry_out(
    driver: &Rc<Driver<Shard>>,
    tls: Option<ClientTls>,
    id: CallId,
    call: Call,
) {
    let caller = Rc::clone(driver);
    driver.spawn(async move {
        let url = &call.url;
        let result = if url.is_https() {
            call::carry_out(&call, connect_tls(url, tls), sleep).await
        } else {
            call::carry_out(&call, connect(url), sleep).await
        };
        caller.turn(|shard, now, out| shard.handle_called(id, result, now, out));
    });
}

async fn connect(url: &Url) -> io::Result<TokioIo<TcpStream>> {
    let socket = TcpStream::connect((url.host(), url.port())).await?;
    Ok(TokioIo::new(socket))
}

async fn connect_tls(
    url: &Url,
    tls: Option<ClientTls>,
) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let tls = tls.ok_or(ErrorKind::Unsupported)?;
    let name = tls::server_name(url.host())?;
    let socket = TcpStream::connect((url.host(), url.port())).await?;
    let connector = TlsConnector::from(Arc::clone(tls.config()));
    Ok(TokioIo::new(connector.connect(name, socket).await?))
}
