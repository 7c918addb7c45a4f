//! The shared suite on smol.
#![cfg(test)]

#[path = "../../tests/suite/mod.rs"]
mod suite;

/// Starts servers for the suite.
mod harness {
    use core::future::Future;
    use core::net::SocketAddr;
    use core::time::Duration;
    use std::io;
    use std::path::Path;

    use sansq_runtime::options::{LookupdOptions, NsqdOptions};
    use sansq_smol::{
        Consumer, ConsumerConfig, DataPath, Lookupd, Nsqd, Producer, ProducerConfig, ServerHandle,
        SetupError,
    };
    use smol::{Timer, future};
    use tempfile::TempDir;

    /// Runs `task`, within a time in which anything happens that happens at all.
    pub(crate) fn block_on<T>(task: impl Future<Output = T>) -> T {
        let late = async {
            Timer::after(PATIENCE).await;
            panic!("it hangs");
        };
        smol::block_on(future::or(task, late))
    }

    pub(crate) fn producer(config: ProducerConfig) -> Producer {
        try_producer(config).unwrap()
    }

    pub(crate) fn try_producer(config: ProducerConfig) -> Result<Producer, SetupError> {
        sansq_smol::producer(config)
    }

    pub(crate) fn consumer(config: ConsumerConfig) -> Consumer {
        try_consumer(config).unwrap()
    }

    pub(crate) fn try_consumer(config: ConsumerConfig) -> Result<Consumer, SetupError> {
        sansq_smol::consumer(config)
    }

    /// Starts a task on the runtime of [`block_on`].
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(task).detach();
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    pub(crate) struct Server {
        handle: ServerHandle,
        folder: Option<TempDir>,
    }

    impl Server {
        pub(crate) fn nsqd(options: NsqdOptions) -> io::Result<Self> {
            let folder = tempfile::tempdir()?;
            let mut server = Self::nsqd_in(options, folder.path())?;
            server.folder = Some(folder);
            Ok(server)
        }

        /// One whose queues are in a folder that outlasts it.
        pub(crate) fn nsqd_in(options: NsqdOptions, folder: &Path) -> io::Result<Self> {
            let data_path = DataPath::open(folder, false).map_err(io::Error::other)?;
            let handle = Nsqd::bind(options, data_path)?.spawn()?;
            Ok(Self { handle, folder: None })
        }

        pub(crate) fn lookupd(options: LookupdOptions) -> io::Result<Self> {
            let handle = Lookupd::bind(options)?.spawn()?;
            Ok(Self { handle, folder: None })
        }

        pub(crate) fn tcp_addr(&self) -> SocketAddr {
            self.handle.tcp_addr().socket_addr().expect("no unix socket")
        }

        pub(crate) fn http_addr(&self) -> Option<SocketAddr> {
            self.handle.http_addr()?.socket_addr()
        }

        pub(crate) fn https_addr(&self) -> Option<SocketAddr> {
            self.handle.https_addr()?.socket_addr()
        }

        /// Ends it and waits for that.
        pub(crate) fn stop(self) {
            self.handle.shut_down();
            self.handle.join().expect("no thread fails");
        }
    }
}
