//! HTTP requests that a shard asks for.

use std::io;
use std::rc::Rc;

use hyper_util::rt::TokioIo;
use sansq_core::arena::CallId;
use sansq_core::http::call::{Call, Url};
use sansq_core::nsqd::Shard;
use sansq_runtime::call;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::turn::Driver;

/// Carries out one of [`Actions::calls`](sansq_core::nsqd::Actions::calls).
pub(crate) fn carry_out(driver: &Rc<Driver<Shard>>, id: CallId, call: Call) {
    let caller = Rc::clone(driver);
    driver.spawn(async move {
        let result = call::carry_out(&call, connect(&call.url), sleep).await;
        caller.turn(|shard, now, out| shard.handle_called(id, result, now, out));
    });
}

async fn connect(url: &Url) -> io::Result<TokioIo<TcpStream>> {
    let socket = TcpStream::connect((url.host(), url.port())).await?;
    Ok(TokioIo::new(socket))
}
