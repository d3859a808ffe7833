//! What comes instead of a handshake: silence, garbage, another version, death in the middle of it.

use std::io::{IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onecopy::channel::rendezvous::{Listener, connect_by, pair};
use onecopy::channel::{ChannelName, Policy};
use onecopy::{Deadline, Error};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, accept_with, recvmsg, sendmsg,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Peer, argument, eventually, pattern, role, skip, watchdog};
use crate::{
    MEMORY, as_other, hear, is_root, listen_at, meet, open_descriptors, own_name, own_uid, place, raw_client,
    raw_listener, say,
};

const SECONDS: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(100);

/// The first message of a client, as a listener of this name would hear it.
fn hello() -> Vec<u8> {
    let name = own_name();
    let listener = raw_listener(&place(&name, own_uid()));
    let (hello, _) = answer_one(&name, &listener, |socket| say(socket, b"that is enough"));
    hello
}

/// The last message of a client: the prefix of `hello` is that of any message, up to its kind.
fn ready(hello: &[u8]) -> Vec<u8> {
    [&hello[..12], &3_u32.to_ne_bytes()].concat()
}

/// Lets a client connect to `listener`, and answers it. Returns what it said, and what it made of the answer.
fn answer_one(name: &ChannelName, listener: &OwnedFd, answer: impl FnOnce(&OwnedFd)) -> (Vec<u8>, Error) {
    std::thread::scope(|scope| {
        let client = scope.spawn(|| connect_by(name, &Policy::default(), Deadline::after(SECONDS)).unwrap_err());
        let socket = accept_with(listener, SocketFlags::CLOEXEC).unwrap();
        let hello = hear(&socket);
        answer(&socket);
        (hello, client.join().unwrap())
    })
}

/// Says `bytes`, and passes `fds` with them.
fn pass(socket: &OwnedFd, bytes: &[u8], fds: &[&OwnedFd]) {
    try_pass(socket, bytes, fds).unwrap();
}

fn try_pass(socket: &OwnedFd, bytes: &[u8], fds: &[&OwnedFd]) -> Result<usize, Errno> {
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

/// Has the listener deal with who is there; nobody completes a handshake.
fn turn_away(listener: &Listener) {
    let error = listener.accept_by(Deadline::after(MOMENT)).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

fn last_reason(listener: &Listener, count: u64) -> String {
    let away = listener.turned_away();
    assert_eq!(away.count, count, "{away:?}");
    away.last
}

#[test]
fn silent_clients_hold_up_nobody_however_many_there_are() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let few: Vec<_> = (0..3).map(|_| raw_client(&name)).collect();
    meet(&listener, &name);
    assert_eq!(listener.turned_away().count, 0);
    let many: Vec<_> = (0..200).map(|_| raw_client(&name)).collect();
    meet(&listener, &name);
    assert!(last_reason(&listener, listener.turned_away().count).contains("others wait"));
    drop((few, many));
    turn_away(&listener);
    assert!(last_reason(&listener, 203).contains("closed the connection during the handshake"));
    meet(&listener, &name);
}

#[test]
fn a_handshake_keeps_its_place_for_a_moment_however_many_come() {
    let _watchdog = watchdog(SECONDS);
    eventually("a moment is long enough for this process", || {
        let name = own_name();
        let listener = listen_at(&name);
        let _many: Vec<_> = (0..100).map(|_| raw_client(&name)).collect();
        let start = Instant::now();
        for _ in 0..4 {
            assert!(listener.accept_by(Deadline::Now).unwrap_err().is_out_of_time());
        }
        let away = listener.turned_away();
        let is_fast = start.elapsed() < MOMENT;
        assert!(!is_fast || away.count == 0, "{away:?}");
        is_fast
    });
}

#[test]
fn silent_clients_that_take_all_places_keep_them_until_somebody_else_comes() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let many: Vec<_> = (0..64).map(|_| raw_client(&name)).collect();
    for _ in 0..3 {
        turn_away(&listener);
    }
    assert_eq!(listener.turned_away().count, 0);
    meet(&listener, &name);
    assert!(last_reason(&listener, 1).contains("others wait"));
    drop(many);
}

