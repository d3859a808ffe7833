//! The bare kernel calls, row by row as the project's design states them, for reading and for writing. What the library makes
//! of each is in `remote`.
//!
//! | Input | Result | Test |
//! |---|---|---|
//! | flags not 0, even with a bad pid | EINVAL | `flags_are_einval_even_with_a_bad_pid` |
//! | either vector count 1024 / 1025 | works / EINVAL | `a_vector_of_1024_works_and_one_of_1025_is_einval` |
//! | all lengths 0, even for a pid that does not exist | 0 | `nothing_is_always_0_so_it_probes_nothing` |
//! | a length of SSIZE_MAX against 64 bytes on the other side | 64 | `a_length_of_ssize_max_stops_at_the_other_side` |
//! | NULL, PROT_NONE, kernel, unmapped, past the end of file | EFAULT | `addresses_without_memory_are_efault` |
//! | remote read-only | read works, write EFAULT | `a_read_only_page_is_read_and_not_written` |
//! | three pages, the third unmapped | 8192 | `three_pages_of_which_the_third_is_unmapped_are_8192` |
//! | a range that ends 10 bytes before a hole | 10 | `a_range_that_ends_10_bytes_before_a_hole_is_10` |
//! | remote good, bad, good; bad first | the first part; EFAULT | `good_bad_good_is_the_first_part_and_bad_first_is_efault` |
//! | pid 0, -1, unused, zombie, reaped, kernel thread | ESRCH | `numbers_without_memory_are_esrch`, `a_kernel_thread_is_esrch` |
//! | leader exited, other threads live | ESRCH by pid, works by thread | `an_exited_leader_is_esrch_and_a_live_thread_works` |
//! | stopped target | works | `a_stopped_target_works` |
//! | target exec'd, stale address | EFAULT, or other bytes | `after_exec_a_stale_address_is_efault_or_other_bytes` |
//! | 2 GiB + 8 KiB in one call | 0x7ffff000 | `two_gib_and_a_bit_is_0x7ffff000` |
//!
//! # Safety
//!
//! The calls read and write buffers of this process that are borrowed for as long as they take; the addresses on the other side
//! are those of a second process, which never uses that memory.
#![expect(unsafe_code, reason = "makes the calls without the library")]

use std::time::Duration;

use onecopy::memory::remote::RemoteProcess;

use crate::remote::{Target, answer, big_content, repeated, serve, start_and_ask};
use crate::support::{eventually, pattern, role, skip, watchdog};

const PAGE: u64 = 4096;

/// What one call carries at most.
const MOST: usize = 0x7fff_f000;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Readv,
    Writev,
}

use Call::{Readv, Writev};

/// One call with `buffers` on this side and `ranges`, addresses and lengths, on the other: the count, or the errno.
fn call(call: Call, pid: i32, buffers: &mut [&mut [u8]], ranges: &[(u64, usize)], flags: u64) -> Result<usize, i32> {
    assert!(pid != std::process::id().cast_signed(), "writing to itself would go behind the compiler's back");
    let buffer = |bytes: &mut &mut [u8]| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let local: Vec<libc::iovec> = buffers.iter_mut().map(buffer).collect();
    let range = |&(address, len): &(u64, usize)| libc::iovec { iov_base: address as *mut _, iov_len: len };
    let remote: Vec<libc::iovec> = ranges.iter().map(range).collect();
    let (local, locals, remote, remotes) = (local.as_ptr(), local.len() as _, remote.as_ptr(), remote.len() as _);
    let count = match call {
        // SAFETY: `local` is as long as it says and describes buffers that are borrowed exclusively.
        Readv => unsafe { libc::process_vm_readv(pid, local, locals, remote, remotes, flags) },
        // SAFETY: the same; `pid` is another process.
        Writev => unsafe { libc::process_vm_writev(pid, local, locals, remote, remotes, flags) },
    };
    usize::try_from(count).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap())
}

/// The same with one buffer and no flags.
fn simple(which: Call, pid: i32, buffer: &mut [u8], ranges: &[(u64, usize)]) -> Result<usize, i32> {
    call(which, pid, &mut [buffer], ranges, 0)
}

