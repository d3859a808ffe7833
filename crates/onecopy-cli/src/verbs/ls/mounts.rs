//! Where file systems are mounted: /proc/PID/mountinfo.

use std::collections::HashSet;
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
    /// Of an overlay: the directory into which it writes, as whoever mounted it called that.
    upper: Option<PathBuf>,
}

/// All mounts that this process can see, the later ones above the earlier.
pub(super) fn mounts() -> Vec<Mount> {
    mounts_of("self")
}

/// Those that the process `who` can see; none where this one may not know.
fn mounts_of(who: &str) -> Vec<Mount> {
    let table = fs::read(format!("/proc/{who}/mountinfo")).unwrap_or_default();
    table.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// Where the overlays write that are mounted in the mount namespace of any process, so far as this one may look at it. The path of an upper
/// directory holds where the overlay was mounted from, which is here or there.
pub(super) fn upper_directories() -> Vec<PathBuf> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
    });
    let mut seen = HashSet::new();
    let mut uppers = Vec::new();
    for who in std::iter::once("self".to_owned()).chain(pids) {
        let Ok(space) = fs::read_link(format!("/proc/{who}/ns/mnt")) else { continue };
        if !seen.insert(space) {
            continue;
        }
        let root = PathBuf::from(format!("/proc/{who}/root"));
        for upper in mounts_of(&who).into_iter().filter_map(|mount| mount.upper) {
            uppers.push(root.join(upper.strip_prefix("/").unwrap_or(&upper)));
            uppers.push(upper);
        }
    }
    uppers
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    // Optional fields end with a hyphen.
    fields.find(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let (kind, _source, options) = (fields.next()?, fields.next()?, fields.next().unwrap_or_default());
    let upper = options.split(|byte| *byte == b',').find_map(|option| option.strip_prefix(b"upperdir="));
    Some(Mount {
        point: path(point),
        kind: text(kind),
        options: text(options),
        upper: upper.filter(|_| kind == b"overlay").map(path),
    })
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// The kernel writes blanks, tabs, line feeds and backslashes as three octal digits, and in options commas too.
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
        assert_eq!((&*mount.kind, &*mount.options, mount.upper), ("mqueue", "rw,seclabel", None));
        let line = b"36 35 0:9 / /m rw - overlay o rw,lowerdir=/l,upperdir=/a\\054\\040b,workdir=/w";
        assert_eq!(parse(line).unwrap().upper, Some(PathBuf::from("/a, b")));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 98:0 / /x rw no-end"), None);
    }
}
