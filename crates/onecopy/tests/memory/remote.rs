//! Rows 16 and 17: cross-memory attach, and what semantics.md says of process_vm_readv and process_vm_writev.
//!
//! # Safety
//!
//! The second process maps pages of its own, fills them before it tells their addresses, and never touches them again.
//! The one mapping of the test itself (`repeated`) is reached through one slice that lives as long as it.
#![expect(unsafe_code, reason = "maps pages with holes, changes the credentials of one thread, ends a first thread")]

use std::ffi::c_void;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::ptr;
use std::time::{Duration, Instant};

use onecopy::memory::permission::Cause;
use onecopy::memory::remote::{RemoteProcess, RemoteRange};
use onecopy::stream::framed::{FramedReceiver, FramedSender};
use onecopy::stream::pipe;
use onecopy::{Error, Receiver, Sender};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

use crate::support::{Peer, eventually, pattern, role, skip, watchdog};

const PAGE: usize = 4096;
const BIG: usize = 16 << 20;
const SIZES: [usize; 10] = [0, 1, 63, 64, 65, PAGE, (64 << 10) - 1, (64 << 10) + 1, (1 << 20) + 3, BIG];

/// Where the second process has what, and who its second thread is.
pub(crate) struct Target {
    pub(crate) peer: Peer,
    pub(crate) process: RemoteProcess,
    /// 16 MiB of `big_content()`.
    pub(crate) big: u64,
    /// Two pages of `pattern(2 * PAGE, 2)`, a hole of one page, then a page of zeros.
    pub(crate) holed: u64,
    /// A page that cannot be accessed at all.
    pub(crate) forbidden: u64,
    /// A page of `pattern(PAGE, 3)` that can only be read.
    pub(crate) read_only: u64,
    /// A page of a file, and behind it one that lies beyond the end of that file.
    pub(crate) past_end: u64,
    pub(crate) thread: u32,
}

impl Target {
    pub(crate) fn start(test: &str) -> Self {
        Self::start_as(test, "target")
    }

    pub(crate) fn start_as(test: &str, role: &str) -> Self {
        let (peer, words) = start_and_ask(test, role);
        let process = RemoteProcess::open(peer.pid()).unwrap();
        let thread = u32::try_from(words[5]).unwrap();
        let [big, holed, forbidden, read_only, past_end] = words[..5].try_into().unwrap();
        Self { peer, process, big, holed, forbidden, read_only, past_end, thread }
    }
}

/// A second process, and the words that it tells.
pub(crate) fn start_and_ask(test: &str, role: &str) -> (Peer, Vec<u64>) {
    let (reader, writer) = pipe::pair().unwrap();
    let stdin = Stdio::from(writer.as_fd().try_clone_to_owned().unwrap());
    let peer = Peer::configure(test, role, &[], |command| {
        command.stdin(stdin);
    });
    drop(writer);
    let message = FramedReceiver::new(reader).recv().unwrap().expect("the addresses of the second process");
    (peer, message.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect())
}

/// In the second process: tells words to the first.
pub(crate) fn answer(words: &[u64]) {
    let message: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    FramedSender::new(pipe::PipeWriter::from_fd(stdin, "fd:0").unwrap()).send(&message).unwrap();
}

/// The second process: lays its pages out, tells their addresses, and waits to be killed.
pub(crate) fn serve(role: &str) {
    let big = pages(BIG / PAGE, &big_content());
    let holed = pages(4, &pattern(2 * PAGE, 2));
    // SAFETY: the third page of the four mapped above.
    let third = unsafe { holed.add(2 * PAGE) };
    // SAFETY: that page, which nobody uses.
    unsafe { munmap(third.cast(), PAGE) }.unwrap();
    let forbidden = pages(1, &[]);
    // SAFETY: a page mapped above, which nobody uses.
    unsafe { mprotect(forbidden.cast(), PAGE, rustix::mm::MprotectFlags::empty()) }.unwrap();
    let read_only = pages(1, &pattern(PAGE, 3));
    // SAFETY: a page mapped above, which nobody writes any more.
    unsafe { mprotect(read_only.cast(), PAGE, rustix::mm::MprotectFlags::READ) }.unwrap();
    let file = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 10).unwrap();
    // SAFETY: a new mapping at an address of the kernel's choice.
    let past_end = unsafe { mmap(ptr::null_mut(), 2 * PAGE, ProtFlags::READ, MapFlags::SHARED, &file, 0) }.unwrap();

    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        std::thread::sleep(Duration::from_secs(60));
    });
    let thread = told.recv().unwrap().cast_unsigned();
    answer(&[big as u64, holed as u64, forbidden as u64, read_only as u64, past_end as u64, thread.into()]);
    match role {
        "leader exits" => {
            end_first_thread();
            std::thread::sleep(Duration::from_secs(60));
        }
        "execs" => {
            let error = std::os::unix::process::CommandExt::exec(Command::new("sleep").arg("60"));
            panic!("exec: {error}");
        }
        _ => std::thread::sleep(Duration::from_secs(60)),
    }
}

