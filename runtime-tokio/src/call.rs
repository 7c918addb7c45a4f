//! HTTP requests that machines ask for.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use sansq_core::arena::CallId;
use sansq_core::http::call::{Call, CallResult, Url};
use sansq_core::nsqd::Shard;
use sansq_core::upgrade::ClientTls;
use sansq_runtime::call;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::turn::Driver;

/// Carries out one of [`Actions::calls`](sansq_core::nsqd::Actions::calls).
pub(crate) fn spawn(driver: &Rc<Driver<Shard>>, tls: Option<ClientTls>, id: CallId, call: Call) {
    let caller = Rc::clone(driver);
    driver.spawn(async move {
        let result = carry_out(&call, tls).await;
        caller.turn(|shard, now, out| shard.handle_called(id, result, now, out));
    });
}

/// Carries out a call, with `tls` if its URL says so.
pub(crate) async fn carry_out(call: &Call, tls: Option<ClientTls>) -> CallResult {
    let url = &call.url;
    if url.is_https() {
        call::carry_out(call, connect_tls(url, tls), sleep).await
    } else {
        call::carry_out(call, connect(url), sleep).await
    }
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
    let name = tls.server_name(url.host());
    let name = name.map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let socket = TcpStream::connect((url.host(), url.port())).await?;
    let connector = TlsConnector::from(Arc::clone(tls.config()));
    Ok(TokioIo::new(connector.connect(name, socket).await?))
}
