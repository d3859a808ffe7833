//! The versions that were compared, by the lock file that this program was built with.

const LOCK: &str = include_str!("../Cargo.lock");

/// The version of a package; "unknown" when the lock file has none of that name.
pub(crate) fn of(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != name).skip(1);
    lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"')).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_knows_all_of_them() {
        for package in ["onecopy", "iceoryx2", "ipc-channel", "interprocess"] {
            assert!(of(package).starts_with(|c: char| c.is_ascii_digit()), "{package}: {}", of(package));
        }
        assert_eq!(of("no-such-package"), "unknown");
    }
}
