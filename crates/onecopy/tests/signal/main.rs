//! Signals between two processes: order, payloads, coalescing, the full queue, and threads that would take them.

#[path = "../support/mod.rs"]
mod support;

mod mask;

use std::process::Stdio;
use std::time::{Duration, Instant};

use onecopy::address::{Pid, SignalNumber};
use onecopy::signal::{self, RealtimeSignal, SignalReceiver, StandardSignal};
use onecopy::{Deadline, Error};
use support::fork::in_child;
use support::{Peer, role, watchdog};

const LIMIT: Duration = Duration::from_secs(60);

fn number(name: &str) -> SignalNumber {
    SignalNumber::named(name).unwrap()
}

/// The second process: receives what its argument says, from the moment when it is told to go.
fn receive() {
    let names = support::argument("SIGNALS");
    let wanted: Vec<SignalNumber> = names.split(',').map(number).collect();
    let count: usize = support::argument("COUNT").parse().unwrap();
    signal::block(&wanted).unwrap();
    let _watchdog = watchdog(LIMIT);
    let mut receiver = SignalReceiver::open(&wanted).unwrap();
    if let Ok(limit) = std::env::var("ONECOPY_TEST_LIMIT") {
        let limit = limit.parse().ok();
        let limits = rustix::process::Rlimit { current: limit, maximum: limit };
        rustix::process::setrlimit(rustix::process::Resource::Sigpending, limits).unwrap();
    }
    println!("\nready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    for _ in 0..count {
        let signal = receiver.recv().unwrap();
        println!(
            "\ngot {} {} {} {}",
            signal.number,
            signal.pid,
            signal.uid,
            signal.value.map_or_else(|| "-".into(), |value| value.to_string())
        );
    }
    assert!(matches!(receiver.recv_by(Deadline::Now), Err(Error::WouldBlock { .. })));
    println!("\nempty");
}

struct Receiving {
    peer: Peer,
    pid: Pid,
}

impl Receiving {
    fn start(test: &str, signals: &str, count: usize) -> Self {
        Self::with(test, &[("SIGNALS", signals), ("COUNT", &count.to_string())])
    }

    fn with(test: &str, arguments: &[(&str, &str)]) -> Self {
        let mut peer = Peer::configure(test, "receiver", arguments, |command| {
            mask::block_all(command.stdin(Stdio::piped()));
        });
        peer.wait_for_line("ready");
        let pid = Pid::new(peer.pid()).unwrap();
        Self { peer, pid }
    }

    fn go(&mut self) {
        self.peer.say("go");
    }

    fn got(&mut self) -> String {
        self.peer.line("got ")
    }

    fn ends_empty(mut self) {
        self.peer.wait_for_line("empty");
        self.peer.succeed();
    }
}

/// The words that tell who we are.
fn us() -> String {
    format!("{} {}", std::process::id(), rustix::process::getuid().as_raw())
}

#[test]
fn signals_come_in_the_kernels_order_with_sender_and_payload() {
    if role().is_some() {
        return receive();
    }
    let _watchdog = watchdog(LIMIT);
    let test = "signals_come_in_the_kernels_order_with_sender_and_payload";
    let mut receiving = Receiving::start(test, "USR1,USR2,RTMIN+1,RTMAX", 6);
    let pid = receiving.pid;
    let real_time = |name: &str, value| RealtimeSignal::to(pid, number(name)).unwrap().send(value).unwrap();
    real_time("RTMAX", 1);
    real_time("RTMIN+1", i32::MIN);
    real_time("RTMAX", 2);
    real_time("RTMIN+1", i32::MAX);
    StandardSignal::to(pid, number("USR2")).unwrap().send().unwrap();
    StandardSignal::to(pid, number("USR1")).unwrap().send_value(-1).unwrap();
    receiving.go();
    let got: Vec<String> = (0..6).map(|_| receiving.got()).collect();
    let told = |name: &str, value: &str| format!("{name} {} {value}", us());
    assert_eq!(
        got,
        [
            told("USR1", "-1"),
            told("USR2", "-"),
            told("RTMIN+1", &i32::MIN.to_string()),
            told("RTMIN+1", &i32::MAX.to_string()),
            told(&number("RTMAX").to_string(), "1"),
            told(&number("RTMAX").to_string(), "2"),
        ]
    );
    receiving.ends_empty();
}

#[test]
fn of_ten_thousand_real_time_signals_none_is_lost_or_out_of_order() {
    const COUNT: usize = 10_000;
    if role().is_some() {
        return receive();
    }
    let _watchdog = watchdog(LIMIT);
    let test = "of_ten_thousand_real_time_signals_none_is_lost_or_out_of_order";
    let mut receiving = Receiving::start(test, "RTMIN+2", COUNT);
    let signal = RealtimeSignal::to(receiving.pid, number("RTMIN+2")).unwrap();
    let sender = std::thread::spawn(move || {
        (0..COUNT as i32).try_for_each(|value| signal.send_by(value, Deadline::after(LIMIT)))
    });
    receiving.go();
    for value in 0..COUNT {
        assert_eq!(receiving.got(), format!("RTMIN+2 {} {value}", us()));
    }
    sender.join().unwrap().unwrap();
    receiving.ends_empty();
}

