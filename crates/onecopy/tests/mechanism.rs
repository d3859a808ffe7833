//! The thirty mechanisms as data: complete, consistent with the addresses, and found by name.

use onecopy::Address;
use onecopy::mechanism::{Kind, Mechanism};

/// The names as `bench` and `explain` print them, in order.
const NAMES: &str = "pipe, fifo, pty, unix-stream, unix-dgram, unix-seqpacket, tcp, udp, sctp, posix-mq, sysv-mq, \
                     posix-shm, sysv-shm, file-mapping, anonymous-mapping, cma-read, cma-write, posix-named-semaphore, \
                     posix-unnamed-semaphore, sysv-semaphore, eventfd, futex, record-lock, file-lock, mutex, condvar, \
                     barrier, rwlock, signal-standard, signal-realtime";

#[test]
fn names_and_order_are_fixed() {
    let names: Vec<&str> = Mechanism::ALL.iter().map(|mechanism| mechanism.name()).collect();
    assert_eq!(names.join(", "), NAMES);
    for (index, mechanism) in Mechanism::ALL.into_iter().enumerate() {
        assert_eq!(mechanism.row(), index + 1);
        assert_eq!(mechanism.name().parse::<Mechanism>().unwrap(), mechanism);
        assert_eq!(mechanism.to_string(), mechanism.name());
    }
}

#[test]
fn every_question_is_answered() {
    for mechanism in Mechanism::ALL {
        let info = mechanism.info();
        let sentences = [
            info.destination,
            info.access,
            info.copies.long,
            info.boundaries.long,
            info.full,
            info.empty,
            info.remains.long,
        ];
        for sentence in sentences.iter().chain(info.traps) {
            assert!(sentence.ends_with('.') && sentence.len() >= 8, "{mechanism}: {sentence:?}");
            assert!(!sentence.contains("  ") && !sentence.contains('\n'), "{mechanism}: {sentence:?}");
        }
        assert!(info.traps.len() >= 3 && !info.man_pages.is_empty() && !info.kinds.is_empty(), "{mechanism}");
        assert!(info.man_pages.iter().all(|page| page.ends_with(')') && page.contains('(')), "{mechanism}");
        assert!(info.try_it.contains("onecopy "), "{mechanism}");
        assert!(info.module.contains("::"), "{mechanism}");
    }
}

#[test]
fn the_addresses_belong_to_their_mechanism() {
    let sample = |form: &str| {
        form.replace("REGION", "shm:/m")
            .replace("HOST:PORT", "localhost:1")
            .replace("KEY", "0x4d2")
            .replace("PID", "1234")
            .replace("ADDR+LEN", "0x1000+16")
            .replace("=S", "=0")
            .replace("=L", "=1")
            .replace("=N", "=2")
            .replace(":N", ":3")
    };
    for mechanism in Mechanism::ALL {
        for form in mechanism.info().addresses {
            let address: Address = sample(form).parse().unwrap_or_else(|error| panic!("{mechanism}: {error}"));
            let expected = match (mechanism, address.mechanism()) {
                (Mechanism::Pipe | Mechanism::Eventfd | Mechanism::AnonymousMapping, None) => None,
                (Mechanism::CmaWrite, found) => found.map(|_| Mechanism::CmaRead),
                _ => Some(mechanism),
            };
            assert_eq!(address.mechanism(), expected, "{form}");
        }
    }
    let channel: Address = "channel:frames".parse().unwrap();
    assert_eq!(channel.mechanism(), None);
}

#[test]
fn a_wrong_name_is_answered_with_the_nearest() {
    let expected = [
        ("futx", "futx: no such mechanism; did you mean futex?"),
        ("MUTEX", "MUTEX: no such mechanism; did you mean mutex?"),
        ("shm", "shm: no such mechanism; did you mean posix-shm or sysv-shm?"),
        ("semaphore", "posix-named-semaphore, posix-unnamed-semaphore, sysv-semaphore"),
        ("kill", "kill: no such mechanism; did you mean signal-standard?"),
        ("banana", "one of pipe, fifo, pty,"),
        ("", "an empty name: no such mechanism; one of pipe"),
        ("a\nb", "a\\nb: no such mechanism"),
    ];
    for (name, part) in expected {
        let error = name.parse::<Mechanism>().unwrap_err().to_string();
        assert!(error.contains(part), "{error:?} does not contain {part:?}");
        assert!(!error.contains('\n'));
    }
    let long = "x".repeat(3000).parse::<Mechanism>().unwrap_err().to_string();
    assert!(long.starts_with(&format!("{}...: no such mechanism", "x".repeat(100))), "{long}");
}

#[test]
fn the_rows_that_move_data_are_transfers() {
    for mechanism in Mechanism::ALL {
        let transfer = mechanism.info().kinds.contains(&Kind::Transfer);
        assert_eq!(transfer, mechanism.row() <= 11, "{mechanism}");
    }
}

#[test]
fn what_every_linux_has_is_available() {
    for mechanism in [Mechanism::Pipe, Mechanism::Fifo, Mechanism::UnixStream, Mechanism::Futex, Mechanism::FileLock] {
        assert_eq!(mechanism.availability(), Ok(()), "{mechanism}");
    }
    for mechanism in Mechanism::ALL {
        if let Err(reason) = mechanism.availability() {
            assert!(!reason.is_empty() && !reason.contains('\n'), "{mechanism}: {reason}");
        }
    }
}