/// Starts the second process of `test`, or is it: then it does not return.
fn target(test: &str, as_role: &str) -> Target {
    if let Some(role) = role() {
        serve(&role);
        unreachable!("the second process waits to be killed");
    }
    Target::start_as(&format!("process_vm::{test}"), as_role)
}

impl Target {
    fn number(&self) -> i32 {
        self.peer.pid().cast_signed()
    }
}

/// Numbers that no process has: itself in kill(2), everybody, above the largest that Linux gives.
const NOBODY: [i32; 3] = [0, -1, 1 << 22];

#[test]
fn flags_are_einval_even_with_a_bad_pid() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("flags_are_einval_even_with_a_bad_pid", "target");
    for which in [Readv, Writev] {
        for flags in [1, 2, 1 << 31, u64::MAX] {
            for pid in [target.number(), NOBODY[0], NOBODY[1], NOBODY[2]] {
                let result = call(which, pid, &mut [&mut [0; 8]], &[(target.big, 8)], flags);
                assert_eq!(result, Err(libc::EINVAL), "{which:?}, flags {flags:#x}, pid {pid}");
            }
        }
    }
}

#[test]
fn a_vector_of_1024_works_and_one_of_1025_is_einval() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("a_vector_of_1024_works_and_one_of_1025_is_einval", "target");
    for which in [Readv, Writev] {
        let mut buffer = vec![0; 1025];
        for (count, expected) in [(1024, Ok(1024)), (1025, Err(libc::EINVAL))] {
            let ranges: Vec<(u64, usize)> = (0..count).map(|index| (target.big + index, 1)).collect();
            let count = ranges.len();
            assert_eq!(simple(which, target.number(), &mut buffer[..count], &ranges), expected, "{which:?}, remote");
            let mut bytes: Vec<&mut [u8]> = buffer.chunks_mut(1).take(count).collect();
            let result = call(which, target.number(), &mut bytes, &[(target.big, count)], 0);
            assert_eq!(result, expected, "{which:?}, local");
        }
        assert!(which == Writev || buffer[..1024] == big_content()[..1024]);
    }
}

#[test]
fn nothing_is_always_0_so_it_probes_nothing() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("nothing_is_always_0_so_it_probes_nothing", "target");
    for which in [Readv, Writev] {
        for pid in [target.number(), 1, NOBODY[0], NOBODY[1], NOBODY[2]] {
            let what = format!("{which:?}, pid {pid}");
            assert_eq!(call(which, pid, &mut [], &[], 0), Ok(0), "no ranges: {what}");
            assert_eq!(simple(which, pid, &mut [], &[(target.big, 0), (0, 0)]), Ok(0), "both empty: {what}");
            assert_eq!(simple(which, pid, &mut [], &[(target.big, 8)]), Ok(0), "an empty buffer: {what}");
            assert_eq!(simple(which, pid, &mut [0; 8], &[(target.big, 0)]), Ok(0), "an empty range: {what}");
            assert_eq!(simple(which, pid, &mut [0; 8], &[]), Ok(0), "no remote range: {what}");
        }
    }
}

#[test]
fn a_length_of_ssize_max_stops_at_the_other_side() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("a_length_of_ssize_max_stops_at_the_other_side", "target");
    for which in [Readv, Writev] {
        let endless = [(target.big, isize::MAX.cast_unsigned())];
        assert_eq!(simple(which, target.number(), &mut [0; 64], &endless), Ok(64), "{which:?}");
        let negative = [(target.big, 1 << 63)];
        assert_eq!(simple(which, target.number(), &mut [0; 64], &negative), Err(libc::EINVAL), "{which:?}, one more");
    }
}

#[test]
fn addresses_without_memory_are_efault() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("addresses_without_memory_are_efault", "target");
    for (address, what) in [
        (0, "NULL"),
        (target.forbidden, "PROT_NONE"),
        (0xffff_8000_0000_0000, "the kernel"),
        (0xffff_ffff_8000_0000, "the kernel's text"),
        (1 << 47, "the first address that is not a process's"),
        (target.holed + 2 * PAGE, "unmapped"),
        (target.past_end + PAGE, "a page of a file past its end"),
    ] {
        for which in [Readv, Writev] {
            let result = simple(which, target.number(), &mut [0; 64], &[(address, 64)]);
            assert_eq!(result, Err(libc::EFAULT), "{which:?}, {what}");
        }
    }
}

