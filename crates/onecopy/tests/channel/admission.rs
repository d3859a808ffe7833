//! Who is admitted, and who is refused by name.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onecopy::channel::rendezvous::{Listener, connect_by};
use onecopy::channel::{ChannelName, Policy};
use onecopy::{Deadline, Error};

use crate::support::{Scratch, watchdog};
use crate::{
    MEMORY, OTHER, as_other, as_user, connect_to, is_root, listen_at, listen_with, mark, own_name, place, raw_listener,
    set_mark,
};

const SECONDS: Duration = Duration::from_secs(60);

fn refusal(error: Error) -> String {
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    error.to_string()
}

/// Deals with those who connect, also with what they have said when it `is_over`, and demands that none is admitted.
fn admit_nobody(listener: &Listener, is_over: impl Fn() -> bool) {
    let mut was_over = false;
    while !was_over {
        was_over = is_over();
        let error = listener.accept_by(Deadline::after(Duration::from_millis(50))).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    }
}

/// In this user namespace, where everybody has a number, its own is that of a user, and not that of anybody without one.
#[test]
fn the_user_nobody_is_a_user_like_any_other() {
    const NOBODY: u32 = 65_534;
    if !is_root("admission::the_user_nobody_is_a_user_like_any_other") {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let (name, policy) = (own_name(), Policy::default().admit_user(0));
    let mark_theirs = || set_mark(connect_by(&name, &policy, Deadline::Never).unwrap().region(), 5);
    let ours = Policy::default().admit_user(NOBODY);
    let listener = listen_with(&name, &ours);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| as_user(NOBODY, mark_theirs));
        let connection = listener.accept_by(Deadline::Never).unwrap();
        client.join().unwrap();
        assert_eq!((connection.peer().uid(), mark(connection.region())), (NOBODY, 5));
    });
}

