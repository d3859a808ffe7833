//! The copy between private memory and memory that a peer can write: the only one in the library.
//!
//! # Safety
//!
//! The callers are [`Region`](super::Region), which has checked the bounds, and the transports built on it. The private
//! side is a slice that nobody else touches. The shared side is a raw pointer, and no reference to it is ever formed: a peer
//! may write it in the middle of the copy.
//!
//! `ptr::copy_nonoverlapping` would not do: the compiler may assume that its source does not change, so it could read the
//! source twice (once for a check, once for the use), and a race on it is undefined. `libc::memcpy` called by its name is the
//! same function to the compiler, and volatile copies by words are eight times slower than memcpy at 64 bytes.
//!
//! So memcpy is called from inside an assembly block. The compiler sees a block that may read and write any memory reachable
//! from its operands, and has to accept every outcome that some Rust code could have; relaxed atomic loads and stores of
//! single bytes can have each of them. The machine code of memcpy reads nothing outside the source, writes nothing outside
//! the destination, and decides nothing by the bytes that it copies, so a peer that changes them meanwhile changes what
//! arrives and nothing else. Bytes that memcpy reads twice (the overlap of its last two loads) may arrive as any mixture of
//! old and new, which is true of any copy without a lock.
//!
//! A copy past the caches is a loop of non-temporal stores in a block of the same kind. Such stores are ordered with nothing that
//! follows but by a fence, which ends the block: after it they are as ordinary ones to any atomic.
//!
//! One byte of the destination can be old and its neighbour new. What must be consistent is ordered by an atomic beside the
//! bytes: Release after the last copy out, Acquire before the first copy in.
//!
//! Measured as `Region::read_at`, bounds check included, against `copy_from_slice` in the same run: 2.9 for 1.5 ns at 8 bytes,
//! 3.1 for 3.5 at 64, 46 for 30 at 4 KiB (31 as `write_at`), 19 for 18 us at 1 MiB.
#![expect(unsafe_code, reason = "raw copies from and to memory that another process writes")]

use crate::tally;

/// Copies `private.len()` bytes from `shared` into `private`.
///
/// # Safety
///
/// `shared` is readable for `private.len()` bytes, in a mapping that stays for the whole call and whose pages exist, and
/// does not overlap `private`.
#[inline]
pub(crate) unsafe fn copy_in(private: &mut [u8], shared: *const u8) {
    tally::count_user(private.len());
    // SAFETY: `private` is writable for its length, `shared` readable by the caller's promise; they do not overlap.
    unsafe { memcpy_unseen(private.as_mut_ptr(), shared, private.len()) }
}

/// Copies `private` to `shared`.
///
/// # Safety
///
/// `shared` is writable for `private.len()` bytes, in a mapping that stays for the whole call and whose pages exist, and
/// does not overlap `private`.
#[inline]
pub(crate) unsafe fn copy_out(shared: *mut u8, private: &[u8]) {
    tally::count_user(private.len());
    // SAFETY: `private` is readable for its length, `shared` writable by the caller's promise; they do not overlap.
    unsafe { memcpy_unseen(shared, private.as_ptr(), private.len()) }
}

/// As [`copy_out`], past the caches where the machine can: what another core will read is not taken away from it line by line, and
/// does not push out what this one uses. Visible to others before anything that is stored after it.
///
/// # Safety
///
/// As [`copy_out`].
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn copy_out_past_caches(shared: *mut u8, private: &[u8]) {
    let whole = match shared.addr().is_multiple_of(STREAMED_BYTES) {
        true => private.len() / STREAMED_BYTES * STREAMED_BYTES,
        false => 0,
    };
    let (lines, rest) = private.split_at(whole);
    tally::count_user(whole);
    if whole > 0 {
        // SAFETY: as in `copy_out`; a whole number of lines, and at least one; aligned, checked above.
        unsafe { stream_unseen(shared, lines.as_ptr(), whole) };
    }
    // SAFETY: `whole` is at most the length, for which it is writable.
    let behind = unsafe { shared.add(whole) };
    // SAFETY: by the caller's promise.
    unsafe { copy_out(behind, rest) }
}

/// As [`copy_out`].
///
/// # Safety
///
/// As [`copy_out`].
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn copy_out_past_caches(shared: *mut u8, private: &[u8]) {
    // SAFETY: by the caller's promise.
    unsafe { copy_out(shared, private) }
}

