//! What a process has mapped: `/proc/PID/maps`, as
//! [proc_pid_maps(5)](https://man7.org/linux/man-pages/man5/proc_pid_maps.5.html) describes it. It tells users of
//! [`RemoteProcess`](super::remote::RemoteProcess) which addresses there can be read.
//!
//! Who may attach to a process may see its mappings, and nobody else: the kernel's check is a little weaker than that for a
//! transfer (it asks for the right to read, not to change), so mappings that are listed may still be refused.
//!
//! # What is listed as readable, and is not
//!
//! `process_vm_readv` answers with EFAULT in some places that the list shows with an `r`:
//!
//! | Mapping | Readable? |
//! |---|---|
//! | `[vdso]` | yes |
//! | `[vvar]`, `[vvar_vclock]`: the kernel's clock data | no: they are no memory of the process |
//! | `[vsyscall]` | no: it lies above all addresses of the process; newer kernels list it as executable only |
//! | of a device, `/dev/dri/...` | no, where the driver maps its registers (`VM_IO`, `VM_PFNMAP`) |
//! | `anon_inode:[perf_event]`, and `[io_uring]` before Linux 6.10 | no, for the same reason |
//! | `/secretmem`, from memfd_secret(2) | no: nobody reads it but its process |
//! | of a file, pages beyond its end | no: the process itself would get SIGBUS |
//! | guard pages made by `MADV_GUARD_INSTALL` (Linux 6.13), which newer C libraries put below stacks | no, and the list hides them |
//! | pages that userfaultfd(2) supplies, or a file of FUSE | yes, and the reader waits for whoever supplies them |
//!
//! [`MemoryMap::is_attachable`] leaves out all that the name tells; the last three only the attempt tells, which says exactly
//! how far it came.
//!
//! The list is no snapshot. The kernel writes it a page at a time, and the process goes on meanwhile: what is listed may be
//! gone, and what is new may lack.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::remote::RemoteRange;
use crate::address::printable;
use crate::{Error, Result};

/// A range of addresses of a process, mapped in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryMap {
    /// The first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// Whether the process may read it.
    pub readable: bool,
    /// Whether the process may write it.
    pub writable: bool,
    /// Whether the process may execute it.
    pub executable: bool,
    /// Whether writes reach others that map the same object (`MAP_SHARED`), or are the process's own (`MAP_PRIVATE`).
    pub shared: bool,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// The device of the file, major and minor number; 0 and 0 without a file.
    pub device: (u32, u32),
    /// The inode of the file; 0 without one.
    pub inode: u64,
    /// The path of the file, followed by ` (deleted)` when it was; `[heap]`, `[stack]`, `[vdso]` and the like; empty for
    /// other memory. The kernel writes a line feed in a path as `\012`, which is undone here: a path that has these four
    /// characters cannot be told from it.
    pub name: OsString,
}

impl MemoryMap {
    /// The length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// The addresses.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    /// Whether no file, device or part of the kernel lies behind it: heap, stacks, `MAP_ANONYMOUS | MAP_PRIVATE`.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        let name = self.name.as_bytes();
        let pseudo = matches!(name, b"" | b"[heap]" | b"[stack]") || name.starts_with(b"[anon:");
        pseudo && self.inode == 0 && self.device == (0, 0)
    }

    /// Whether `process_vm_readv` reads it, so far as the list tells: [what it does not tell](self).
    #[must_use]
    pub fn is_attachable(&self) -> bool {
        self.readable && !is_outside_memory(self.name.as_bytes())
    }
}

/// Whether a name stands for what is no memory of the process, though it is in its address space.
fn is_outside_memory(name: &[u8]) -> bool {
    const NEVER: [&[u8]; 5] = [b"[vvar", b"[vsyscall]", b"anon_inode:", b"/anon_inode:", b"/secretmem"];
    /// Where files in memory lie, beside the devices.
    const FILES: [&[u8]; 3] = [b"/dev/shm/", b"/dev/zero", b"/dev/hugepages/"];
    let device = name.starts_with(b"/dev/") && !FILES.iter().any(|file| name.starts_with(file));
    device || NEVER.iter().any(|prefix| name.starts_with(prefix))
}

