//! Rows 1 to 4 and 7: byte streams.

use super::{Answer, Info, Kind};

const BYTES: Answer =
    Answer { short: "bytes", long: "Do not survive: it is a stream of bytes, and a read may return any part of it." };

pub(super) const TWO_CALLS: Answer =
    Answer { short: "2", long: "2: the sender's call copies into the kernel, the receiver's call copies out of it." };

pub(super) static PIPE: Info = Info {
    name: "pipe",
    title: "Pipe",
    kinds: &[Kind::Transfer],
    addresses: &["fd:N", "fd:PID:N"],
    destination: "A descriptor: inherited from a common ancestor, passed over a UNIX socket, or another process's, opened \
                  through /proc/PID/fd/N.",
    access: "Whoever holds a descriptor of one of its ends. Others can open /proc/PID/fd/N only where they are that \
             process's user and may trace it.",
    copies: TWO_CALLS,
    boundaries: Answer {
        short: "bytes",
        long: "Do not survive: it is a stream of bytes. Writes of at most PIPE_BUF (4096) bytes are atomic; longer ones \
               may be torn by the bytes of other writers: see `onecopy pipe-safety`, and `--frame`.",
    },
    full: "A write waits. Without waiting, up to 4096 bytes go whole or not at all (EAGAIN), and a longer write puts in \
           what fits. When no reader is left: EPIPE, and the signal SIGPIPE, which this library holds back.",
    empty: "A read waits, or gives EAGAIN. When no writer is left it returns 0: the end of file.",
    remains: Answer {
        short: "nothing",
        long: "Nothing: the kernel frees it, and the bytes in it, with its last descriptor.",
    },
    traps: &[
        "A forgotten copy of the write end, in a child that inherited it, keeps the end of file away for ever.",
        "O_NONBLOCK belongs to the open file description: setting it changes every process that shares the end.",
        "A signal in the middle of a large blocking write leaves a short count behind.",
        "POLLOUT stays off while less than PIPE_BUF bytes are free.",
        "A user whose pipes exceed pipe-user-pages-soft gets new ones of one or two pages.",
    ],
    man_pages: &["pipe(7)", "pipe(2)", "fcntl(2)"],
    try_it: "printf hello | onecopy recv fd:0",
    module: "stream::pipe",
};

pub(super) static FIFO: Info = Info {
    name: "fifo",
    title: "FIFO (named pipe)",
    kinds: &[Kind::Transfer],
    addresses: &["fifo:/path"],
    destination: "A path in the file system. Both sides must run on one machine, even where the file system does not.",
    access: "The mode bits of the file, and search permission on its directories.",
    copies: TWO_CALLS,
    boundaries: Answer {
        short: "bytes",
        long: "Do not survive: it is a stream of bytes. Writes of at most PIPE_BUF (4096) bytes are atomic; longer ones \
               may be torn by the bytes of other writers: see `onecopy pipe-safety`, and `--frame`.",
    },
    full: "As a pipe: a write waits, or puts in what fits; without a reader EPIPE. Opening it for writing waits for a \
           reader; without waiting and without a reader: ENXIO.",
    empty: "As a pipe: a read waits, and returns 0 when the last writer has left. Opening it for reading waits for a \
            writer.",
    remains: Answer { short: "the file", long: "The file, empty: bytes that nobody read go with the last close." },
    traps: &[
        "When the last of the writers leaves, readers see the end of file, though the next may come a moment later.",
        "Two processes that open two FIFOs in opposite order wait for each other.",
        "In a sticky directory that everybody can write, such as /tmp, fs.protected_fifos may refuse to open somebody \
         else's FIFO with O_CREAT.",
        "Several readers share the bytes: each byte goes to one of them, wherever the message ends.",
    ],
    man_pages: &["fifo(7)", "mkfifo(3)", "pipe(7)"],
    try_it: "onecopy recv fifo:/tmp/jobs & printf hello | onecopy send fifo:/tmp/jobs",
    module: "stream::fifo",
};