/// As [`copy_in`], for bytes that another core has written: many of them line by line.
///
/// By ordinary stores, though the memory may be in no cache: non-temporal ones carry streams of 64 KiB into 128 MiB at 16.6 GB/s instead of
/// 15.9 where a cache-line round trip takes 90 ns, and 15.7 instead of 14.5 where it takes 500, but who then reads them all gets 10.8
/// instead of 14.6, and 10.4 instead of 12.5.
///
/// # Safety
///
/// As [`copy_in`].
#[inline]
pub(crate) unsafe fn copy_in_lines(private: &mut [u8], shared: *const u8) {
    tally::count_user(private.len());
    // SAFETY: as in `copy_in`.
    unsafe { lines_unseen(private.as_mut_ptr(), shared, private.len()) }
}

/// As [`copy_in_lines`], to memory that is in this core's caches.
///
/// There, registers of 64 bytes have more lines under way: streams of 64 KiB into one buffer, of lines that non-temporal stores have sent
/// to memory, where a cache-line round trip takes 500 ns, go at 14.4 GB/s by them and at 12.4 by those of 16 bytes. Into 128 MiB it is
/// 11.4 and 13.9. Of lines in a cache that two cores share both reach 34 to 37.
///
/// # Safety
///
/// As [`copy_in`].
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) unsafe fn copy_in_wide_lines(private: &mut [u8], shared: *const u8) {
    let whole = private.len() / STREAMED_BYTES * STREAMED_BYTES;
    if whole < LEAST_LINES_BYTES || !std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: by the caller's promise.
        return unsafe { copy_in_lines(private, shared) };
    }
    let (lines, rest) = private.split_at_mut(whole);
    tally::count_user(whole);
    // SAFETY: reads and writes `whole` bytes from where the operands point, which are at least one line, and changes no other memory;
    // AVX-512 is there; the string flag is not used, the arithmetic flags and a register are declared changed: one whose use does not
    // make that of narrower ones slow.
    unsafe {
        std::arch::asm!(
            "2:",
            "vmovdqu64 zmm16, [{from} + {at}]",
            "vmovdqu64 [{to} + {at}], zmm16",
            "add {at}, 64",
            "jnz 2b",
            from = in(reg) shared.wrapping_add(whole),
            to = in(reg) lines.as_mut_ptr().wrapping_add(whole),
            at = inout(reg) whole.wrapping_neg() => _,
            out("zmm16") _,
            options(nostack),
        );
    }
    // SAFETY: the rest of both, readable by the caller's promise.
    unsafe { copy_in(rest, shared.wrapping_add(whole)) }
}

/// As [`copy_in`].
///
/// # Safety
///
/// As [`copy_in`].
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) unsafe fn copy_in_wide_lines(private: &mut [u8], shared: *const u8) {
    // SAFETY: by the caller's promise.
    unsafe { copy_in(private, shared) }
}

/// As [`copy_in`], of what another core copies out of at the same time.
///
/// # Safety
///
/// As [`copy_in`].
#[inline]
pub(crate) unsafe fn copy_in_beside(private: &mut [u8], shared: *const u8) {
    tally::count_user(private.len());
    // SAFETY: as in `copy_in`.
    unsafe { beside_unseen(private.as_mut_ptr(), shared, private.len()) }
}

/// As [`copy_out`], beside another core that copies there at the same time.
///
/// # Safety
///
/// As [`copy_out`].
#[inline]
pub(crate) unsafe fn copy_out_beside(shared: *mut u8, private: &[u8]) {
    tally::count_user(private.len());
    // SAFETY: as in `copy_out`.
    unsafe { beside_unseen(shared, private.as_ptr(), private.len()) }
}

/// As `copy_from_slice`, between two memories of this process.
///
/// # Panics
///
/// When they are not of one length.
#[inline]
pub(crate) fn copy_own(target: &mut [u8], source: &[u8]) {
    assert_eq!(target.len(), source.len(), "the lengths of a copy");
    // SAFETY: `source` is readable for the length of `target`, checked above; a unique borrow overlaps no other one.
    unsafe { copy_in(target, source.as_ptr()) }
}

