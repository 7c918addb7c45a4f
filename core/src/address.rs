//! Addresses of servers: `host:port`.

use alloc::string::String;
use core::fmt;
use core::net::SocketAddrV6;

/// `host:port`, with brackets around a bare IPv6 address.
pub fn host_and_port(host: &str, port: impl fmt::Display) -> String {
    let is_ipv6 = host.contains(':');
    if is_ipv6 { alloc::format!("[{host}]:{port}") } else { alloc::format!("{host}:{port}") }
}

/// Why nothing can be dialled at an address. `Display` says what would be right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AddressError {
    /// It is a URL.
    Scheme,
    /// There is no host, or one with characters that no host has.
    Host,
    /// An IPv6 address that is none, or not in brackets.
    Ipv6,
    /// There is no port, or none from 1 to 65535.
    Port,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "an nsqd is given as host:port, without a scheme and a path",
            Self::Host => "an nsqd is given as host:port; there is no host, or a damaged one",
            Self::Ipv6 => "an IPv6 address is given in brackets: [::1]:4150",
            Self::Port => "an nsqd is given as host:port, with a port from 1 to 65535",
        })
    }
}

impl core::error::Error for AddressError {}

/// Checks that an nsqd can be dialled at `address`: `host:port`, with an IPv6 address in brackets.
/// Whether there is such a host shows when it is dialled.
///
/// # Errors
/// [`AddressError`] if it can't.
pub fn check_address(address: &str) -> Result<(), AddressError> {
    if address.contains("://") {
        return Err(AddressError::Scheme);
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (address, ""),
    };
    if host.contains(':') {
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let text = alloc::format!("[{}]:1", in_brackets.unwrap_or_default());
        text.parse::<SocketAddrV6>().map_err(|_| AddressError::Ipv6)?;
    } else if !(1..=HOST_LEN_MAX).contains(&host.len()) || host.chars().any(is_foreign) {
        return Err(AddressError::Host);
    }
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| is_number && *port > 0);
    port.map(|_| ()).ok_or(AddressError::Port)
}

fn is_foreign(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "/\\@?#[]\"'<>,;".contains(c)
}

/// The longest name of a host that resolvers take.
const HOST_LEN_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::check_address as check;
    use super::*;

    #[test]
    fn a_bare_ipv6_address_gets_brackets() {
        assert_eq!(host_and_port("localhost", 4150), "localhost:4150");
        assert_eq!(host_and_port("::1", -1), "[::1]:-1");
    }

    #[test]
    fn what_can_be_dialled_is_taken() {
        for address in [
            "127.0.0.1:4150",
            "localhost:1",
            "nsqd-0.nsqd.svc.cluster.local:65535",
            "my_host:4150",
            "[::1]:4150",
            "[fe80::1%2]:4150",
        ] {
            assert_eq!(check(address), Ok(()), "{address}");
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_by_name() {
        for (address, error) in [
            ("", AddressError::Host),
            (":4150", AddressError::Host),
            (":99999", AddressError::Host),
            ("a b:4150", AddressError::Host),
            ("a,b:4150", AddressError::Host),
            ("host/path:4150", AddressError::Host),
            ("user@host:4150", AddressError::Host),
            ("[host]:4150", AddressError::Host),
            ("127.0.0.1", AddressError::Port),
            ("host:", AddressError::Port),
            ("host:0", AddressError::Port),
            ("host:+1", AddressError::Port),
            ("host:99999", AddressError::Port),
            ("host:tcp", AddressError::Port),
            ("[::1]", AddressError::Port),
            ("::1", AddressError::Ipv6),
            ("::1:4150", AddressError::Ipv6),
            ("[::1:4150", AddressError::Ipv6),
            ("[1:2]:4150", AddressError::Ipv6),
            ("http://host:4150", AddressError::Scheme),
            ("tcp://host:4150", AddressError::Scheme),
        ] {
            assert_eq!(check(address), Err(error), "{address:?}");
        }
        assert_eq!(check(&"h".repeat(300)), Err(AddressError::Host));
    }
}
