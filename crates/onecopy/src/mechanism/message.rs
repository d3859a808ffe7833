//! Rows 5, 6 and 8 to 11: mechanisms that keep message boundaries.

use super::stream::TWO_CALLS;
use super::{Answer, Info, Kind};

const KEPT: Answer = Answer { short: "kept", long: "Survive: each receive returns one message, whole." };

pub(super) static UNIX_DGRAM: Info = Info {
    name: "unix-dgram",
    title: "UNIX datagram socket",
    kinds: &[Kind::Transfer],
    addresses: &["unix-dgram:/path", "unix-dgram:@abstract"],
    destination: "The path of a socket file, or a name in the abstract namespace, which belongs to the network namespace.",
    access: "A path: write permission on the socket file. An abstract name: everybody in the network namespace. A socket \
             that is connected itself accepts datagrams from its peer alone.",
    copies: TWO_CALLS,
    boundaries: KEPT,
    full: "A send waits, or gives EAGAIN, once the receiver's queue holds more than net.unix.max_dgram_qlen messages or the \
           sender's buffer is used up: nothing is lost. Longer than the buffer: EMSGSIZE. Receiver gone: ECONNREFUSED.",
    empty: "A receive waits, or gives EAGAIN. There is no end of file.",
    remains: Answer {
        short: "socket file",
        long: "The socket file, where one was bound. Messages that nobody received go with the receiver's socket.",
    },
    traps: &[
        "A receive with a short buffer cuts the message and drops the rest; this library looks at the length first.",
        "The receiver never learns that the last sender has left.",
        "A sender that is not bound to an address itself cannot be answered.",
        "A few messages of one sender fill the queue for all others.",
        "A path has at most 107 bytes, and binding to a file that exists fails with EADDRINUSE.",
    ],
    man_pages: &["unix(7)", "socket(7)"],
    try_it: "onecopy recv unix-dgram:/tmp/jobs.socket & printf hello | onecopy send unix-dgram:/tmp/jobs.socket",
    module: "message::unix_dgram",
};

pub(super) static UNIX_SEQPACKET: Info = Info {
    name: "unix-seqpacket",
    title: "UNIX socket of sequenced packets",
    kinds: &[Kind::Transfer],
    addresses: &["unix-seqpacket:/path", "unix-seqpacket:@abstract"],
    destination: "The path of a socket file, or a name in the abstract namespace, which belongs to the network namespace.",
    access: "A path: write permission on the socket file, and search permission on its directories. An abstract name: \
             everybody in the network namespace, so check the peer's credentials.",
    copies: TWO_CALLS,
    boundaries: KEPT,
    full: "A send waits, or gives EAGAIN, once the sender's buffer (SO_SNDBUF) is used up. A message longer than the \
           buffer: EMSGSIZE. When the peer is gone: EPIPE or ECONNRESET.",
    empty: "A receive waits, or gives EAGAIN; the end is seen when the peer closed or shut down its side.",
    remains: Answer {
        short: "socket file",
        long: "The socket file, where one was bound. An abstract name goes with its socket.",
    },
    traps: &[
        "A message of length zero looks like the end of file to recv(2): both return 0. This library tells them apart.",
        "A receive with a short buffer cuts the message and drops the rest; this library looks at the length first.",
        "Binding to a file that exists fails with EADDRINUSE, even when nobody has listened on it since a crash.",
        "A path has at most 107 bytes.",
    ],
    man_pages: &["unix(7)", "socket(7)"],
    try_it: "onecopy recv unix-seqpacket:/tmp/jobs.socket & printf hello | onecopy send unix-seqpacket:/tmp/jobs.socket",
    module: "message::unix_seqpacket",
};

pub(super) static UDP: Info = Info {
    name: "udp",
    title: "Internet datagram socket (UDP)",
    kinds: &[Kind::Transfer],
    addresses: &["udp:HOST:PORT"],
    destination: "A host and a port, in the network namespace.",
    access: "Everybody whose packets arrive, with any source address: routing and firewalls decide.",
    copies: TWO_CALLS,
    boundaries: Answer {
        short: "kept",
        long: "Survive, where the message survives: each receive returns one datagram of at most 65507 bytes (IPv4).",
    },
    full: "A send succeeds; the kernel drops the datagram, silently, when the receiver's buffer (SO_RCVBUF) is full. \
           Longer than 65507 bytes: EMSGSIZE.",
    empty: "A receive waits, or gives EAGAIN. There is no end of file.",
    remains: Answer { short: "nothing", long: "Nothing." },
    traps: &[
        "Loss is silent, over the loopback interface too, whenever the receiver is slower than the sender for long \
         enough to fill its buffer.",
        "Order is not promised, and a datagram may arrive twice.",
        "A datagram above the MTU travels in fragments; when one is lost, all are.",
        "ECONNREFUSED on a connected socket speaks of an earlier datagram, and is reported once.",
    ],
    man_pages: &["udp(7)", "ip(7)"],
    try_it: "onecopy recv udp:localhost:7000 & sleep 1; printf hello | onecopy send udp:localhost:7000",
    module: "message::udp",
};