/// As [`copy_out`], for bytes that another core will read: many of them line by line.
///
/// # Safety
///
/// As [`copy_out`].
#[inline]
pub(crate) unsafe fn copy_out_lines(shared: *mut u8, private: &[u8]) {
    tally::count_user(private.len());
    // SAFETY: as in `copy_out`.
    unsafe { lines_unseen(shared, private.as_ptr(), private.len()) }
}

/// A copy of many bytes line by line, and of the rest by memcpy(3).
///
/// Of lines in the cache that two cores share, on a processor with AVX-512: streams of 64 KiB, hot, through a ring of 2 MiB go at 40 GB/s where
/// the receiver copies by registers of 16 bytes, at 37 to 39 by wider ones, at 31 to 33 by memcpy(3), and at 13 by `rep movsb`. On an AMD of
/// Zen 3, which has none of 64 bytes, where both sides copy by those of 32 bytes, by those of 16 and by memcpy(3): pieces of 16 KiB at 30, 24
/// and 10 GB/s; 4 KiB in 145, 185 and 535 ns, 3 KiB in 128, 148 and 306, 2 KiB in 94, 133 and 106, and from 128 MiB into 128 MiB in 285, 313
/// and 417.
///
/// # Safety
///
/// As [`copy_in`].
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn lines_unseen(to: *mut u8, from: *const u8, len: usize) {
    let is_by_ymm = len >= LEAST_YMM_BYTES && are_registers_of_32_bytes_the_widest();
    let is_by_lines = is_by_ymm || len >= LEAST_LINES_BYTES;
    let whole = if is_by_lines { len / STREAMED_BYTES * STREAMED_BYTES } else { 0 };
    if is_by_ymm {
        // SAFETY: the begin of both, a whole number of lines and at least one; the registers are there.
        unsafe { ymm_lines_unseen(to, from, whole) };
    } else if is_by_lines {
        // SAFETY: reads and writes `whole` bytes from where the operands point, and changes no other memory; SSE2 is part of
        // x86-64; the string flag is not used, the arithmetic flags and four registers are declared changed.
        unsafe {
            std::arch::asm!(
                "2:",
                "movdqu {a}, [{from} + {at}]",
                "movdqu {b}, [{from} + {at} + 16]",
                "movdqu {c}, [{from} + {at} + 32]",
                "movdqu {d}, [{from} + {at} + 48]",
                "movdqu [{to} + {at}], {a}",
                "movdqu [{to} + {at} + 16], {b}",
                "movdqu [{to} + {at} + 32], {c}",
                "movdqu [{to} + {at} + 48], {d}",
                "add {at}, 64",
                "jnz 2b",
                from = in(reg) from.wrapping_add(whole),
                to = in(reg) to.wrapping_add(whole),
                at = inout(reg) whole.wrapping_neg() => _,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack),
            );
        }
    }
    if whole < len {
        // SAFETY: `whole` is less than the length, for which it is writable.
        let to = unsafe { to.add(whole) };
        // SAFETY: as above, readable.
        let from = unsafe { from.add(whole) };
        // SAFETY: the rest of both.
        unsafe { memcpy_unseen(to, from, len - whole) };
    }
}

/// Whether there are registers of 32 bytes and none of 64.
#[cfg(target_arch = "x86_64")]
#[inline]
fn are_registers_of_32_bytes_the_widest() -> bool {
    std::arch::is_x86_feature_detected!("avx") && !std::arch::is_x86_feature_detected!("avx512f")
}

/// A copy line by line, by registers of 32 bytes.
///
/// # Safety
///
/// As [`copy_in`]; `len` is a multiple of [`STREAMED_BYTES`] and not 0; the processor has AVX.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn ymm_lines_unseen(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: reads and writes `len` bytes from where the operands point, which are at least one line, and changes no other memory; AVX is
    // there; the string flag is not used, the arithmetic flags are declared changed, and so are all registers of vectors, whose upper
    // halves are cleared, since they would make the use of narrower ones slow on some processors.
    unsafe {
        std::arch::asm!(
            "2:",
            "vmovdqu ymm0, [{from} + rcx]",
            "vmovdqu ymm1, [{from} + rcx + 32]",
            "vmovdqu [{to} + rcx], ymm0",
            "vmovdqu [{to} + rcx + 32], ymm1",
            "add rcx, 64",
            "jnz 2b",
            "vzeroupper",
            from = in(reg) from.wrapping_add(len),
            to = in(reg) to.wrapping_add(len),
            inout("rcx") len.wrapping_neg() => _,
            clobber_abi("C"),
            options(nostack),
        );
    }
}

