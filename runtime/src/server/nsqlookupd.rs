//! nsqlookupd: its machine under the turn, on one thread.

use core::marker::PhantomData;
use core::time::Duration;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use sansq_core::http::HttpRequest;
use sansq_core::machine::ReadState;
use sansq_core::nsqd::{Close, Peer, ShardId};
use sansq_core::nsqlookupd::{self, CLOSE_TIMEOUT, LookupdActions, LookupdReply};

use super::handle::ServerHandle;
use super::life::{self, Door, Opened};
use super::turn::{Driven, Driver, Turn};
use super::{accept as accept_next, http};
use crate::bind::Bound;
use crate::clock::Clock;
use crate::connection_limit::ConnectionLimit;
use crate::http::Site;
use crate::lanes::Lanes;
#[cfg(test)]
use crate::listen::Listener;
use crate::log::{Program, UNWRITTEN};
use crate::metrics::{self, LookupdPage};
use crate::options::LookupdOptions;
use crate::reply_room::{PendingReply, ReplyRoom, fit};
use crate::room::Permit;
use crate::runtime::{ServerRuntime, Thread};
use crate::socket::Address;
use crate::visitors::Visitors;

/// An nsqlookupd whose listeners are open and which does not run yet.
#[derive(Debug)]
pub struct Lookupd<R> {
    bound: Bound<LookupdOptions>,
    runtime: PhantomData<R>,
}

impl<R: ServerRuntime> Lookupd<R> {
    /// Opens the listeners.
    ///
    /// # Errors
    /// If an address cannot be listened on; the text names it.
    pub fn bind(options: LookupdOptions) -> io::Result<Self> {
        let bound = Bound::lookupd(options)?;
        Ok(Self { bound, runtime: PhantomData })
    }

    /// Where nsqds connect.
    pub const fn tcp_addr(&self) -> &Address {
        self.bound.tcp_addr()
    }

    /// Where consumers look topics up.
    pub fn http_addr(&self) -> Option<&Address> {
        self.bound.http_addr()
    }

    /// Starts its thread. The calling thread needs no runtime.
    ///
    /// # Errors
    /// If the operating system refuses the thread.
    pub fn spawn(self) -> io::Result<ServerHandle> {
        self.spawn_on(R::default())
    }

    /// As [`spawn`](Self::spawn), where a runtime has a choice.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn spawn_on(self, runtime: R) -> io::Result<ServerHandle> {
        let lanes = Arc::new(Lanes::new(1));
        let mut handle = ServerHandle::new(
            Program::Nsqlookupd,
            &self.bound.tcp,
            self.bound.http.as_ref(),
            Arc::clone(&lanes),
        );
        handle.start(String::from("nsqlookupd"), move || {
            life::run(&runtime, ShardId(0), Arc::clone(&lanes), |thread| self.open(thread, lanes))
        })?;
        Ok(handle)
    }

    #[cfg(test)]
    pub(super) const fn listener(&self) -> &Listener {
        &self.bound.tcp
    }

    pub(super) fn open(
        self,
        thread: Rc<R::Thread>,
        lanes: Arc<Lanes>,
    ) -> io::Result<Opened<nsqlookupd::Lookupd, R::Thread>> {
        let Bound { options, tcp, http: web, https: _ } = self.bound;
        let lookupd = nsqlookupd::Lookupd::new(options.config);
        let driver = Driver::new(thread, Clock::start(), ShardId(0), lookupd, (), lanes);
        let listener = driver.listen(tcp.socket)?;
        let task = driver.spawn(accept(Rc::clone(&driver), listener));
        let mut doors = vec![Door::new(Program::Nsqlookupd, "TCP", tcp.address, tcp.file, task)];
        if let Some(web) = web {
            let listener = driver.listen(web.socket)?;
            let site =
                Rc::new(LookupdSite { driver: Rc::clone(&driver), answers: ReplyRoom::new() });
            let meter = driver.look(|turn| Arc::clone(&turn.meter));
            let visitors = Visitors::new(driver.clock, options.max_http_connections, meter);
            let task =
                driver.spawn(http::serve(Rc::clone(&driver), listener, visitors, site, None));
            doors.push(Door::new(Program::Nsqlookupd, "HTTP", web.address, web.file, task));
        }
        Ok((driver, doors))
    }
}

async fn accept<T: Thread>(driver: Rc<Driver<nsqlookupd::Lookupd, T>>, listener: T::Listener) {
    // The machine has a limit of its own.
    let limit = ConnectionLimit::new(usize::MAX);
    loop {
        let (stream, peer) = accept_next::<T>(&listener, Program::Nsqlookupd, "TCP").await;
        // Nothing else is listened on; and a socket for which the thread has no room is closed.
        let (Peer::Tcp(remote), Ok(socket)) = (peer, driver.adopt(stream)) else { continue };
        let Some(permit) = limit.take() else { continue };
        driver.turn_with(|turn| {
            turn.admit(&driver, socket, permit, BytesMut::new(), |lookupd, _, now, out| {
                (lookupd.accept(remote, now, out), ReadState::More(1))
            });
        });
    }
}

/// The HTTP interface.
struct LookupdSite<T: Thread> {
    driver: Rc<Driver<nsqlookupd::Lookupd, T>>,
    answers: ReplyRoom,
}

impl<T: Thread> Site for LookupdSite<T> {
    const PROGRAM: Program = Program::Nsqlookupd;

    /// No body means anything here. Clients that send one all the same are read from, but nothing
    /// of it is kept.
    fn body_limit(&self, _method: &str, _path: &str) -> usize {
        0
    }

    fn answers(&self) -> &ReplyRoom {
        &self.answers
    }

    async fn answer(
        &self,
        request: &HttpRequest<'_>,
        _too_big: bool,
        _: Option<Permit>,
    ) -> PendingReply {
        let make = || {
            let answers = self.answers.figures();
            self.driver.turn_with(|turn| {
                fit(match turn.machine.handle_http(request, turn.now, &mut turn.out) {
                    LookupdReply::Metrics(stats) => {
                        let (turns, visitors) = (turn.meter.turns(), turn.meter.visitors());
                        let unwritten = UNWRITTEN.counts();
                        metrics::reply(LookupdPage { stats, turns, visitors, answers, unwritten })
                    }
                    LookupdReply::Reply(reply) => reply,
                })
            })
        };
        if request.method != "GET" {
            // It changes something, and is answered in a few words.
            make().into()
        } else if nsqlookupd::Lookupd::is_about_everything(request) {
            self.answers.make_in_turn(make).await
        } else {
            self.answers.make(make).await
        }
    }
}

impl Driven for nsqlookupd::Lookupd {
    type Resources<T: Thread> = ();

    const PROGRAM: Program = Program::Nsqlookupd;
    const CLOSE_TIME: Option<Duration> = Some(CLOSE_TIMEOUT);

    fn carry_out<T: Thread>(
        driver: &Rc<Driver<Self, T>>,
        turn: &mut Turn<Self, T>,
        actions: &mut LookupdActions,
    ) {
        let LookupdActions { transmit, close, resume, events } = actions;
        for event in events.drain(..) {
            Program::Nsqlookupd.log_kind(event.level(), Some(event.kind()), event);
        }
        for conn in transmit.drain(..) {
            turn.transmit(driver, conn);
        }
        for conn in close.drain(..) {
            turn.close(driver, conn, Close::AfterSending);
        }
        for conn in resume.drain(..) {
            turn.resume(conn);
        }
    }
}
