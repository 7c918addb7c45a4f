//! The limit under every interleaving: run by `.ci/run interleavings`.

use super::*;
use crate::interleavings::{explore, start};
use crate::sync::Mutex;

/// Two threads take and give back the only place: it is never two, and there again in the end.
#[test]
fn a_place_is_taken_once_and_comes_back() {
    explore(|| {
        let limit = ConnectionLimit::new(1);
        let holders = Arc::new(Mutex::new(0));
        let threads = [(), ()].map(|()| {
            let (limit, holders) = (Arc::clone(&limit), Arc::clone(&holders));
            start(async move {
                let Some(permit) = limit.take() else { return 0 };
                let hold = |more: i32| {
                    let mut holders = holders.lock().unwrap();
                    *holders += more;
                    assert!((0..=1).contains(&*holders));
                };
                hold(1);
                hold(-1);
                drop(permit);
                1
            })
        });
        let taken: i32 = threads.map(|thread| thread.join().unwrap()).iter().sum();
        assert!(taken > 0, "neither got the place that was free");
        assert!(limit.take().is_some());
    });
}
