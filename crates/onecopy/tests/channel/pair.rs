//! A parent and the child that it starts.

use std::time::Duration;

use onecopy::channel::Policy;
use onecopy::channel::rendezvous::{adopt_by, adopt_inherited_by, pair};
use onecopy::{Deadline, Error};

use crate::support::{Peer, argument, role, watchdog};
use crate::{MEMORY, mark, set_mark};

const SECONDS: Duration = Duration::from_secs(60);

#[test]
fn a_parent_and_its_child_share_memory_and_know_each_other() {
    if role().is_some() {
        let connection = adopt_inherited_by(0, &Policy::default(), Deadline::Never).unwrap();
        assert_eq!(connection.peer().pid().to_string(), argument("PARENT"));
        assert!(!connection.is_listener());
        set_mark(connection.region(), 9);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (parent, end) = pair(&Policy::default(), MEMORY).unwrap();
    let own = std::process::id().to_string();
    let test = "pair::a_parent_and_its_child_share_memory_and_know_each_other";
    let peer = Peer::configure(test, "child", &[("PARENT", &own)], |command| {
        command.stdin(end);
    });
    let connection = parent.accept_by(Deadline::Never).unwrap();
    assert_eq!(connection.peer().pid(), peer.pid());
    assert!(connection.is_listener());
    peer.succeed();
    assert_eq!(mark(connection.region()), 9);
}

#[test]
fn a_child_that_ends_without_adopting_is_gone() {
    if role().is_some() {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (parent, end) = pair(&Policy::default(), MEMORY).unwrap();
    let peer = Peer::configure("pair::a_child_that_ends_without_adopting_is_gone", "child", &[], |command| {
        command.stdin(end);
    });
    let error = parent.accept_by(Deadline::Never).unwrap_err();
    assert!(error.is_peer_gone(), "{error}");
    peer.succeed();
}

#[test]
fn deadlines_hold_on_both_sides_and_a_parent_that_is_gone_is_gone() {
    let wait = || Deadline::after(Duration::from_millis(20));
    let (parent, end) = pair(&Policy::default(), MEMORY).unwrap();
    assert!(matches!(parent.accept_by(wait()).unwrap_err(), Error::TimedOut { .. }));
    assert!(adopt_by(end, &Policy::default(), Deadline::Never).unwrap_err().is_peer_gone());

    let (parent, end) = pair(&Policy::default(), MEMORY).unwrap();
    assert!(matches!(adopt_by(end, &Policy::default(), wait()).unwrap_err(), Error::TimedOut { .. }));
    assert!(parent.accept_by(Deadline::Never).unwrap_err().is_peer_gone());

    let file = std::fs::File::open("/dev/null").unwrap();
    let error = adopt_by(file.into(), &Policy::default(), Deadline::Never).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK), "{error}");
    let error = adopt_inherited_by(9999, &Policy::default(), Deadline::Never).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
}
