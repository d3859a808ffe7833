//! Limits below /proc/sys.

/// The number in `path` there, or `fallback` where it cannot be read.
pub(crate) fn sysctl(path: &str, fallback: usize) -> usize {
    let text = std::fs::read_to_string(format!("/proc/sys/{path}"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(fallback)
}