#[test]
fn a_silent_client_is_turned_away_in_the_end() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let silent = raw_client(&name);
    let start = Instant::now();
    while listener.turned_away().count == 0 {
        turn_away(&listener);
    }
    assert!(start.elapsed() >= Duration::from_secs(5));
    assert!(last_reason(&listener, 1).contains("said nothing more"));
    assert_eq!(hear(&silent), b"", "the end");
}

#[test]
fn garbage_instead_of_a_hello_is_told_so_and_hurts_nobody() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let hello = hello();
    let changed = |at: usize, byte: u8| {
        let mut bytes = hello.clone();
        bytes[at] = byte;
        bytes
    };
    let cases = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "no handshake"),
        (b"x".to_vec(), "1 bytes are no message"),
        (pattern(1000, 3), "longer than any message"),
        (pattern(400, 4), "no handshake"),
        (changed(8, 3), "version 3 of the channel and this side version 2"),
        (changed(12, 2), "not the one whose turn it is"),
        (changed(12, 77), "kind 77"),
        (hello[..40].to_vec(), "a greeting of 24 bytes"),
    ];
    for (count, (bytes, part)) in (1..).zip(cases) {
        let client = raw_client(&name);
        say(&client, &bytes);
        // What was not read does not keep the answer from coming.
        say(&client, b"and more");
        turn_away(&listener);
        let reason = last_reason(&listener, count);
        assert!(reason.contains(part), "{reason:?} lacks {part:?}");
        let told = rustix::io::retry_on_intr(|| {
            let mut bytes = [0; 1024];
            rustix::net::recv(&client, &mut bytes, rustix::net::RecvFlags::empty())
                .map(|(len, _)| bytes[..len].to_vec())
        });
        let told = told.unwrap_or_else(|_| hear(&client));
        assert!(String::from_utf8_lossy(&told).contains(part), "{told:?} lacks {part:?}");
    }
    meet(&listener, &name);
}

#[test]
fn answers_that_are_none_are_errors_of_the_client() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let accept = {
        let listener = listen_at(&name);
        let client = raw_client(&name);
        say(&client, &hello());
        turn_away(&listener);
        hear(&client)
    };
    let version = {
        let mut bytes = accept.clone();
        bytes[8] = 9;
        bytes
    };
    let memory = |len: u64, seals: SealFlags| {
        let memory = memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, len).unwrap();
        fcntl_add_seals(&memory, seals).unwrap();
        memory
    };
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let (bare, loose) = (memory(MEMORY as u64, SealFlags::empty()), memory(MEMORY as u64, SealFlags::SHRINK));
    let (short, frozen) = (memory(4096, all), memory(MEMORY as u64, all | SealFlags::WRITE));
    let socket = crate::socket();
    let (none, one): (&[&OwnedFd], &[&OwnedFd]) = (&[], &[&bare]);
    let cases: [(&[u8], &[&OwnedFd], &str); 9] = [
        (b"200 OK", none, "are no message of a handshake"),
        (&version, one, "version 9 of the channel"),
        (&accept, none, "came with 0 descriptors"),
        (&accept, one, "F_SEAL_SHRINK is missing"),
        (&accept, &[&loose], "not sealed for good"),
        (&accept, &[&short], "4096 bytes, and 8192 were told"),
        (&accept, &[&frozen], "not writable"),
        (&accept, &[&socket], "no memfd"),
        (&accept, &[&bare, &bare, &bare], "came with 3 descriptors"),
    ];
    // Another name: that one may be taken for a moment still.
    let name = own_name();
    let listener = raw_listener(&place(&name, own_uid()));
    for (bytes, fds, part) in cases {
        let (_, error) = answer_one(&name, &listener, |socket| match fds {
            [] => say(socket, bytes),
            fds => pass(socket, bytes, fds),
        });
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error} lacks {part:?}");
    }
}

/// Whoever the policy has admitted, nobody else is let in by that.
#[test]
fn another_process_that_goes_on_with_a_handshake_is_turned_away() {
    let test = "handshake::another_process_that_goes_on_with_a_handshake_is_turned_away";
    if role().is_some() {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        return say(&socket, &ready(&hello()));
    }
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let client = raw_client(&name);
    say(&client, &hello());
    turn_away(&listener);
    assert_eq!(listener.turned_away().count, 0, "it is admitted");
    let passed = client.try_clone().unwrap();
    Peer::configure(test, "goes on", &[], |command| {
        command.stdin(passed);
    })
    .succeed();
    turn_away(&listener);
    assert!(last_reason(&listener, 1).contains("another process answered in its place"));
    meet(&listener, &name);
}

