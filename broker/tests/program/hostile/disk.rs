//! Disks that are full, too small, not writable, and more of them than files may be open.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{publish, work_goes_on};
use crate::process::sansq_within;
use crate::server::{PATIENCE, RUNTIMES, Server, frame, until};

/// A file system of its own, as small as it is told. Mounting takes root: elsewhere the disk is
/// what core/tests/disk_queue/full.rs and core/tests/storage/full.rs have in memory.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { folder });
        }
        println!("no file system of its own could be mounted");
        None
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn free(&self) -> u64 {
        let about = rustix::fs::statvfs(self.path()).unwrap();
        about.f_bfree * about.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Publishes bodies of ten thousand bytes until one is refused: how many were accepted, and why no
/// more.
fn fill(nsqd: &Server, topic: &str) -> (u32, String) {
    for n in 0.. {
        let answer = try_publish(nsqd, topic, n);
        if answer != "OK" {
            return (n, answer);
        }
    }
    unreachable!()
}

fn try_publish(nsqd: &Server, topic: &str, n: u32) -> String {
    let mut socket = nsqd.client();
    let mut body = vec![b'x'; 10_000];
    body[..4].copy_from_slice(&n.to_be_bytes());
    let mut command = format!("PUB {topic}\n").into_bytes();
    command.extend_from_slice(&(body.len() as u32).to_be_bytes());
    command.extend_from_slice(&body);
    socket.write_all(&command).unwrap();
    String::from_utf8(frame(&mut socket).1).unwrap()
}

fn subscribe(nsqd: &Server, topic: &str, channel: &str, ready: u32) -> TcpStream {
    let mut consumer = nsqd.client();
    consumer.write_all(format!("SUB {topic} {channel}\n").as_bytes()).unwrap();
    assert_eq!(frame(&mut consumer), (0, b"OK".to_vec()));
    consumer.write_all(format!("RDY {ready}\n").as_bytes()).unwrap();
    consumer
}

/// The next message: its number, and its id.
fn take(consumer: &mut TcpStream) -> (u32, Vec<u8>) {
    loop {
        let (kind, payload) = frame(consumer);
        if kind == 2 {
            let number = payload[26..].first_chunk().unwrap();
            return (u32::from_be_bytes(*number), payload[10..26].to_vec());
        }
        consumer.write_all(b"NOP\n").unwrap();
    }
}

fn finish(consumer: &mut TcpStream, id: &[u8]) {
    consumer.write_all(&[b"FIN ", id, b"\n"].concat()).unwrap();
}

/// Takes and finishes so many, which are these.
fn consume(nsqd: &Server, topic: &str, channel: &str, numbers: core::ops::Range<u32>) {
    let mut consumer = subscribe(nsqd, topic, channel, 10);
    for expected in numbers {
        let (number, id) = take(&mut consumer);
        assert_eq!(number, expected);
        finish(&mut consumer, &id);
    }
    consumer.write_all(b"CLS\n").unwrap();
    while frame(&mut consumer).1 != b"CLOSE_WAIT" {}
}

fn is_well(nsqd: &Server) -> bool {
    nsqd.ask("GET /ping", b"").starts_with("HTTP/1.1 200 ")
}

fn depth(nsqd: &Server, topic: &str, channel: &str) -> u64 {
    let stats = nsqd.ask(&format!("GET /stats?format=json&topic={topic}&channel={channel}"), b"");
    let (_, channels) = stats.split_once("\"channels\":[{").unwrap();
    let (_, depth) = channels.split_once("\"depth\":").unwrap();
    depth.split_once(',').unwrap().0.parse().unwrap()
}

const FLAGS: [&str; 2] = ["--mem-queue-size=0", "--max-bytes-per-file=65536"];

#[test]
fn a_full_disk_has_room_again_when_everything_is_finished() {
    for (runtime, flags) in RUNTIMES.into_iter().zip([&FLAGS[..], &FLAGS, &FLAGS[..1]]) {
        let Some(disk) = SmallDisk::new("300k") else { return };
        let nsqd = Server::nsqd_on(disk.path(), runtime, flags);
        nsqd.post("/topic/create?topic=t", "");
        nsqd.post("/channel/create?topic=t&channel=c", "");
        let (count, why) = fill(&nsqd, "t");
        assert!(count >= 15 && why.starts_with("E_PUB_FAILED PUB failed disk full - "), "{why}");
        let sick = nsqd.ask("GET /ping", b"");
        assert!(sick.starts_with("HTTP/1.1 500 ") && sick.contains("NOK - disk full - "), "{sick}");
        consume(&nsqd, "t", "c", 0..count);
        // Nobody publishes.
        until(|| is_well(&nsqd));
        // What is left is the file that is written to, and the reserve.
        assert!(disk.free() > 150 * 1024, "{runtime}: {}", disk.free());
        assert_eq!(try_publish(&nsqd, "t", 7000), "OK");
        // Nothing that was finished comes again.
        nsqd.stop();
        let nsqd = Server::nsqd_on(disk.path(), runtime, flags);
        assert_eq!(depth(&nsqd, "t", "c"), 1, "{runtime}");
        consume(&nsqd, "t", "c", 7000..7001);
        assert!(!nsqd.log().contains("ERROR"), "{}", nsqd.log());
        let (count, _) = fill(&nsqd, "t");
        consume(&nsqd, "t", "c", 0..count);
        until(|| is_well(&nsqd));
        nsqd.stop();
    }
}

#[test]
fn what_a_topic_has_is_consumed_on_a_full_disk() {
    for runtime in RUNTIMES {
        let Some(disk) = SmallDisk::new("300k") else { return };
        let nsqd = Server::nsqd_on(disk.path(), runtime, &FLAGS);
        let (count, _) = fill(&nsqd, "t");
        // Dies while some are in flight: the topic has them all.
        let mut consumer = subscribe(&nsqd, "t", "c", 3);
        for expected in 0..3 {
            assert_eq!(take(&mut consumer).0, expected);
        }
        nsqd.kill();
        let nsqd = Server::nsqd_on(disk.path(), runtime, &FLAGS);
        consume(&nsqd, "t", "c", 0..count);
        until(|| is_well(&nsqd));
        assert_eq!(try_publish(&nsqd, "t", 7000), "OK");
        nsqd.kill();
        let nsqd = Server::nsqd_on(disk.path(), runtime, &FLAGS);
        consume(&nsqd, "t", "c", 7000..7001);
        nsqd.stop();
    }
}

/// Positions, names and what is in flight at a stop are kept without a block of room.
#[test]
fn a_stop_on_a_full_disk_forgets_nothing() {
    for (runtime, flags) in RUNTIMES.into_iter().zip([&FLAGS[..], &FLAGS[..1], &FLAGS]) {
        let Some(disk) = SmallDisk::new("300k") else { return };
        let nsqd = Server::nsqd_on(disk.path(), runtime, flags);
        nsqd.post("/topic/create?topic=t", "");
        nsqd.post("/channel/create?topic=t&channel=c", "");
        let (count, _) = fill(&nsqd, "t");
        // A name that is new on a full disk.
        nsqd.post("/channel/create?topic=t&channel=late", "");
        nsqd.post("/topic/create?topic=late", "");
        // Less than a file.
        let mut consumer = subscribe(&nsqd, "t", "c", 1);
        for _ in 0..4 {
            let (_, id) = take(&mut consumer);
            finish(&mut consumer, &id);
        }
        assert_eq!(take(&mut consumer).0, 4);
        let status = nsqd.end().0;
        let nsqd = Server::nsqd_on(disk.path(), runtime, flags);
        assert_eq!(status, Some(0));
        assert_eq!(depth(&nsqd, "t", "late"), 0);
        assert!(nsqd.ask("GET /stats", b"").contains("late "), "{}", nsqd.ask("GET /stats", b""));
        // What was in flight may come behind the others.
        let mut consumer = subscribe(&nsqd, "t", "c", 10);
        let mut numbers = Vec::new();
        for _ in 4..count {
            let (number, id) = take(&mut consumer);
            finish(&mut consumer, &id);
            numbers.push(number);
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(4..count), "{runtime}");
        until(|| is_well(&nsqd));
        nsqd.stop();
        let left = fs::read_dir(disk.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("reserve")).collect();
        assert_eq!(left, [""; 0], "{runtime}");
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_a_disk_that_refuses() {
    for runtime in RUNTIMES {
        let flags = ["--mem-queue-size=0"];
        let nsqd = Server::nsqd_within("ulimit -f 80", runtime, &flags);
        nsqd.post("/topic/create?topic=t", "");
        nsqd.post("/channel/create?topic=t&channel=c", "");
        let (count, why) = fill(&nsqd, "t");
        assert!(count >= 3 && why.contains("file size limit reached - write "), "{why}");
        let sick = nsqd.ask("GET /ping", b"");
        assert!(sick.contains("NOK - file size limit reached - "), "{sick}");
        consume(&nsqd, "t", "c", 0..count);
        until(|| is_well(&nsqd));
        assert_eq!(try_publish(&nsqd, "t", 7000), "OK");
        nsqd.stop();
    }
}

/// A tool whose file may not become longer says so.
#[test]
fn tools_end_at_a_limit_on_the_size_of_files() {
    let nsqd = Server::nsqd("tokio", &[]);
    let mut producer = nsqd.client();
    let folder = tempfile::tempdir().unwrap();
    let address = format!("--nsqd-tcp-address={}", nsqd.tcp);
    let output_dir = format!("--output-dir={}", folder.path().display());
    let stdout = folder.path().join("stdout");
    for args in
        [&["to-file", "--topic=t", &address, &output_dir][..], &["tail", "--topic=t", &address]]
    {
        let mut tool = sansq_within("ulimit -f 40")
            .args(args)
            .stdout(fs::File::create(&stdout).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let start = std::time::Instant::now();
        while tool.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE {
                tool.kill().unwrap();
            }
            publish(&mut producer, "t", &[b'x'; 10_000]);
        }
        let output = tool.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(text.to_lowercase().contains("file too large"), "{args:?}: {text}");
    }
}

/// What may not be written is called that, whoever runs this: a link to a file that nobody may
/// write.
#[test]
fn a_file_without_permission_is_called_that() {
    let Some(file) = unwritable() else { return };
    let nsqd_path = tempfile::tempdir().unwrap();
    let nsqd = Server::nsqd_on(nsqd_path.path(), "tokio", &["--mem-queue-size=0"]);
    nsqd.post("/topic/create?topic=t", "");
    nsqd.post("/channel/create?topic=t&channel=c", "");
    let data = nsqd_path.path().join("t:c.diskqueue.000000.dat");
    std::os::unix::fs::symlink(&file, data).unwrap();
    let (count, why) = fill(&nsqd, "t");
    assert!(count == 0 && why.contains("no permission - open "), "{why}");
    let sick = nsqd.ask("GET /ping", b"");
    assert!(sick.contains("NOK - no permission - open "), "{sick}");
}

/// A file that even root can't open for writing with permission denied or not permitted.
fn unwritable() -> Option<PathBuf> {
    let candidates = ["/proc/version", "/proc/self/exe", "/sys/kernel/notes"].map(PathBuf::from);
    let refused = |path: &PathBuf| {
        let opened = fs::OpenOptions::new().read(true).write(true).open(path);
        opened.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    candidates.into_iter().find(refused)
}

#[test]
fn queues_on_disk_leave_files_to_clients() {
    const TOPICS: usize = 260;
    for runtime in RUNTIMES {
        let nsqd = Server::nsqd_within("ulimit -n 256", runtime, &["--mem-queue-size=0"]);
        let mut producer = nsqd.client();
        for n in 0..TOPICS {
            publish(&mut producer, &format!("t{n}"), b"one");
        }
        assert!(is_well(&nsqd), "{runtime}");
        let clients: Vec<_> = (0..30).map(|_| nsqd.client()).collect();
        // Each is read and written again, whatever is open.
        for n in 0..TOPICS {
            let mut consumer = subscribe(&nsqd, &format!("t{n}"), "c", 1);
            let (kind, message) = frame(&mut consumer);
            assert_eq!((kind, &message[26..]), (2, &b"one"[..]));
            finish(&mut consumer, &message[10..26]);
            publish(&mut producer, &format!("t{n}"), b"two");
        }
        work_goes_on(&nsqd, 10);
        assert!(is_well(&nsqd) && nsqd.files() < 256, "{runtime}: {}", nsqd.files());
        assert!(!nsqd.log().contains("failed to accept"), "{}", nsqd.log());
        drop(clients);
        nsqd.stop();
    }
}
