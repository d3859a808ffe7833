//! The channel: none of the thirty, and explained like them.

use super::{Answer, Info, Kind};

/// What there is to know about the [`channel`](crate::channel).
pub static CHANNEL: Info = Info {
    name: "channel",
    title: "The channel (onecopy's own: shared memory, and cross-memory attach where the kernel lets)",
    kinds: &[Kind::Transfer, Kind::Memory, Kind::Attach],
    addresses: &["channel:NAME", "channel:/path"],
    destination: "A name of this user's (an abstract UNIX socket), or a socket file. A parent and its child need neither.",
    access: "Processes of the same user, as the kernel tells each side of the other; a program's Policy admits others. A \
             side of the same user that may attach can read and write the other one's memory; Policy::separate forbids that.",
    copies: Answer {
        short: "0 to 2",
        long: "Short messages: 2, of one or two cache lines. Below 512 KiB: 2, through a ring, both sides at once; but \
               from 64 KiB on 1, where the other side waits for it as for an answer, or where a long stream goes faster so. \
               Longer ones: 1, of which each side makes a part. `onecopy bench --only channel` measures where the ways cross. \
               Without cross-memory attach: 2, through the ring. What is made in a loan: 0; `onecopy send` reads into loans.",
    },
    boundaries: Answer {
        short: "kept",
        long: "Kept, in order, each message once, up to 1 GiB unless a program says otherwise.",
    },
    full: "The sender waits: by looking for some 50 us, then asleep. A long message is sent when the receiver has it.",
    empty: "The receiver waits likewise. It is told when the sender has closed, and apart from that when it has died.",
    remains: Answer {
        short: "nothing",
        long: "Nothing of a name. The socket file of a path stays when its listener is killed; the next one replaces it.",
    },
    traps: &[
        "Both sides have to be there: nothing is kept for a receiver that comes later.",
        "The channel stays with the process: a child made by fork has to connect anew.",
        "`onecopy send` and `recv` end a stream with an empty message; a program at the other side does as they do, or \
         `recv --count` takes its messages.",
    ],
    man_pages: &["unix(7)", "memfd_create(2)", "futex(2)", "process_vm_readv(2)"],
    try_it: "onecopy recv channel:try & onecopy send channel:try -i /etc/services",
    module: "channel",
};
