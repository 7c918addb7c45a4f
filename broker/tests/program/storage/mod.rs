//! The built program on real files.

mod crash;
mod takeover;
mod trouble;

use std::io::{self, Write as _};
use std::net::TcpStream;

use crate::server::try_frame;

/// The next frame that is no heartbeat, its type and its payload, of a server that may die.
fn next_frame(socket: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    loop {
        let frame = try_frame(socket)?;
        if frame.1 != b"_heartbeat_" {
            return Ok(frame);
        }
        socket.write_all(b"NOP\n")?;
    }
}
