//! HTTP requests that a shard asks for.

use std::io;
use std::net::TcpStream;
use std::rc::Rc;

use sansq_core::arena::CallId;
use sansq_core::http::call::{Call, Url};
use sansq_core::nsqd::Shard;
use sansq_runtime::call;
use smol::Async;
use smol_hyper::rt::FuturesIo;

use crate::net;
use crate::time::sleep;
use crate::turn::Driver;

/// Carries out one of [`Actions::calls`](sansq_core::nsqd::Actions::calls).
pub(crate) fn carry_out(driver: &Rc<Driver<Shard>>, id: CallId, call: Call) {
    let caller = Rc::clone(driver);
    let task = driver.spawn(async move {
        let result = call::carry_out(&call, connect(&call.url), sleep).await;
        caller.turn(|shard, now, out| shard.handle_called(id, result, now, out));
    });
    task.detach();
}

async fn connect(url: &Url) -> io::Result<FuturesIo<Async<TcpStream>>> {
    net::connect((url.host(), url.port())).await.map(FuturesIo::new)
}