pub(super) static PTY: Info = Info {
    name: "pty",
    title: "Pseudoterminal",
    kinds: &[Kind::Transfer],
    addresses: &["pty:/link"],
    destination: "A link to the slave, /dev/pts/N. The master is a descriptor of the process that made the pair.",
    access: "The slave: its mode bits, usually 0620, owned by the user who opened the master. The master: whoever holds its \
             descriptor.",
    copies: Answer {
        short: "5",
        long: "5: the writer's call copies into the terminal, the kernel copies twice between its buffers and once more, \
               64 bytes at a time, on the way out, and the reader's call copies out.",
    },
    boundaries: BYTES,
    full: "A write takes what fits, then waits, or gives EAGAIN. The line discipline holds 4096 bytes for the reader, \
           some more wait before it.",
    empty: "A read waits, or gives EAGAIN. When the last slave closes, the master's read fails with EIO; when the master \
            closes, the slave reads 0. The library calls both the end of file.",
    remains: Answer {
        short: "the link",
        long: "The link, dangling, when its maker was killed. The terminal itself goes with the master.",
    },
    traps: &[
        "In its usual mode a terminal changes the bytes: CR and LF, echo, ^C, ^D, ^S, 4095 bytes a line. Only raw mode \
         carries binary data.",
        "What the slave has not read yet is lost when the master closes.",
        "Number N is given to the next terminal once it is free: a dangling link may lead to somebody else's.",
        "Between the master's opening and the switch to raw mode, bytes already go through the usual mode.",
    ],
    man_pages: &["pty(7)", "pts(4)", "termios(3)"],
    try_it: "onecopy recv pty:/tmp/terminal & printf hello | onecopy send pty:/tmp/terminal",
    module: "stream::pty",
};

pub(super) static UNIX: Info = Info {
    name: "unix-stream",
    title: "UNIX stream socket",
    kinds: &[Kind::Transfer],
    addresses: &["unix:/path", "unix:@abstract"],
    destination: "The path of a socket file, or a name in the abstract namespace, which belongs to the network namespace.",
    access: "A path: write permission on the socket file, and search permission on its directories. An abstract name: \
             everybody in the network namespace, so check the peer's credentials.",
    copies: TWO_CALLS,
    boundaries: BYTES,
    full: "A send waits, or gives EAGAIN, once the sender's buffer (SO_SNDBUF) is used up. When the peer is gone: EPIPE or \
           ECONNRESET.",
    empty: "A receive waits, or gives EAGAIN; it returns 0 when the peer closed or shut down its side.",
    remains: Answer {
        short: "socket file",
        long: "The socket file, where one was bound. An abstract name goes with its socket.",
    },
    traps: &[
        "Binding to a file that exists fails with EADDRINUSE, even when nobody has listened on it since a crash.",
        "A path has at most 107 bytes.",
        "SO_PEERCRED names who connected, or who called listen, not who holds the descriptor now.",
        "Bytes that the peer had not read when it closed turn into ECONNRESET on this side.",
        "At most 253 descriptors travel in one message, and they count against the limits of whoever receives them.",
    ],
    man_pages: &["unix(7)", "socket(7)", "connect(2)"],
    try_it: "onecopy recv unix:/tmp/jobs.socket & printf hello | onecopy send unix:/tmp/jobs.socket",
    module: "stream::unix",
};

pub(super) static TCP: Info = Info {
    name: "tcp",
    title: "Internet stream socket (TCP)",
    kinds: &[Kind::Transfer],
    addresses: &["tcp:HOST:PORT"],
    destination: "A host and a port, in the network namespace.",
    access: "Everybody whose packets arrive: routing and firewalls decide. Nothing says which user the peer is.",
    copies: Answer {
        short: "2",
        long: "2: the sender's call copies into the kernel, the receiver's call copies out of it. The loopback interface \
               hands on the same pages; between them runs the whole of TCP.",
    },
    boundaries: BYTES,
    full: "A send waits, or gives EAGAIN, once the send buffer and the peer's window are full. After a reset: ECONNRESET, \
           then EPIPE.",
    empty: "A receive waits, or gives EAGAIN; it returns 0 when the peer closed or shut down its side.",
    remains: Answer {
        short: "nothing",
        long: "Nothing that has a name. The port of the side that closed first rests in TIME_WAIT for a minute.",
    },
    traps: &[
        "Without TCP_NODELAY small messages wait for the acknowledgement of the last; this library sets it.",
        "send says that the kernel took the bytes, not that the peer has them: a reset discards what is under way.",
        "Closing with bytes unread resets the connection, and may take away what the peer had not read yet.",
        "A peer whose machine died stays connected until a deadline, or keepalive, says otherwise.",
        "Ports of the range in net.ipv4.ip_local_port_range may be taken by outgoing connections.",
    ],
    man_pages: &["tcp(7)", "ip(7)", "ipv6(7)"],
    try_it: "onecopy recv tcp:localhost:7000 & printf hello | onecopy send tcp:localhost:7000",
    module: "stream::tcp",
};
