//! nsqd: listeners and one thread per shard.

use core::net::SocketAddr;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use sansq_core::nsqd::{Peer, Shard, ShardId};
use sansq_core::options::NsqdOptions;
use sansq_runtime::lanes::{Arrival, Lanes};
use sansq_runtime::listen::Listener;
use sansq_runtime::{Bound, Clock, NsqdSite, Program, ServerHandle};
use tokio::net::TcpListener;

use crate::http;
use crate::net;
use crate::server::{self, Door};
use crate::shard;
use crate::turn::Driver;

/// An nsqd whose listeners are open and which does not run yet.
#[derive(Debug)]
pub struct Nsqd(Bound<NsqdOptions>);

impl Nsqd {
    /// Opens the listeners.
    ///
    /// # Errors
    /// If an option is out of range, or an address cannot be listened on; the text names it
    /// (http-and-ops.md section 4).
    pub fn bind(options: NsqdOptions) -> io::Result<Self> {
        Bound::nsqd(options).map(Self)
    }

    /// Where clients connect.
    pub const fn tcp_addr(&self) -> SocketAddr {
        self.0.tcp_addr()
    }

    /// Where the HTTP API listens, unless it is switched off.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.0.http_addr()
    }

    /// Starts one thread per shard. The calling thread needs no runtime.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn spawn(self) -> io::Result<ServerHandle> {
        let Bound { options, tcp, http } = self.0;
        let lanes = Arc::new(Lanes::new(options.shards));
        let mut handle = ServerHandle::new(&tcp, http.as_ref(), Arc::clone(&lanes));
        let clock = Clock::start();
        let mut front = Some(Front { tcp, http });
        for id in (0..options.shards).map(ShardId) {
            let seat = Seat {
                id,
                clock,
                options: options.clone(),
                lanes: Arc::clone(&lanes),
                front: front.take(),
            };
            handle.start(format!("nsqd-{}", id.0), move || seat.run())?;
        }
        Ok(handle)
    }
}

/// The listeners; with shard 0.
struct Front {
    tcp: Listener,
    http: Option<Listener>,
}

/// What a shard's thread starts with.
struct Seat {
    id: ShardId,
    clock: Clock,
    options: NsqdOptions,
    lanes: Arc<Lanes>,
    front: Option<Front>,
}

impl Seat {
    fn run(self) -> io::Result<()> {
        let Self { id, clock, options, lanes, front } = self;
        let is_first = front.is_some();
        let result = server::run(id, Arc::clone(&lanes), || {
            let shard = Shard::new(id, lanes.shards(), options.config.clone(), options.seed);
            let driver = shard::drive(clock, shard, id, &lanes);
            let doors = match front {
                Some(front) => front.open(&driver, &lanes, options)?,
                None => Vec::new(),
            };
            Ok((driver, doors))
        });
        if is_first {
            Program::Nsqd.info("NSQ: stopping subsystems");
            Program::Nsqd.info("NSQ: bye");
        }
        result
    }
}

impl Front {
    fn open(
        self,
        driver: &Rc<Driver<Shard>>,
        lanes: &Arc<Lanes>,
        options: NsqdOptions,
    ) -> io::Result<Vec<Door>> {
        let listener = TcpListener::from_std(self.tcp.socket)?;
        let task = driver.spawn(accept(Rc::clone(driver), Arc::clone(lanes), listener));
        let mut doors = vec![Door::new(Program::Nsqd, "TCP", self.tcp.address, task)];
        if let Some(http) = self.http {
            let listener = TcpListener::from_std(http.socket)?;
            let asked = Rc::clone(driver);
            let ask = async move |request| shard::ask(&asked, request).await;
            let site = Rc::new(NsqdSite::new(driver.clock, options, Arc::clone(lanes), ask));
            let task = driver.spawn(http::serve(Rc::clone(driver), listener, site));
            doors.push(Door::new(Program::Nsqd, "HTTP", http.address, task));
        }
        Ok(doors)
    }
}

/// Accepts connections and deals them out to the shards in turn.
async fn accept(driver: Rc<Driver<Shard>>, lanes: Arc<Lanes>, listener: TcpListener) {
    for target in (0..lanes.shards()).map(ShardId).cycle() {
        let (socket, address) = net::accept(&listener, Program::Nsqd, "TCP").await;
        if target == ShardId(0) {
            shard::accept(&driver, socket, Peer::Tcp(address));
        } else if let Ok(socket) = socket.into_std() {
            lanes.send(target, Arrival::Accepted(socket, address));
        }
    }
}