/// In the form of the kernel, without the device and the inode: `7f0000001000-7f0000003000 r-xp 00001000 /lib/libc.so.6`.
impl fmt::Display for MemoryMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |set: bool, letter: char| if set { letter } else { '-' };
        write!(f, "{:08x}-{:08x} ", self.start, self.end)?;
        write!(f, "{}{}", flag(self.readable, 'r'), flag(self.writable, 'w'))?;
        write!(f, "{}{}", flag(self.executable, 'x'), if self.shared { 's' } else { 'p' })?;
        write!(f, " {:08x}", self.offset)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " {}", printable(&self.name.to_string_lossy())) }
    }
}

/// The mappings of a process, in the order of their addresses. [`maps`] makes it.
///
/// A line that is none of the kernel's known form is an error of its own, after which the next line follows. When the process
/// exits the list ends.
#[derive(Debug)]
pub struct Maps {
    object: String,
    lines: BufReader<File>,
    number: usize,
    failed: bool,
}

/// Opens the list of what the process, or thread, with the number `pid` has mapped.
///
/// The number may be given to another process once this one has exited. Who needs to be sure holds a
/// [`RemoteProcess`](super::remote::RemoteProcess) and asks it afterwards whether it still lives.
///
/// ```
/// use onecopy::memory::maps::maps;
///
/// let local = 1_u8;
/// let address = (&raw const local).addr() as u64;
/// for map in maps(std::process::id())? {
///     let map = map?;
///     if map.range().contains(&address) {
///         assert!(map.readable && map.writable && map.is_anonymous());
///     }
/// }
/// # Ok::<(), onecopy::Error>(())
/// ```
///
/// # Errors
///
/// An error for which [`Error::is_peer_gone`] holds when there is no such process, or it has no memory: it has exited, or is a
/// kernel thread. EACCES when this process has not the right to trace it.
pub fn maps(pid: u32) -> Result<Maps> {
    let object = format!("/proc/{pid}/maps");
    match File::open(&object) {
        Ok(file) => Ok(Maps { object, lines: BufReader::new(file), number: 0, failed: false }),
        Err(error) => Err(open_error(pid, object, error)),
    }
}

fn open_error(pid: u32, object: String, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => Error::os("open", object, io::Error::from_raw_os_error(libc::ESRCH))
            .with_remedy("no process that /proc shows here has this number, or it has no memory"),
        Some(libc::EACCES | libc::EPERM) => Error::os("open", object, error).with_remedy(format!(
            "its mappings are for those who may trace it, as is its memory; `onecopy doctor --pid {pid}` tells the rule"
        )),
        _ => Error::os("open", object, error),
    }
}

impl Iterator for Maps {
    type Item = Result<MemoryMap>;

    fn next(&mut self) -> Option<Result<MemoryMap>> {
        if self.failed {
            return None;
        }
        let mut line = Vec::new();
        match self.lines.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => {
                self.number += 1;
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                Some(parse(line).ok_or_else(|| self.odd(line)))
            }
            // It exited meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => None,
            Err(error) => {
                self.failed = true;
                Some(Err(Error::os("read", self.object.clone(), error)))
            }
        }
    }
}

impl Maps {
    fn odd(&self, line: &[u8]) -> Error {
        let text = printable(&String::from_utf8_lossy(line));
        Error::Corrupt { object: self.object.clone(), detail: format!("line {} is no mapping: {text}", self.number) }
    }
}

