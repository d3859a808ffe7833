//! The limits that Linux sets to its mechanisms.

use rustix::process::Resource;

use super::LowIf::{self, Above, Below, BelowUnlessZero};
use super::source::Source::{self, Constant, SharedMemoryFree, SharedMemorySize, Sysctl};
use crate::Mechanism::{self, *};

/// A limit: where it is found, what it means, whom it concerns.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) source: Source,
    pub(super) unit: &'static str,
    pub(super) meaning: &'static str,
    pub(super) concerns: &'static [Mechanism],
    /// Which values are low, and what goes wrong with them.
    pub(super) low: Option<(LowIf, &'static str)>,
}

impl Row {
    /// The same, and which values are low and why.
    const fn low(mut self, low_if: LowIf, because: &'static str) -> Self {
        self.low = Some((low_if, because));
        self
    }
}

const fn row(
    name: &'static str,
    source: Source,
    unit: &'static str,
    meaning: &'static str,
    concerns: &'static [Mechanism],
) -> Row {
    Row { name, source, unit, meaning, concerns, low: None }
}

const DESCRIPTORS: Source = Source::Resource(Resource::Nofile, "RLIMIT_NOFILE", "--nofile");
const PENDING: Source = Source::Resource(Resource::Sigpending, "RLIMIT_SIGPENDING", "--sigpending");
const QUEUE_BYTES: Source = Source::Resource(Resource::Msgqueue, "RLIMIT_MSGQUEUE", "--msgqueue");
const LOCKED: Source = Source::Resource(Resource::Memlock, "RLIMIT_MEMLOCK", "--memlock");

const UNIX: &[Mechanism] = &[UnixStream, UnixDgram, UnixSeqpacket];
const SOCKETS: &[Mechanism] = &[UnixStream, UnixDgram, UnixSeqpacket, Tcp, Udp, Sctp];
const WITH_DESCRIPTORS: &[Mechanism] = &[
    Pipe,
    Fifo,
    Pty,
    UnixStream,
    UnixDgram,
    UnixSeqpacket,
    Tcp,
    Udp,
    Sctp,
    PosixMq,
    AnonymousMapping,
    Eventfd,
    RecordLock,
    FileLock,
    SignalStandard,
    SignalRealtime,
];
const MAPPED: &[Mechanism] = &[PosixShm, SysvShm, FileMapping, AnonymousMapping];
const ATTACH: &[Mechanism] = &[CmaRead, CmaWrite];