#[test]
fn standard_signals_coalesce() {
    if role().is_some() {
        return receive();
    }
    let _watchdog = watchdog(LIMIT);
    let mut receiving = Receiving::start("standard_signals_coalesce", "USR1", 1);
    let signal = StandardSignal::to(receiving.pid, number("USR1")).unwrap();
    (0..5).for_each(|_| signal.send().unwrap());
    receiving.go();
    assert_eq!(receiving.got(), format!("USR1 {} -", us()));
    receiving.ends_empty();
}

#[test]
fn a_full_queue_is_an_error_with_the_numbers_and_loses_nothing() {
    if role().is_some() {
        return receive();
    }
    let _watchdog = watchdog(LIMIT);
    let test = "a_full_queue_is_an_error_with_the_numbers_and_loses_nothing";
    // How many signals are pending counts for all processes of a user, so fewer than eight may fit.
    let arguments = [("SIGNALS", "RTMIN+3"), ("COUNT", "0"), ("LIMIT", "8")];
    let receiving = Receiving::with(test, &arguments);
    let signal = RealtimeSignal::to(receiving.pid, number("RTMIN+3")).unwrap();
    let error = (0..=8).find_map(|value| signal.send(value).err()).expect("the ninth does not fit");
    let text = error.to_string();
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{text}");
    assert!(text.contains("of the 8 that RLIMIT_SIGPENDING allows") && text.contains("ulimit -i"), "{text}");
    // What was pending elsewhere may have been taken meanwhile, until the eight are all of this one.
    let refused = |wait: Option<Duration>| {
        let deadline = || wait.map_or(Deadline::Now, Deadline::after);
        (0..=8).find_map(|_| signal.send_by(9, deadline()).err()).expect("the ninth does not fit")
    };
    assert!(matches!(refused(None), Error::WouldBlock { .. }));
    let (start, wait) = (Instant::now(), Duration::from_millis(50));
    assert!(matches!(refused(Some(wait)), Error::TimedOut { .. }) && start.elapsed() >= wait);
}

/// The signals that the calling thread blocks, as the kernel tells them.
fn blocked() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    status.lines().find(|line| line.starts_with("SigBlk:")).unwrap().to_owned()
}

#[test]
fn a_thread_that_would_take_the_signal_is_named() {
    if role().is_some() {
        let _watchdog = watchdog(LIMIT);
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("careless".into()).spawn(move || stopped.recv());
        signal::block(&[number("USR2")]).unwrap();
        let before = blocked();
        let error = SignalReceiver::open(&[number("USR1"), number("USR2")]).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert_eq!(blocked(), before, "it takes back what it has blocked");
        drop(stop);
        let _ = thread.unwrap().join().unwrap();
        println!("\nerror {error}");
        return;
    }
    // Some find the thread while it is being started, and blocks all signals.
    for _ in 0..20 {
        let mut peer = Peer::start("a_thread_that_would_take_the_signal_is_named", "careless", &[]);
        let error = peer.line("error ");
        assert!(error.contains("does not block it") && error.contains("signal:self?sig=USR1,USR2"), "{error}");
        peer.succeed();
    }
}

#[test]
fn a_thread_that_is_being_started_is_waited_for() {
    if role().is_some() {
        let (begun, begins) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("late".into())
            .spawn(move || {
                // As the C library has it until the thread gets a processor, which it waits for here.
                mask::set_whole(u64::MAX);
                begun.send(()).unwrap();
                let end = Instant::now() + Duration::from_millis(500);
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
                mask::set_whole(0);
                std::thread::park();
            })
            .unwrap();
        begins.recv().unwrap();
        println!("\nerror {}", SignalReceiver::open(&[number("USR1")]).unwrap_err());
        return;
    }
    let _watchdog = watchdog(LIMIT);
    let mut peer = Peer::configure("a_thread_that_is_being_started_is_waited_for", "late", &[], mask::block_all);
    let error = peer.line("error ");
    assert!(error.contains("(late) does not block it"), "{error}");
    peer.succeed();
}

#[test]
fn a_first_thread_that_has_ended_takes_no_signal() {
    const TEST: &str = "a_first_thread_that_has_ended_takes_no_signal";
    if role().is_some() {
        in_child(|| {
            mask::go_on_without_this_thread(|| {
                let mut receiver = SignalReceiver::open(&[number("USR1")]).unwrap();
                let own = Pid::new(std::process::id()).unwrap();
                StandardSignal::to(own, number("USR1")).unwrap().send().unwrap();
                receiver.recv().unwrap().number == number("USR1")
            })
        });
        return;
    }
    let _watchdog = watchdog(LIMIT);
    Peer::start(TEST, "parent", &[]).succeed();
}