#[test]
fn another_user_is_refused_unless_the_policy_names_it() {
    if !is_root("admission::another_user_is_refused_unless_the_policy_names_it") {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let to_root = Policy::default().admit_user(0);
    let name = own_name();
    let listener = listen_at(&name);
    let error = std::thread::scope(|scope| {
        let client = scope.spawn(|| as_other(|| connect_by(&name, &to_root, Deadline::Never).unwrap_err()));
        admit_nobody(&listener, || client.is_finished());
        client.join().unwrap()
    });
    let pid = std::process::id();
    let told = refusal(error);
    let found = format!("process {pid} with uid {OTHER} and gid {OTHER} is not admitted, but uid 0");
    assert!(told.contains(&format!("process {pid} with uid 0 and gid 0 refuses this process: {found}")), "{told}");
    let away = listener.turned_away();
    assert!(away.count == 1 && away.last.contains(&found) && away.last.contains("whose policy admits"), "{away:?}");
    drop(listener);

    for policy in [Policy::default().admit_user(OTHER), Policy::default().admit_group(OTHER)] {
        let listener = listen_with(&name, &policy);
        std::thread::scope(|scope| {
            let connect = || set_mark(connect_by(&name, &to_root, Deadline::Never).unwrap().region(), 5);
            let client = scope.spawn(move || as_other(connect));
            let connection = listener.accept_by(Deadline::Never).unwrap();
            assert_eq!((connection.peer().uid(), connection.peer().gid()), (OTHER, OTHER));
            client.join().unwrap();
            assert_eq!(mark(connection.region()), 5);
        });
    }
}

#[test]
fn a_socket_file_is_open_to_others_only_when_the_policy_admits_some() {
    if !is_root("admission::a_socket_file_is_open_to_others_only_when_the_policy_admits_some") {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let scratch = Scratch::new();
    std::fs::set_permissions(scratch.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let name = ChannelName::path(scratch.path("channel")).unwrap();
    let mode = || std::fs::metadata(scratch.path("channel")).unwrap().permissions().mode() & 0o777;
    let to_root = Policy::default().admit_user(0);
    let listener = listen_at(&name);
    assert_eq!(mode(), 0o600);
    let error = as_other(|| connect_by(&name, &to_root, Deadline::Never).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    drop(listener);

    let listener = Listener::bind(&name, &Policy::default().admit_user(OTHER), MEMORY).unwrap();
    assert_eq!(mode(), 0o666);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| as_other(|| connect_by(&name, &to_root, Deadline::Never).unwrap()));
        assert_eq!(listener.accept_by(Deadline::Never).unwrap().peer().uid(), OTHER);
        assert_eq!(client.join().unwrap().peer().uid(), 0);
    });
    // A listener that the client did not expect: it refuses it, and the listener learns why.
    let error = std::thread::scope(|scope| {
        let client = scope.spawn(|| as_other(|| connect_by(&name, &Policy::default(), Deadline::Never).unwrap_err()));
        admit_nobody(&listener, || client.is_finished());
        client.join().unwrap()
    });
    assert!(refusal(error).contains(&format!("with uid 0 and gid 0 is not admitted, but uid {OTHER};")));
    assert!(listener.turned_away().last.contains("refuses this process"), "{:?}", listener.turned_away());
}

#[test]
fn a_squatter_on_a_name_is_refused_by_name() {
    if !is_root("admission::a_squatter_on_a_name_is_refused_by_name") {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let policy = Policy::default().admit_user(0);
    // The abstract namespace lets anybody have the name that belongs to root.
    let listener = as_other(|| Listener::from_fd(raw_listener(&place(&name, 0)), "squatter", &policy, MEMORY).unwrap());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let squatter = scope.spawn(|| as_other(|| admit_nobody(&listener, || is_over.load(Ordering::Relaxed))));
        let told = refusal(connect_by(&name, &Policy::default(), Deadline::Never).unwrap_err());
        let pid = std::process::id();
        let found = format!("process {pid} with uid {OTHER} and gid {OTHER} is not admitted, but uid 0;");
        assert!(told.starts_with(&format!("channel:{name}: {found}")), "{told}");
        is_over.store(true, Ordering::Relaxed);
        squatter.join().unwrap();
    });
    // Where the user is expected, it is none.
    std::thread::scope(|scope| {
        let squatter = scope.spawn(|| as_other(|| listener.accept_by(Deadline::Never).unwrap()));
        let connection = connect_by(&name, &Policy::default().admit_user(OTHER), Deadline::Never).unwrap();
        assert_eq!(connection.peer().uid(), OTHER);
        squatter.join().unwrap();
    });
}

#[test]
fn a_silent_squatter_is_named_in_the_end() {
    if !is_root("admission::a_silent_squatter_is_named_in_the_end") {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let _listener = as_other(|| raw_listener(&place(&name, 0)));
    let holder = format!("process {} with uid {OTHER} holds {}", std::process::id(), place(&name, 0));
    let error = connect_by(&name, &Policy::default(), Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && error.to_string().contains(&holder), "{error}");
    // It is not waited for without end.
    let told = refusal(connect_by(&name, &Policy::default(), Deadline::Never).unwrap_err());
    assert!(told.contains(&holder) && told.contains("did not answer within 5 s") && told.contains("uid 0"), "{told}");
}

#[test]
fn a_name_belongs_to_a_user() {
    if !is_root("admission::a_name_belongs_to_a_user") {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let roots = listen_at(&name);
    let others = as_other(|| listen_at(&name));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| as_other(|| connect_to(&name)));
        let connection = as_other(|| others.accept_by(Deadline::Never).unwrap());
        assert_eq!(connection.peer().uid(), OTHER);
        assert_eq!(client.join().unwrap().peer().uid(), OTHER);
    });
    assert!(roots.accept_by(Deadline::Now).unwrap_err().is_out_of_time());
    assert_eq!(roots.turned_away().count, 0);
}
