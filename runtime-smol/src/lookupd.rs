//! nsqlookupd: its machine under the turn, on one thread.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use sansq_core::http::{HttpReply, Request};
use sansq_core::nsqd::{Close, Peer, ReadState, ShardId};
use sansq_core::nsqlookupd::{self};
use sansq_core::options::{HTTP_CONNECTIONS_MAX, LookupdOptions};
use sansq_runtime::http::Site;
use sansq_runtime::lanes::{Lanes, Mail};
use sansq_runtime::places::Places;
use sansq_runtime::socket::{Address, ListenSocket};
use sansq_runtime::{Bound, Clock, Program, Registrar, RegistrarActions, ServerHandle};
use smol::Async;

use crate::http;
use crate::net;
use crate::server::{self, Door, Executor, Tasks};
use crate::turn::{Driven, Driver, Turn};

/// An nsqlookupd whose listeners are open and which does not run yet.
#[derive(Debug)]
pub struct Lookupd(pub(crate) Bound<LookupdOptions>);

impl Lookupd {
    /// Opens the listeners.
    ///
    /// # Errors
    /// If an address cannot be listened on; the text names it.
    pub fn bind(options: LookupdOptions) -> io::Result<Self> {
        Bound::lookupd(options).map(Self)
    }

    /// Where nsqds connect.
    pub const fn tcp_addr(&self) -> &Address {
        self.0.tcp_addr()
    }

    /// Where consumers look topics up.
    pub fn http_addr(&self) -> Option<&Address> {
        self.0.http_addr()
    }

    /// Starts its thread. The calling thread needs no runtime.
    ///
    /// # Errors
    /// If the operating system refuses the thread.
    pub fn spawn(self) -> io::Result<ServerHandle> {
        self.spawn_on(Executor::default())
    }

    /// As [`spawn`](Self::spawn), with a choice.
    ///
    /// # Errors
    /// If the operating system refuses the thread.
    pub fn spawn_on(self, executor: Executor) -> io::Result<ServerHandle> {
        let lanes = Arc::new(Lanes::new(1));
        let mut handle = ServerHandle::new(
            Program::Nsqlookupd,
            &self.0.tcp,
            self.0.http.as_ref(),
            Arc::clone(&lanes),
        );
        handle.start(String::from("nsqlookupd"), move || {
            server::run(executor, ShardId(0), Arc::clone(&lanes), |tasks| self.open(lanes, tasks))
        })?;
        Ok(handle)
    }

    pub(crate) fn open(
        self,
        lanes: Arc<Lanes>,
        tasks: Tasks,
    ) -> io::Result<(Rc<Driver<Registrar>>, Vec<Door>)> {
        let Bound { options, tcp, http: web, https: _ } = self.0;
        let registrar = Registrar(nsqlookupd::Lookupd::new(options.config));
        let actions = [RegistrarActions::default(), RegistrarActions::default()];
        let driver = Driver::new(Clock::start(), ShardId(0), registrar, actions, (), lanes, tasks);
        let listener = Async::new(tcp.socket)?;
        let task = driver.spawn(accept(Rc::clone(&driver), listener));
        let mut doors = vec![Door::new(Program::Nsqlookupd, "TCP", tcp.address, tcp.file, task)];
        if let Some(web) = web {
            let listener = Async::new(web.socket)?;
            let site = Rc::new(LookupdSite(Rc::clone(&driver)));
            let task = driver.spawn(http::serve(
                Rc::clone(&driver),
                listener,
                HTTP_CONNECTIONS_MAX,
                site,
                None,
            ));
            doors.push(Door::new(Program::Nsqlookupd, "HTTP", web.address, web.file, task));
        }
        Ok((driver, doors))
    }
}

async fn accept(driver: Rc<Driver<Registrar>>, listener: Async<ListenSocket>) {
    // The machine has a limit of its own.
    let places = Places::new(usize::MAX);
    loop {
        let (stream, peer) = net::accept(&listener, Program::Nsqlookupd, "TCP").await;
        // Nothing else is listened on; and a socket that the reactor does not take is closed.
        let (Peer::Tcp(remote), Ok(socket)) = (peer, driver.socket(stream)) else { continue };
        let Some(place) = places.take() else { continue };
        driver.turn_with(|turn| {
            turn.admit(&driver, socket, place, BytesMut::new(), |registrar, _, now, out| {
                (registrar.0.accept(remote, now, &mut out.machine), ReadState::More(1))
            });
        });
    }
}

/// The HTTP interface.
struct LookupdSite(Rc<Driver<Registrar>>);

impl Site for LookupdSite {
    const PROGRAM: Program = Program::Nsqlookupd;

    fn body_limit(&self, _method: &str, _path: &str) -> usize {
        BODY_LEN_MAX
    }

    async fn answer(&self, request: &Request<'_>, _too_big: bool) -> HttpReply {
        self.0.turn_with(|turn| {
            turn.machine.handle_http(request, &turn.meter, turn.now, &mut turn.out)
        })
    }
}

impl Driven for Registrar {
    type World = ();

    fn shut_down(turn: &mut Turn<Self>) {
        turn.machine.0.shut_down(turn.now, &mut turn.out.machine);
    }

    fn carry_out(driver: &Rc<Driver<Self>>, turn: &mut Turn<Self>, actions: &mut RegistrarActions) {
        for event in actions.machine.events.drain(..) {
            Program::Nsqlookupd.log(event.level(), event);
        }
        for conn in actions.machine.transmit.drain(..) {
            turn.transmit(driver, conn);
        }
        for conn in actions.machine.close.drain(..) {
            turn.close(driver, conn, Close::AfterSending);
        }
        for conn in actions.resume.drain(..) {
            turn.resume(conn);
        }
    }

    fn end_turn(_turn: &mut Turn<Self>) {}

    /// nsqlookupd remembers nothing.
    fn flush(_turn: &mut Turn<Self>) {}

    fn lost(_turn: &Turn<Self>) -> usize {
        0
    }

    fn receive(_driver: &Rc<Driver<Self>>, _mail: &mut Mail) {}
}

/// Nothing in a body counts here; clients that send one all the same are read to its end.
const BODY_LEN_MAX: usize = 1024 * 1024;
