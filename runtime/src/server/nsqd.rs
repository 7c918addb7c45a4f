//! nsqd: listeners and one thread per shard.

use core::marker::PhantomData;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

use sansq_core::log::Level;
use sansq_core::nsqd::{Shard, ShardId};
use sansq_core::protocol::frame::TOO_MANY_CONNECTIONS;

use super::connection::linger;
use super::handle::ServerHandle;
use super::life::{self, Door};
use super::turn::Driver;
use super::{accept as accept_next, http, shard};
use crate::bind::Bound;
use crate::clock::Clock;
use crate::connection_limit::{ConnectionLimit, REFUSING_MAX, RefusedConnections};
use crate::lanes::{Arrival, Lanes};
use crate::listen::Listener;
use crate::log::Program;
use crate::options::NsqdOptions;
use crate::runtime::{ServerRuntime, Socket, Task, Thread, writable};
use crate::site::NsqdSite;
use crate::socket::{Address, Stream};
use crate::storage::{DataPath, Disk, Files, Inventory, Storage};
use crate::visitors::Visitors;

/// An nsqd whose listeners are open and which does not run yet.
#[derive(Debug)]
pub struct Nsqd<R, S = Files> {
    bound: Bound<NsqdOptions>,
    storage: S,
    runtime: PhantomData<R>,
}

impl<R: ServerRuntime> Nsqd<R> {
    /// Opens the listeners, and reads what an earlier nsqd has left in `data_path`.
    ///
    /// # Errors
    /// If an option is out of range, or an address cannot be listened on; the text names it
    /// (http-and-ops.md section 4). If the list of topics can't be read: [`MetadataFileError`].
    ///
    /// [`MetadataFileError`]: crate::storage::MetadataFileError
    pub fn bind(options: NsqdOptions, data_path: DataPath) -> io::Result<Self> {
        let bound = Bound::nsqd(options)?;
        let NsqdOptions { shards, data_files, .. } = bound.options;
        let storage = Files::open(data_path, shards, data_files)?;
        Ok(Self { bound, storage, runtime: PhantomData })
    }
}

impl<R: ServerRuntime, S: Storage> Nsqd<R, S> {
    /// Opens the listeners, over another storage than the files of a data path.
    ///
    /// # Errors
    /// If an option is out of range, or an address cannot be listened on; the text names it.
    pub fn bind_over(options: NsqdOptions, storage: S) -> io::Result<Self> {
        Ok(Self { bound: Bound::nsqd(options)?, storage, runtime: PhantomData })
    }

    /// Where clients connect.
    pub const fn tcp_addr(&self) -> &Address {
        self.bound.tcp_addr()
    }

    /// Where the HTTP API listens, unless it is switched off.
    pub fn http_addr(&self) -> Option<&Address> {
        self.bound.http_addr()
    }

    /// Where the HTTP API listens over TLS, if there is a certificate and it is not switched off.
    pub fn https_addr(&self) -> Option<&Address> {
        self.bound.https_addr()
    }

    /// Starts one thread per shard. The calling thread needs no runtime.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn spawn(self) -> io::Result<ServerHandle> {
        self.spawn_on(R::default())
    }

    /// As [`spawn`](Self::spawn), where a runtime has a choice.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn spawn_on(self, runtime: R) -> io::Result<ServerHandle> {
        let Self { bound: Bound { options, tcp, http, https }, mut storage, .. } = self;
        let lanes = Arc::new(Lanes::new(options.shards));
        let mut handle = ServerHandle::new(Program::Nsqd, &tcp, http.as_ref(), Arc::clone(&lanes))
            .with_https(https.as_ref());
        let clock = Clock::start();
        let mut front = Some(Front { tcp, http, https });
        for id in (0..options.shards).map(ShardId) {
            let (engine, list_path) = (storage.engine(id), storage.list_path());
            let (disk, disk_thread) = Disk::new(engine, list_path, id, Arc::clone(&lanes));
            let seat = Seat {
                id,
                clock,
                options: options.clone(),
                lanes: Arc::clone(&lanes),
                front: front.take(),
                disk,
                inventory: storage.inventory(id),
            };
            handle.start_disk(disk_thread)?;
            let runtime = runtime.clone();
            handle.start(format!("nsqd-{}", id.0), move || seat.run(&runtime))?;
        }
        Ok(handle)
    }
}

/// The listeners; with shard 0.
struct Front {
    tcp: Listener,
    http: Option<Listener>,
    https: Option<Listener>,
}

