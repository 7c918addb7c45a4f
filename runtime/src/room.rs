//! Room for what HTTP clients have sent and have no answer to yet, in bytes: the part of
//! `--max-unanswered-bytes` that is HTTP's. What a shard has for its clients is the core's.
//!
//! A body of up to 64 KiB takes of the small part when it is there, a larger one of the shared part
//! when it has sent so much. Both give it back when the request is answered, which may be after its
//! client has gone.

use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use sansq_core::input::READ_LEN_MAX;
use sansq_core::nsqd::Config;
use sansq_core::nsqd::config::SMALL_ROOM_MIN;

/// The room of an HTTP API.
#[derive(Clone, Debug)]
pub struct HttpRoom {
    small: Rc<Part>,
    shared: Rc<Part>,
}

/// Some of it, until this is dropped.
#[derive(Debug)]
pub struct Permit {
    part: Rc<Part>,
    len: usize,
}

#[derive(Debug)]
pub(crate) struct Part {
    free: Cell<usize>,
    max: usize,
    line: RefCell<Line>,
    /// How often somebody had to wait.
    waits: Cell<u64>,
}

/// Who waits for room, in order, and who waits for somebody to do so.
#[derive(Debug, Default)]
struct Line {
    last: u64,
    waiting: VecDeque<(u64, Waker)>,
    hurried: BTreeMap<u64, Waker>,
}

impl HttpRoom {
    /// That of an nsqd of so many shards.
    pub(crate) fn new(config: &Config, shards: u16) -> Self {
        let share = config.unanswered_share(shards);
        Self {
            small: Part::new((share / 4).max(SMALL_ROOM_MIN)),
            shared: Part::new((share - share / 4).max(config.body_len_max())),
        }
    }

    /// Waits for `len` bytes, in the order of asking.
    pub(crate) async fn take(&self, len: usize) -> Permit {
        let part = if len <= READ_LEN_MAX { &self.small } else { &self.shared };
        part.take(len).await
    }

    /// Is over when somebody waits for shared room.
    pub(crate) async fn is_wanted(&self) {
        self.shared.is_wanted().await;
    }

    /// Bytes that are taken.
    pub(crate) fn held(&self) -> u64 {
        self.small.held() + self.shared.held()
    }

    /// How often somebody had to wait.
    pub(crate) fn waits(&self) -> u64 {
        self.small.waits() + self.shared.waits()
    }
}

impl Permit {
    /// How much of it.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

impl Part {
    pub(crate) fn new(max: usize) -> Rc<Self> {
        let line = RefCell::default();
        Rc::new(Self { free: Cell::new(max), max, line, waits: Cell::new(0) })
    }

    /// Waits for `len` of it, in the order of asking. Who asks for more than all gets all.
    pub(crate) async fn take(self: &Rc<Self>, len: usize) -> Permit {
        let len = len.min(self.max);
        let mut place = InLine { part: self, number: None };
        poll_fn(|context| {
            let mut line = self.line.borrow_mut();
            let is_first = match place.number {
                None => line.waiting.is_empty(),
                Some(number) => line.waiting.front().is_some_and(|(first, _)| *first == number),
            };
            if is_first && self.free.get() >= len {
                self.free.set(self.free.get() - len);
                return Poll::Ready(());
            }
            let waker = context.waker().clone();
            match place.number {
                None => {
                    line.last += 1;
                    place.number = Some(line.last);
                    let number = line.last;
                    line.waiting.push_back((number, waker));
                    self.waits.set(self.waits.get() + 1);
                    let hurried = core::mem::take(&mut line.hurried);
                    drop(line);
                    hurried.into_values().for_each(Waker::wake);
                }
                Some(number) => {
                    let mut waiting = line.waiting.iter_mut();
                    if let Some((_, known)) = waiting.find(|(other, _)| *other == number) {
                        *known = waker;
                    }
                }
            }
            Poll::Pending
        })
        .await;
        drop(place);
        Permit { part: Rc::clone(self), len }
    }

    /// How much others have to give back before there is `len`.
    pub(crate) fn missing(&self, len: usize) -> usize {
        len.min(self.max).saturating_sub(self.free.get())
    }

    /// Whether somebody waits.
    pub(crate) fn is_wanted_now(&self) -> bool {
        !self.line.borrow().waiting.is_empty()
    }

    pub(crate) fn held(&self) -> u64 {
        (self.max - self.free.get()) as u64
    }

    pub(crate) fn waits(&self) -> u64 {
        self.waits.get()
    }

    async fn is_wanted(&self) {
        let mut watch = Watch { part: self, number: None };
        poll_fn(|context| {
            let mut line = self.line.borrow_mut();
            if !line.waiting.is_empty() {
                return Poll::Ready(());
            }
            let number = *watch.number.get_or_insert_with(|| {
                line.last += 1;
                line.last
            });
            line.hurried.insert(number, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes who is first.
    fn wake_first(&self) {
        let first = self.line.borrow().waiting.front().map(|(_, waker)| waker.clone());
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.part.free.set(self.part.free.get() + self.len);
        self.part.wake_first();
    }
}

/// A place in the line, which is left in any case.
struct InLine<'a> {
    part: &'a Part,
    number: Option<u64>,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.part.line.borrow_mut().waiting.retain(|(other, _)| *other != number);
            self.part.wake_first();
        }
    }
}

struct Watch<'a> {
    part: &'a Part,
    number: Option<u64>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.part.line.borrow_mut().hurried.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::pin::pin;

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn room_is_given_in_order_and_comes_back() {
        block_on(async {
            let part = Part::new(10);
            let first = part.take(8).await;
            let mut second = pin!(part.take(7));
            let mut third = pin!(part.take(1));
            assert!(poll_once(second.as_mut()).await.is_none());
            // There would be room for this one, but others came before.
            assert!(poll_once(third.as_mut()).await.is_none());
            drop(first);
            assert!(poll_once(third.as_mut()).await.is_none());
            let second = poll_once(second).await.unwrap();
            let third = poll_once(third).await.unwrap();
            drop((second, third));
            assert_eq!((part.free.get(), part.waits.get()), (10, 2));
            // What is larger than all gets all.
            assert_eq!(part.take(100).await.len, 10);
        });
    }

    #[test]
    fn who_gives_up_leaves_the_line() {
        block_on(async {
            let part = Part::new(10);
            let first = part.take(10).await;
            {
                let mut second = pin!(part.take(10));
                assert!(poll_once(second.as_mut()).await.is_none());
                assert!(poll_once(pin!(part.is_wanted())).await.is_some());
            }
            let mut wanted = pin!(part.is_wanted());
            assert!(poll_once(wanted.as_mut()).await.is_none());
            let mut third = pin!(part.take(1));
            assert!(poll_once(third.as_mut()).await.is_none());
            assert!(poll_once(wanted).await.is_some());
            drop(first);
            assert!(poll_once(third).await.is_some());
        });
    }
}