/// memcpy(3).
///
/// # Safety
///
/// As [`copy_in`].
#[cfg(not(target_arch = "x86_64"))]
#[inline]
unsafe fn lines_unseen(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: by the caller's promise.
    unsafe { memcpy_unseen(to, from, len) }
}

/// A copy of one side of two that copy at the same time: line by line where that is the faster way.
///
/// By registers of 32 bytes where a processor has no longer ones, for which it was measured: in us, one message at a time by both sides,
/// 4 MiB 95 by those of 16 bytes and 90 by these where a cache-line round trip takes 130 ns, and 172 and 141 where it takes 540. There
/// memcpy(3) is as fast below 512 KiB, but for where the target lies some bytes farther in its page than the source in its own: it leaves
/// that to `rep movsb`, which takes 517 us for 1 MiB then, and 36 otherwise.
///
/// # Safety
///
/// As [`copy_in`].
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn beside_unseen(to: *mut u8, from: *const u8, len: usize) {
    match len >= LEAST_BESIDE_BYTES || are_registers_of_32_bytes_the_widest() {
        // SAFETY: by the caller's promise.
        true => unsafe { lines_unseen(to, from, len) },
        // SAFETY: by the caller's promise.
        false => unsafe { memcpy_unseen(to, from, len) },
    }
}

/// memcpy(3).
///
/// # Safety
///
/// As [`copy_in`].
#[cfg(not(target_arch = "x86_64"))]
#[inline]
unsafe fn beside_unseen(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: by the caller's promise.
    unsafe { memcpy_unseen(to, from, len) }
}

/// How much is copied past the caches at a time, and asked for in advance: a cache line.
#[cfg(target_arch = "x86_64")]
const STREAMED_BYTES: usize = 64;
/// From how many bytes on a copy between two cores goes line by line, by registers of 32 bytes where they are the widest. Measured bare with
/// streams of 1 KiB where a cache-line round trip takes 145 and 580 ns: 47 and 292 ns a message by them, 55 and 318 by memcpy(3).
#[cfg(target_arch = "x86_64")]
const LEAST_YMM_BYTES: usize = 512;
/// The same by those of 16 bytes.
#[cfg(target_arch = "x86_64")]
const LEAST_LINES_BYTES: usize = 4096;
/// From how many bytes on two cores that copy at the same time do so by registers of 16 bytes. Measured bare, hot, each a half out of and
/// into mapped memory, as times of one memcpy, by memcpy(3) and line by line, four runs: 4 MiB 1.79 1.77 1.48 1.50 and 1.77 1.87 1.68 1.64,
/// 16 MiB 1.01 1.17 1.36 1.63 and 1.86 1.69 1.59 2.18. Of 64 KiB, which lie in the second cache, memcpy(3) takes 1.8 us and this 2.3.
#[cfg(target_arch = "x86_64")]
const LEAST_BESIDE_BYTES: usize = 512 << 10;

