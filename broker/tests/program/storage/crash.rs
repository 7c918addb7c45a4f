//! The program is killed again and again while it is busy, and starts again on the same files: with
//! `--mem-queue-size=0` nothing is lost of what it acknowledged, and nothing is invented.
//!
//! `CRASH_ROUNDS` (4) says how often, `CRASH_SEED` (1) which moments.

use core::str::FromStr;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use super::next_frame;
use crate::server::{PATIENCE, RUNTIMES, Server};

/// Publishes that a publisher has unanswered.
const WINDOW: usize = 20;

const QUEUES: [(&str, &str); 3] = [("a", "x"), ("a", "y"), ("b", "z")];

fn setting<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What was done with the messages of a queue.
#[derive(Default)]
struct Book {
    sent: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
    received: BTreeSet<String>,
    finished: BTreeSet<String>,
}

type Books = Arc<[Mutex<Book>; 3]>;

/// Publishes to a topic until the server is gone; reports each answer.
fn publish(
    mut socket: TcpStream,
    topic: &str,
    round: u64,
    books: &[&Mutex<Book>],
    answered: &Sender<()>,
) -> io::Result<()> {
    let mut unanswered = VecDeque::new();
    for number in 0.. {
        // Bodies from a few bytes to more than a file may have.
        let filling = if number % 500 == 499 { 30_000 } else { number % 300 };
        let body = format!("{topic} {round} {number} {}", "x".repeat(filling));
        for book in books {
            book.lock().unwrap().sent.insert(body.clone());
        }
        let mut command = format!("PUB {topic}\n").into_bytes();
        command.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        command.extend_from_slice(body.as_bytes());
        unanswered.push_back(body);
        socket.write_all(&command)?;
        if unanswered.len() == WINDOW {
            assert_eq!(next_frame(&mut socket)?, (0, b"OK".to_vec()));
            let body = unanswered.pop_front().unwrap();
            for book in books {
                book.lock().unwrap().acknowledged.insert(body.clone());
            }
            let _ = answered.send(());
        }
    }
    Ok(())
}

/// Consumes until the server is gone; does not finish everything, unless it is `tidy`.
fn consume(
    mut socket: TcpStream,
    (topic, channel): (&str, &str),
    book: &Mutex<Book>,
    tidy: bool,
) -> io::Result<()> {
    socket.write_all(format!("SUB {topic} {channel}\nRDY 50\n").as_bytes())?;
    loop {
        let (kind, payload) = next_frame(&mut socket)?;
        if kind != 2 {
            assert_eq!((kind, payload), (0, b"OK".to_vec()));
            continue;
        }
        let id = String::from_utf8(payload[10..26].to_vec()).unwrap();
        let body = String::from_utf8(payload[26..].to_vec()).unwrap();
        let mut book = book.lock().unwrap();
        assert!(book.sent.contains(&body), "{topic}:{channel} was never sent {body}");
        book.received.insert(body.clone());
        if tidy || !book.received.len().is_multiple_of(10) {
            // Beforehand: whether it got there nobody knows.
            book.finished.insert(body);
            drop(book);
            socket.write_all(format!("FIN {id}\n").as_bytes())?;
        }
    }
}

fn start(data_path: &Path, runtime: &str, shards: u64) -> Server {
    let shards = format!("--shards={shards}");
    Server::nsqd_on(
        data_path,
        runtime,
        &[
            "--mem-queue-size=0",
            // Files and syncs often end, and so does the program amid all of that.
            "--max-bytes-per-file=20000",
            "--sync-every=150",
            "--sync-timeout=20ms",
            "--msg-timeout=1s",
            &shards,
        ],
    )
}

#[test]
fn what_was_acknowledged_outlasts_kill_9() {
    let (rounds, seed) = (setting("CRASH_ROUNDS", 4), setting("CRASH_SEED", 1));
    let mut chance = Chance(seed);
    let folder = tempfile::tempdir().unwrap();
    let books: Books = Arc::default();

    let nsqd = start(folder.path(), "tokio", 2);
    for (topic, channel) in QUEUES {
        nsqd.post(&format!("/topic/create?topic={topic}"), "");
        nsqd.post(&format!("/channel/create?topic={topic}&channel={channel}"), "");
    }
    // A channel that comes only later gets what comes later: not before all are on disk may it
    // begin.
    nsqd.post("/channel/pause?topic=b&channel=z", "");
    nsqd.post("/channel/unpause?topic=b&channel=z", "");
    let metadata = std::fs::read_to_string(folder.path().join("nsqd.dat")).unwrap();
    assert!(QUEUES.iter().all(|(_, channel)| metadata.contains(&format!("\"{channel}\""))));
    nsqd.kill();

    for round in 0..rounds {
        let runtime = RUNTIMES[chance.below(3) as usize];
        let nsqd = start(folder.path(), runtime, 1 + chance.below(3));
        let (answered, answers) = channel();
        let mut clients = Vec::new();
        for topic in ["a", "b"] {
            let socket = nsqd.client();
            let (books, answered) = (Arc::clone(&books), answered.clone());
            clients.push(thread::spawn(move || {
                let theirs = QUEUES.iter().zip(books.iter());
                let theirs: Vec<_> =
                    theirs.filter(|((name, _), _)| *name == topic).map(|(_, book)| book).collect();
                publish(socket, topic, round, &theirs, &answered)
            }));
        }
        for (index, queue) in QUEUES.into_iter().enumerate() {
            // Not every queue is read in every round.
            if chance.below(4) > 0 {
                let socket = nsqd.client();
                let books = Arc::clone(&books);
                clients.push(thread::spawn(move || consume(socket, queue, &books[index], false)));
            }
        }
        for _ in 0..chance.below(3000) {
            answers.recv_timeout(PATIENCE).expect("it answers");
        }
        let log = nsqd.kill();
        for client in clients {
            client.join().unwrap().unwrap_err();
        }
        assert!(!log.contains("ERROR"), "seed {seed}, round {round}:\n{log}");
    }

    let nsqd = start(folder.path(), "tokio", 2);
    for (index, queue) in QUEUES.into_iter().enumerate() {
        let (socket, books) = (nsqd.client(), Arc::clone(&books));
        thread::spawn(move || consume(socket, queue, &books[index], true));
    }
    let start = Instant::now();
    loop {
        let stats = nsqd.ask("GET /stats?format=json", b"");
        let is_drained = |part: &str| {
            part.starts_with("0,") || part.starts_with("0}") || part.starts_with("0\r")
        };
        let counts = ["\"depth\":", "\"in_flight_count\":", "\"deferred_count\":"];
        let all = counts.iter().flat_map(|count| stats.split(count).skip(1));
        // A queue counts nothing before it is opened, which may be after the first questions.
        let is_complete = books.iter().all(|book| {
            let book = book.lock().unwrap();
            book.acknowledged.is_subset(&book.finished)
        });
        let is_empty = all.clone().count() > 3 * QUEUES.len() && all.into_iter().all(is_drained);
        if is_empty && (is_complete || start.elapsed() > PATIENCE / 2) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "seed {seed}: {stats}");
    }
    let log = nsqd.kill();
    let mut count = 0;
    for (queue, book) in QUEUES.iter().zip(books.iter()) {
        let book = book.lock().unwrap();
        let lost: Vec<_> = book.acknowledged.difference(&book.finished).collect();
        assert!(lost.is_empty(), "seed {seed}: {queue:?} lost {lost:?}\n{log}");
        count += book.acknowledged.len();
    }
    assert!(count > 0, "nothing happened");
}
