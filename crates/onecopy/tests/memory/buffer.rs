//! Buffers: warm memory that goes from one to the next, on huge pages, and what closed windows leave behind.

use std::time::Duration;

use onecopy::memory::buffer::{Buffer, pool_bytes, pool_limit_bytes, set_pool_limit_bytes};
use onecopy::memory::window::WriteWindow;

use crate::support::{Peer, role, skip, watchdog};

const MIB: usize = 1 << 20;

/// A number of KiB in `/proc/self/NAME`: the sum over all lines that begin with `field`.
fn kib_in(name: &str, field: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/self/{name}")).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
    lines.map(|number| number.trim().parse::<usize>().unwrap()).sum()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// Windows of many sizes, opened and closed one after the other and some at a time, beside other memory that comes and goes.
fn open_and_close(windows: usize) {
    let sizes = [1, 5000, 70_000, MIB, 2 * MIB, 2 * MIB + 1, 3 * MIB, 5 * MIB + 4096, 16 * MIB];
    let mut open = std::collections::VecDeque::new();
    let mut other = std::collections::VecDeque::new();
    for round in 0..windows {
        let len = sizes[round * 7 % sizes.len()];
        let window = WriteWindow::expose(Buffer::zeroed(len).unwrap()).unwrap();
        window.write_at(len / 2, &[round as u8]).unwrap();
        open.push_back((window, round as u8));
        // Large enough to be a mapping of its own.
        other.push_back(vec![1_u8; (round % 5 + 1) * 300_000]);
        if open.len() == 4 {
            let (window, mark) = open.pop_front().unwrap();
            let buffer = window.close().unwrap();
            assert_eq!(buffer[buffer.len() / 2], mark);
        }
        if other.len() == 3 {
            other.pop_front();
        }
    }
}

#[test]
fn closed_windows_take_neither_memory_nor_more_and_more_mappings() {
    let test = "buffer::closed_windows_take_neither_memory_nor_more_and_more_mappings";
    if role().is_none() {
        let _watchdog = watchdog(Duration::from_secs(120));
        return Peer::start(test, "alone", &[]).succeed();
    }
    open_and_close(100);
    let (mappings_before, resident_before) = (mappings(), kib_in("status", "VmRSS:"));
    let (tables_before, address_space_before) = (kib_in("status", "VmPTE:"), kib_in("status", "VmSize:"));
    open_and_close(2000);
    let (mappings_after, resident_after) = (mappings(), kib_in("status", "VmRSS:"));
    let tables_after = kib_in("status", "VmPTE:");
    // 100 MiB of resident memory and 20 mappings are what happens to be open, pooled and allocated at that moment; if each
    // window left something, it would be there 2,000 times.
    assert!(kib_in("status", "VmSize:") > address_space_before + (4 << 20), "addresses are given up");
    assert!(resident_after < resident_before + 100 * 1024, "{resident_before} KiB resident, then {resident_after}");
    assert!(mappings_after < mappings_before + 20, "{mappings_before} mappings, then {mappings_after}");
    assert!(tables_after < tables_before + 1024, "page tables of {tables_before} KiB, then of {tables_after}");
}

#[test]
fn the_pool_hands_memory_from_thread_to_thread() {
    let test = "buffer::the_pool_hands_memory_from_thread_to_thread";
    if role().is_none() {
        let _watchdog = watchdog(Duration::from_secs(60));
        return Peer::start(test, "alone", &[]).succeed();
    }
    let first = std::thread::spawn(|| {
        let mut buffer = Buffer::zeroed(3 * MIB).unwrap();
        buffer.fill(7);
        buffer.as_ptr().addr()
    });
    let address = first.join().unwrap();
    assert!(pool_bytes() >= 3 * MIB);
    let second = std::thread::spawn(move || {
        let buffer = Buffer::warm(3 * MIB).unwrap();
        assert_eq!((buffer.as_ptr().addr(), buffer[MIB]), (address, 7), "the same memory, as it was left");
        assert!(Buffer::zeroed(3 * MIB).unwrap().iter().all(|&byte| byte == 0));
    });
    second.join().unwrap();

    // Many at once: each has its memory for itself, and the pool keeps its limit.
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            scope.spawn(move || {
                for round in 0..100 {
                    let len = (round % 7 + 1) * 100_000;
                    let mut buffer = Buffer::warm(len).unwrap();
                    buffer.fill(thread);
                    std::thread::yield_now();
                    assert!(buffer.iter().all(|&byte| byte == thread), "another thread wrote it");
                }
            });
        }
    });
    assert!(pool_bytes() <= pool_limit_bytes());
    set_pool_limit_bytes(0);
    drop(Buffer::zeroed(MIB).unwrap());
    assert_eq!(pool_bytes(), 0);
}

