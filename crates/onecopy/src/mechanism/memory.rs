//! Rows 12 to 15: shared memory.

use super::{Answer, Info, Kind};

const IN_PLACE: Answer = Answer {
    short: "0 or 2",
    long: "None where both sides work on the data in place. 2 through the ring: the sender copies into the memory, the \
           receiver out of it, both without a system call.",
};

const PLAIN_MEMORY: Answer =
    Answer { short: "memory", long: "It is plain memory. Through the ring in it messages keep their boundaries." };

const NOTHING_WAITS: &str = "Nothing waits: memory tells nobody that it changed. Pair it with a futex, a semaphore or a \
                             mutex, or use the ring.";

pub(super) static POSIX_SHM: Info = Info {
    name: "posix-shm",
    title: "POSIX shared memory",
    kinds: &[Kind::Memory],
    addresses: &["shm:/name"],
    destination: "A name with one leading slash: a file in /dev/shm, so it belongs to the mount namespace.",
    access: "The mode bits of the object, less the creator's umask; a read-only attach needs read permission alone.",
    copies: IN_PLACE,
    boundaries: PLAIN_MEMORY,
    full: "Its size is fixed until somebody grows it. When /dev/shm itself is full, touching a new page is a SIGBUS.",
    empty: NOTHING_WAITS,
    remains: Answer {
        short: "the object",
        long: "The name and the contents, until it is unlinked or the machine restarts.",
    },
    traps: &[
        "Just after its creation it has length 0: whoever opens it before it was grown finds nothing to map.",
        "A process that shortens it kills, by SIGBUS, whoever touches the pages that are gone.",
        "A peer can change at any time what you have just checked: load a value once, then check the copy.",
        "In a container /dev/shm is often 64 MiB, and it is not shared with the host.",
        "Unlinking removes the name alone; processes that have it mapped keep the memory.",
    ],
    man_pages: &["shm_overview(7)", "shm_open(3)", "mmap(2)"],
    try_it: "printf hello | onecopy write shm:/frames --create 4096 && onecopy read shm:/frames --len 5",
    module: "memory::posix_shm",
};

pub(super) static SYSV_SHM: Info = Info {
    name: "sysv-shm",
    title: "System V shared memory",
    kinds: &[Kind::Memory],
    addresses: &["sysv-shm:KEY", "sysv-shm:path:/file?id=1", "sysv-shm:id=N"],
    destination: "A key, agreed upon or made of a file by ftok(3), or the identifier of a segment, in the IPC namespace.",
    access: "The mode bits of the segment: read to attach read-only, read and write to attach for writing.",
    copies: IN_PLACE,
    boundaries: PLAIN_MEMORY,
    full: "Its size is fixed for good. Making one fails with ENOSPC beyond shmmni or shmall, EINVAL beyond shmmax.",
    empty: NOTHING_WAITS,
    remains: Answer {
        short: "the segment",
        long: "The segment and its contents, until it is removed and the last process has detached, or the machine \
               restarts.",
    },
    traps: &[
        "Removal only marks it: it disappears with the last detach, and until then Linux lets processes attach by \
         identifier.",
        "Once it is marked, its key is free, and a new segment with the same key is another one.",
        "Nobody owns a forgotten segment: look for them with ipcs -m.",
        "ftok keeps 16 bits of the inode and 8 of the device: two files may give one key.",
        "exec detaches all segments, fork keeps them attached.",
    ],
    man_pages: &["sysvipc(7)", "shmget(2)", "shmop(2)", "shmctl(2)"],
    try_it: "printf hello | onecopy write sysv-shm:0x4d2 --create 4096 && onecopy read sysv-shm:0x4d2 --len 5",
    module: "memory::sysv_shm",
};

pub(super) static FILE_MAPPING: Info = Info {
    name: "file-mapping",
    title: "Shared file mapping",
    kinds: &[Kind::Memory],
    addresses: &["mmap:/path"],
    destination: "The path of a file.",
    access: "The mode bits of the file: read to map it, read and write to store into it.",
    copies: IN_PLACE,
    boundaries: PLAIN_MEMORY,
    full: "Touching a page beyond the end of the file is a SIGBUS, as is filling a hole on a disk that is full.",
    empty: NOTHING_WAITS,
    remains: Answer {
        short: "the file",
        long: "The file with all that was stored; after a crash of the machine, what was flushed.",
    },
    traps: &[
        "A process that shortens the file kills, by SIGBUS, whoever touches the pages that are gone; checked access of \
         this library makes that an error.",
        "Bytes between the end of the file and the end of its last page can be stored, and are lost.",
        "The kernel writes to the disk when it likes; msync says when it has.",
        "On a network file system two machines do not share memory.",
        "Replacing the file by rename leaves the processes that mapped the old one with the old one.",
    ],
    man_pages: &["mmap(2)", "msync(2)"],
    try_it: "printf hello | onecopy write mmap:/tmp/frames --create 4096 && onecopy read mmap:/tmp/frames --len 5",
    module: "memory::file_mapping",
};

pub(super) static ANONYMOUS: Info = Info {
    name: "anonymous-mapping",
    title: "Shared anonymous mapping (memfd)",
    kinds: &[Kind::Memory],
    addresses: &["fd:N", "fd:PID:N"],
    destination: "The descriptor of a memfd: inherited, passed over a UNIX socket, or another process's, opened through \
                  /proc/PID/fd/N.",
    access: "Whoever holds the descriptor or was given it. Others can open /proc/PID/fd/N only where they are that \
             process's user and may trace it.",
    copies: IN_PLACE,
    boundaries: PLAIN_MEMORY,
    full: "Its size is fixed by the seals. Beyond the memory of the machine or its control group, the kernel kills.",
    empty: NOTHING_WAITS,
    remains: Answer {
        short: "nothing",
        long: "Nothing: it goes with the last descriptor and the last mapping, after SIGKILL too.",
    },
    traps: &[
        "Without F_SEAL_SHRINK a peer can shorten it and kill you by SIGBUS: check the seals of what you are given.",
        "F_SEAL_WRITE is refused (EBUSY) while anybody has a writable shared mapping; F_SEAL_FUTURE_WRITE leaves those.",
        "Memory without a descriptor (MAP_ANONYMOUS) is shared by fork alone, and exec drops it.",
        "A new open file description comes from /proc/PID/fd/N, with its own access mode: pass it sealed, or read-only \
         is not read-only.",
    ],
    man_pages: &["memfd_create(2)", "fcntl(2)", "mmap(2)"],
    try_it: "onecopy read fd:1234:5 --len 64",
    module: "memory::anonymous",
};