/// What a shard's thread starts with.
struct Seat {
    id: ShardId,
    clock: Clock,
    options: NsqdOptions,
    lanes: Arc<Lanes>,
    front: Option<Front>,
    disk: Disk,
    inventory: Inventory,
}

impl Seat {
    fn run(self, runtime: &impl ServerRuntime) -> io::Result<()> {
        let Self { id, clock, options, lanes, front, disk, inventory } = self;
        life::run(runtime, id, Arc::clone(&lanes), |thread| {
            let shard = Shard::new(id, lanes.shards(), options.config.clone(), options.seed);
            let world = (&options, disk, inventory);
            let driver = shard::drive(thread, clock, shard, id, &lanes, world);
            let doors = match front {
                Some(front) => front.open(&driver, &lanes, options)?,
                None => Vec::new(),
            };
            Ok((driver, doors))
        })
    }
}

impl Front {
    fn open<T: Thread>(
        self,
        driver: &Rc<Driver<Shard, T>>,
        lanes: &Arc<Lanes>,
        options: NsqdOptions,
    ) -> io::Result<Vec<Door<T>>> {
        let limit = ConnectionLimit::new(options.max_connections);
        let listener = driver.listen(self.tcp.socket)?;
        let task = driver.spawn(accept(Rc::clone(driver), Arc::clone(lanes), listener, limit));
        let mut doors =
            vec![Door::new(Program::Nsqd, "TCP", self.tcp.address, self.tcp.file, task)];
        let meter = lanes.meter(ShardId(0));
        let visitors = Visitors::new(driver.clock, options.max_http_connections, meter);
        let tls = options.config.tls.clone();
        let asked = Rc::clone(driver);
        let ask = async move |request, permit| shard::ask(&asked, request, permit).await;
        let site = NsqdSite::new(driver.clock, options, Arc::clone(lanes), ask);
        let mut serve = |name, listener: Listener, site, tls| -> io::Result<()> {
            let socket = driver.listen(listener.socket)?;
            let serve =
                http::serve(Rc::clone(driver), socket, Rc::clone(&visitors), Rc::new(site), tls);
            let task = driver.spawn(serve);
            doors.push(Door::new(Program::Nsqd, name, listener.address, listener.file, task));
            Ok(())
        };
        if let Some(https) = self.https {
            serve("HTTPS", https, site.over_https(), tls)?;
        }
        if let Some(http) = self.http {
            serve("HTTP", http, site, None)?;
        }
        Ok(doors)
    }
}

/// Accepts connections and deals them out to the shards in turn, up to the limit.
async fn accept<T: Thread>(
    driver: Rc<Driver<Shard, T>>,
    lanes: Arc<Lanes>,
    listener: T::Listener,
    limit: Arc<ConnectionLimit>,
) {
    let (mut refusals, refusing) =
        (RefusedConnections::default(), ConnectionLimit::new(REFUSING_MAX));
    let meter = lanes.meter(ShardId(0));
    for target in (0..lanes.shards()).map(ShardId).cycle() {
        let (stream, peer) = accept_next::<T>(&listener, Program::Nsqd, "TCP").await;
        let Some(permit) = limit.take() else {
            meter.note_refused();
            if let Some(line) = refusals.note(driver.clock.now().instant, limit.max()) {
                Program::Nsqd.log(Level::Warn, line);
            }
            refuse(&driver, stream, &refusing);
            continue;
        };
        if target == ShardId(0) {
            // A socket for which the thread has no room is closed, as if it had never been
            // accepted.
            if let Ok(socket) = driver.adopt(stream) {
                shard::accept(&driver, socket, peer, permit);
            }
        } else {
            lanes.send(target, Arrival::Accepted(stream, peer, permit));
        }
    }
}

/// Tells a client that there are too many connections. If many are being told so, it is only
/// closed.
fn refuse<T: Thread>(
    driver: &Rc<Driver<Shard, T>>,
    stream: Stream,
    refusing: &Arc<ConnectionLimit>,
) {
    let (Some(permit), Ok(socket)) = (refusing.take(), driver.adopt(stream)) else { return };
    let teller = Rc::clone(driver);
    let telling = driver.spawn(async move {
        // It is empty, so it takes these few bytes or none.
        if writable(&socket).await.is_ok()
            && socket.try_write(&[IoSlice::new(TOO_MANY_CONNECTIONS)]).is_ok()
        {
            linger(&teller, &socket).await;
        }
        drop(permit);
    });
    telling.detach();
}
