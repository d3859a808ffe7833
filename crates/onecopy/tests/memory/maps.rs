//! What `memory::maps` lists is what the kernel says, and what it lists as readable is read.
//!
//! # Safety
//!
//! The second process makes one mapping at a place that it was told, where nothing else lies (`MAP_FIXED_NOREPLACE`), and
//! changes parts of it that no reference points to.
#![expect(unsafe_code, reason = "lays out pages of all kinds, and reads some whose names the kernel gives")]

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::ptr;
use std::time::Duration;

use onecopy::memory::maps::{MemoryMap, maps, nearest, readable_ranges};
use onecopy::memory::remote::{RemoteProcess, RemoteRange};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::support::{Peer, pattern, role, skip, watchdog};
use crate::{park, tell, told, unprivileged, wait_for_line};

const PAGE: usize = 4096;
const PAGES: usize = 256;

/// Where the second process lays its pages out: far from what the kernel places by itself.
const BASE: u64 = 0x3333_0000_0000;

fn own() -> u32 {
    std::process::id()
}

fn all(pid: u32) -> Vec<MemoryMap> {
    maps(pid).unwrap().map(Result::unwrap).collect()
}

/// The second process: 256 pages, of which it protects and unmaps some, as its seed says.
fn lay_out() -> ! {
    let seed: u64 = told("seed").parse().unwrap();
    let base = ptr::without_provenance_mut::<u8>(BASE as usize).cast();
    let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
    // SAFETY: a new mapping where nothing else is, or an error.
    let start = unsafe { mmap_anonymous(base, PAGES * PAGE, ProtFlags::READ | ProtFlags::WRITE, flags) }.unwrap();
    let content = pattern(PAGES * PAGE, seed);
    // SAFETY: the new mapping is as long as `content`, and nobody else knows it.
    unsafe { ptr::copy_nonoverlapping(content.as_ptr(), start.cast(), content.len()) };
    let choices = pattern(3 * 60, seed + 1);
    for choice in choices.chunks(3) {
        let first = usize::from(choice[0]);
        let count = (1 + usize::from(choice[1]) % 9).min(PAGES - first);
        // SAFETY: within the mapping made above.
        let place = unsafe { start.byte_add(first * PAGE) };
        let protection = match choice[2] % 8 {
            0 => None,
            1 | 2 => Some(MprotectFlags::empty()),
            3 => Some(MprotectFlags::READ | MprotectFlags::EXEC),
            4 => Some(MprotectFlags::READ | MprotectFlags::WRITE),
            _ => Some(MprotectFlags::READ),
        };
        match protection {
            // What a step before unmapped cannot be protected any more.
            // SAFETY: pages that nobody uses.
            Some(protection) => drop(unsafe { mprotect(place, count * PAGE, protection) }),
            // SAFETY: pages that nobody uses.
            None => unsafe { munmap(place, count * PAGE) }.unwrap(),
        }
    }
    tell("ready");
    park()
}

fn laid_out(test: &str, seed: u64) -> Peer {
    let mut peer = Peer::start(test, "lays out", &[("seed", &seed.to_string())]);
    wait_for_line(&mut peer, "ready");
    peer
}

