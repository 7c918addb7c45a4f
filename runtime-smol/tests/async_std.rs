//! The shared suite on async-std.
#![cfg(test)]

#[path = "../../tests/suite/mod.rs"]
mod suite;

/// Starts servers for the suite.
mod harness {
    use core::net::SocketAddr;
    use std::io;

    use sansq_core::options::{LookupdOptions, NsqdOptions};
    use sansq_smol::{Executor, Lookupd, Nsqd, ServerHandle};

    pub(crate) struct Server(ServerHandle);

    impl Server {
        pub(crate) fn nsqd(options: NsqdOptions) -> io::Result<Self> {
            Ok(Self(Nsqd::bind(options)?.spawn_on(Executor::AsyncStd)?))
        }

        pub(crate) fn lookupd(options: LookupdOptions) -> io::Result<Self> {
            Ok(Self(Lookupd::bind(options)?.spawn_on(Executor::AsyncStd)?))
        }

        pub(crate) fn tcp_addr(&self) -> SocketAddr {
            self.0.tcp_addr()
        }

        pub(crate) fn http_addr(&self) -> Option<SocketAddr> {
            self.0.http_addr()
        }

        pub(crate) fn https_addr(&self) -> Option<SocketAddr> {
            self.0.https_addr()
        }

        /// Ends it and waits for that.
        pub(crate) fn stop(self) {
            self.0.shut_down();
            self.0.join().expect("no thread fails");
        }
    }
}