pub(super) static SCTP: Info = Info {
    name: "sctp",
    title: "Internet socket of sequenced packets (SCTP)",
    kinds: &[Kind::Transfer],
    addresses: &["sctp:HOST:PORT"],
    destination: "A host and a port, in the network namespace; a host may have several addresses.",
    access: "Everybody whose packets arrive: routing and firewalls decide. Nothing says which user the peer is.",
    copies: TWO_CALLS,
    boundaries: Answer {
        short: "kept",
        long: "Survive, and messages of one stream stay in order. A message longer than the receiver's buffer comes in \
               parts, the last marked with MSG_EOR.",
    },
    full: "A send waits, or gives EAGAIN, once the send buffer is full. A message longer than the buffer: EMSGSIZE.",
    empty: "A receive waits, or gives EAGAIN; it returns 0 when the association was shut down.",
    remains: Answer { short: "nothing", long: "Nothing." },
    traps: &[
        "Many kernels lack it, or keep its module on a list of those that users may not load: the socket call fails with \
         ESOCKTNOSUPPORT or EPROTONOSUPPORT.",
        "Many routers and firewalls between machines drop it.",
        "Closing one side ends both: an association has no half-closed state.",
        "Messages of length zero cannot be sent.",
    ],
    man_pages: &["sctp(7)", "ip(7)"],
    try_it: "onecopy recv sctp:localhost:7000 & printf hello | onecopy send sctp:localhost:7000",
    module: "message::sctp",
};

pub(super) static POSIX_MQ: Info = Info {
    name: "posix-mq",
    title: "POSIX message queue",
    kinds: &[Kind::Transfer],
    addresses: &["mq:/name"],
    destination: "A name with one leading slash, in the IPC namespace.",
    access: "The mode bits of the queue, less the creator's umask.",
    copies: TWO_CALLS,
    boundaries: Answer {
        short: "kept",
        long: "Survive: each receive returns one message, the one of the highest priority that waited longest.",
    },
    full: "A send waits, or gives EAGAIN, once mq_maxmsg messages are in it. A message longer than mq_msgsize: EMSGSIZE.",
    empty: "A receive waits, or gives EAGAIN. There is no end of file.",
    remains: Answer {
        short: "the queue",
        long: "The queue and its messages, until it is unlinked or the machine restarts.",
    },
    traps: &[
        "The receive buffer must hold mq_msgsize bytes however short the message is, else EMSGSIZE.",
        "The limits of a queue are fixed when it is made: opening an existing one with others changes nothing and is no \
         error.",
        "A queue counts against RLIMIT_MSGQUEUE with all it could hold, even while it is empty.",
        "One process can register for notification (EBUSY), for one message, and hears nothing while a receiver waits.",
        "mq_timedreceive and mq_timedsend count in wall-clock time, which may jump.",
    ],
    man_pages: &["mq_overview(7)", "mq_open(3)", "mq_notify(3)"],
    try_it: "printf hello | onecopy send mq:/jobs && onecopy recv mq:/jobs && onecopy rm mq:/jobs",
    module: "message::posix_mq",
};

pub(super) static SYSV_MQ: Info = Info {
    name: "sysv-mq",
    title: "System V message queue",
    kinds: &[Kind::Transfer],
    addresses: &["sysv-mq:KEY", "sysv-mq:path:/file?id=1", "sysv-mq:id=N"],
    destination: "A key, agreed upon or made of a file by ftok(3), or the identifier of a queue, in the IPC namespace.",
    access: "The mode bits of the queue: read to receive, write to send.",
    copies: TWO_CALLS,
    boundaries: Answer {
        short: "kept",
        long: "Survive. Each message has a type above 0, and a receive asks for the first of any type, of one type, of the \
               lowest type up to N, or of any but one.",
    },
    full: "A send waits, or gives EAGAIN, once msg_qbytes bytes are in it. A message longer than msgmax: EINVAL.",
    empty: "A receive waits, or gives ENOMSG. When the queue is removed meanwhile: EIDRM.",
    remains: Answer {
        short: "the queue",
        long: "The queue and its messages, until it is removed or the machine restarts.",
    },
    traps: &[
        "A message longer than the receive buffer is E2BIG and stays; with MSG_NOERROR it is cut and the rest is lost.",
        "A queue has no descriptor: it cannot be polled, and no call has a timeout.",
        "ftok keeps 16 bits of the inode and 8 of the device: two files may give one key.",
        "Replacing the file changes the key that ftok makes of it.",
        "A sender that has lost its receiver never learns of it.",
    ],
    man_pages: &["sysvipc(7)", "msgop(2)", "msgget(2)", "ftok(3)"],
    try_it: "printf hello | onecopy send sysv-mq:0x4d2 && onecopy recv sysv-mq:0x4d2 && onecopy rm sysv-mq:0x4d2",
    module: "message::sysv_mq",
};