#[test]
fn a_large_buffer_is_on_huge_pages_and_all_there() {
    let test = "buffer::a_large_buffer_is_on_huge_pages_and_all_there";
    if role().is_none() {
        let _watchdog = watchdog(Duration::from_secs(60));
        return Peer::start(test, "alone", &[]).succeed();
    }
    let lacking_before = huge_pages_lacking();
    let (huge_before, resident_before) = (kib_in("smaps", "AnonHugePages:"), kib_in("status", "VmRSS:"));
    let buffer = Buffer::zeroed(16 * MIB).unwrap();
    if kib_in("status", "VmRSS:") < resident_before + 15 * 1024 {
        assert!(!takes_pages_ahead(), "its pages are there before they are touched");
        return skip(
            "a_large_buffer_is_on_huge_pages_and_all_there",
            "no MADV_POPULATE_WRITE: the first use takes them",
        );
    }
    let huge = kib_in("smaps", "AnonHugePages:") - huge_before;
    drop(buffer);
    if huge == 0 {
        assert!(!gives_huge_pages() || huge_pages_lacking() > lacking_before, "none, and the kernel lacked none");
        skip("a_large_buffer_is_on_huge_pages_and_all_there", "this kernel gives no huge pages, or has none now");
    }
}

/// Whether the kernel provides pages when it is asked to (Linux 5.14).
#[expect(unsafe_code, reason = "madvise of nothing")]
fn takes_pages_ahead() -> bool {
    // SAFETY: an empty range: only the advice is looked at.
    unsafe { rustix::mm::madvise(std::ptr::null_mut(), 0, rustix::mm::Advice::LinuxPopulateWrite) }.is_ok()
}

/// Whether the kernel gives huge pages to this process, when it asks for them.
fn gives_huge_pages() -> bool {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    (setting.contains("[always]") || setting.contains("[madvise]")) && !status.contains("THP_enabled:\t0")
}

/// How often a process was to get a huge page, and memory was too fragmented, or its share of it too small, as the kernel counts.
fn huge_pages_lacking() -> u64 {
    let counts = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = |line: &str| match line.split_once(' ') {
        Some(("thp_fault_fallback" | "thp_collapse_alloc_failed", count)) => count.parse().unwrap(),
        _ => 0,
    };
    counts.lines().map(count).sum()
}

#[test]
fn buffers_shorter_than_a_huge_page_share_one_and_are_retired_alone() {
    let test = "buffer::buffers_shorter_than_a_huge_page_share_one_and_are_retired_alone";
    if role().is_none() {
        let _watchdog = watchdog(Duration::from_secs(60));
        return Peer::start(test, "alone", &[]).succeed();
    }
    let huge_before = kib_in("smaps", "AnonHugePages:");
    let page = |buffer: &Buffer| buffer.as_ptr().addr() / (2 * MIB);
    let [first, second] = [1, 2].map(|byte| {
        let mut buffer = Buffer::warm(MIB).unwrap();
        buffer.fill(byte);
        buffer
    });
    assert_eq!(page(&first), page(&second), "two fit one huge page");
    if kib_in("smaps", "AnonHugePages:") == huge_before {
        skip(
            "buffers_shorter_than_a_huge_page_share_one_and_are_retired_alone",
            "this kernel gives no huge pages, or has none now",
        );
    }
    let (retired, address) = (page(&first), first.as_ptr().addr());
    drop(WriteWindow::expose(first).unwrap());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ranges = maps.lines().filter(|line| !line.contains(" ---p "));
    let mut ranges = ranges.filter_map(|line| line.split(' ').next()?.split_once('-'));
    let parse = |text| usize::from_str_radix(text, 16).unwrap();
    assert!(!ranges.any(|(from, to)| (parse(from)..parse(to)).contains(&address)), "a late write fails");
    assert!(second.iter().all(|&byte| byte == 2), "the neighbour keeps its bytes");
    drop(second);
    for _ in 0..3 {
        let buffers: Vec<Buffer> = (0..20).map(|_| Buffer::warm(MIB).unwrap()).collect();
        assert!(buffers.iter().all(|buffer| page(buffer) != retired), "its addresses are used again");
    }
}