/// `START-END PERMS OFFSET MAJOR:MINOR INODE`, then blanks and a name, if any.
fn parse(line: &[u8]) -> Option<MemoryMap> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut word = || std::str::from_utf8(fields.next()?).ok();
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = word()?.split_once('-')?;
    let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
    let permissions = word()?;
    let offset = hexadecimal(word()?)?;
    let (major, minor) = word()?.split_once(':')?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = word()?.parse().ok()?;
    let name = unescape(fields.next().unwrap_or_default().trim_ascii_start());
    let &[read, write, execute, share] = permissions.as_bytes() else { return None };
    let flag = |byte: u8, letter: u8| [letter, b'-'].contains(&byte).then_some(byte == letter);
    Some(MemoryMap {
        start,
        end: Some(end).filter(|end| *end > start)?,
        readable: flag(read, b'r')?,
        writable: flag(write, b'w')?,
        executable: flag(execute, b'x')?,
        shared: matches!(share, b's' | b'p').then_some(share == b's')?,
        offset,
        device,
        inode,
        name,
    })
}

/// The kernel writes a line feed in octal, and nothing else.
fn unescape(name: &[u8]) -> OsString {
    let mut rest = name;
    let mut plain = Vec::with_capacity(name.len());
    while let Some((&first, behind)) = rest.split_first() {
        match rest.strip_prefix(b"\\012") {
            Some(behind) => {
                plain.push(b'\n');
                rest = behind;
            }
            None => {
                plain.push(first);
                rest = behind;
            }
        }
    }
    OsString::from_vec(plain)
}

/// The ranges of a process that can be read, so far as the list tells, in order; ranges that touch are one. As they are, they
/// can be given to [`RemoteProcess::read_vectored`](super::remote::RemoteProcess::read_vectored). Lines of an unknown form are
/// left out.
///
/// ```
/// use onecopy::memory::maps::readable_ranges;
///
/// let local = 1_u8;
/// let address = (&raw const local).addr() as u64;
/// let ranges = readable_ranges(std::process::id())?;
/// assert!(ranges.iter().any(|range| address >= range.address && address - range.address < range.bytes as u64));
/// # Ok::<(), onecopy::Error>(())
/// ```
///
/// # Errors
///
/// As [`maps`], and what reading the list fails with.
pub fn readable_ranges(pid: u32) -> Result<Vec<RemoteRange>> {
    let mut ranges: Vec<RemoteRange> = Vec::new();
    for map in maps(pid)? {
        let map = match map {
            Ok(map) if map.is_attachable() => map,
            Ok(_) | Err(Error::Corrupt { .. }) => continue,
            Err(error) => return Err(error),
        };
        let bytes = map.bytes() as usize;
        match ranges.last_mut() {
            Some(last) if last.address + last.bytes as u64 == map.start => last.bytes += bytes,
            _ => ranges.push(RemoteRange { address: map.start, bytes }),
        }
    }
    Ok(ranges)
}

/// The mapping that has `address`, or else the one that begins or ends nearest to it; `None` when the process has none.
/// Lines of an unknown form are left out.
///
/// # Errors
///
/// As [`maps`], and what reading the list fails with.
pub fn nearest(pid: u32, address: u64) -> Result<Option<MemoryMap>> {
    let mut best: Option<(u64, MemoryMap)> = None;
    for map in maps(pid)? {
        let map = match map {
            Ok(map) => map,
            Err(Error::Corrupt { .. }) => continue,
            Err(error) => return Err(error),
        };
        let distance = distance(&map, address);
        if best.as_ref().is_none_or(|(least, _)| distance < *least) {
            best = Some((distance, map));
        }
    }
    Ok(best.map(|(_, map)| map))
}

