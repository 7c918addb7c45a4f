//! How the tests of interleavings explore, for those that lie beside the code.

use core::future::Future;

use loom::model::Builder;
use loom::thread::JoinHandle;

/// Runs `test` once for each order in which its threads may meet, as long as no more than
/// [`PREEMPTIONS_MAX`] of them are interrupted where they need not wait. A test in which all
/// threads wait fails as a deadlock, which is what becomes of a wake-up that is lost.
pub(crate) fn explore(test: impl Fn() + Send + Sync + 'static) {
    explore_to(PREEMPTIONS_MAX, test);
}

/// [`explore`] with another number.
pub(crate) fn explore_to(preemptions_max: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions_max);
    builder.check(test);
}

/// A thread with one task.
pub(crate) fn start<T: 'static>(task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    loom::thread::spawn(|| loom::future::block_on(task))
}

/// Most mistakes in such code need one or two. `LOOM_MAX_PREEMPTIONS` sets another number.
const PREEMPTIONS_MAX: usize = 3;
