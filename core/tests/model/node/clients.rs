//! What clients say, and what they make of what they are told.

use std::collections::VecDeque;

use bytes::BytesMut;
use sansq_core::client::frame::Frame;
use sansq_core::nsqd::config::PENDING_REPLIES_MAX;

use super::{Awaited, CHANNELS, ChannelKey, Client, Harness, MSG_TIMEOUT, TOPICS, pub_command};

impl Harness {
    pub(super) fn connect(&mut self, shard: usize) -> usize {
        let id = self.node.connect(shard % self.node.shards().len());
        self.clients.push(Client {
            id,
            received: BytesMut::new(),
            place: None,
            closes: false,
            closed: false,
            awaited: VecDeque::new(),
            held: Vec::new(),
            finishing: Vec::new(),
        });
        let at = self.clients.len() - 1;
        self.send(at, b"  V2");
        at
    }

    pub(super) fn publish(
        &mut self,
        client: usize,
        topic: usize,
        messages: usize,
        delay: Option<u64>,
        command: &'static str,
    ) {
        let Some(at) = self.living(client) else { return };
        let topic = topic % TOPICS.len();
        let numbers: Vec<_> = (0..messages.max(1)).map(|_| self.message(topic)).collect();
        let name = TOPICS[topic];
        let sized = |body: &str| [&(body.len() as u32).to_be_bytes(), body.as_bytes()].concat();
        let bodies: Vec<u8> =
            numbers.iter().flat_map(|number| sized(&self.body(*number))).collect();
        let bytes = match (command, delay) {
            ("MPUB", _) => {
                let head = format!("MPUB {name}\n");
                let len = (bodies.len() as u32 + 4).to_be_bytes();
                let count = (numbers.len() as u32).to_be_bytes();
                [head.as_bytes(), &len, &count, &bodies].concat()
            }
            (_, Some(delay)) => [format!("DPUB {name} {delay}\n").as_bytes(), &bodies].concat(),
            (_, None) => [format!("PUB {name}\n").as_bytes(), &bodies].concat(),
        };
        self.clients[at].awaited.push_back(Awaited::Publish(numbers, command));
        self.send(at, &bytes);
    }

    /// The body of a message is its number; if there are slow readers, every third is so large that
    /// three of them are more than a connection may be owed.
    pub(super) fn body(&self, number: usize) -> String {
        let blanks = if !self.all_read && number.is_multiple_of(3) { 100_000 } else { 0 };
        number.to_string() + &" ".repeat(blanks)
    }

    pub(super) fn burst(&mut self, client: usize, topic: usize) {
        let Some(at) = self.living(client) else { return };
        let topic = topic % TOPICS.len();
        let mut bytes = Vec::new();
        for _ in 0..PENDING_REPLIES_MAX + 5 {
            let number = self.message(topic);
            self.clients[at].awaited.push_back(Awaited::Publish(vec![number], "PUB"));
            bytes.extend(pub_command(TOPICS[topic], &self.body(number)));
        }
        self.send(at, &bytes);
    }

    pub(super) fn subscribe(&mut self, at: usize, place: ChannelKey) {
        self.clients[at].place = Some((place, false));
        self.note_ephemeral(place);
        self.clients[at].awaited.push_back(Awaited::Subscribe(place));
        let (topic, channel) = place;
        self.send(at, format!("SUB {} {}\n", TOPICS[topic], CHANNELS[channel]).as_bytes());
    }

    pub(super) fn finish(&mut self, at: usize, held: usize) {
        let held = self.clients[at].held.swap_remove(held);
        let id = held.0.clone();
        self.clients[at].finishing.push(held);
        self.answer(at, "FIN", &id, "");
    }

    pub(super) fn answer(&mut self, at: usize, command: &str, id: &str, rest: &str) {
        let text = format!("E_{command}_FAILED {command} {id} failed ");
        self.clients[at].awaited.push_back(Awaited::Perhaps(text));
        self.send(at, format!("{command} {id}{rest}\n").as_bytes());
    }

