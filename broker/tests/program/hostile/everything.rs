//! Everybody at once, and how much memory that takes: no more than an operator computes from flags.

use std::io::Write;
use std::net::TcpStream;

use super::{publish, work_goes_on};
use crate::server::{RUNTIMES, Server, frame, patient};

const MIB: usize = 1 << 20;

/// The flags, as small as makes sense: what has no limit shows sooner.
const CONNECTIONS: usize = 64;
const HTTP_CONNECTIONS: usize = 16;
const SHARDS: usize = 2;
const UNANSWERED: usize = 16 * MIB;
const MESSAGE: usize = 64 * 1024;
const BODY: usize = MIB;
const MEM_QUEUE_SIZE: usize = 100;
const TOPICS: usize = 4;
const CHANNELS: usize = 12;

/// What docs/OPERATIONS.md ("The worst of all peers at once") says.
fn most() -> usize {
    let share = UNANSWERED / (SHARDS + 1);
    let publishes =
        (SHARDS + 1) * ((share * 3 / 4).max(BODY.max(MESSAGE)) + (share / 4).max(MIB / 4));
    let queues =
        TOPICS * (MEM_QUEUE_SIZE * MESSAGE + 4 * MIB + MIB / 4) + CHANNELS * (4 * MIB + MIB / 4);
    128 * MIB + publishes + CONNECTIONS * 3 * MIB / 4 + HTTP_CONNECTIONS * MIB / 4 + queues
}

#[test]
fn the_worst_of_all_peers_at_once_stays_below_what_flags_say() {
    for runtime in RUNTIMES {
        let flags = [
            format!("--shards={SHARDS}"),
            format!("--max-connections={CONNECTIONS}"),
            format!("--max-http-connections={HTTP_CONNECTIONS}"),
            format!("--max-unanswered-bytes={UNANSWERED}"),
            format!("--max-msg-size={MESSAGE}"),
            format!("--max-body-size={BODY}"),
            format!("--mem-queue-size={MEM_QUEUE_SIZE}"),
        ];
        let nsqd = Server::nsqd(runtime, &flags.each_ref().map(String::as_str));
        let mut greedy = Vec::new();
        // Consumers that take nothing, of a channel each.
        for n in 0..CHANNELS {
            let mut consumer = nsqd.client();
            consumer.write_all(format!("SUB t0 c{n}\nRDY 2500\n").as_bytes()).unwrap();
            assert_eq!(frame(&mut consumer).0, 0);
            greedy.push((consumer, Vec::new()));
        }
        // Publishers that send on without reading, and some whose bodies never come to an end.
        for n in 0..24 {
            let mpub = mpub(&format!("t{}", n % TOPICS));
            let bytes = if n % 3 == 0 { mpub[..mpub.len() - 1].to_vec() } else { mpub };
            greedy.push((nsqd.client(), bytes));
        }
        // Commands that are each refused, and answers that nobody reads.
        for n in 0..8 {
            let mut flood = nsqd.client();
            flood.write_all(format!("SUB t1 f{}\n", n % 2).as_bytes()).unwrap();
            greedy.push((flood, b"FIN 0123456789abcdef\n".repeat(2000)));
        }
        // Long names of clients, and silence.
        let json = format!("{{\"client_id\":\"{}\"}}", "i".repeat(BODY - 100));
        let identify = [b"IDENTIFY\n", &(json.len() as u32).to_be_bytes()[..], json.as_bytes()];
        for _ in 0..8 {
            let mut client = nsqd.client();
            client.write_all(&identify.concat()).unwrap();
            greedy.push((client, Vec::new()));
        }
        // More of HTTP than there is room for: idle, in the middle of a body, not reading an
        // answer.
        let body =
            format!("POST /mpub?topic=t2 HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n");
        for n in 0..2 * HTTP_CONNECTIONS {
            let bytes = match n % 3 {
                0 => Vec::new(),
                1 => [body.as_bytes(), &vec![b'x'; BODY - 1]].concat(),
                _ => b"GET /stats?format=json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500),
            };
            greedy.push((patient(&nsqd.http), bytes));
        }
        for (socket, _) in &greedy {
            socket.set_nonblocking(true).unwrap();
        }
        let mut sent: Vec<usize> = vec![0; greedy.len()];
        for _ in 0..12 {
            for ((socket, bytes), sent) in greedy.iter_mut().zip(&mut sent) {
                *sent += write_some(socket, bytes, *sent);
            }
            work_goes_on(&nsqd, 5);
            // Beyond the limit: told so, or closed.
            (0..8).for_each(|_| drop(nsqd.connect()));
            assert!(nsqd.ask("GET /ping", b"").contains("200 OK"));
        }
        let mut honest = nsqd.client();
        publish(&mut honest, "t3", b"one more");
        let (peak, most) = (nsqd.peak(), most());
        println!("{runtime}: {} MiB at most, of {} MiB", peak / MIB, most / MIB);
        assert!(peak <= most, "{runtime}: {} MiB, not {} MiB", peak / MIB, most / MIB);
    }
}

/// Sends on from where it stopped, over and over: whole commands where `bytes` is one, and what
/// never ends.
fn write_some(socket: &mut TcpStream, bytes: &[u8], sent: usize) -> usize {
    let mut count = 0;
    while !bytes.is_empty()
        && let Ok(more) = socket.write(&bytes[(sent + count) % bytes.len()..])
        && more > 0
        && count < 8 * MIB
    {
        count += more;
    }
    count
}

/// As large as a body may be.
fn mpub(topic: &str) -> Vec<u8> {
    let message = [&(MESSAGE as u32 - 8).to_be_bytes()[..], &vec![b'x'; MESSAGE - 8]].concat();
    let count = (BODY - 4) / message.len();
    let body = [&(count as u32).to_be_bytes()[..], &message.repeat(count)].concat();
    [format!("MPUB {topic}\n").as_bytes(), &(body.len() as u32).to_be_bytes(), &body].concat()
}
