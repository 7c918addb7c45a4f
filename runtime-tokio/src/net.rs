//! Accepting.

use core::net::SocketAddr;

use sansq_runtime::Program;
use sansq_runtime::listen::{AcceptPause, set_options};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Waits for the next connection and sets its options. A failure is logged and does not end it.
pub(crate) async fn accept(
    listener: &TcpListener,
    program: Program,
    name: &str,
) -> (TcpStream, SocketAddr) {
    let mut pause = AcceptPause::new();
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                set_options(&socket);
                return (socket, address);
            }
            Err(error) => {
                if let Some(time) = pause.after(&error, program, name) {
                    sleep(time).await;
                }
            }
        }
    }
}
