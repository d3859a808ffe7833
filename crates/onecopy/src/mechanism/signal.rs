//! Rows 29 and 30: signals.

use super::{Answer, Info, Kind};

const DESTINATION: &str =
    "The pid of a process, in the sender's pid namespace; this library holds on to it by a pidfd.";

const ACCESS: &str = "The sender's real or effective user id equals the target's real or saved one, or CAP_KILL in the \
                      target's user namespace.";

const EMPTY: &str = "A read from the signalfd waits, or gives EAGAIN.";

const REMAINS: Answer = Answer { short: "nothing", long: "Nothing: pending signals go with the process." };

pub(super) static STANDARD: Info = Info {
    name: "signal-standard",
    title: "Standard signal",
    kinds: &[Kind::Wake],
    addresses: &["signal:PID?sig=USR1", "signal:self?sig=USR1"],
    destination: DESTINATION,
    access: ACCESS,
    copies: Answer {
        short: "-",
        long: "No message is carried: the receiver learns the number, and the sender's pid and uid.",
    },
    boundaries: Answer { short: "merge", long: "Signals of one number merge while the first of them is pending." },
    full: "It cannot be full: a second signal of the same number is dropped while the first is pending.",
    empty: EMPTY,
    remains: REMAINS,
    traps: &[
        "Two signals may arrive as one: never count them.",
        "Most signals kill a process that has not prepared for them.",
        "signalfd sees a signal only where every thread has blocked it first; children inherit the mask, over exec too.",
        "A handler interrupts whatever runs: only functions of signal-safety(7) may be called there. This library \
         installs none.",
        "A pid may have been given to another process: kill then hits that one, a pidfd does not.",
        "SIGKILL and SIGSTOP cannot be received.",
    ],
    man_pages: &["signal(7)", "kill(2)", "signalfd(2)", "pidfd_send_signal(2)"],
    try_it: "onecopy wait 'signal:self?sig=USR1' & sleep 1; onecopy signal $! USR1; wait",
    module: "signal::standard",
};

pub(super) static REALTIME: Info = Info {
    name: "signal-realtime",
    title: "Real-time signal",
    kinds: &[Kind::Wake],
    addresses: &["signal:PID?sig=RTMIN+1", "signal:self?sig=RTMIN+1"],
    destination: DESTINATION,
    access: ACCESS,
    copies: Answer { short: "-", long: "No message is carried but a payload of one integer or pointer (sigqueue)." },
    boundaries: Answer {
        short: "kept",
        long: "Each signal arrives once, with its payload: the lowest number first, in order within one number.",
    },
    full: "sigqueue gives EAGAIN once RLIMIT_SIGPENDING signals are pending for the receiver's user.",
    empty: EMPTY,
    remains: REMAINS,
    traps: &[
        "kill of a real-time signal at that limit succeeds all the same: what arrives names no sender, and two arrive as one. \
         This library sends by sigqueue.",
        "The C library keeps the first two or three numbers for itself: count from SIGRTMIN, which differs between glibc \
         and musl.",
        "The limit is one for all processes of the user.",
        "signalfd sees a signal only where every thread has blocked it first; children inherit the mask, over exec too.",
        "A pointer as payload means nothing in another process.",
        "The pid and uid that come with a payload are what the sender wrote there.",
    ],
    man_pages: &["signal(7)", "sigqueue(3)", "signalfd(2)"],
    try_it: "onecopy wait 'signal:self?sig=RTMIN+1' & sleep 1; onecopy signal $! RTMIN+1 --value 7; wait",
    module: "signal::realtime",
};
