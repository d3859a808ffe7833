//! Limits below /proc/sys.

/// The overflow uid and gid, unless `/proc/sys/kernel/overflowuid` and `overflowgid` say otherwise.
const OVERFLOW_ID: usize = 65_534;

/// The number in `path` there, or `fallback` where it cannot be read.
pub(crate) fn sysctl(path: &str, fallback: usize) -> usize {
    let text = std::fs::read_to_string(format!("/proc/sys/{path}"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(fallback)
}

/// Whether `id` is what a user or a group without a number in this user namespace shows as.
pub(crate) fn is_overflow(id: u32) -> bool {
    let shown_as = |path: &str| sysctl(path, OVERFLOW_ID);
    [OVERFLOW_ID, shown_as("kernel/overflowuid"), shown_as("kernel/overflowgid")].contains(&(id as usize))
}
