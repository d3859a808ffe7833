//! Rows 18 to 28: synchronisation.

use super::{Answer, Info, Kind};

const NO_MESSAGE: Answer = Answer { short: "-", long: "No message is carried." };

const NO_BOUNDARIES: Answer = Answer { short: "-", long: "There are none: it carries no message." };

const REGION: &str = "The shared memory in which it lies: POSIX or System V shared memory, a file, or a memfd.";

const REGION_ACCESS: &str = "Whoever may map that memory for writing. All of them are trusted, since each can corrupt the object for the others: this \
     library refuses memory that others than this user and root may write.";

const IN_MEMORY: Answer = Answer {
    short: "its memory",
    long: "The memory in which it lies, with the state in which the last process left it.",
};

const NEVER_EMPTY: &str = "It cannot be empty: what is free is taken at once.";

pub(super) static NAMED_SEMAPHORE: Info = Info {
    name: "posix-named-semaphore",
    title: "POSIX named semaphore",
    kinds: &[Kind::Wake, Kind::Lock],
    addresses: &["sem:/name"],
    destination: "A name with one leading slash; with glibc the file sem.NAME in /dev/shm.",
    access: "The mode bits of that file, less the creator's umask: read and write.",
    copies: NO_MESSAGE,
    boundaries: Answer { short: "counts", long: "Each post counts, and lets one waiter through." },
    full: "A post above SEM_VALUE_MAX (2147483647): EOVERFLOW.",
    empty: "At 0 a wait waits, or gives EAGAIN (sem_trywait).",
    remains: Answer {
        short: "name, value",
        long: "The name and the value, until it is unlinked or the machine restarts.",
    },
    traps: &[
        "Used as a lock, it stays taken when its holder is killed, and nobody can tell: post it once more to repair.",
        "It has no owner: any process may post it, whether it waited or not.",
        "A waiter that is killed may have been the one that a post woke: with glibc the others sleep on beside a value above 0. \
         This library looks again every second.",
        "glibc and musl lay it out differently: programs of both cannot share one.",
        "A name has at most 251 bytes after the slash.",
        "sem_timedwait counts in wall-clock time, which may jump; sem_clockwait (glibc 2.30) can count monotonically.",
    ],
    man_pages: &["sem_overview(7)", "sem_open(3)", "sem_wait(3)"],
    try_it: "onecopy lock sem:/ready -- echo held",
    module: "sync::named_semaphore",
};

pub(super) static UNNAMED_SEMAPHORE: Info = Info {
    name: "posix-unnamed-semaphore",
    title: "POSIX unnamed semaphore",
    kinds: &[Kind::Wake, Kind::Lock],
    addresses: &["sem:REGION"],
    destination: REGION,
    access: REGION_ACCESS,
    copies: NO_MESSAGE,
    boundaries: Answer { short: "counts", long: "Each post counts, and lets one waiter through." },
    full: "A post above SEM_VALUE_MAX (2147483647): EOVERFLOW.",
    empty: "At 0 a wait waits, or gives EAGAIN (sem_trywait).",
    remains: IN_MEMORY,
    traps: &[
        "Used as a lock, it stays taken when its holder is killed, and nobody can tell: post it once more to repair.",
        "A waiter that is killed may have been the one that a post woke: this library looks again every second.",
        "Initialising it a second time, or destroying it while a process waits, is undefined.",
        "pshared = 0 makes one that works among threads and fails silently among processes.",
        "glibc and musl lay it out differently: programs of both cannot share one.",
    ],
    man_pages: &["sem_overview(7)", "sem_init(3)", "sem_wait(3)"],
    try_it: "onecopy post sem:shm:/ready && onecopy wait sem:shm:/ready",
    module: "sync::semaphore",
};