#[test]
fn a_process_that_changes_its_user_during_a_handshake_is_turned_away() {
    if !is_root("handshake::a_process_that_changes_its_user_during_a_handshake_is_turned_away") {
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let (hello, client) = (hello(), raw_client(&name));
    say(&client, &hello);
    turn_away(&listener);
    as_other(|| say(&client, &ready(&hello)));
    turn_away(&listener);
    assert!(last_reason(&listener, 1).contains("another process answered in its place"));
}

#[test]
fn what_is_passed_with_words_of_a_handshake_makes_others_of_them() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let (hello, client, gift) = (hello(), raw_client(&name), crate::socket());
    say(&client, &hello);
    turn_away(&listener);
    pass(&client, &ready(&hello), &[&gift]);
    turn_away(&listener);
    assert!(last_reason(&listener, 1).contains("not the one whose turn it is"));

    let (parent, end) = pair(&Policy::default(), MEMORY).unwrap();
    pass(&end, &hello, &[&gift]);
    let error = parent.accept_by(Deadline::Now).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("not the one whose turn it is"), "{error}");
}

#[test]
fn a_listener_that_lacks_descriptors_says_so_and_blames_no_client() {
    if role().is_none() {
        let _watchdog = watchdog(SECONDS);
        // Alone in its process, whose limit it lowers.
        return Peer::start("handshake::a_listener_that_lacks_descriptors_says_so_and_blames_no_client", "alone", &[])
            .succeed();
    }
    let name = own_name();
    let listener = listen_at(&name);
    let client = raw_client(&name);
    say(&client, &hello());
    // Enough for the connection, and for nothing more.
    let next = client.try_clone().unwrap().as_raw_fd();
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(next as u64 + 1), ..before }).unwrap();
    let error = listener.accept_by(Deadline::Now).unwrap_err();
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
    assert_eq!(listener.turned_away().count, 0, "{:?}", listener.turned_away());
    meet(&listener, &name);
}

#[test]
fn a_client_killed_in_the_middle_of_the_handshake_is_forgotten() {
    if role().is_some() {
        let client = raw_client(&argument("NAME").parse().unwrap());
        if argument("SAYS") == "hello" {
            say(&client, &hello());
            hear(&client);
        }
        println!("\nhalfway");
        std::thread::sleep(SECONDS);
        return;
    }
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let test = "handshake::a_client_killed_in_the_middle_of_the_handshake_is_forgotten";
    for (count, says) in [(1, "nothing"), (2, "hello")] {
        let mut peer = Peer::start(test, "client", &[("NAME", &name.to_string()), ("SAYS", says)]);
        std::thread::scope(|scope| {
            let accepting = scope.spawn(|| listener.accept_by(Deadline::Never));
            peer.wait_for_line("halfway");
            peer.kill();
            // The acceptor still waits for somebody: give it who completes.
            crate::connect_to(&name);
            accepting.join().unwrap().unwrap();
        });
        turn_away(&listener);
        assert!(last_reason(&listener, count).contains("handshake"));
    }
}

#[test]
fn descriptors_that_strangers_pass_are_closed() {
    if role().is_none() {
        let _watchdog = watchdog(SECONDS);
        // Alone in its process, so that no other test opens descriptors meanwhile.
        return Peer::start("handshake::descriptors_that_strangers_pass_are_closed", "alone", &[]).succeed();
    }
    let name = own_name();
    let listener = listen_at(&name);
    let before = open_descriptors();
    let hello = hello();
    for (count, many) in (1..).zip([1, 2, 50]) {
        let client = raw_client(&name);
        let gift = crate::socket();
        if try_pass(&client, &hello, &vec![&gift; many]) == Err(Errno::PERM) {
            // From Linux 6.16 on.
            say(&client, b"no hello");
        }
        turn_away(&listener);
        drop((client, gift));
        last_reason(&listener, count);
        eventually(&format!("{many} descriptors are closed"), || open_descriptors() == before);
    }
    let client = raw_client(&name);
    say(&client, &hello);
    turn_away(&listener);
    // Its answer is there, with the memory, and it goes.
    drop(client);
    turn_away(&listener);
    eventually("that of the memory is closed", || open_descriptors() == before);
}

