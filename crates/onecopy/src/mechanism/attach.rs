//! Rows 16 and 17: cross-memory attach.

use super::{Answer, Info, Kind};

const DESTINATION: &str = "A process and an address in its memory. The kernel carries neither: they travel over another \
                           mechanism.";

const ACCESS: &str = "The kernel's check for tracing: every user and group id of the target equals the caller's, or \
                      CAP_SYS_PTRACE in the target's user namespace; the target is dumpable and has no capability that \
                      the caller lacks; Yama, Landlock, other security modules and seccomp agree. `onecopy doctor --pid PID` says \
                      which of them refuses.";

const RANGE: Answer = Answer {
    short: "range",
    long: "The range that was asked for is the message. A transfer that ends early says exactly how far it came.",
};

const NO_ROOM: &str = "Nothing can be full: there is no buffer between the two.";

const REMAINS: Answer = Answer { short: "nothing", long: "Nothing." };

pub(super) static READ: Info = Info {
    name: "cma-read",
    title: "Cross-memory attach, read (process_vm_readv)",
    kinds: &[Kind::Attach],
    addresses: &["mem:PID:ADDR+LEN"],
    destination: DESTINATION,
    access: ACCESS,
    copies: Answer {
        short: "1",
        long: "1: the reader's call copies straight from the owner's pages into the reader's buffer.",
    },
    boundaries: RANGE,
    full: NO_ROOM,
    empty: "Nothing waits: that the data is ready travels another way. Memory that is not mapped: EFAULT.",
    remains: REMAINS,
    traps: &[
        "The copy is not atomic: the owner may store into the range meanwhile.",
        "A pid may have been given to another process: hold a pidfd, and compare the start time.",
        "After an exec the same pid has other memory: EFAULT, or somebody else's bytes.",
        "Lengths of 0 always succeed, even for a process that does not exist: probe with at least one byte.",
        "The error is ESRCH for a zombie, and for a process whose first thread has ended while others run.",
        "One call carries at most 1024 pieces a side and 2147479552 bytes; this library loops.",
    ],
    man_pages: &["process_vm_readv(2)", "ptrace(2)", "proc(5)"],
    try_it: "onecopy read mem:1234:0x7f0000001000+4096",
    module: "memory::remote",
};

pub(super) static WRITE: Info = Info {
    name: "cma-write",
    title: "Cross-memory attach, write (process_vm_writev)",
    kinds: &[Kind::Attach],
    addresses: &["mem:PID:ADDR+LEN"],
    destination: DESTINATION,
    access: ACCESS,
    copies: Answer {
        short: "1",
        long: "1: the writer's call copies straight from the writer's buffer into the owner's pages.",
    },
    boundaries: RANGE,
    full: NO_ROOM,
    empty: "Nothing waits: that the data has arrived travels another way. Memory that is read-only or not mapped: EFAULT.",
    remains: REMAINS,
    traps: &[
        "A write cannot be revoked: after a stop signal, or the death of the process that asked for it, bytes may still \
         land. Offer only memory that you never use for anything else.",
        "A process that was replaced by exec is noticed only after its memory was written.",
        "The copy is not atomic: the owner sees parts of it, in any order.",
        "A pid may have been given to another process: hold a pidfd, and compare the start time.",
        "Read-only pages refuse (EFAULT), though ptrace would write them.",
        "One call carries at most 1024 pieces a side and 2147479552 bytes; this library loops.",
    ],
    man_pages: &["process_vm_writev(2)", "ptrace(2)", "proc(5)"],
    try_it: "printf hello | onecopy write mem:1234:0x7f0000001000+5",
    module: "memory::remote",
};
