//! What somebody may have meant.

/// The one of `known` that `name` is most likely a misspelling of.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    // A third of the letters wrong is still a slip; more is another word.
    let far = (name.len() / 3).max(1);
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&name, known), known))
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_slips_only() {
        let known = ["mem-queue-size", "msg-timeout", "id"];
        for (name, found) in [
            ("mem-queue-sise", Some("mem-queue-size")),
            ("MSG-TIMEOUT", Some("msg-timeout")),
            ("msg-timeuot", Some("msg-timeout")),
            ("di", Some("id")),
            ("frobnicate", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, known), found, "{name}");
        }
    }
}
