//! Limits below /proc/sys.

/// The overflow uid and gid, unless `/proc/sys/kernel/overflowuid` and `overflowgid` say otherwise.
const OVERFLOW_ID: usize = 65_534;

/// The number in `path` there, or `fallback` where it cannot be read.
pub(crate) fn sysctl(path: &str, fallback: usize) -> usize {
    let text = std::fs::read_to_string(format!("/proc/sys/{path}"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(fallback)
}

/// Whether `id` is what a user or a group without a number in this user namespace shows as. Where the namespace has numbers for all,
/// as the machine's first one, nobody is without, and `id` is one like any other: that of the user `nobody`, say. (A file may show it there
/// too, on an id-mapped mount: that is for whoever made the mount.)
pub(crate) fn is_overflow(id: u32) -> bool {
    let shown_as = |path: &str| sysctl(path, OVERFLOW_ID);
    let is_shown =
        [OVERFLOW_ID, shown_as("kernel/overflowuid"), shown_as("kernel/overflowgid")].contains(&(id as usize));
    is_shown
        && !["uid_map", "gid_map"]
            .iter()
            .all(|map| std::fs::read_to_string(format!("/proc/self/{map}")).is_ok_and(|map| holds_all(&map)))
}

/// Whether a map of user_namespaces(7) has a number for every id: but the last, which stands for none.
fn holds_all(map: &str) -> bool {
    let mut numbers = map.split_ascii_whitespace().map(str::parse);
    (numbers.next(), numbers.next(), numbers.next()) == (Some(Ok(0)), Some(Ok(0)), Some(Ok(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_holds_all_or_not() {
        assert!(holds_all("         0          0 4294967295\n"));
        for part in ["", "0 1000 1\n", "0 0 65536\n", "0 100000 4294867295\n", "1 1 4294967294\n"] {
            assert!(!holds_all(part), "{part:?}");
        }
    }

    #[test]
    fn ids_that_nobody_shows_as_are_no_overflow() {
        assert!(!is_overflow(0) && !is_overflow(65_533));
    }
}
