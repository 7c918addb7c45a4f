//! Waiting with a limit.

use core::future::Future;
use core::time::Duration;

use smol::Timer;
use smol::future;

/// The outcome of `task`, or `None` if it takes longer than `limit`.
pub(crate) async fn timeout<T>(limit: Duration, task: impl Future<Output = T>) -> Option<T> {
    future::or(async { Some(task.await) }, async {
        Timer::after(limit).await;
        None
    })
    .await
}

/// Is over after `time`.
pub(crate) async fn sleep(time: Duration) {
    Timer::after(time).await;
}