/// The close of a socket that is set to linger waits for its other end, in whatever process gives up the last descriptor.
#[test]
fn a_stranger_passes_no_descriptor_whose_close_would_hold_up_the_listener() {
    let name = own_name();
    let listener = listen_at(&name);
    let client = raw_client(&name);
    let (hello, gift) = (hello(), crate::socket());
    let refused = try_pass(&client, &hello, &[&gift]);
    if refused.is_ok() && !knows_pass_rights() {
        return skip(
            "handshake::a_stranger_passes_no_descriptor_whose_close_would_hold_up_the_listener",
            "Linux before 6.16 cannot refuse descriptors",
        );
    }
    assert_eq!(refused, Err(Errno::PERM));
    turn_away(&listener);
    assert_eq!(try_pass(&client, &hello, &[&gift]), Err(Errno::PERM), "not when it is accepted either");
    say(&client, &hello);
    turn_away(&listener);
    // It is admitted, and may pass memory.
    pass(&client, b"not that it is ready", &[&gift]);
    turn_away(&listener);
    assert!(last_reason(&listener, 1).contains("no handshake"));
}

fn knows_pass_rights() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

#[test]
fn strangers_who_come_as_fast_as_they_are_turned_away_do_not_outlast_a_deadline() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = listen_at(&name);
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while goes_on.load(Ordering::Relaxed) {
                    say(&raw_client(&name), b"x");
                }
            });
        }
        for _ in 0..3 {
            turn_away(&listener);
        }
        goes_on.store(false, Ordering::Relaxed);
        // One may still wait for room in the queue.
        turn_away(&listener);
    });
    assert!(listener.turned_away().count > 0);
}

/// The memory of the connection that `client` makes with a listener of channels, and what it writes there before it says that it is ready.
fn spoil(name: &ChannelName, hello: &[u8], at: u64, word: u64) -> OwnedFd {
    let client = raw_client(name);
    say(&client, hello);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 1024];
    recvmsg(&client, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty()).unwrap();
    let memory = control.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    rustix::io::pwrite(memory.expect("the memory"), &word.to_ne_bytes(), at).unwrap();
    say(&client, &ready(hello));
    client
}

#[test]
fn clients_that_spoil_the_memory_are_turned_away_at_once_and_fail_no_accept() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let hello = hello();
    let listener = onecopy::Listener::bind_with(&name, &Policy::default()).unwrap();
    // The identity of a process that lives, as far as its pid goes.
    let begun = u64::from(std::process::id());
    let cases = [(0, 7, "is no ring"), (8, begun, "not laid out"), (16, 3, "whose bulk has 3 bytes")];
    for (count, (at, word, part)) in (1..).zip(cases) {
        std::thread::scope(|scope| {
            let client = scope.spawn(|| spoil(&name, &hello, at, word));
            while listener.turned_away().count < count {
                let error = listener.accept_by(Deadline::after(MOMENT)).unwrap_err();
                assert!(error.is_out_of_time(), "{error}");
            }
            client.join().unwrap();
        });
        let last = listener.turned_away().last;
        assert!(last.contains(part), "{last:?} lacks {part:?}");
    }
    let client = std::thread::spawn(move || onecopy::Channel::connect_by(&name, &Policy::default(), Deadline::Never));
    listener.accept_by(Deadline::Never).unwrap();
    client.join().unwrap().unwrap();
}

/// Of a socket that is set to linger, whose close waits for what the other one, which comes with it, does not receive.
fn lingering() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.write(&[0; 1 << 16]).is_ok() {}
    set_socket_linger(&socket, Some(10 * SECONDS)).unwrap();
    (socket.into(), other)
}

#[test]
fn a_squatter_holds_up_nobody_by_what_it_passes() {
    let _watchdog = watchdog(SECONDS);
    let name = own_name();
    let listener = raw_listener(&place(&name, own_uid()));
    let (gift, other) = lingering();
    let (_, error) = answer_one(&name, &listener, |socket| {
        pass(socket, b"no answer", &[&gift]);
        // It may have gone by now, and this be the last descriptor.
        let _ = try_pass(socket, b"and more", &[&gift]);
        std::thread::spawn(|| drop(gift));
    });
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    drop(other);
}