/// Ends the first thread of this process, wherever the harness has it waiting; this test runs in another one.
fn end_first_thread() {
    extern "C" fn end_this_thread(_: libc::c_int) {
        // SAFETY: ends the calling thread alone; its stack stays, and the handler of a signal may make this call.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    // SAFETY: the handler does nothing but a system call.
    unsafe { libc::signal(libc::SIGUSR1, end_this_thread as *const () as libc::sighandler_t) };
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: has no preconditions; the first thread of a process has its number.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGUSR1) };
}

fn pages(count: usize, content: &[u8]) -> *mut u8 {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), count * PAGE, protection, MapFlags::PRIVATE) }.unwrap();
    // SAFETY: the new mapping is at least as long as `content`, and nobody else knows it.
    unsafe { ptr::copy_nonoverlapping(content.as_ptr(), start.cast(), content.len()) };
    start.cast()
}

/// The content of the 16 MiB: a pattern of 1 MiB and a bit, over and over, which unoptimised code has ready at once.
pub(crate) fn big_content() -> Vec<u8> {
    let mut content = pattern((1 << 20) + 17, 1).repeat(16);
    content.truncate(BIG);
    content
}

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> i32 {
    let error = result.unwrap_err();
    error.raw_os_error().unwrap_or_else(|| panic!("no errno: {error}"))
}