/// How far `address` lies from the nearest byte of a mapping; 0 inside.
fn distance(map: &MemoryMap, address: u64) -> u64 {
    match address {
        address if address < map.start => map.start - address,
        address if address >= map.end => address - map.end + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> MemoryMap {
        parse(line.as_bytes()).unwrap_or_else(|| panic!("{line}"))
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        let map = one("7f00c000-7f00e000 r-xp 00001000 fd:0a 1234       /usr/lib/a b.so (deleted)");
        assert_eq!((map.range(), map.bytes(), map.offset), (0x7f00_c000..0x7f00_e000, 0x2000, 0x1000));
        assert!(map.readable && !map.writable && map.executable && !map.shared);
        assert_eq!((map.device, map.inode), ((0xfd, 0x0a), 1234));
        assert_eq!(map.name, "/usr/lib/a b.so (deleted)");
        assert_eq!(map.to_string(), "7f00c000-7f00e000 r-xp 00001000 /usr/lib/a b.so (deleted)");
        let map = one("00400000-00401000 rw-s 00000000 00:00 0 ");
        assert!(map.shared && map.name.is_empty() && map.is_anonymous());
        assert_eq!(one("1000-2000 ---p 00000000 00:00 0").to_string(), "00001000-00002000 ---p 00000000");
        assert_eq!(one("1000-2000 r--p 0 08:01 7 /tmp/a\\012b\\c").name, "/tmp/a\nb\\c");
        let bytes = parse(b"1000-2000 r--p 0 08:01 7 /tmp/\xff\xfe").unwrap();
        assert_eq!(bytes.name.as_bytes(), b"/tmp/\xff\xfe");
    }

    #[test]
    fn odd_lines_are_none() {
        for line in [
            "",
            "1000-2000",
            "1000 r--p 0 00:00 0",
            "2000-1000 r--p 0 00:00 0",
            "1000-1000 r--p 0 00:00 0",
            "1000-2000 r--q 0 00:00 0",
            "1000-2000 r--pp 0 00:00 0",
            "1000-2000 R--p 0 00:00 0",
            "1000-2000 r--p x 00:00 0",
            "1000-2000 r--p 0 0000 0",
            "1000-2000 r--p 0 00:00 x",
            "10000000000000000-20000000000000000 r--p 0 00:00 0",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn an_odd_line_is_an_error_and_the_next_one_follows() {
        let file = rustix::fs::memfd_create("maps", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&file, b"1000-2000 r--p 0 00:00 0\nsomething\x1b else\n3000-4000 rw-p 0 00:00 0\n").unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
        let lines = BufReader::new(File::from(file));
        let mut maps = Maps { object: "/proc/7/maps".into(), lines, number: 0, failed: false };
        assert_eq!(maps.next().unwrap().unwrap().start, 0x1000);
        let error = maps.next().unwrap().unwrap_err().to_string();
        assert!(error.starts_with("/proc/7/maps ") && error.contains("line 2 is no mapping: something"), "{error}");
        assert!(!error.contains('\x1b'), "{error}");
        assert_eq!(maps.next().unwrap().unwrap().start, 0x3000);
        assert!(maps.next().is_none());
    }

    #[test]
    fn what_is_no_memory_of_the_process_is_not_attachable() {
        let named = |name: &str| one(&format!("1000-2000 r--p 00000000 00:00 0 {name}"));
        for name in ["", "[heap]", "[stack]", "[vdso]", "[anon:pool]", "/dev/shm/x", "/dev/zero (deleted)", "/lib/x.so"]
        {
            assert!(named(name).is_attachable(), "{name}");
        }
        for name in ["[vvar]", "[vvar_vclock]", "[vsyscall]", "/dev/dri/card0", "/dev/mem", "anon_inode:[perf_event]"] {
            assert!(!named(name).is_attachable(), "{name}");
        }
        assert!(!named("/secretmem (deleted)").is_attachable());
        assert!(!one("1000-2000 --xp 00000000 00:00 0").is_attachable());
        assert!(named("[anon:pool]").is_anonymous() && !named("[vdso]").is_anonymous());
    }

    #[test]
    fn distances_count_from_the_nearest_byte() {
        let map = one("1000-2000 r--p 00000000 00:00 0");
        let expected = [(0, 0x1000), (0xfff, 1), (0x1000, 0), (0x1fff, 0), (0x2000, 1), (0x2010, 0x11)];
        for (address, far) in expected {
            assert_eq!(distance(&map, address), far, "{address:#x}");
        }
    }
}
