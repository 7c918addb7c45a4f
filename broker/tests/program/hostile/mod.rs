//! What peers that misbehave cost the built program: its memory, its descriptors, and the work of
//! others.

mod bytes;
mod certificates;
mod clients;
mod disk;
mod everything;
mod http;
mod log;
mod nsqlookupd;
mod paused;
mod stop;

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::server::{Server, frame};

impl Server {
    /// Bytes of memory that the process has in use.
    fn resident(&self) -> usize {
        let path = format!("/proc/{}/statm", self.process.id());
        let statm = fs::read_to_string(path).unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size()
    }

    /// The most bytes of memory that the process has had in use at a time.
    fn peak(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// How many files the process has open.
    fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }
}

fn publish(socket: &mut TcpStream, topic: &str, body: &[u8]) {
    let mut command = format!("PUB {topic}\n").into_bytes();
    command.extend_from_slice(&(body.len() as u32).to_be_bytes());
    command.extend_from_slice(body);
    socket.write_all(&command).unwrap();
    assert_eq!(frame(socket), (0, b"OK".to_vec()));
}

/// A consumer and a producer whose messages come one by one and in order.
fn work_goes_on(nsqd: &Server, count: u32) {
    let (mut consumer, mut producer) = (nsqd.client(), nsqd.client());
    consumer.write_all(b"SUB work c\nRDY 1\n").unwrap();
    assert_eq!(frame(&mut consumer).0, 0);
    for n in 0..count {
        publish(&mut producer, "work", &n.to_be_bytes());
        let (kind, message) = frame(&mut consumer);
        assert_eq!((kind, &message[26..]), (2, &n.to_be_bytes()[..]));
        consumer.write_all(&[b"FIN ", &message[10..26], b"\n"].concat()).unwrap();
    }
}

/// As many as the limits on open files of both processes allow, up to `wanted`.
fn connections(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    wanted.min(usize::try_from(limit).unwrap_or(usize::MAX) / 2)
}