/// Page by page: the list says that it can be read if and only if it can, and then the bytes are those.
#[test]
fn what_is_listed_as_readable_can_be_read_and_nothing_else() {
    if role().is_some() {
        lay_out();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    for seed in 0..12 {
        let peer = laid_out("maps::what_is_listed_as_readable_can_be_read_and_nothing_else", seed);
        let process = RemoteProcess::open(peer.pid()).unwrap();
        let content = pattern(PAGES * PAGE, seed);
        let ranges = readable_ranges(peer.pid()).unwrap();
        let (mut readable, mut page) = (0, vec![0; PAGE]);
        for index in 0..PAGES {
            let address = BASE + (index * PAGE) as u64;
            let listed = ranges.iter().any(|range| (range.address..end(range)).contains(&address));
            let read = process.read_exact(address, &mut page);
            assert_eq!(listed, read.is_ok(), "seed {seed}, page {index}: {read:?}");
            assert!(!listed || page == content[index * PAGE..][..PAGE], "seed {seed}, page {index}");
            readable += usize::from(listed);
        }
        assert!(readable > 0 && readable < PAGES, "seed {seed} has pages of both kinds: {readable}");
        let laid_out = BASE..BASE + (PAGES * PAGE) as u64;
        for range in ranges.iter().filter(|range| laid_out.contains(&range.address)) {
            process.read_exact(range.address, &mut vec![0; range.bytes]).unwrap();
        }
    }
}

fn end(range: &RemoteRange) -> u64 {
    range.address + range.bytes as u64
}

#[test]
fn ranges_are_in_order_and_do_not_touch() {
    if role().is_some() {
        lay_out();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let peer = laid_out("maps::ranges_are_in_order_and_do_not_touch", 77);
    let ranges = readable_ranges(peer.pid()).unwrap();
    assert!(ranges.len() > 4);
    assert!(ranges.windows(2).all(|pair| end(&pair[0]) < pair[1].address), "{ranges:?}");
    let listed: u64 = all(peer.pid()).iter().filter(|map| map.is_attachable()).map(MemoryMap::bytes).sum();
    assert_eq!(ranges.iter().map(|range| range.bytes as u64).sum::<u64>(), listed);
}

/// Every private anonymous mapping of a whole program: its heap, its stacks, what its libraries mapped.
#[test]
fn the_memory_of_a_program_is_read() {
    if role().is_some() {
        lay_out();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let peer = laid_out("maps::the_memory_of_a_program_is_read", 5);
    let process = RemoteProcess::open(peer.pid()).unwrap();
    let anonymous: Vec<_> =
        all(peer.pid()).into_iter().filter(|map| map.is_anonymous() && map.is_attachable()).collect();
    assert!(anonymous.iter().any(|map| map.name == "[stack]") && anonymous.iter().any(|map| map.name == "[heap]"));
    for map in anonymous {
        // From its end: below a stack a newer C library has a guard that the list does not show.
        process.read_exact(map.end - PAGE as u64, &mut [0; PAGE]).unwrap_or_else(|error| panic!("{map}: {error}"));
    }
}

/// Against the text of the kernel, field by field.
#[test]
fn the_list_is_that_of_the_kernel() {
    if role().is_some() {
        lay_out();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let peer = laid_out("maps::the_list_is_that_of_the_kernel", 3);
    let text = std::fs::read(format!("/proc/{}/maps", peer.pid())).unwrap();
    let found = all(peer.pid());
    assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), found.len());
    for (line, map) in text.split(|&byte| byte == b'\n').zip(&found) {
        let flag = |set: bool, letter: &'static str| if set { letter } else { "-" };
        let mut expected = format!(
            "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
            map.start,
            map.end,
            flag(map.readable, "r"),
            flag(map.writable, "w"),
            flag(map.executable, "x"),
            if map.shared { "s" } else { "p" },
            map.offset,
            map.device.0,
            map.device.1,
            map.inode
        )
        .into_bytes();
        if !map.name.is_empty() {
            expected.resize(expected.len().max(73), b' ');
            expected.extend(map.name.as_bytes());
        }
        let line = line.strip_suffix(b" ").unwrap_or(line);
        let expected = expected.strip_suffix(b" ").unwrap_or(&expected);
        assert_eq!(String::from_utf8_lossy(line), String::from_utf8_lossy(expected));
    }
}

#[test]
fn this_process_has_code_a_stack_and_what_it_maps() {
    let local = 1_u8;
    let found = all(own());
    let at = |address: usize| found.iter().find(|map| map.range().contains(&(address as u64)));
    let code = at(this_process_has_code_a_stack_and_what_it_maps as *const () as usize).unwrap();
    assert!(code.executable && !code.writable && code.inode != 0);
    assert_eq!(code.name, std::env::current_exe().unwrap());
    let stack = at((&raw const local).addr()).unwrap();
    assert!(stack.readable && stack.writable && stack.is_anonymous() && !stack.shared);

    let file = rustix::fs::memfd_create("a b\nc", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 2 * PAGE as u64).unwrap();
    let (protection, flags) = (ProtFlags::READ, MapFlags::SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { rustix::mm::mmap(ptr::null_mut(), PAGE, protection, flags, &file, PAGE as u64) }.unwrap();
    let map = all(own()).into_iter().find(|map| map.start == start.addr() as u64).unwrap();
    assert!(map.shared && map.readable && !map.writable && !map.is_anonymous() && map.is_attachable());
    assert_eq!((map.offset, map.bytes()), (PAGE as u64, PAGE as u64));
    assert_eq!(map.inode, rustix::fs::fstat(&file).unwrap().st_ino);
    assert_eq!(map.name, "/memfd:a b\nc (deleted)");
    // SAFETY: the mapping made above, which nobody uses.
    unsafe { munmap(start, PAGE) }.unwrap();
}

/// The rows of the table in the documentation that every machine has.
#[test]
fn special_mappings_are_as_documented() {
    if role().is_some() {
        lay_out();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let peer = laid_out("maps::special_mappings_are_as_documented", 1);
    let process = RemoteProcess::open(peer.pid()).unwrap();
    let found = all(peer.pid());
    let named =
        |prefix: &'static str| found.iter().filter(move |map| map.name.as_bytes().starts_with(prefix.as_bytes()));
    for map in named("[vdso]") {
        assert!(map.is_attachable() && !map.is_anonymous());
        process.read_exact(map.start, &mut [0; 64]).unwrap();
    }
    for map in named("[vvar").chain(named("[vsyscall]")) {
        assert!(!map.is_attachable(), "{map}");
        let error = process.read(map.start, &mut [0; 64]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT), "{map}: {error}");
    }
    assert!(named("[vdso]").count() + named("[vvar").count() > 0, "a kernel without a vDSO: {found:?}");
}

#[test]
fn memory_of_devices_and_secrets_is_as_documented() {
    // SAFETY: the call has no preconditions.
    let secret = unsafe { libc::syscall(libc::SYS_memfd_secret, 0) };
    if secret < 0 {
        return skip("maps::memory_of_devices_and_secrets_is_as_documented", "this kernel has no memfd_secret");
    }
    // SAFETY: a descriptor that was opened just now, and that nobody else has.
    let secret: std::os::fd::OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(secret as i32) };
    rustix::fs::ftruncate(&secret, PAGE as u64).unwrap();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { rustix::mm::mmap(ptr::null_mut(), PAGE, protection, MapFlags::SHARED, &secret, 0) }.unwrap();
    // SAFETY: a page mapped writable just now.
    unsafe { start.cast::<u8>().write_volatile(7) };
    let map = all(own()).into_iter().find(|map| map.start == start.addr() as u64).unwrap();
    assert!(map.readable && !map.is_attachable(), "{map}");
    let error = RemoteProcess::open(own()).unwrap().read(map.start, &mut [0; 8]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFAULT), "{error}");
    // SAFETY: the mapping made above, which nobody uses.
    unsafe { munmap(start, PAGE) }.unwrap();
}

#[test]
fn the_nearest_mapping_is_found() {
    if role().is_some() {
        lay_out();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let peer = laid_out("maps::the_nearest_mapping_is_found", 9);
    let found = all(peer.pid());
    let laid: Vec<&MemoryMap> =
        found.iter().filter(|map| (BASE..BASE + (PAGES * PAGE) as u64).contains(&map.start)).collect();
    let (first, last) = (laid[0], laid[laid.len() - 1]);
    let near = |address| nearest(peer.pid(), address).unwrap().unwrap();
    assert_eq!(near(first.start - 1), *first);
    assert_eq!(near(first.start - (1 << 30)), *first);
    assert_eq!(near(last.end), *last);
    assert_eq!(near(last.start), *last);
    assert_eq!(near(0), found[0]);
}

#[test]
fn another_user_s_list_is_refused_with_a_reason() {
    if role().is_some() {
        lay_out();
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let peer = laid_out("maps::another_user_s_list_is_refused_with_a_reason", 2);
    let root = rustix::process::geteuid().is_root();
    let pid = if root { peer.pid() } else { 1 };
    if !root && std::fs::metadata("/proc/1").is_ok_and(|first| first.uid() == rustix::process::geteuid().as_raw()) {
        return skip("maps::another_user_s_list_is_refused_with_a_reason", "no process of another user");
    }
    let (open, ranges, near) =
        unprivileged(|| (maps(pid).map(drop), readable_ranges(pid).map(drop), nearest(pid, 0).map(drop)));
    for result in [open, ranges, near] {
        let error = result.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("/proc/{pid}/maps")) && text.contains("trace") && text.contains("--pid"),
            "{text}"
        );
    }
}

#[test]
fn processes_without_memory_are_gone_or_empty() {
    for pid in [0, u32::MAX, 1 << 22] {
        let error = maps(pid).unwrap_err();
        assert!(error.is_peer_gone(), "{pid}: {error}");
    }
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    // NOWAIT leaves it a zombie.
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
    match readable_ranges(child.id()) {
        Ok(ranges) => assert_eq!(ranges, []),
        Err(error) => assert!(error.is_peer_gone() || error.raw_os_error() == Some(libc::EACCES), "{error}"),
    }
    child.wait().unwrap();
    assert!(maps(child.id()).unwrap_err().is_peer_gone());
}
