//! Where file systems are mounted: /proc/self/mountinfo.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// A mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    pub(super) kind: String,
    /// The options of the file system, which all its mounts have in common.
    pub(super) options: String,
}

/// All mounts that this process can see, the later ones above the earlier.
pub(super) fn mounts() -> Vec<Mount> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    table.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    // Optional fields end with a hyphen.
    fields.find(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let (kind, _source, options) = (fields.next()?, fields.next()?, fields.next().unwrap_or_default());
    Some(Mount { point: PathBuf::from(OsString::from_vec(unescape(point))), kind: text(kind), options: text(options) })
}

/// The kernel writes blanks, tabs, line feeds and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_with_blanks_and_optional_fields_are_read() {
        let line = b"36 35 98:0 /a /dev/my\\040queues\\134x rw,noatime shared:1 master:2 - mqueue none rw,seclabel";
        let mount = parse(line).unwrap();
        assert_eq!(mount.point, PathBuf::from("/dev/my queues\\x"));
        assert_eq!((&*mount.kind, &*mount.options), ("mqueue", "rw,seclabel"));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 98:0 / /x rw no-end"), None);
    }
}
