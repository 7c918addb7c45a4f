//! CPU time: of this program's threads, and of the server's process if it is on this host.

use core::net::SocketAddr;
use core::time::Duration;

/// CPU time of the calling thread so far; `None` where the system does not say.
pub(super) fn thread_cpu() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};
        Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).ok()
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Usage {
    /// CPU time, of all its threads, the kernel's work for them included; exact to 10 ms.
    pub(super) cpu: Duration,
    /// Resident memory in bytes.
    pub(super) memory: u64,
}

/// What process `pid` has used; `None` if there is none, or the system does not say.
pub(super) fn usage(pid: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_usage(&stat, ticks_per_second()?, page_size()?)
}

/// The process that listens at `peer`, if that is on this host, as it is if both ends have one
/// address.
pub(super) fn listener(peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    if peer.ip() != local.ip() && !peer.ip().is_loopback() {
        return None;
    }
    let inodes = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().flat_map(|path| {
        let table = std::fs::read_to_string(path).unwrap_or_default();
        listening(&table, peer.port())
    });
    let sockets: Vec<String> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        targets.any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    })
}

/// From proc(5)'s `stat`: fields 14 and 15 are times in ticks, 24 is pages. The second, in
/// brackets, may hold anything.
fn parse_usage(stat: &str, ticks_per_second: u64, page_size: u64) -> Option<Usage> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)?.checked_add(field(15)?)?;
    let cpu = Duration::from_nanos(ticks.checked_mul(1_000_000_000 / ticks_per_second)?);
    Some(Usage { cpu, memory: field(24)?.checked_mul(page_size)? })
}

/// The inodes of the sockets that listen on `port`, from proc(5)'s `net/tcp`.
fn listening(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&port) && fields.get(3) == Some(&LISTEN);
        is_it.then(|| fields.get(9)?.parse().ok()).flatten()
    };
    table.lines().filter_map(row).collect()
}

#[cfg(target_os = "linux")]
fn ticks_per_second() -> Option<u64> {
    Some(rustix::param::clock_ticks_per_second()).filter(|ticks| *ticks > 0)
}

#[cfg(target_os = "linux")]
fn page_size() -> Option<u64> {
    u64::try_from(rustix::param::page_size()).ok()
}

#[cfg(not(target_os = "linux"))]
const fn ticks_per_second() -> Option<u64> {
    None
}

#[cfg(not(target_os = "linux"))]
const fn page_size() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read_whatever_the_program_is_called() {
        let stat = "42 (a) R (b) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 100 5000 7 x y";
        let usage = Usage { cpu: Duration::from_secs(2), memory: 7 * 4096 };
        assert_eq!(parse_usage(stat, 100, 4096), Some(usage));
        for bad in ["", "42 (a", "42 (a) S 1 2", "42 (a) S 1 2 3 4 5 6 7 8 9 10 x y 13"] {
            assert_eq!(parse_usage(bad, 100, 4096), None, "{bad}");
        }
    }

    #[test]
    fn only_listeners_of_the_port_are_found() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1036 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0
   1: 0100007F:1036 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0
   2: 0100007F:1037 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0
   3: short";
        assert_eq!(listening(table, 0x1036), [111]);
        assert_eq!(listening(table, 1), [0; 0]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pid = super::listener(address, address).unwrap();
        assert_eq!(pid, std::process::id());
        assert!(usage(pid).unwrap().memory > 0);
        assert!(thread_cpu().is_some());
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], address.port()));
        assert_eq!(super::listener(elsewhere, address), None);
    }
}