/// A copy by non-temporal stores, hidden from the compiler as memcpy is, with the fence that such stores need.
///
/// # Safety
///
/// As [`copy_in`]; `len` is a multiple of [`STREAMED_BYTES`] and not 0, and `to` is aligned to it.
#[cfg(target_arch = "x86_64")]
unsafe fn stream_unseen(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: reads and writes `len` bytes from where the operands point, and changes no other memory; SSE2 is part of x86-64;
    // the stores are aligned; the string flag is not used, the arithmetic flags and four registers are declared changed.
    unsafe {
        std::arch::asm!(
            "2:",
            "movdqu {a}, [{from}]",
            "movdqu {b}, [{from} + 16]",
            "movdqu {c}, [{from} + 32]",
            "movdqu {d}, [{from} + 48]",
            "movntdq [{to}], {a}",
            "movntdq [{to} + 16], {b}",
            "movntdq [{to} + 32], {c}",
            "movntdq [{to} + 48], {d}",
            "add {from}, 64",
            "add {to}, 64",
            "sub {len}, 64",
            "jnz 2b",
            "sfence",
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            len = inout(reg) len => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// Whether `to` lies less than half a line farther in its page than `from` in its own.
///
/// Some processors copy so by `rep movsb` at a twentieth of their speed, and memcpy(3) copies from 4 KiB on by that on them, below the
/// size of the second cache: 4 KiB in 1.9 us for 0.07, 64 KiB in 30 for 1.5, and line by line in 0.1 and 2.4. From pages that are mapped to a
/// long vector, which begins 16 bytes behind a page, it is so always.
#[cfg(target_arch = "x86_64")]
#[inline]
fn is_close_behind(to: *mut u8, from: *const u8) -> bool {
    const PAGE_BYTES: usize = 4096;
    let ahead = to.addr().wrapping_sub(from.addr()) % PAGE_BYTES;
    ahead.wrapping_sub(1) < STREAMED_BYTES / 2 - 1
}

/// memcpy(3), hidden from the compiler, or line by line where that may be slow.
///
/// # Safety
///
/// As [`copy_in`].
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn memcpy_unseen(to: *mut u8, from: *const u8, len: usize) {
    if len >= LEAST_LINES_BYTES && is_close_behind(to, from) {
        // SAFETY: by the caller's promise.
        return unsafe { lines_unseen(to, from, len) };
    }
    // SAFETY: the arguments stand where the System V ABI wants them and hold what memcpy demands; `clobber_abi` saves what
    // a call may change; the stack is aligned on entry to an assembly block without `nostack`; memcpy does not unwind.
    unsafe {
        std::arch::asm!(
            "call {memcpy}",
            memcpy = in(reg) libc::memcpy as *const (),
            in("rdi") to,
            in("rsi") from,
            in("rdx") len,
            clobber_abi("C"),
        );
    }
}

/// memcpy(3), hidden from the compiler.
///
/// # Safety
///
/// As [`copy_in`].
#[cfg(target_arch = "aarch64")]
#[inline]
unsafe fn memcpy_unseen(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the arguments stand where the procedure call standard wants them and hold what memcpy demands; `clobber_abi`
    // saves what a call may change, the link register among it; memcpy does not unwind.
    unsafe {
        std::arch::asm!(
            "blr {memcpy}",
            memcpy = in(reg) libc::memcpy as *const (),
            in("x0") to,
            in("x1") from,
            in("x2") len,
            clobber_abi("C"),
        );
    }
}

/// Volatile bytes, on machines for which no assembly is written: right, and slow.
///
/// # Safety
///
/// As [`copy_in`].
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn memcpy_unseen(to: *mut u8, from: *const u8, len: usize) {
    for offset in 0..len {
        // SAFETY: `offset < len`, the length of both ranges.
        let from = unsafe { from.add(offset) };
        // SAFETY: as above.
        let to = unsafe { to.add(offset) };
        // SAFETY: readable by the contract; a byte needs no alignment, and each of its values is valid.
        let byte = unsafe { std::ptr::read_volatile(from) };
        // SAFETY: writable by the contract.
        unsafe { std::ptr::write_volatile(to, byte) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_copies_exactly() {
        let source: Vec<u8> = (0..4224).map(|n| (n * 7 / 4) as u8).collect();
        for len in (0..=200).chain([4032, 4095, 4096, 4097]) {
            for start in 0..9 {
                let mut target = [0xee; 4224];
                let shared = &raw const source[start];
                // SAFETY: `start + len` is less than 4224, inside of `source`.
                unsafe { copy_in(&mut target[start..start + len], shared) };
                assert_eq!(target[start..start + len], source[start..start + len]);
                assert!(target[..start].iter().chain(&target[start + len..]).all(|&byte| byte == 0xee));

                let mut target = [0xee; 4224];
                let shared = &raw mut target[start];
                // SAFETY: `start + len` is less than 4224, inside of `target`.
                unsafe { copy_out(shared, &source[start..start + len]) };
                assert_eq!(target[start..start + len], source[start..start + len]);
                assert!(target[..start].iter().chain(&target[start + len..]).all(|&byte| byte == 0xee));
            }
        }
    }

    #[test]
    fn wherever_in_a_page_the_target_lies_every_length_copies_exactly_and_is_counted_once() {
        #[repr(align(4096))]
        struct Page([u8; 12_288]);
        let mut source = Page([0; 12_288]);
        source.0.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7 / 4) as u8);
        for len in [4095, 4096, 4097, 4159, 4160, 8191, 8192] {
            for (start, from) in [(0, 0), (1, 0), (16, 0), (31, 0), (32, 0), (0, 1), (7, 4090), (4096, 0)] {
                let mut target = Page([0xee; 12_288]);
                let before = tally::Tally::now();
                copy_own(&mut target.0[start..start + len], &source.0[from..from + len]);
                assert_eq!(tally::Tally::now().since(before).user_bytes, len as u64);
                assert_eq!(target.0[start..start + len], source.0[from..from + len], "{len} bytes at {start}");
                assert!(target.0[..start].iter().chain(&target.0[start + len..]).all(|&byte| byte == 0xee));
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_little_farther_in_its_page_is_close_behind() {
        use std::ptr::{without_provenance, without_provenance_mut};

        let is_close = |to, from| is_close_behind(without_provenance_mut(to), without_provenance(from));
        assert!(is_close(1, 0) && is_close(31, 0) && is_close(4096 + 20, 4) && is_close(3, 4096 - 5));
        assert!(!is_close(0, 0) && !is_close(32, 0) && !is_close(0, 1) && !is_close(4096, 0));
    }

    #[test]
    fn by_wide_lines_every_length_copies_exactly_and_is_counted_once() {
        let source: Vec<u8> = (0..8448).map(|n| (n * 7 / 4) as u8).collect();
        for len in (0..=400).chain([1024, 1500, 4095, 4096, 4097, 4159, 4160, 8191, 8192]) {
            for start in [0, 1, 16, 63, 64] {
                let mut target = [0xee; 8448];
                let before = tally::Tally::now();
                // SAFETY: 3 and `len` are less than 8448 together, inside of `source`.
                unsafe { copy_in_wide_lines(&mut target[start..start + len], &raw const source[3]) };
                assert_eq!(tally::Tally::now().since(before).user_bytes, len as u64);
                assert_eq!(target[start..start + len], source[3..3 + len], "{len} bytes at {start}");
                assert!(target[..start].iter().chain(&target[start + len..]).all(|&byte| byte == 0xee));
            }
        }
    }

    #[test]
    fn beside_another_core_every_length_copies_exactly_and_is_counted_once() {
        const LONG: usize = 512 << 10;
        const MOST: usize = LONG + 100;
        let source: Vec<u8> = (0..MOST + 100).map(|n| (n * 7 / 4) as u8).collect();
        for len in [0, 1, 63, 64, 4095, 4096, 4097, 4159, 4160, LONG - 1, LONG, MOST] {
            for start in [0, 1, 16, 64] {
                let (mut target, mut shared) = (vec![0xee; MOST + 100], vec![0xee; MOST + 100]);
                let before = tally::Tally::now();
                // SAFETY: 3 and `len` are less than the length of `source` together.
                unsafe { copy_in_beside(&mut target[start..start + len], &raw const source[3]) };
                let to = &raw mut shared[start];
                // SAFETY: `start + len` is less than the length of `shared`.
                unsafe { copy_out_beside(to, &source[3..3 + len]) };
                assert_eq!(tally::Tally::now().since(before).user_bytes, 2 * len as u64);
                assert_eq!(target[start..start + len], source[3..3 + len], "{len} bytes at {start}");
                assert!(target[..start].iter().chain(&target[start + len..]).all(|&byte| byte == 0xee));
                assert_eq!(shared, target, "{len} bytes at {start}");
            }
        }
    }

    #[test]
    fn past_the_caches_every_length_and_alignment_copies_exactly_and_is_counted_once() {
        #[repr(align(64))]
        struct Lines([u8; 512]);
        let source: Vec<u8> = (0..512).map(|n| (n * 7 / 4) as u8).collect();
        for len in (0..=200).chain([256, 320, 383]) {
            for start in [0, 1, 16, 63, 64, 128] {
                let mut target = Lines([0xee; 512]);
                let shared = &raw mut target.0[start];
                let before = tally::Tally::now();
                // SAFETY: `start + len <= 511`, inside of `target`.
                unsafe { copy_out_past_caches(shared, &source[3..3 + len]) };
                assert_eq!(tally::Tally::now().since(before).user_bytes, len as u64);
                assert_eq!(target.0[start..start + len], source[3..3 + len], "{len} bytes at {start}");
                assert!(target.0[..start].iter().chain(&target.0[start + len..]).all(|&byte| byte == 0xee));
            }
        }
    }
}