    /// A client looks at what it was sent.
    pub(super) fn frame(&mut self, at: usize, frame: Frame) {
        match frame {
            Frame::Response(payload) if &payload[..] == b"_heartbeat_" => {
                self.node.send(self.clients[at].id, b"NOP\n");
            }
            Frame::Response(payload) => {
                let text = String::from_utf8_lossy(&payload).into_owned();
                self.response(at, &text);
            }
            Frame::Error(payload) => {
                let text = String::from_utf8_lossy(&payload).into_owned();
                self.error(at, &text);
            }
            Frame::Message(message) => {
                let (place, acknowledged) = self.clients[at].place.expect("it subscribed");
                assert!(acknowledged, "a message before the answer to SUB");
                assert!(!self.clients[at].closed, "a message behind CLOSE_WAIT");
                let body = String::from_utf8_lossy(&message.body).into_owned();
                let number = body.trim_end().parse().expect("a body that was published");
                assert_eq!(body, self.body(number), "all of it");
                let published = &mut self.messages[number];
                assert_eq!(published.topic, place.0, "a message of another topic");
                let attempts = published.attempts.entry(place).or_default();
                *attempts += 1;
                let is_next = *attempts == message.attempts || !self.all_read;
                assert!(is_next, "attempts rise by one");
                if !self.all_read {
                    // Nobody can say any more whether a FIN comes in time.
                    published.finished_on.insert(place);
                }
                let id = String::from_utf8_lossy(&message.id).into_owned();
                let client = &mut self.clients[at];
                client.held.retain(|(held, ..)| *held != id);
                client.held.push((id, number, self.node.now.instant + MSG_TIMEOUT));
            }
        }
    }

    fn response(&mut self, at: usize, text: &str) {
        match self.next_awaited(at) {
            Some(Awaited::Publish(numbers, _)) => {
                assert_eq!(text, "OK");
                for number in numbers {
                    self.messages[number].acknowledged = true;
                }
            }
            Some(Awaited::Subscribe(place)) => {
                assert_eq!(text, "OK");
                self.clients[at].place = Some((place, true));
                if !self.is_destroying() {
                    self.channels.insert(place);
                }
            }
            Some(Awaited::CloseWait) => {
                assert_eq!(text, "CLOSE_WAIT");
                self.clients[at].closed = true;
            }
            other => panic!("{text} answers {other:?}"),
        }
    }

    fn error(&mut self, at: usize, text: &str) {
        while let Some(Awaited::Perhaps(start)) = self.clients[at].awaited.front() {
            let is_it = text.starts_with(start.as_str());
            self.clients[at].awaited.pop_front();
            if is_it {
                return;
            }
        }
        match self.clients[at].awaited.pop_front() {
            Some(Awaited::Publish(numbers, command)) => {
                assert_eq!(text, format!("E_{command}_FAILED {command} failed exiting"));
                for number in numbers {
                    self.messages[number].refused = true;
                }
            }
            Some(Awaited::Subscribe(_)) => {
                assert!(text.starts_with("E_SUB_FAILED SUB failed consumers for "), "{text}")
            }
            other => panic!("{text} answers {other:?}"),
        }
    }

    /// What the next answer that has to come is about.
    fn next_awaited(&mut self, at: usize) -> Option<Awaited> {
        let awaited = &mut self.clients[at].awaited;
        while matches!(awaited.front(), Some(Awaited::Perhaps(_))) {
            awaited.pop_front();
        }
        awaited.pop_front()
    }

    /// A client that sends, by number.
    pub(super) fn living(&self, number: usize) -> Option<usize> {
        let lives = |at: &usize| !self.node.is_closed(self.clients[*at].id);
        let living: Vec<_> = (0..self.clients.len()).filter(lives).collect();
        living.get(number.checked_rem(living.len())?).copied()
    }

    /// A client that is subscribed, did not say CLS, and is listened to: so it is known when what
    /// it says takes effect.
    pub(super) fn consumer(&self, number: usize) -> Option<usize> {
        let at = self.living(number)?;
        let client = &self.clients[at];
        let is_heard = self.node.unread(client.id) == 0 && !client.closes;
        (is_heard && matches!(client.place, Some((_, true)))).then_some(at)
    }

    /// A message that a client holds.
    pub(super) fn held(&self, client: usize, message: usize) -> Option<(usize, usize)> {
        let is_heard = |at: &usize| self.node.unread(self.clients[*at].id) == 0;
        let at = self.living(client).filter(is_heard)?;
        Some((at, message.checked_rem(self.clients[at].held.len())?))
    }
}
