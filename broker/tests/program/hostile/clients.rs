//! Clients that misbehave on the protocol's own port.

use std::io::{ErrorKind, Write};

use super::{connections, publish, work_goes_on};
use crate::server::{RUNTIMES, Server, frame, until};

/// Memory of a connection that has said nothing, or only the magic, everything included: the
/// machine's part, the task, the runtime's. A release build needs about half.
const IDLE_MAX: usize = 8 * 1024;

#[test]
fn connections_that_say_nothing_cost_little_each() {
    let count = connections(10_000);
    for runtime in RUNTIMES {
        let nsqd = Server::nsqd(runtime, &[]);
        let files = nsqd.files();
        work_goes_on(&nsqd, 10);
        let memory = nsqd.resident();
        let idle: Vec<_> =
            (0..count).map(|n| if n % 2 == 0 { nsqd.connect() } else { nsqd.client() }).collect();
        // Files of its own come and go.
        until(|| nsqd.files() + 8 >= files + count);
        work_goes_on(&nsqd, 100);
        let each = nsqd.resident().saturating_sub(memory) / count;
        println!("{runtime}: {each} bytes for each of {count} idle connections");
        assert!(each <= IDLE_MAX, "{runtime}: {each}");
        drop(idle);
        until(|| nsqd.files() < files + count / 100);
    }
}

/// Memory of a connection that announces two gigabytes and sends few.
const ANNOUNCED_MAX: usize = 128 * 1024;

#[test]
fn a_length_of_two_gigabytes_is_not_believed() {
    const COUNT: usize = 100;
    let huge = i32::MAX.to_be_bytes();
    for runtime in RUNTIMES {
        // Beyond the limits it is refused at once …
        let nsqd = Server::nsqd(runtime, &[]);
        for (command, error) in [
            ("PUB t\n", "E_BAD_MESSAGE PUB message too big 2147483647 > 1048576"),
            ("DPUB t 1\n", "E_BAD_MESSAGE DPUB message too big 2147483647 > 1048576"),
            ("MPUB t\n", "E_BAD_BODY MPUB body too big 2147483647 > 5242880"),
            ("IDENTIFY\n", "E_BAD_BODY IDENTIFY body too big 2147483647 > 5242880"),
        ] {
            let mut client = nsqd.client();
            client.write_all(&[command.as_bytes(), &huge].concat()).unwrap();
            assert_eq!(frame(&mut client), (1, error.into()));
        }
        // … and within them memory is used for what arrives.
        let huge_limits = ["--max-msg-size=2147483647", "--max-body-size=2147483647"];
        let nsqd = Server::nsqd(runtime, &huge_limits);
        work_goes_on(&nsqd, 10);
        let memory = nsqd.resident();
        let mut slow: Vec<_> = (0..COUNT).map(|_| nsqd.client()).collect();
        for (n, client) in slow.iter_mut().enumerate() {
            let command = ["PUB t\n", "DPUB t 1\n", "MPUB t\n", "IDENTIFY\n"][n % 4];
            client.write_all(&[command.as_bytes(), &huge].concat()).unwrap();
        }
        for _ in 0..20 {
            for client in &mut slow {
                client.write_all(b"x").unwrap();
            }
            work_goes_on(&nsqd, 10);
        }
        let each = nsqd.resident().saturating_sub(memory) / COUNT;
        println!("{runtime}: {each} bytes for each of {COUNT} that announce 2 GiB");
        assert!(each <= ANNOUNCED_MAX, "{runtime}: {each}");
    }
}

/// Memory of a consumer that takes nothing. Of the messages it has no copy: that would be 16 MiB.
const UNREAD_MAX: usize = 256 * 1024;

#[test]
fn consumers_that_do_not_read_cost_a_bounded_amount() {
    const COUNT: usize = 40;
    const MESSAGES: usize = 250;
    const LEN: usize = 64 * 1024;
    for runtime in RUNTIMES {
        let nsqd = Server::nsqd(runtime, &[]);
        work_goes_on(&nsqd, 10);
        let memory = nsqd.resident();
        let mut deaf: Vec<_> = (0..COUNT).map(|_| nsqd.client()).collect();
        for (n, client) in deaf.iter_mut().enumerate() {
            client.write_all(format!("SUB t c{n}\nRDY 2500\n").as_bytes()).unwrap();
            client.peek(&mut [0]).unwrap();
        }
        let mut producer = nsqd.client();
        // More than the kernel keeps for a reader.
        for _ in 0..MESSAGES {
            publish(&mut producer, "t", &[b'x'; LEN]);
        }
        work_goes_on(&nsqd, 100);
        let bodies = MESSAGES * LEN;
        let each = nsqd.resident().saturating_sub(memory + bodies) / COUNT;
        println!("{runtime}: {each} bytes for each of {COUNT} that do not read");
        assert!(each <= UNREAD_MAX, "{runtime}: {each}");
    }
}

/// Answers that nobody reads, commands byte by byte, sockets that vanish: others notice nothing.
#[test]
fn work_goes_on_beside_everything() {
    for runtime in RUNTIMES {
        let nsqd = Server::nsqd(runtime, &[]);
        // As much as they take of commands that each have an answer, and where they are in it.
        let commands = b"FIN 0123456789abcdef\n".repeat(1000);
        let mut floods: Vec<_> = (0..8).map(|_| (nsqd.client(), 0)).collect();
        for (flood, _) in &mut floods {
            flood.write_all(b"SUB flood c\n").unwrap();
            assert_eq!(frame(flood).0, 0);
            flood.set_nonblocking(true).unwrap();
        }
        let mut slow = nsqd.connect();
        let mut bytes = b"  V2PUB slow\n\0\0\0\x04slow".iter();
        for round in 0..24 {
            for (flood, at) in &mut floods {
                match flood.write(&commands[*at..]) {
                    Ok(count) => *at = (*at + count) % commands.len(),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            if let Some(byte) = bytes.next() {
                slow.write_all(&[*byte]).unwrap();
            }
            if round % 4 == 0 {
                work_goes_on(&nsqd, 5);
            }
        }
        assert_eq!(frame(&mut slow), (0, b"OK".to_vec()));
    }
}