#[test]
fn a_child_that_is_unblocked_begins_with_an_empty_mask() {
    if role().is_some() {
        signal::block(&[number("USR1"), number("RTMIN")]).unwrap();
        let mut command = std::process::Command::new("grep");
        let output = signal::unblock_in(command.args(["SigBlk", "/proc/self/status"])).output().unwrap();
        println!("\nmask {}", String::from_utf8_lossy(&output.stdout).trim());
        return;
    }
    let mut peer = Peer::start("a_child_that_is_unblocked_begins_with_an_empty_mask", "parent", &[]);
    assert_eq!(peer.line("mask "), "SigBlk:\t0000000000000000");
    peer.succeed();
}

#[test]
fn a_process_that_is_gone_is_esrch_even_when_its_number_is_known() {
    if role().is_some() {
        return receive();
    }
    let _watchdog = watchdog(LIMIT);
    let test = "a_process_that_is_gone_is_esrch_even_when_its_number_is_known";
    let mut receiving = Receiving::start(test, "USR1,RTMIN", 1);
    let standard = StandardSignal::to(receiving.pid, number("USR1")).unwrap();
    let real_time = RealtimeSignal::to(receiving.pid, number("RTMIN")).unwrap();
    receiving.peer.kill();
    for error in [standard.send().unwrap_err(), real_time.send(1).unwrap_err()] {
        assert!(error.is_peer_gone() && error.raw_os_error() == Some(libc::ESRCH), "{error}");
    }
    let error = StandardSignal::to(Pid::new(i32::MAX.unsigned_abs()).unwrap(), number("USR1")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{error}");
}

/// Beyond the limit the kernel keeps no note of who sent a standard signal with a payload, nor the payload.
#[test]
fn a_standard_signal_at_a_full_queue_arrives_without_its_sender() {
    if role().is_some() {
        return receive();
    }
    let _watchdog = watchdog(LIMIT);
    let test = "a_standard_signal_at_a_full_queue_arrives_without_its_sender";
    let mut receiving = Receiving::with(test, &[("SIGNALS", "USR1,USR2"), ("COUNT", "2"), ("LIMIT", "0")]);
    StandardSignal::to(receiving.pid, number("USR1")).unwrap().send_value(7).unwrap();
    StandardSignal::to(receiving.pid, number("USR2")).unwrap().send().unwrap();
    receiving.go();
    assert_eq!(receiving.got(), "USR1 0 0 -");
    assert_eq!(receiving.got(), format!("USR2 {} -", us()), "kill always says who it was");
    receiving.ends_empty();
}

#[test]
fn a_thread_is_no_process() {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let _ = stopped.recv();
    });
    let number_of_thread = Pid::new(told.recv().unwrap().unsigned_abs()).unwrap();
    let error = StandardSignal::to(number_of_thread, number("URG")).unwrap_err();
    let own = format!("a thread of process {}", std::process::id());
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(&own), "{error}");
    drop(stop);
    thread.join().unwrap();
}

/// A holder of the descriptor, such as a child that inherited it, clears O_NONBLOCK: a deadline holds all the same.
#[test]
fn a_deadline_holds_whatever_others_do_to_o_nonblock() {
    if role().is_some() {
        let _watchdog = watchdog(LIMIT);
        signal::block(&[number("USR1")]).unwrap();
        let mut receiver = SignalReceiver::open(&[number("USR1")]).unwrap();
        rustix::fs::fcntl_setfl(&receiver, rustix::fs::OFlags::empty()).unwrap();
        assert!(matches!(receiver.recv_by(Deadline::Now), Err(Error::WouldBlock { .. })));
        let late = receiver.recv_by(Deadline::after(Duration::from_millis(20)));
        assert!(matches!(late, Err(Error::TimedOut { .. })));
        println!("\nempty");
        return;
    }
    let test = "a_deadline_holds_whatever_others_do_to_o_nonblock";
    let mut peer = Peer::configure(test, "receiver", &[], mask::block_all);
    peer.wait_for_line("empty");
    peer.succeed();
}

#[test]
fn each_kind_is_sent_by_its_own_type() {
    let here = Pid::new(std::process::id()).unwrap();
    assert!(matches!(StandardSignal::to(here, number("RTMIN")), Err(Error::Invalid { .. })));
    assert!(matches!(RealtimeSignal::to(here, number("USR1")), Err(Error::Invalid { .. })));
    assert!(matches!(SignalReceiver::open(&[]), Err(Error::Invalid { .. })));
    assert!(matches!(SignalReceiver::open(&[number("KILL")]), Err(Error::Invalid { .. })));
}

#[test]
fn another_users_process_is_eperm_with_the_remedy() {
    if rustix::process::getuid().is_root() {
        support::skip("another_users_process_is_eperm_with_the_remedy", "root may send signals to all");
        return;
    }
    let signal = StandardSignal::to(Pid::new(1).unwrap(), number("URG")).unwrap();
    let error = signal.send().unwrap_err();
    assert!(error.raw_os_error() == Some(libc::EPERM) && error.to_string().contains("CAP_KILL"), "{error}");
}