pub(super) static SYSV_SEMAPHORE: Info = Info {
    name: "sysv-semaphore",
    title: "System V semaphore",
    kinds: &[Kind::Wake, Kind::Lock],
    addresses: &["sysv-sem:KEY", "sysv-sem:path:/file?id=1", "sysv-sem:id=N"],
    destination: "A key, agreed upon or made of a file by ftok(3), or the identifier of a set, in the IPC namespace.",
    access: "The mode bits of the set: read to wait for zero, write to change a value.",
    copies: NO_MESSAGE,
    boundaries: Answer {
        short: "counts",
        long: "Operations count, any number at a time; several on one set happen together or not at all.",
    },
    full: "A value above 32767 (SEMVMX): ERANGE.",
    empty: "An operation that cannot be done yet waits, or gives EAGAIN. When the set is removed meanwhile: EIDRM.",
    remains: Answer {
        short: "the set",
        long: "The set and its values, until it is removed or the machine restarts. SEM_UNDO gives back what a dead \
               process had taken.",
    },
    traps: &[
        "A new set is there before it is initialised: a second process can slip in between. This library closes that gap.",
        "SEM_UNDO is not inherited by fork, is kept over exec, and is cleared by SETVAL and SETALL.",
        "What SEM_UNDO would take below 0 is clamped at 0.",
        "ipcmk and many programs never operate on a set that they create, so an opener cannot tell when it is ready: this \
         library waits up to two seconds.",
        "A set has no descriptor: it cannot be polled.",
        "ftok keeps 16 bits of the inode and 8 of the device: two files may give one key.",
    ],
    man_pages: &["sysvipc(7)", "semop(2)", "semget(2)", "semctl(2)"],
    try_it: "onecopy lock sysv-sem:0x4d2 -- echo held",
    module: "sync::sysv_semaphore",
};

pub(super) static EVENTFD: Info = Info {
    name: "eventfd",
    title: "Eventfd",
    kinds: &[Kind::Wake],
    addresses: &["fd:N", "fd:PID:N"],
    destination: "A descriptor: inherited, passed over a UNIX socket, or another process's, taken by pidfd_getfd(2).",
    access: "Whoever holds the descriptor. Taking another process's needs the right to trace it; /proc/PID/fd/N cannot be \
             opened (ENXIO).",
    copies: Answer { short: "-", long: "No message is carried but a counter of 64 bits." },
    boundaries: Answer {
        short: "sum",
        long: "Posts add up: a read takes the sum, or 1 at a time in semaphore mode (EFD_SEMAPHORE).",
    },
    full: "A write that would take the counter above 2^64-2 waits, or gives EAGAIN; writing 2^64-1 itself is EINVAL.",
    empty: "At 0 a read waits, or gives EAGAIN.",
    remains: Answer { short: "nothing", long: "Nothing: it goes with its last descriptor." },
    traps: &[
        "O_NONBLOCK belongs to the open file description: any process that shares it can switch it for all.",
        "Reads and writes move exactly 8 bytes; a shorter buffer is EINVAL.",
        "A reader never learns that the last writer has left: there is no end of file.",
    ],
    man_pages: &["eventfd(2)", "pidfd_getfd(2)"],
    try_it: "python3 -c 'import os; n = os.eventfd(0, 0); os.system(f\"onecopy post fd:{n}\"); print(os.eventfd_read(n))'",
    module: "sync::eventfd",
};

pub(super) static FUTEX: Info = Info {
    name: "futex",
    title: "Futex",
    kinds: &[Kind::Wake],
    addresses: &["futex:REGION"],
    destination: "A word of 32 bits in shared memory: POSIX or System V shared memory, a file, or a memfd.",
    access: "Whoever may map that memory; reading is enough to wait and to wake.",
    copies: NO_MESSAGE,
    boundaries: Answer {
        short: "word",
        long: "None of its own: the word means what its users agree upon. For post and wait of this command it is a counter.",
    },
    full: "It cannot be full: a wake-up that nobody waits for is lost, and the word itself tells what happened. As a counter \
           it ends at 4294967295: EOVERFLOW.",
    empty: "A wait sleeps while the word has the value that the caller saw; with another value it returns at once (EAGAIN).",
    remains: IN_MEMORY,
    traps: &[
        "A waiter may wake without a cause: look at the word again.",
        "FUTEX_PRIVATE_FLAG, which most examples set, makes it deaf to other processes.",
        "When a process is killed the word stays as it was; only a robust list tells the others.",
        "Any process that maps the word can wake its waiters, or requeue them to another word.",
        "FUTEX_WAIT takes a relative timeout, FUTEX_WAIT_BITSET an absolute one.",
    ],
    man_pages: &["futex(7)", "futex(2)"],
    try_it: "onecopy post futex:shm:/word && onecopy wait futex:shm:/word",
    module: "sync::futex",
};