#[test]
fn memory_of_all_sizes_is_read_and_written() {
    if let Some(role) = role() {
        return serve(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = Target::start("remote::memory_of_all_sizes_is_read_and_written");
    let expected = big_content();
    for size in SIZES {
        let mut buffer = vec![0; size];
        target.process.read_exact(target.big, &mut buffer).unwrap();
        assert!(buffer == expected[..size], "{size} bytes read");
    }
    for size in SIZES {
        let bytes = pattern(size, 9);
        target.process.write_all(target.big, &bytes).unwrap();
        let mut buffer = vec![0; size];
        target.process.read_exact(target.big, &mut buffer).unwrap();
        assert!(buffer == bytes, "{size} bytes written");
    }
}

#[test]
fn addresses_without_memory_are_efault() {
    if let Some(role) = role() {
        return serve(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = Target::start("remote::addresses_without_memory_are_efault");
    let hole = target.holed + 2 * PAGE as u64;
    let past_end = target.past_end + PAGE as u64;
    for address in [0, target.forbidden, hole, past_end, 1 << 47, 0xffff_8000_0000_0000, u64::MAX - 100] {
        assert_eq!(errno(target.process.read(address, &mut [0; 64])), libc::EFAULT, "read at {address:#x}");
        assert_eq!(errno(target.process.write(address, &[0; 64])), libc::EFAULT, "write at {address:#x}");
    }
    let mut buffer = vec![0; PAGE];
    target.process.read_exact(target.read_only, &mut buffer).unwrap();
    assert_eq!(buffer, pattern(PAGE, 3));
    let error = target.process.write(target.read_only, b"x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    assert!(error.to_string().contains(&format!("{:#x}", target.read_only)), "{error}");
}

#[test]
fn partial_transfers_are_reported_exactly() {
    if let Some(role) = role() {
        return serve(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = Target::start("remote::partial_transfers_are_reported_exactly");
    let content = pattern(2 * PAGE, 2);
    let hole = target.holed + 2 * PAGE as u64;

    let mut buffer = vec![0; 3 * PAGE];
    let transfer = target.process.read(target.holed, &mut buffer).unwrap();
    assert_eq!(transfer.bytes, 2 * PAGE, "three pages, the third unmapped");
    assert_eq!(transfer.stopped.as_ref().unwrap().address, hole);
    assert_eq!(transfer.stopped.unwrap().error.raw_os_error(), Some(libc::EFAULT));
    assert_eq!(buffer[..2 * PAGE], content);

    let transfer = target.process.read(hole - 10, &mut buffer).unwrap();
    assert_eq!((transfer.bytes, transfer.stopped.unwrap().address), (10, hole), "ten bytes before a hole");
    let transfer = target.process.write(hole - 10, &[5; 20]).unwrap();
    assert_eq!((transfer.bytes, transfer.stopped.unwrap().address), (10, hole), "written before a hole");

    let error = target.process.read_exact(hole - 10, &mut buffer[..20]).unwrap_err();
    let Error::PartialTransfer { transferred_bytes: 10, total_bytes: 20, address, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(address, hole);

    let range = |address, bytes| RemoteRange { address, bytes };
    let good_bad_good = [range(target.big, 100), range(0, 100), range(target.big, 100)];
    let transfer = target.process.read_vectored(&good_bad_good, &mut [IoSliceMut::new(&mut buffer[..300])]).unwrap();
    assert_eq!((transfer.bytes, transfer.stopped.unwrap().address), (100, 0), "good, bad, good");
    assert_eq!(
        errno(target.process.read_vectored(&good_bad_good[1..], &mut [IoSliceMut::new(&mut buffer)])),
        libc::EFAULT
    );
    let transfer = target.process.write_vectored(&good_bad_good, &[IoSlice::new(&[1; 300])]).unwrap();
    assert_eq!((transfer.bytes, transfer.stopped.unwrap().address), (100, 0), "good, bad, good, written");
}

#[test]
fn more_vectors_than_one_call_takes() {
    if let Some(role) = role() {
        return serve(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = Target::start("remote::more_vectors_than_one_call_takes");
    let expected = big_content();
    for count in [1024, 1025, 3000] {
        let ranges: Vec<RemoteRange> =
            (0..count).map(|index| RemoteRange { address: target.big + 16 * index, bytes: 16 }).collect();
        let mut buffer = vec![0; 16 * ranges.len()];
        let mut slices: Vec<IoSliceMut<'_>> = buffer.chunks_mut(5).map(IoSliceMut::new).collect();
        let transfer = target.process.read_vectored(&ranges, &mut slices).unwrap();
        assert_eq!((transfer.bytes, transfer.stopped.is_none()), (16 * ranges.len(), true));
        assert!(buffer == expected[..buffer.len()], "{count} ranges");

        let bytes = pattern(16 * ranges.len(), 4);
        let slices: Vec<IoSlice<'_>> = bytes.chunks(7).map(IoSlice::new).collect();
        assert_eq!(target.process.write_vectored(&ranges, &slices).unwrap().bytes, bytes.len());
        target.process.read_exact(target.big, &mut buffer).unwrap();
        assert!(buffer == bytes, "{count} ranges written");
        target.process.write_all(target.big, &expected[..bytes.len()]).unwrap();
    }
    let endless = [RemoteRange { address: target.big, bytes: isize::MAX as usize }];
    let mut buffer = [0; 64];
    assert_eq!(target.process.read_vectored(&endless, &mut [IoSliceMut::new(&mut buffer)]).unwrap().bytes, 64);
    assert_eq!(target.process.write_vectored(&endless, &[IoSlice::new(&buffer)]).unwrap().bytes, 64);
}

/// A slice whose memory is the same 2 MiB again and again.
pub(crate) fn repeated(total: usize) -> &'static mut [u8] {
    const PIECE: usize = 2 << 20;
    let file = rustix::fs::memfd_create("repeated", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, PIECE as u64).unwrap();
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), total, ProtFlags::empty(), flags) }.unwrap();
    for offset in (0..total).step_by(PIECE) {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: `offset` lies within the mapping made above.
        let place: *mut c_void = unsafe { start.byte_add(offset) };
        let len = PIECE.min(total - offset);
        // SAFETY: replaces a part of the mapping made above, which nobody uses yet.
        unsafe { mmap(place, len, protection, MapFlags::SHARED | MapFlags::FIXED, &file, 0) }.unwrap();
    }
    // SAFETY: `total` bytes were mapped readable and writable just now; the mapping is never removed.
    unsafe { std::slice::from_raw_parts_mut(start.cast(), total) }
}

#[test]
fn more_bytes_than_one_call_takes() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let total = (2 << 30) + 2 * PAGE;
    let source = repeated(total);
    let target = repeated(total);
    source[100] = 77;
    source[PAGE] = 78;
    let process = RemoteProcess::open(std::process::id()).unwrap();
    let transfer = process.read(source.as_ptr() as u64, target).unwrap();
    assert_eq!((transfer.bytes, transfer.stopped.is_none()), (total, true));
    assert_eq!((target[(2 << 30) + 100], target[(2 << 30) + PAGE]), (77, 78));
}

#[test]
fn processes_that_are_gone_are_esrch() {
    if let Some(role) = role() {
        return serve(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    for pid in [0, u32::MAX, 1 << 22] {
        let error = RemoteProcess::open(pid).unwrap_err();
        assert!(error.is_peer_gone(), "pid {pid}: {error}");
    }
    let mut target = Target::start("remote::processes_that_are_gone_are_esrch");
    let pid = rustix::process::Pid::from_raw(target.peer.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // NOWAIT leaves it a zombie.
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
    let error = target.process.read(target.big, &mut [0; 8]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "a zombie: {error}");
    assert!(error.is_peer_gone(), "{error}");
    assert!(RemoteProcess::open(target.peer.pid()).unwrap_err().is_peer_gone(), "a zombie cannot be opened");
    assert_eq!(target.process.read(target.big, &mut []).unwrap().bytes, 0, "nothing can be read from anyone");
    target.peer.kill();
    assert!(target.process.read(target.big, &mut [0; 8]).unwrap_err().is_peer_gone(), "a reaped process");
    assert!(target.process.write(target.big, &[0; 8]).unwrap_err().is_peer_gone());
}

#[test]
fn a_recycled_number_is_not_the_old_process() {
    let _watchdog = watchdog(Duration::from_secs(60));
    for _ in 0..50 {
        let mut first = Command::new("sleep").arg("60").spawn().unwrap();
        let process = RemoteProcess::open(first.id()).unwrap();
        first.kill().unwrap();
        first.wait().unwrap();
        let before = (first.id() - 1).to_string();
        if let Err(error) = std::fs::write("/proc/sys/kernel/ns_last_pid", before) {
            skip("a_recycled_number_is_not_the_old_process", &format!("the next pid cannot be chosen: {error}"));
            return;
        }
        let mut second = Command::new("sleep").arg("60").spawn().unwrap();
        let recycled = second.id() == first.id();
        let read = process.read(4096, &mut [0; 8]);
        let opened = RemoteProcess::open_started_at(second.id(), process.start_ticks().wrapping_sub(1));
        second.kill().unwrap();
        second.wait().unwrap();
        // Somebody else may have been given the number; then try again.
        if recycled {
            let error = read.unwrap_err();
            assert!(error.is_peer_gone(), "{error}");
            assert!(opened.unwrap_err().is_peer_gone());
            return;
        }
    }
    panic!("fifty attempts, and the number was never given again");
}

#[test]
fn stopped_processes_threads_and_processes_without_a_first_thread() {
    if let Some(role) = role() {
        return serve(&role);
    }
    let test = "remote::stopped_processes_threads_and_processes_without_a_first_thread";
    let _watchdog = watchdog(Duration::from_secs(60));
    let mut buffer = [0; 64];
    let target = Target::start(test);
    let pid = rustix::process::Pid::from_raw(target.peer.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let options = rustix::process::WaitIdOptions::STOPPED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
    target.process.read_exact(target.big, &mut buffer).unwrap();
    assert_eq!(buffer[..], big_content()[..64], "a stopped process");

    let target = Target::start_as(test, "leader exits");
    let stat = format!("/proc/{}/stat", target.peer.pid());
    eventually("the first thread has exited", || std::fs::read_to_string(&stat).unwrap().contains(") Z "));
    let error = target.process.read(target.big, &mut buffer).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{error}");
    match RemoteProcess::open(target.thread) {
        Ok(thread) => {
            buffer.fill(0);
            thread.read_exact(target.big, &mut buffer).unwrap();
            assert_eq!(buffer[..], big_content()[..64], "by the number of a thread that lives");
        }
        Err(error) => assert!(error.to_string().contains("Linux 6.9"), "{error}"),
    }
}

#[test]
fn after_exec_an_old_address_is_nothing_or_something_else() {
    if let Some(role) = role() {
        return serve(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = Target::start_as("remote::after_exec_an_old_address_is_nothing_or_something_else", "execs");
    let name = format!("/proc/{}/comm", target.peer.pid());
    eventually("the second process runs another program", || std::fs::read_to_string(&name).unwrap() == "sleep\n");
    if let Err(error) = target.process.read(target.big, &mut [0; 64]) {
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT), "{error}");
    }
}

#[test]
fn a_kernel_thread_has_no_memory() {
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
        let error = RemoteProcess::open(2).unwrap().read(4096, &mut [0; 8]).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EPERM)), "{error}");
    } else {
        skip("a_kernel_thread_has_no_memory", "this pid namespace shows no kernel threads");
    }
}

#[test]
fn without_permission_the_error_says_what_would_help() {
    if let Some(role) = role() {
        return serve(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    let target = Target::start("remote::without_permission_the_error_says_what_would_help");
    let (pid, address) = if rustix::process::geteuid().is_root() { (target.peer.pid(), target.big) } else { (1, 4096) };
    let error = std::thread::spawn(move || {
        // SAFETY: the system call itself, unlike libc's function, changes the calling thread alone.
        unsafe { libc::syscall(libc::SYS_setresuid, 4321, 4321, 4321) };
        RemoteProcess::open(pid).unwrap().read(address, &mut [0; 8]).unwrap_err()
    })
    .join()
    .unwrap();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    let Error::NotPermitted { call: "process_vm_readv", diagnosis, .. } = &error else { panic!("{error:?}") };
    assert_eq!((diagnosis.pid, diagnosis.read.cause), (pid, Cause::OtherUid), "{error}");
    assert!(error.to_string().contains(&diagnosis.read.to_string()), "{error}");
    assert!(error.to_string().contains("uid 4321/4321/4321 here") && error.to_string().contains("setpriv"), "{error}");
}

#[test]
fn a_process_killed_during_transfers_is_gone_and_no_garbage() {
    if let Some(role) = role() {
        return serve(&role);
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    let expected = big_content();
    let mut buffer = vec![0; BIG];
    for round in 0..50 {
        let mut target = Target::start("remote::a_process_killed_during_transfers_is_gone_and_no_garbage");
        let pid = rustix::process::Pid::from_raw(target.peer.pid().cast_signed()).unwrap();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(150 * round));
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        let start = Instant::now();
        let error = loop {
            match target.process.read_exact(target.big, &mut buffer) {
                Ok(()) => assert!(buffer == expected, "a successful read brings the right bytes"),
                Err(error) => break error,
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the death was never noticed");
        };
        killer.join().unwrap();
        // Between the loss of its memory and its exit the addresses are gone before the process is.
        let address_gone = matches!(&error, Error::PartialTransfer { source, .. } if source.is_peer_gone())
            || error.raw_os_error() == Some(libc::EFAULT);
        assert!(error.is_peer_gone() || address_gone, "round {round}: {error}");
        target.peer.kill();
    }
}

/// A number that nobody may change by safe code, and a thread that is there meanwhile.
#[test]
fn a_thread_of_this_process_is_not_written_where_proc_counts_otherwise() {
    let test = "remote::a_thread_of_this_process_is_not_written_where_proc_counts_otherwise";
    if role().is_none() {
        let _watchdog = watchdog(Duration::from_secs(60));
        match Peer::beside_proc(test, "beside", &[]) {
            Some(peer) => return peer.succeed(),
            None => return skip(test, "this user may make no namespaces"),
        }
    }
    let target = [7_u8; 8];
    // Of the numbers that threads get here, one that somebody has there: otherwise nothing of it can be opened.
    for _ in 0..4000 {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()).unwrap();
            ended.recv().unwrap_err();
        });
        let opened = RemoteProcess::open(told.recv().unwrap());
        let refused = opened.map(|process| process.write(std::hint::black_box(&target).as_ptr() as u64, &[9]));
        drop(end);
        thread.join().unwrap();
        if let Ok(refused) = refused {
            assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
            assert_eq!(std::hint::black_box(&target), &[7; 8]);
            return;
        }
    }
    skip(test, "the kernel opens no thread, or /proc shows none with such a number");
}
