//! Lines on their way to whoever takes the log, who may be slow or asleep.

use core::mem;
use core::time::Duration;
use std::io::{ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use sansq_runtime::UNWRITTEN;

/// A queue with a thread that empties it. Putting a line in never waits for the sink.
///
/// At [`LEN_MAX`] bytes lines are lost, and counted. Cloning gives another handle to the same
/// queue.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something came.
    came: Condvar,
    /// Everything has gone.
    gone: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    is_writing: bool,
    /// Lines that did not fit, since the thread last looked.
    lost: u64,
    /// When the lines that say what is missing are to be asked for.
    due: Option<Instant>,
}

impl Queue {
    /// Starts the thread, which writes to `sink`. `other` makes the lines that say what is missing:
    /// how many were lost, and whatever it knows itself; it is asked when lines were lost and the
    /// sink takes some again, and some time after a [`nudge`](Self::nudge). Lines that the sink
    /// refuses are lost; its errors are said to nobody.
    pub(super) fn start(
        mut sink: impl Write + Send + 'static,
        mut other: impl FnMut(u64) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let queue = Self(Arc::default());
        let shared = Arc::clone(&queue.0);
        let work = move || {
            let mut spare = Vec::new();
            // Lines that were lost, and nobody could be told.
            let mut unsaid = 0;
            loop {
                let (lost, is_due) = shared.take(&mut spare);
                let refused = write(&mut sink, &spare);
                unsaid += lost + refused;
                if is_due || (unsaid > 0 && refused == 0) {
                    let refused = write(&mut sink, &other(unsaid));
                    unsaid = if refused == 0 { 0 } else { unsaid + refused };
                }
                spare.clear();
                spare.shrink_to(SPARE_LEN_MAX);
            }
        };
        // A server that can't have this thread can't have its others either, and says so without
        // the log.
        let _ = thread::Builder::new().name("log".into()).spawn(work);
        queue
    }

    /// Puts whole lines in. Those that are `urgent` have room that others have not.
    pub(super) fn put(&self, lines: &[u8], urgent: bool) {
        let mut waiting = self.0.lock();
        let max = if urgent { LEN_MAX } else { LEN_MAX - URGENT_LEN };
        if waiting.lines.len() + lines.len() > max {
            waiting.lost += lose(lines);
        } else {
            waiting.lines.extend_from_slice(lines);
        }
        drop(waiting);
        self.0.came.notify_one();
    }

    /// Has the lines that say what is missing asked for after `time`, unless they are due already.
    pub(super) fn nudge(&self, time: Duration) {
        self.0.lock().due.get_or_insert_with(|| Instant::now() + time);
        self.0.came.notify_one();
    }