pub(super) const LIMITS: &[Row] = &[
    row("PIPE_BUF", Constant(4096), "bytes", "the longest write that is atomic", &[Pipe, Fifo]),
    row(
        "fs.pipe-max-size",
        Sysctl("fs/pipe-max-size", 0),
        "bytes",
        "the largest capacity a user may ask for",
        &[Pipe, Fifo],
    )
    .low(Below(1 << 20), "a pipe of less than 1 MiB makes its two ends wait for each other often"),
    row(
        "fs.pipe-user-pages-soft",
        Sysctl("fs/pipe-user-pages-soft", 0),
        "pages",
        "all pipes of a user; beyond it new ones are small (0: no limit)",
        &[Pipe, Fifo],
    )
    .low(
        BelowUnlessZero(65_536),
        "a user gets fewer than 256 pipes of 1 MiB: beyond, new ones hold two pages; 16384 unless raised",
    ),
    row(
        "fs.pipe-user-pages-hard",
        Sysctl("fs/pipe-user-pages-hard", 0),
        "pages",
        "all pipes of a user; beyond it there are no new ones (0: no limit)",
        &[Pipe, Fifo],
    )
    .low(BelowUnlessZero(65_536), "a user gets fewer than 256 pipes of 1 MiB: beyond, there are no new ones"),
    row("kernel.pty.max", Sysctl("kernel/pty/max", 0), "terminals", "pseudoterminals on this machine", &[Pty]),
    row("kernel.pty.nr", Sysctl("kernel/pty/nr", 0), "terminals", "pseudoterminals that exist now", &[Pty]),
    row("sun_path", Constant(107), "bytes", "the longest path or abstract name", UNIX),
    row("SCM_MAX_FD", Constant(253), "descriptors", "what one message can carry", UNIX),
    row(
        "net.unix.max_dgram_qlen",
        Sysctl("net/unix/max_dgram_qlen", 0),
        "messages",
        "with more than these in a datagram socket senders wait",
        &[UnixDgram],
    ),
    row(
        "net.core.somaxconn",
        Sysctl("net/core/somaxconn", 0),
        "connections",
        "what waits for accept",
        &[UnixStream, UnixSeqpacket, Tcp, Sctp],
    )
    .low(Below(4096), "a burst of more connections than this waits or is refused; 128 unless raised before Linux 5.4"),
    row(
        "net.core.wmem_default",
        Sysctl("net/core/wmem_default", 0),
        "bytes",
        "the send buffer of a new socket",
        &[UnixStream, UnixDgram, UnixSeqpacket, Udp, Sctp],
    ),
    row(
        "net.core.wmem_max",
        Sysctl("net/core/wmem_max", 0),
        "bytes",
        "the largest send buffer (SO_SNDBUF) a user may ask for",
        SOCKETS,
    )
    .low(Below(1 << 20), "a datagram or record longer than the send buffer cannot be sent at all"),
    row(
        "net.core.rmem_default",
        Sysctl("net/core/rmem_default", 0),
        "bytes",
        "the receive buffer of a new socket",
        &[Udp, Sctp],
    ),
    row(
        "net.core.rmem_max",
        Sysctl("net/core/rmem_max", 0),
        "bytes",
        "the largest receive buffer (SO_RCVBUF) a user may ask for",
        &[Tcp, Udp, Sctp],
    ),
    row(
        "net.ipv4.tcp_wmem",
        Sysctl("net/ipv4/tcp_wmem", 2),
        "bytes",
        "how far TCP grows a send buffer by itself",
        &[Tcp],
    ),
    row(
        "net.ipv4.tcp_rmem",
        Sysctl("net/ipv4/tcp_rmem", 2),
        "bytes",
        "how far TCP grows a receive buffer by itself",
        &[Tcp],
    ),
    row(
        "net.ipv4.ip_local_port_range",
        Sysctl("net/ipv4/ip_local_port_range", 0),
        "",
        "the first port that outgoing connections may take",
        &[Tcp, Udp, Sctp],
    ),
    row("UDP datagram", Constant(65507), "bytes", "the longest datagram over IPv4", &[Udp]),
    row(
        "fs.mqueue.msg_max",
        Sysctl("fs/mqueue/msg_max", 0),
        "messages",
        "the most that a user's queue may hold",
        &[PosixMq],
    )
    .low(Below(100), "a queue of so few messages makes its two ends take turns; 10 unless raised"),
    row(
        "fs.mqueue.msgsize_max",
        Sysctl("fs/mqueue/msgsize_max", 0),
        "bytes",
        "the longest message of a user's queue",
        &[PosixMq],
    )
    .low(Below(65_536), "longer messages must be cut; 8192 unless raised"),
    row(
        "fs.mqueue.msg_default",
        Sysctl("fs/mqueue/msg_default", 0),
        "messages",
        "what a queue holds that was made without attributes",
        &[PosixMq],
    ),
    row(
        "fs.mqueue.msgsize_default",
        Sysctl("fs/mqueue/msgsize_default", 0),
        "bytes",
        "the longest message of such a queue",
        &[PosixMq],
    ),
    row(
        "fs.mqueue.queues_max",
        Sysctl("fs/mqueue/queues_max", 0),
        "queues",
        "queues in this IPC namespace",
        &[PosixMq],
    )
    .low(Below(256), "all containers and users of this IPC namespace share so many queues"),
    row("RLIMIT_MSGQUEUE", QUEUE_BYTES, "bytes", "all queues of a user, counted as if full", &[PosixMq]).low(
        Below(8 << 20),
        "one queue of 100 messages of 64 KiB does not fit; 819200 bytes unless raised, nine queues of 10 of 8 KiB",
    ),
    row("MQ_PRIO_MAX", Constant(32768), "priorities", "0 to 32767", &[PosixMq]),
    row("kernel.msgmax", Sysctl("kernel/msgmax", 0), "bytes", "the longest message", &[SysvMq])
        .low(Below(8192), "a message of 8 KiB, the usual limit, is refused"),
    row("kernel.msgmnb", Sysctl("kernel/msgmnb", 0), "bytes", "what a new queue holds", &[SysvMq]).low(
        Below(65_536),
        "a queue holds fewer than eight messages of 8 KiB, and its two ends take turns; 16384 unless raised",
    ),
    row("kernel.msgmni", Sysctl("kernel/msgmni", 0), "queues", "queues in this IPC namespace", &[SysvMq])
        .low(Below(256), "all users of this IPC namespace share so few queues"),
    row("/dev/shm size", SharedMemorySize, "bytes", "all objects together", &[PosixShm, PosixNamedSemaphore]).low(
        Below(256 << 20),
        "objects that do not fit cannot be made, or SIGBUS kills who writes them; containers get 64 MiB unless told",
    ),
    row("/dev/shm free", SharedMemoryFree, "bytes", "what is left of it now", &[PosixShm, PosixNamedSemaphore])
        .low(Below(16 << 20), "it is nearly full: objects that nobody uses any more may lie there"),
    row("kernel.shmmax", Sysctl("kernel/shmmax", 0), "bytes", "the largest segment", &[SysvShm])
        .low(Below(1 << 30), "a segment of 1 GiB cannot be made; 32 MiB unless raised before Linux 3.16"),
    row("kernel.shmall", Sysctl("kernel/shmall", 0), "pages", "all segments together", &[SysvShm])
        .low(Below(262_144), "all segments together have less than 1 GiB"),
    row("kernel.shmmni", Sysctl("kernel/shmmni", 0), "segments", "segments in this IPC namespace", &[SysvShm])
        .low(Below(1024), "all users of this IPC namespace share so few segments"),
    row("vm.max_map_count", Sysctl("vm/max_map_count", 0), "mappings", "mappings of one process", MAPPED),
    row("RLIMIT_MEMLOCK", LOCKED, "bytes", "what one process may keep from being swapped out", MAPPED).low(
        Below(8 << 20),
        "less than 8 MiB can be kept from being swapped out; 64 KiB unless raised before Linux 5.16",
    ),
    row("IOV_MAX", Constant(1024), "pieces", "one call's, on either side; this library splits", ATTACH),
    row("MAX_RW_COUNT", Constant(0x7fff_f000), "bytes", "what one call carries; this library loops", ATTACH),
    row(
        "kernel.yama.ptrace_scope",
        Sysctl("kernel/yama/ptrace_scope", 0),
        "",
        "0: one's own processes, 1: descendants, 2: CAP_SYS_PTRACE, 3: nobody's",
        ATTACH,
    )
    .low(Above(0), "from 1 on, cross-memory attach reaches only descendants, or who allowed it with PR_SET_PTRACER"),
    row(
        "user.max_user_namespaces",
        Sysctl("user/max_user_namespaces", 0),
        "namespaces",
        "user namespaces that one user may have",
        ATTACH,
    )
    .low(Below(1000), "rootless containers and sandboxes, where one is root over one's own processes, are refused"),
    row(
        "kernel.unprivileged_userns_clone",
        Sysctl("kernel/unprivileged_userns_clone", 0),
        "",
        "0: only root makes user namespaces, 1: everybody (Debian's switch)",
        ATTACH,
    )
    .low(Below(1), "rootless containers and sandboxes are refused"),
    row(
        "kernel.apparmor_restrict_unprivileged_userns",
        Sysctl("kernel/apparmor_restrict_unprivileged_userns", 0),
        "",
        "1: in a user namespace one has no capability without a profile (Ubuntu's switch)",
        ATTACH,
    )
    .low(Above(0), "rootless containers and sandboxes without an AppArmor profile fail"),
    row(
        "SEM_VALUE_MAX",
        Constant(2_147_483_647),
        "",
        "the largest value",
        &[PosixNamedSemaphore, PosixUnnamedSemaphore],
    ),
    row("SEMVMX", Constant(32767), "", "the largest value of a semaphore", &[SysvSemaphore]),
    row("kernel.sem SEMMSL", Sysctl("kernel/sem", 0), "semaphores", "in one set", &[SysvSemaphore])
        .low(Below(250), "a set of 250 semaphores cannot be made"),
    row(
        "kernel.sem SEMMNS",
        Sysctl("kernel/sem", 1),
        "semaphores",
        "in all sets of this IPC namespace",
        &[SysvSemaphore],
    )
    .low(Below(32_000), "all users of this IPC namespace share so few semaphores"),
    row("kernel.sem SEMOPM", Sysctl("kernel/sem", 2), "operations", "in one semop", &[SysvSemaphore])
        .low(Below(32), "a list of 32 operations is refused as a whole (E2BIG)"),
    row("kernel.sem SEMMNI", Sysctl("kernel/sem", 3), "sets", "in this IPC namespace", &[SysvSemaphore])
        .low(Below(128), "all users of this IPC namespace share so few sets"),
    row("eventfd counter", Constant(u64::MAX - 1), "", "the largest value", &[Eventfd]),
    row("FUTEX_WAITV_MAX", Constant(128), "words", "one call waits for", &[Futex]),
    row("ROBUST_LIST_LIMIT", Constant(2048), "mutexes", "held by one thread that its death releases", &[Mutex]),
    row("RLIMIT_SIGPENDING", PENDING, "signals", "pending for all processes of a user", &[SignalRealtime]).low(
        Below(1024),
        "beyond it sigqueue fails with EAGAIN, and two signals of kill arrive as one that names no sender",
    ),
    row(
        "kernel.pid_max",
        Sysctl("kernel/pid_max", 0),
        "",
        "pids stay below it, then begin again",
        &[CmaRead, CmaWrite, SignalStandard, SignalRealtime],
    ),
    row("RLIMIT_NOFILE", DESCRIPTORS, "descriptors", "open in one process", WITH_DESCRIPTORS)
        .low(Below(1024), "each connection, queue, memfd and peer is a descriptor; servers need thousands"),
];