pub(super) static RECORD_LOCK: Info = Info {
    name: "record-lock",
    title: "Record lock (fcntl)",
    kinds: &[Kind::Lock],
    addresses: &["record:/path", "record:/path?start=S&len=L", "ofd:/path?start=S&len=L"],
    destination: "The path of a file, and a range of bytes in it, which need not exist.",
    access: "Whoever may open the file: for reading to lock it shared, for writing to lock it exclusively.",
    copies: NO_MESSAGE,
    boundaries: NO_BOUNDARIES,
    full: "A range that is taken makes F_SETLKW wait; F_SETLK gives EAGAIN or EACCES. Too many locks: ENOLCK.",
    empty: NEVER_EMPTY,
    remains: Answer {
        short: "nothing",
        long: "No lock: the traditional kind goes with its process, the other with its open file description. The file \
               stays.",
    },
    traps: &[
        "The traditional kind is dropped when the process closes any descriptor of that file, even one that a library \
         opened and closed: ofd: has no such trap.",
        "The traditional kind is not inherited by fork; with ofd: a child that inherits the descriptor shares the lock.",
        "It is advisory: a program that does not ask is not stopped.",
        "Record locks and flock do not see each other on local file systems.",
        "/proc/locks and F_OFD_GETLK show pid -1 for ofd: locks: who holds one is not told.",
        "Only the traditional kind detects deadlocks (EDEADLK), and takes all threads of a process for one.",
    ],
    man_pages: &["fcntl(2)", "lockf(3)"],
    try_it: "onecopy lock 'ofd:/tmp/table?start=0&len=100' -- echo held",
    module: "sync::record_lock",
};

pub(super) static FILE_LOCK: Info = Info {
    name: "file-lock",
    title: "File lock (flock)",
    kinds: &[Kind::Lock],
    addresses: &["flock:/path"],
    destination: "The path of a file.",
    access: "Whoever may open the file, in any mode: reading is enough for an exclusive lock too.",
    copies: NO_MESSAGE,
    boundaries: NO_BOUNDARIES,
    full: "A file that is locked makes flock wait, or gives EWOULDBLOCK (LOCK_NB).",
    empty: NEVER_EMPTY,
    remains: Answer {
        short: "nothing",
        long: "No lock: it goes with the last descriptor of its open file description. The file stays.",
    },
    traps: &[
        "Turning a shared lock into an exclusive one is not atomic: it is given up first, and without waiting it may be \
         lost.",
        "A child that inherited the descriptor holds the lock too, keeps it after its parent, and can release it.",
        "Deleting the lock file lets a second process lock a new file of the same name: this library looks whether the path \
         still names the file that it has locked, flock(1) does not.",
        "flock and record locks do not see each other on local file systems; on NFS flock is a record lock.",
        "It is advisory: a program that does not ask is not stopped.",
    ],
    man_pages: &["flock(2)", "flock(1)"],
    try_it: "onecopy lock flock:/tmp/lock -- echo held",
    module: "sync::file_lock",
};

pub(super) static MUTEX: Info = Info {
    name: "mutex",
    title: "Process-shared mutex (pthread, robust)",
    kinds: &[Kind::Lock],
    addresses: &["mutex:REGION"],
    destination: REGION,
    access: REGION_ACCESS,
    copies: NO_MESSAGE,
    boundaries: NO_BOUNDARIES,
    full: "A mutex that is locked makes lock wait, or gives EBUSY (trylock), ETIMEDOUT (timedlock).",
    empty: NEVER_EMPTY,
    remains: Answer {
        short: "its memory",
        long: "The memory in which it lies. When its owner died, the next to lock it is told (EOWNERDEAD) and can repair \
               the data.",
    },
    traps: &[
        "Unlocking after EOWNERDEAD without making it consistent makes it useless for ever (ENOTRECOVERABLE).",
        "Unmapping the memory while the mutex is held loses it for good: nobody is told.",
        "An owner that calls exec counts as dead while its process lives on.",
        "Whoever can write the memory can make the holder store to an address of its choice at unlock.",
        "glibc and musl lay it out differently, and the owner is a thread id: processes of two pid namespaces must not \
         share one.",
    ],
    man_pages: &["pthread_mutexattr_setrobust(3)", "pthread_mutexattr_setpshared(3)", "pthread_mutex_consistent(3)"],
    try_it: "onecopy lock mutex:shm:/state -- echo held",
    module: "sync::mutex",
};

