//! Messages on their way through one nsqd.

use std::thread;

use super::client::{Frame, publish, with_body};
use super::{Client, start};

#[test]
fn an_answer_that_is_known_at_once_waits_for_its_turn() {
    const TOPICS: usize = 40;
    let nsqd = start(4);
    let mut producer = Client::new(nsqd.tcp_addr());
    let mut commands = Vec::new();
    for topic in 0..TOPICS {
        commands.extend(publish(&format!("t{topic}"), b"x"));
    }
    // Refused by the connection's own shard, while others have not answered yet.
    commands.extend_from_slice(b"FIN 0123456789abcdef\n");
    producer.send(&commands);
    for _ in 0..TOPICS {
        producer.expect_ok();
    }
    producer.expect_error("E_INVALID cannot FIN in current state");
    producer.expect_end();
    nsqd.stop();
}

#[test]
fn topics_of_all_shards_keep_their_messages_in_order() {
    const TOPICS: usize = 40;
    const ROUNDS: usize = 25;
    let nsqd = start(4);
    let mut producer = Client::new(nsqd.tcp_addr());
    let mut commands = Vec::new();
    for round in 0..ROUNDS {
        for topic in 0..TOPICS {
            commands.extend(publish(&format!("t{topic}"), round.to_string().as_bytes()));
        }
    }
    producer.send(&commands);
    for _ in 0..ROUNDS * TOPICS {
        producer.expect_ok();
    }
    for topic in 0..TOPICS {
        let mut consumer = Client::new(nsqd.tcp_addr());
        consumer.subscribe(&format!("t{topic}"), "c", ROUNDS);
        for round in 0..ROUNDS {
            assert_eq!(consumer.message().body, round.to_string().into_bytes());
        }
    }
    nsqd.stop();
}

#[test]
fn one_packet_that_moves_between_shards_is_carried_out_in_order() {
    let nsqd = start(4);
    for topic in 0..16 {
        let mut packet = b"  V2".to_vec();
        packet.extend(with_body("IDENTIFY", b"{}"));
        packet.extend(publish(&format!("m{topic}"), b"first"));
        packet.extend(format!("SUB m{topic} c\nRDY 2\n").as_bytes());
        packet.extend(publish(&format!("other{topic}"), b"elsewhere"));
        packet.extend(publish(&format!("m{topic}"), b"second"));
        packet.extend(b"NOP\n");
        let mut client = Client::silent(nsqd.tcp_addr());
        client.send(&packet);
        let (mut oks, mut bodies) = (0, Vec::new());
        while oks < 5 || bodies.len() < 2 {
            match client.frame() {
                Frame::Response(text) => {
                    assert_eq!(text, b"OK");
                    oks += 1;
                }
                Frame::Message(message) => {
                    assert!(oks >= 3, "a message before the answer to SUB");
                    client.finish(&message);
                    bodies.push(message.body);
                }
                Frame::Error(text) => panic!("{text}"),
            }
        }
        assert_eq!(bodies, [b"first".to_vec(), b"second".to_vec()]);
        client.send("CLS\n");
        assert_eq!(client.frame(), Frame::Response(b"CLOSE_WAIT".to_vec()));
    }
    nsqd.stop();
}

#[test]
fn a_move_takes_unread_input_of_any_size_along() {
    const COUNT: usize = 3000;
    const READY: usize = 2500;
    let nsqd = start(3);
    for topic in ["a", "b", "c", "d"] {
        let mut client = Client::new(nsqd.tcp_addr());
        let mut commands = format!("SUB {topic} c\nRDY {READY}\n").into_bytes();
        for n in 0..COUNT {
            commands.extend(publish(topic, format!("{n:0>200}").as_bytes()));
        }
        let mut sender = client.split();
        let sending = thread::spawn(move || sender.send(&commands));
        let (mut oks, mut bodies) = (0, Vec::new());
        while oks < COUNT + 1 || bodies.len() < READY {
            match client.frame() {
                Frame::Response(_) => oks += 1,
                Frame::Message(message) => bodies.push(message.body),
                Frame::Error(text) => panic!("{text}"),
            }
        }
        sending.join().unwrap();
        for (n, body) in bodies.iter().enumerate() {
            assert_eq!(*body, format!("{n:0>200}").as_bytes());
        }
    }
    nsqd.stop();
}

#[test]
fn large_bodies_arrive_whole() {
    const LEN: usize = 1024 * 1024;
    const COUNT: usize = 12;
    fn body(n: usize) -> Vec<u8> {
        (0..LEN).map(|at| (at.wrapping_mul(31) ^ (at >> 9) ^ n) as u8).collect()
    }
    let nsqd = start(2);
    let mut consumer = Client::new(nsqd.tcp_addr());
    consumer.subscribe("large", "c", 3);
    let mut producer = Client::new(nsqd.tcp_addr());
    let publishing = thread::spawn(move || {
        for n in 0..COUNT {
            producer.publish("large", &body(n));
        }
    });
    for n in 0..COUNT {
        let message = consumer.message();
        assert!(message.body == body(n), "body {n} is damaged");
        consumer.finish(&message);
    }
    publishing.join().unwrap();
    nsqd.stop();
}

#[test]
fn many_messages_to_many_consumers() {
    const COUNT: usize = 20_000;
    let nsqd = start(2);
    let consuming: Vec<_> = (0..4)
        .map(|n| {
            let mut consumer = Client::new(nsqd.tcp_addr());
            consumer.subscribe("many", &format!("channel{n}"), 500);
            thread::spawn(move || {
                let mut seen = vec![false; COUNT];
                for _ in 0..COUNT {
                    let message = consumer.message();
                    let n: usize = str::from_utf8(&message.body).unwrap().parse().unwrap();
                    assert!(!seen[n], "{n} twice");
                    seen[n] = true;
                    consumer.finish(&message);
                }
            })
        })
        .collect();
    let mut producer = Client::new(nsqd.tcp_addr());
    for chunk in (0..COUNT).collect::<Vec<_>>().chunks(100) {
        let mut commands = Vec::new();
        for n in chunk {
            commands.extend(publish("many", n.to_string().as_bytes()));
        }
        producer.send(commands);
        for _ in chunk {
            producer.expect_ok();
        }
    }
    for thread in consuming {
        thread.join().unwrap();
    }
    nsqd.stop();
}