    /// Waits until everything is written, but no longer than `time`.
    pub(super) fn flush(&self, time: Duration) {
        let is_busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        let waiting = self.0.lock();
        let _ = self.0.gone.wait_timeout_while(waiting, time, is_busy);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to write and swaps it with `spare`, which is empty. Also returns how
    /// many lines were lost, and whether the other lines are due.
    fn take(&self, spare: &mut Vec<u8>) -> (u64, bool) {
        let mut waiting = self.lock();
        waiting.is_writing = false;
        if waiting.lines.is_empty() {
            self.gone.notify_all();
        }
        let is_due = loop {
            let now = Instant::now();
            let is_due = waiting.due.is_some_and(|due| due <= now);
            if is_due || waiting.lost > 0 || !waiting.lines.is_empty() {
                break is_due;
            }
            let time = waiting.due.map_or(IDLE_TIME, |due| due - now);
            let waited = self.came.wait_timeout(waiting, time);
            // Nothing panics while it holds the lock but an allocation that fails.
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        if is_due {
            waiting.due = None;
        }
        waiting.is_writing = true;
        mem::swap(&mut waiting.lines, spare);
        (mem::take(&mut waiting.lost), is_due)
    }
}

/// Writes `lines`, and returns how many of them the sink did not take. A log that can't be written
/// must not end the broker.
fn write(sink: &mut impl Write, mut lines: &[u8]) -> u64 {
    while !lines.is_empty() {
        match sink.write(lines) {
            Ok(0) => break,
            Ok(count) => lines = lines.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    lose(lines)
}

/// Counts `lines` as lost, and returns their number.
fn lose(lines: &[u8]) -> u64 {
    let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
    UNWRITTEN.note_lost(count);
    count
}

/// Bytes of lines that may wait: some 40,000 lines, so that a start with as many topics, or a
/// reader that is busy for a moment, loses none.
const LEN_MAX: usize = 4 * 1024 * 1024;

/// The part of it that is for lines of ERROR and above.
const URGENT_LEN: usize = 64 * 1024;

/// What the thread keeps of a buffer when it is written.
const SPARE_LEN_MAX: usize = 64 * 1024;

/// How long the thread sleeps when nothing is due; it is woken by what comes.
const IDLE_TIME: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A sink that says what it is to write, and waits until it is told to.
    struct Slow {
        starts: Sender<Vec<u8>>,
        go: Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.starts.send(bytes.to_vec());
            let _ = self.go.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Queue, Receiver<Vec<u8>>, Sender<()>) {
        let (starts, started) = channel();
        let (tell, go) = channel();
        let queue = Queue::start(Slow { starts, go }, |lost| format!("{lost} lost\n").into());
        (queue, started, tell)
    }

    #[test]
    fn what_does_not_fit_is_lost_and_that_is_said() {
        let (queue, started, go) = slow();
        queue.put(b"first\n", false);
        assert_eq!(started.recv().unwrap(), b"first\n");
        // Nobody takes it now, and nobody waits for that.
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let fitting = (LEN_MAX - URGENT_LEN) / line.len();
        for _ in 0..fitting + 5 {
            queue.put(&line, false);
        }
        queue.put(b"urgent\n", true);
        queue.put(&line.repeat(2), false);
        go.send(()).unwrap();
        let all = started.recv().unwrap();
        assert_eq!(all.len(), fitting * line.len() + 7);
        assert!(all.ends_with(b"\nurgent\n"));
        go.send(()).unwrap();
        assert_eq!(started.recv().unwrap(), b"7 lost\n");
        // There is room again.
        queue.put(b"last\n", false);
        go.send(()).unwrap();
        assert_eq!(started.recv().unwrap(), b"last\n");
    }

    /// A sink that says what it is to write, and does with it what is next in its script; then it
    /// takes everything.
    struct Scripted {
        starts: Sender<Vec<u8>>,
        script: std::vec::IntoIter<Result<usize, ErrorKind>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.starts.send(bytes.to_vec());
            self.script.next().unwrap_or(Ok(bytes.len())).map_err(Into::into)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_the_sink_refuses_is_lost_and_that_is_said_when_it_takes_some_again() {
        let lines = b"a line\n".repeat(1001);
        // One line and a half, a moment's trouble, and the disk is full.
        let script = vec![Ok(10), Err(ErrorKind::Interrupted), Err(ErrorKind::StorageFull), Ok(0)];
        let (starts, started) = channel();
        let sink = Scripted { starts, script: script.into_iter() };
        let queue = Queue::start(sink, |lost| format!("{lost} lost\n").into());
        let before = UNWRITTEN.counts().0;
        queue.put(&lines, false);
        assert_eq!(started.recv().unwrap(), lines);
        assert_eq!(started.recv().unwrap(), &lines[10..]);
        assert_eq!(started.recv().unwrap(), &lines[10..]);
        queue.put(b"refused\n", false);
        assert_eq!(started.recv().unwrap(), b"refused\n");
        queue.put(b"taken\n", false);
        assert_eq!(started.recv().unwrap(), b"taken\n");
        assert_eq!(started.recv().unwrap(), b"1001 lost\n");
        // Other tests lose a few at the same time, and no thousand.
        let lost = UNWRITTEN.counts().0 - before;
        assert!((1001..2000).contains(&lost), "{lost}");
        // It is said once.
        queue.put(b"last\n", false);
        assert_eq!(started.recv().unwrap(), b"last\n");
        queue.flush(Duration::from_secs(60));
        started.try_recv().unwrap_err();
    }

    #[test]
    fn a_flush_waits_for_the_sink_and_not_for_ever() {
        let (queue, started, go) = slow();
        queue.put(b"first\n", false);
        started.recv().unwrap();
        queue.flush(Duration::from_millis(1));
        go.send(()).unwrap();
        queue.flush(Duration::from_secs(60));
        assert!(!queue.0.lock().is_writing);
    }

    #[test]
    fn what_is_missing_is_said_after_a_nudge() {
        let (queue, _started, _go) = slow();
        queue.nudge(Duration::from_secs(3600));
        // The first of the two counts.
        queue.nudge(Duration::ZERO);
        assert!(queue.0.lock().due.is_some_and(|due| due > Instant::now()));

        let (queue, started, _go) = slow();
        queue.nudge(Duration::from_millis(1));
        assert_eq!(started.recv().unwrap(), b"0 lost\n");
    }
}