#[test]
fn a_read_only_page_is_read_and_not_written() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("a_read_only_page_is_read_and_not_written", "target");
    let page = PAGE as usize;
    let mut buffer = vec![0; page];
    let range = [(target.read_only, page)];
    assert_eq!(simple(Writev, target.number(), &mut [9; 8], &range), Err(libc::EFAULT));
    assert_eq!(simple(Readv, target.number(), &mut buffer, &range), Ok(page));
    assert_eq!(buffer, pattern(page, 3), "unchanged");
}

#[test]
fn three_pages_of_which_the_third_is_unmapped_are_8192() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("three_pages_of_which_the_third_is_unmapped_are_8192", "target");
    for which in [Readv, Writev] {
        let mut buffer = pattern(3 * PAGE as usize, 2);
        assert_eq!(
            simple(which, target.number(), &mut buffer, &[(target.holed, 3 * PAGE as usize)]),
            Ok(8192),
            "{which:?}"
        );
        // One page in each of three ranges: the same.
        let pages: Vec<(u64, usize)> = (0..3).map(|page| (target.holed + page * PAGE, PAGE as usize)).collect();
        assert_eq!(simple(which, target.number(), &mut buffer, &pages), Ok(8192), "{which:?}");
    }
    // The library says how far it came.
    let mut buffer = vec![0; 3 * PAGE as usize];
    let transfer = target.process.read(target.holed, &mut buffer).unwrap();
    assert_eq!((transfer.bytes, transfer.stopped.unwrap().address), (8192, target.holed + 2 * PAGE));
    let transfer = target.process.write(target.holed, &buffer).unwrap();
    assert_eq!((transfer.bytes, transfer.stopped.unwrap().address), (8192, target.holed + 2 * PAGE));
}

/// It splits inside one range, though the man page says that partial transfers apply to whole ones.
#[test]
fn a_range_that_ends_10_bytes_before_a_hole_is_10() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("a_range_that_ends_10_bytes_before_a_hole_is_10", "target");
    let range = [(target.holed + 2 * PAGE - 10, 100)];
    for which in [Readv, Writev] {
        assert_eq!(simple(which, target.number(), &mut [5; 100], &range), Ok(10), "{which:?}");
    }
    let mut buffer = [0; 100];
    assert_eq!(simple(Readv, target.number(), &mut buffer, &range), Ok(10));
    assert_eq!((&buffer[..10], &buffer[10..]), (&[5; 10][..], &[0; 90][..]), "ten were written, and ten read back");
}

#[test]
fn good_bad_good_is_the_first_part_and_bad_first_is_efault() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("good_bad_good_is_the_first_part_and_bad_first_is_efault", "target");
    let (good, bad) = ((target.big, 100), (0, 100));
    for which in [Readv, Writev] {
        let attempt = |ranges: &[(u64, usize)]| simple(which, target.number(), &mut [0; 300], ranges);
        assert_eq!(attempt(&[good, bad, good]), Ok(100), "{which:?}");
        assert_eq!(attempt(&[good, good, bad]), Ok(200), "{which:?}");
        assert_eq!(attempt(&[bad, good]), Err(libc::EFAULT), "{which:?}");
    }
}

#[test]
fn numbers_without_memory_are_esrch() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut target = target("numbers_without_memory_are_esrch", "target");
    let is_esrch = |pid: i32, what: &str| {
        for which in [Readv, Writev] {
            let result = simple(which, pid, &mut [0; 8], &[(4096, 8)]);
            assert_eq!(result, Err(libc::ESRCH), "{which:?}, {what}");
        }
    };
    for (pid, what) in NOBODY.into_iter().zip(["0", "-1", "unused"]) {
        is_esrch(pid, what);
    }
    let pid = rustix::process::Pid::from_raw(target.number()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // NOWAIT leaves it a zombie.
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
    is_esrch(target.number(), "a zombie");
    target.peer.kill();
    is_esrch(target.number(), "reaped");
}

