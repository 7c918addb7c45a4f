use std::collections::BTreeMap;
use std::sync::Mutex;

use sansq_runtime::BATCH;
use tracing::Dispatch;
use tracing::dispatcher::with_default;

use super::*;

/// A sink that keeps what it is given.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log that is not the process's.
struct Log {
    kept: Kept,
    queue: Queue,
    dispatch: Dispatch,
}

impl Log {
    fn new(logs: &Logs) -> Self {
        let kept = Kept::default();
        let queue = logs.queue(kept.clone());
        Self { kept, dispatch: Dispatch::new(logs.subscriber(queue.clone())), queue }
    }

    /// The lines that `work` logs, without their ends.
    fn lines(&self, work: impl FnOnce()) -> Vec<String> {
        with_default(&self.dispatch, work);
        self.queue.flush(Duration::from_secs(60));
        let text = String::from_utf8(core::mem::take(&mut *self.kept.0.lock().unwrap())).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        text.lines().map(Into::into).collect()
    }
}

fn everything(name: &'static str) {
    for level in LEVELS {
        log(name, level, format_args!("at {level}"));
    }
}

#[test]
fn objects_have_all_fields() {
    let logs = Logs::new(LogFormat::Json, [(NSQD, "[nsqd] ", Level::Warn)]);
    let lines = Log::new(&logs).lines(|| {
        tracing::info!(target: "nsqd", "too quiet");
        tracing::error!(target: "nsqd", fatal = true, port = 4150, "no {}", "port");
    });
    assert_eq!(lines.len(), 1);
    let mut object: BTreeMap<String, String> = serde_json::from_str(&lines[0]).unwrap();
    assert!(object.remove("time").is_some());
    let object: Vec<_> = object.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        object,
        [("level", "FATAL"), ("message", "no port"), ("port", "4150"), ("program", "nsqd")]
    );
}

#[test]
fn levels_per_program_change_while_running() {
    let logs =
        Logs::new(LogFormat::Text, [(NSQD, "d:", Level::Warn), (NSQLOOKUPD, "l:", Level::Fatal)]);
    let log = Log::new(&logs);
    let words = |name| -> Vec<String> {
        let lines = log.lines(|| everything(name));
        lines.iter().map(|l| format!("{}{}", &l[..2], l.split(' ').next_back().unwrap())).collect()
    };
    assert_eq!(words(NSQD), ["d:WARNING", "d:ERROR", "d:FATAL"]);
    assert_eq!(words(NSQLOOKUPD), ["l:FATAL"]);

    logs.set_level(NSQD, Level::Debug);
    logs.set_level(NSQLOOKUPD, Level::Error);
    assert_eq!(words(NSQD).len(), 5);
    assert_eq!(words(NSQLOOKUPD), ["l:ERROR", "l:FATAL"]);

    let elsewhere = log.lines(|| tracing::error!(target: "elsewhere", "nobody asked"));
    assert_eq!(elsewhere, Vec::<String>::new());
    assert_eq!((logs.level(NSQD), logs.level("x")), (Some(Level::Debug), None));
}

#[test]
fn lines_of_a_kind_are_limited_and_summed_up() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let mut logs = Logs::new(format, [(NSQD, "", Level::Info)]);
        // Until then no time goes by, and nothing is added to what may be written.
        Arc::get_mut(&mut logs.0).unwrap().start += Duration::from_secs(3600);
        // The thread of this one has other settings, and so nothing to sum up.
        let other = Logs::new(format, [(NSQD, "", Level::Info)]);
        let kept = Kept::default();
        let queue = other.queue(kept.clone());
        let log = Log { kept, dispatch: Dispatch::new(logs.subscriber(queue.clone())), queue };
        let lines = |count: usize, kind| {
            log.lines(|| {
                (0..count).for_each(|n| tracing::warn!(target: "nsqd", kind, "line {n}"));
            })
        };
        assert_eq!(lines(3_000, None::<&str>).len(), 3_000);
        let written = lines(3_000, Some("bad things"));
        assert_eq!(written.len(), 1_000);
        assert!(!written[0].contains("bad things"), "{}", written[0]);
        let sum = logs.missing(7);
        let text = "bad things: … and 2000 more such lines";
        assert!(sum.contains(text) && sum.contains("7 lines dropped: "), "{sum}");
        assert_eq!((sum.lines().count(), logs.missing(0).as_str()), (2, ""));
    }
}

#[test]
fn a_fatal_line_is_written_where_errors_are_not() {
    let logs = Logs::new(LogFormat::Text, [(NSQD, "", Level::Fatal)]);
    let lines = Log::new(&logs).lines(|| {
        tracing::error!(target: "nsqd", kind = "error", "an error");
        tracing::error!(target: "nsqd", fatal = false, "an error");
        tracing::error!(target: "nsqd", fatal = true, "the end");
    });
    assert_eq!(lines.len(), 1);
    assert!(lines[0].ends_with(" FATAL: the end"), "{}", lines[0]);
}

#[test]
fn long_lines_are_cut() {
    let logs = Logs::new(LogFormat::Text, [(NSQD, "", Level::Info)]);
    let lines = Log::new(&logs).lines(|| {
        tracing::warn!(target: "nsqd", kind = "long", "{}{}", "ä".repeat(1_000), "x");
        tracing::warn!(target: "nsqd", "{}", "x".repeat(20_000));
    });
    let peers = format!(" WARNING: {}… (465 bytes more)", "ä".repeat(768));
    assert!(lines[0].ends_with(&peers), "{}", lines[0]);
    let own = format!("x… ({} bytes more)", 20_000 - 16 * 1024);
    assert!(lines[1].ends_with(&own), "{}", lines[1]);
}

/// Lines of a batch are together, also if another thread logs at the same time.
#[test]
fn a_batch_is_written_at_its_end() {
    let logs = Logs::new(LogFormat::Text, [(NSQD, "", Level::Info)]);
    let log_of_batch = Log::new(&logs);
    let lines = log_of_batch.lines(|| {
        let batch = tracing::info_span!(target: "nsqd", BATCH).entered();
        everything(NSQD);
        log_of_batch.queue.put(b"from elsewhere\n", false);
        everything(NSQD);
        drop(batch);
        log(NSQD, Level::Info, "behind");
    });
    assert_eq!(lines.len(), 1 + 4 + 4 + 1);
    assert_eq!(lines[0], "from elsewhere");
    assert!(lines[9].ends_with(" INFO: behind"), "{}", lines[9]);
}

/// A sink whose other end is gone.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn a_closed_sink_is_no_reason_to_panic() {
    let logs = Logs::new(LogFormat::Text, [(NSQD, "", Level::Debug)]);
    let queue = logs.queue(Closed);
    with_default(&Dispatch::new(logs.subscriber(queue.clone())), || everything(NSQD));
    queue.flush(Duration::from_secs(60));
}
