//! The host's name.

/// The host's name as the operating system has it; `localhost` if it has none that is text.
pub fn host_name() -> String {
    os_name().filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".into())
}

fn os_name() -> Option<String> {
    rustix::system::uname().nodename().to_str().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_one() {
        assert!(!super::host_name().is_empty());
    }
}