#[test]
fn a_kernel_thread_is_esrch() {
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
        for which in [Readv, Writev] {
            assert_eq!(simple(which, 2, &mut [0; 8], &[(4096, 8)]), Err(libc::ESRCH), "{which:?}");
        }
    } else {
        skip("a_kernel_thread_is_esrch", "this pid namespace shows no kernel threads");
    }
}

#[test]
fn an_exited_leader_is_esrch_and_a_live_thread_works() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("an_exited_leader_is_esrch_and_a_live_thread_works", "leader exits");
    let stat = format!("/proc/{}/stat", target.peer.pid());
    eventually("the first thread has exited", || std::fs::read_to_string(&stat).unwrap().contains(") Z "));
    let range = [(target.big, 64)];
    let mut buffer = [0; 64];
    assert_eq!(simple(Readv, target.number(), &mut buffer, &range), Err(libc::ESRCH));
    assert_eq!(simple(Writev, target.number(), &mut buffer, &range), Err(libc::ESRCH));
    assert_eq!(simple(Readv, target.thread.cast_signed(), &mut buffer, &range), Ok(64));
    assert_eq!(buffer[..], big_content()[..64]);
    assert_eq!(simple(Writev, target.thread.cast_signed(), &mut [7; 64], &range), Ok(64));
    assert_eq!(simple(Readv, target.thread.cast_signed(), &mut buffer, &range), Ok(64));
    assert_eq!(buffer, [7; 64]);
}

#[test]
fn a_stopped_target_works() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("a_stopped_target_works", "target");
    let pid = rustix::process::Pid::from_raw(target.number()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let options = rustix::process::WaitIdOptions::STOPPED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
    let mut buffer = [0; 64];
    let range = [(target.big, 64)];
    assert_eq!(simple(Readv, target.number(), &mut buffer, &range), Ok(64));
    assert_eq!(buffer[..], big_content()[..64]);
    assert_eq!(simple(Writev, target.number(), &mut [7; 64], &range), Ok(64));
    assert_eq!(simple(Readv, target.number(), &mut buffer, &range), Ok(64));
    assert_eq!(buffer, [7; 64]);
}

/// The kernel cannot tell: hence the nonce of a window.
#[test]
fn after_exec_a_stale_address_is_efault_or_other_bytes() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = target("after_exec_a_stale_address_is_efault_or_other_bytes", "execs");
    let name = format!("/proc/{}/comm", target.peer.pid());
    eventually("the second process runs another program", || std::fs::read_to_string(&name).unwrap() == "sleep\n");
    let mut buffer = [0; 64];
    match simple(Readv, target.number(), &mut buffer, &[(target.big, 64)]) {
        Ok(_) => assert_ne!(buffer[..], big_content()[..64], "the old memory is gone"),
        Err(errno) => assert_eq!(errno, libc::EFAULT),
    }
}

#[test]
fn two_gib_and_a_bit_is_0x7ffff000() {
    const TEST: &str = "process_vm::two_gib_and_a_bit_is_0x7ffff000";
    let total = (2 << 30) + 8192;
    let range = |address: u64| [(address, total)];
    if role().is_some() {
        let memory = repeated(total);
        memory[100] = 77;
        answer(&[memory.as_ptr().addr() as u64]);
        crate::park();
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    let (peer, words) = start_and_ask(TEST, "repeated");
    let pid = peer.pid().cast_signed();
    let buffer = repeated(total);
    assert_eq!(simple(Readv, pid, buffer, &range(words[0])), Ok(MOST));
    assert_eq!(buffer[100], 77);
    buffer[100] = 78;
    assert_eq!(simple(Writev, pid, buffer, &range(words[0])), Ok(MOST));
    // The library goes on until all is there.
    let process = RemoteProcess::open(peer.pid()).unwrap();
    buffer[101] = 79;
    assert_eq!(process.write(words[0], buffer).unwrap().complete(total).unwrap(), total);
    let mut found = [0; 2];
    process.read_exact(words[0] + 100, &mut found).unwrap();
    assert_eq!(found, [78, 79]);
}