pub(super) static CONDVAR: Info = Info {
    name: "condvar",
    title: "Process-shared condition variable (pthread)",
    kinds: &[Kind::Wake],
    addresses: &["condvar:REGION"],
    destination: REGION,
    access: REGION_ACCESS,
    copies: NO_MESSAGE,
    boundaries: Answer {
        short: "none",
        long: "None of its own: the condition lies in the memory. Behind condvar:REGION that is a count of what was posted.",
    },
    full: "It cannot be full: a notification that nobody waits for is lost, and the condition tells what happened.",
    empty: "A wait gives up the mutex, sleeps, and takes the mutex again.",
    remains: IN_MEMORY,
    traps: &[
        "With glibc a waiter that is killed by SIGKILL can make every later call hang. Those of this library end a second after \
         their deadline, and say that it is broken; prefer a futex or a semaphore where that may happen.",
        "A waiter may wake without a cause: wait in a loop that looks at the condition (wait_while).",
        "It counts in wall-clock time unless its attributes choose the monotonic clock; this library chooses that.",
        "All waiters must use the same mutex.",
    ],
    man_pages: &["pthread_cond_wait(3p)", "pthread_cond_init(3p)", "pthread_condattr_setpshared(3p)"],
    try_it: "onecopy post condvar:shm:/changed && onecopy wait condvar:shm:/changed",
    module: "sync::condvar",
};

pub(super) static BARRIER: Info = Info {
    name: "barrier",
    title: "Process-shared barrier (pthread)",
    kinds: &[Kind::Wake],
    addresses: &["barrier:REGION?parties=N"],
    destination: REGION,
    access: REGION_ACCESS,
    copies: NO_MESSAGE,
    boundaries: Answer { short: "rounds", long: "Rounds: exactly one party of each round is told that it leads." },
    full: "A party that comes while a round is being left waits for the next.",
    empty: "A party waits until N have come. pthread_barrier_wait knows neither a timeout nor a way back.",
    remains: IN_MEMORY,
    traps: &[
        "It counts the dead: a party that was killed while it waited has come, and one that was killed before never comes.",
        "A call of this library that ran out of time has come all the same: its thread waits on.",
        "All parties must state the same number.",
        "Destroying it while parties still leave is undefined.",
    ],
    man_pages: &["pthread_barrier_wait(3p)", "pthread_barrier_init(3p)"],
    try_it: "onecopy wait 'barrier:shm:/start?parties=2' & onecopy wait 'barrier:shm:/start?parties=2'; wait",
    module: "sync::barrier",
};

pub(super) static RWLOCK: Info = Info {
    name: "rwlock",
    title: "Process-shared read-write lock (pthread)",
    kinds: &[Kind::Lock],
    addresses: &["rwlock:REGION"],
    destination: REGION,
    access: REGION_ACCESS,
    copies: NO_MESSAGE,
    boundaries: NO_BOUNDARIES,
    full: "A lock that is taken makes readers or the writer wait, or gives EBUSY (try), ETIMEDOUT (timed).",
    empty: NEVER_EMPTY,
    remains: IN_MEMORY,
    traps: &[
        "It is not robust: a holder that is killed keeps it locked for ever. Remove the memory and make it anew.",
        "glibc prefers readers by default: under steady reading a writer may starve. This library chooses that a waiting writer \
         comes first, so a thread that reads and asks to read once more may wait for itself.",
        "A thread that holds it shared and asks for it exclusively waits for itself.",
        "glibc and musl lay it out differently: programs of both cannot share one.",
    ],
    man_pages: &["pthread_rwlock_rdlock(3p)", "pthread_rwlock_wrlock(3p)", "pthread_rwlockattr_setkind_np(3)"],
    try_it: "onecopy lock -s rwlock:shm:/table -- echo held",
    module: "sync::rwlock",
};
