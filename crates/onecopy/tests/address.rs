//! Addresses: what they print parses to the same address, and what is wrong is said where it is wrong.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use onecopy::address::{
    BarrierName, ChannelName, DescriptorName, FilePath, FileRange, MemoryRange, Pid, RegionName, SignalName,
    SignalNumber,
};
use onecopy::{Address, Error, HostPort, PosixName, SysvName, UnixName};
use proptest::collection::vec;
use proptest::prelude::*;

fn parse(text: &str) -> Address {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    match text.parse::<Address>() {
        Ok(address) => panic!("{text} was taken as {address:?}"),
        Err(error) => {
            let line = error.to_string();
            assert!(!line.contains('\n'), "{line:?} is not one line");
            assert!(error.position() <= text.len(), "{line}: position {}", error.position());
            assert_eq!(Error::from(error).to_string(), line);
            line
        }
    }
}

#[test]
fn every_row_of_the_table_parses_and_prints() {
    let canonical = [
        "fd:3",
        "fd:1234:7",
        "fifo:/tmp/jobs",
        "fifo:jobs",
        "pty:/tmp/terminal",
        "unix:/tmp/jobs.socket",
        "unix:@frames",
        "unix-dgram:/tmp/d",
        "unix-seqpacket:@s",
        "tcp:localhost:7000",
        "tcp:[::1]:0",
        "tcp:[fe80::1%eth0]:80",
        "udp:127.0.0.1:9",
        "sctp:example.org:65535",
        "mq:/jobs",
        "sysv-mq:0x4d2",
        "sysv-mq:id=7",
        "sysv-mq:path:/etc/hosts?id=1",
        "shm:/frames",
        "sysv-shm:0xffffffff",
        "sysv-shm:id=0",
        "mmap:/tmp/file",
        "mem:1:0x7fff00001000+4096",
        "sem:/ready",
        "sem:shm:/ready",
        "sem:fd:1:2",
        "sysv-sem:0x1",
        "futex:mmap:/tmp/word",
        "record:/tmp/table",
        "record:/tmp/table?start=10&len=5",
        "record:/tmp/table?len=5",
        "ofd:/tmp/table?start=10",
        "flock:/tmp/lock",
        "mutex:shm:/state",
        "mutex:sysv-shm:path:/tmp/f?id=9",
        "condvar:fd:5",
        "barrier:shm:/start?parties=4",
        "barrier:sysv-shm:path:/tmp/f?id=9&parties=4",
        "rwlock:mmap:/tmp/table",
        "signal:1234?sig=USR1",
        "signal:self?sig=USR1,RTMIN+1",
        "channel:frames",
        "channel:/run/frames",
    ];
    for text in canonical {
        let address = parse(text);
        assert_eq!(address.to_string(), text);
        assert!(text.starts_with(&format!("{}:", address.scheme())));
    }
}

#[test]
fn other_spellings_print_canonically() {
    let spellings = [
        ("mutex:/state", "mutex:shm:/state"),
        ("futex:/word", "futex:shm:/word"),
        ("barrier:/b?parties=0x2", "barrier:shm:/b?parties=2"),
        ("sysv-mq:1234", "sysv-mq:0x4d2"),
        ("sysv-mq:-1", "sysv-mq:0xffffffff"),
        ("sysv-mq:0X4D2", "sysv-mq:0x4d2"),
        ("tcp:[0:0::1]:07", "tcp:[::1]:7"),
        ("record:/t?len=0&start=0", "record:/t"),
        ("record:/t?len=2&start=1", "record:/t?start=1&len=2"),
        ("mem:1:4096+0x10", "mem:1:0x1000+16"),
        ("signal:self?sig=sigrtmin,10,usr1", "signal:self?sig=USR1,RTMIN"),
        ("signal:7?sig=RTMAX", "signal:7?sig=RTMIN+30"),
        ("fifo:/tmp/%61%3f%c3%a4", "fifo:/tmp/a%3Fä"),
        ("barrier:sysv-shm:path:/f?parties=4&id=9", "barrier:sysv-shm:path:/f?id=9&parties=4"),
    ];
    for (text, canonical) in spellings {
        assert_eq!(parse(text).to_string(), canonical.replace("RTMIN+30", &last_real_time()));
        assert_eq!(parse(text), parse(&parse(text).to_string()));
    }
}

/// SIGRTMAX - SIGRTMIN is 30 with glibc and 29 with musl.
fn last_real_time() -> String {
    SignalNumber::named("RTMAX").unwrap().to_string()
}

#[test]
fn bytes_that_are_no_text_are_encoded() {
    let path = OsStr::from_bytes(b"/tmp/\xff?%\n@\xe2\x80\xae");
    let address = Address::Fifo(FilePath::new(path).unwrap());
    assert_eq!(address.to_string(), "fifo:/tmp/%FF%3F%25%0A@%E2%80%AE");
    assert_eq!(parse(&address.to_string()), address);
    let argument = OsStr::from_bytes(b"fifo:/tmp/\xff%3F%25%0A@\xe2\x80\xae");
    assert_eq!(Address::from_os_str(argument).unwrap(), address);

    let name = Address::UnixStream(UnixName::abstract_name(OsStr::from_bytes(b"a\0b\xff")).unwrap());
    assert_eq!(name.to_string(), "unix:@a%00b%FF");
    assert_eq!(parse("unix:@a%00b%FF"), name);
}

#[test]
fn a_path_that_begins_with_an_at_sign_stays_a_path() {
    let path = Address::UnixStream(UnixName::path("@x").unwrap());
    assert_eq!(path.to_string(), "unix:%40x");
    assert_eq!(parse("unix:%40x"), path);
    assert_ne!(parse("unix:@x"), path);
}

#[test]
fn errors_name_the_place_and_a_correct_form() {
    let expected = [
        (
            "tcp:localhost",
            "tcp:localhost: port missing at column 14; write tcp:HOST:PORT, for example tcp:localhost:7000",
        ),
        (
            "tcp:localhost:",
            "tcp:localhost:: port missing at column 15; write tcp:HOST:PORT, for example tcp:localhost:7000",
        ),
        ("tpc:h:1", "tpc:h:1: unknown scheme tpc at column 1; write tcp:HOST:PORT, for example tcp:localhost:7000"),
        ("posix-mq:/jobs", "posix-mq:/jobs: unknown scheme posix-mq at column 1; write mq:/NAME, for example mq:/jobs"),
        ("mq", "mq: nothing follows mq at column 3; write mq:/NAME, for example mq:/jobs"),
        ("mq:jobs", "mq:jobs: the name begins with no slash at column 4; write mq:/NAME, for example mq:/jobs"),
        (
            "/tmp/x",
            "/tmp/x: a path without a scheme at column 1; write fifo:/tmp/x, unix:/tmp/x, mmap:/tmp/x or another \
             scheme before it",
        ),
        (
            "fifo:/tmp/ä%g1",
            "fifo:/tmp/ä%g1: % without two hexadecimal digits (a percent sign itself is %25) at column 12; write \
             fifo:PATH, for example fifo:/tmp/jobs",
        ),
        (
            "record:/t?length=1",
            "record:/t?length=1: unknown option length at column 11; write record:PATH?start=S&len=L, for example \
             record:/tmp/table?start=0&len=100",
        ),
        (
            "signal:1?sig=USR3",
            "signal:1?sig=USR3: no signal is named USR3 (near: USR1, USR2) at column 14; write signal:PID?sig=NAME or \
             signal:self?sig=NAME,NAME, for example signal:1234?sig=USR1",
        ),
    ];
    for (text, line) in expected {
        assert_eq!(refusal(text), line);
    }
}

#[test]
fn what_is_out_of_range_is_refused_with_its_number() {
    let long_name = format!("mq:/{}", "x".repeat(256));
    let long_socket = format!("unix:/{}", "x".repeat(107));
    let expected = [
        (long_name.as_str(), "256 bytes after the slash are more than the 255 that fit"),
        (long_socket.as_str(), "108 bytes are more than the 107 that fit"),
        ("mq:/", "nothing follows the slash"),
        ("mq:/a/b", "second slash"),
        ("mq:/a%2fb", "second slash"),
        ("mq:/a%00", "NUL"),
        ("shm:/..", "directory"),
        ("fifo:", "the path is empty"),
        ("fifo:/a?", "a ? in a path is written %3F"),
        ("fifo:/a%", "two hexadecimal digits"),
        ("fd:", "descriptor missing"),
        ("fd:-1", "no number"),
        ("fd:+1", "no number"),
        ("fd:2147483648", "descriptor 2147483648 is above 2147483647"),
        ("fd:0:1", "pid 0 is no process"),
        ("fd:1:2:3", "no number"),
        ("tcp:h:65536", "port 65536 is above 65535"),
        ("tcp:h:http", "the port is no number"),
        ("tcp:::1:80", "host missing"),
        ("tcp:h:1:2", "brackets"),
        ("tcp:[::1:80", "] missing"),
        ("tcp:[::1]", "port missing"),
        ("tcp:[::g]:1", "no IPv6 address"),
        ("tcp:300.1.1.1:1", "no IPv4 address"),
        ("tcp:a b:1", "ASCII letters"),
        ("sysv-mq:0", "IPC_PRIVATE"),
        ("sysv-mq:0x100000000", "32 bits"),
        ("sysv-mq:2147483648", "32 bits"),
        ("sysv-mq:-2147483649", "32 bits"),
        ("sysv-mq:id=-1", "no number"),
        ("sysv-mq:path:/f", "id missing"),
        ("sysv-mq:path:/f?id=0", "1 to 255"),
        ("sysv-mq:path:/f?id=256", "above 255"),
        ("mem:1:0x1000", "+ and the length missing"),
        ("mem:1:0x1000+0", "the length is 0"),
        ("mem:1:0xffffffffffffffff+1", "above the address space"),
        ("mem:0:1+1", "pid 0"),
        ("mem:4294967296:1+1", "above 2147483647"),
        ("mutex:fifo:/x", "no shared memory"),
        ("mutex:state", "shared memory missing"),
        ("barrier:shm:/b", "parties missing"),
        ("barrier:shm:/b?parties=0", "0 parties"),
        ("barrier:shm:/b?parties=2147483647", "between 1 and 2147483646"),
        ("barrier:shm:/b?parties=1&parties=2", "stands twice"),
        ("record:/t?start=9223372036854775808", "above 9223372036854775807"),
        ("record:/t?start=9223372036854775807&len=2", "above 9223372036854775807"),
        ("signal:1", "sig missing"),
        ("signal:1?sig=", "name of a signal is missing"),
        ("signal:1?sig=0", "no signal 0"),
        ("signal:1?sig=33", "C library"),
        ("signal:1?sig=65", "no signal 65"),
        ("signal:1?sig=RTMIN+99", "none of the real-time signals"),
        ("signal:1?sig=USR1,USR2", "one signal at a time"),
        ("signal:self?sig=KILL", "no process can receive KILL"),
        ("channel:", "the name is empty"),
        ("channel:a/b", "holds a slash"),
        ("", "scheme missing"),
        (":", "a path without a scheme"),
        ("banana:1", "one of fd: fifo:"),
        ("fifo:/a?b=\n", "unknown option b"),
    ];
    for (text, part) in expected {
        let line = refusal(text);
        assert!(line.contains(part), "{line:?} does not contain {part:?}");
    }
}

#[test]
fn the_region_of_an_address_is_its_memory() {
    assert_eq!(parse("barrier:/b?parties=2").region(), Some(RegionName::PosixShm(PosixName::new("/b").unwrap())));
    assert_eq!(parse("shm:/b").region().map(Address::from), Some(parse("shm:/b")));
    assert_eq!(parse("fd:3").region().map(Address::from), Some(parse("fd:3")));
    assert_eq!(parse("mq:/b").region(), None);
}

#[test]
fn constructors_refuse_what_cannot_be_written() {
    assert_eq!(
        PosixName::new("jobs").unwrap_err().to_string(),
        "jobs: the name begins with no slash",
        "the object comes first"
    );
    assert!(UnixName::path("").is_err());
    assert!(UnixName::abstract_name("").is_err());
    assert!(HostPort::new("", 1).is_err());
    assert!(HostPort::new("::1%", 1).is_err());
    assert_eq!(HostPort::new("[::1]", 1).unwrap(), HostPort::new("::1", 1).unwrap());
    assert!(SysvName::key(0).is_err());
    assert!(SysvName::path("/f", 0).is_err());
    assert!(SysvName::id(-1).is_err());
    assert!(Pid::new(0).is_err());
    assert!(ChannelName::path("relative").is_err());
    assert!(SignalName::received([]).is_err());
    assert!(SignalNumber::new(32).is_err());
}

/// Bytes of a name: mostly letters, often something that needs care.
fn name_bytes(limit: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..=b'z', 2 => prop::sample::select(&b"?%&=:@+.,[] \n\x7f"[..]), 1 => 1..=255_u8];
    vec(byte, 1..=limit).prop_map(|mut bytes| {
        bytes.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'-');
        bytes
    })
}

fn path(limit: usize) -> impl Strategy<Value = OsString> {
    vec(name_bytes(20), 1..5).prop_map(move |parts| {
        let mut bytes = parts.join(&b'/');
        bytes.truncate(limit);
        OsString::from_vec(bytes)
    })
}

fn file_path() -> impl Strategy<Value = FilePath> {
    path(4095).prop_map(|path| FilePath::new(path).unwrap())
}

fn posix_name() -> impl Strategy<Value = PosixName> {
    name_bytes(255)
        .prop_filter_map("a directory", |bytes| PosixName::new(OsString::from_vec([b"/", &bytes[..]].concat())).ok())
}

fn unix_name() -> impl Strategy<Value = UnixName> {
    prop_oneof![
        path(107).prop_map(|path| UnixName::path(path).unwrap()),
        vec(any::<u8>(), 1..=107).prop_map(|name| UnixName::abstract_name(OsString::from_vec(name)).unwrap()),
    ]
}

fn host_port() -> impl Strategy<Value = HostPort> {
    let host = prop_oneof![
        "[a-z][a-z0-9_-]{0,20}(\\.[a-z][a-z0-9]{0,5}){0,3}",
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string()),
        any::<u64>().prop_map(|low| format!("fe80::{:x}:{:x}%eth{}", low >> 48, low & 0xffff, low & 7)),
    ];
    (host, any::<u16>()).prop_map(|(host, port)| HostPort::new(host, port).unwrap())
}

fn sysv_name() -> impl Strategy<Value = SysvName> {
    prop_oneof![
        any::<i32>().prop_filter_map("IPC_PRIVATE", |key| SysvName::key(key).ok()),
        (0..=i32::MAX).prop_map(|id| SysvName::id(id).unwrap()),
        (path(4095), 1..=255_u8).prop_map(|(path, id)| SysvName::path(path, id).unwrap()),
    ]
}

fn pid() -> impl Strategy<Value = Pid> {
    (1..=2_147_483_647_u32).prop_map(|pid| Pid::new(pid).unwrap())
}

fn descriptor() -> impl Strategy<Value = DescriptorName> {
    (prop::option::of(pid()), 0..=2_147_483_647_u32).prop_map(|(owner, number)| match owner {
        Some(owner) => DescriptorName::of(owner, number).unwrap(),
        None => DescriptorName::own(number).unwrap(),
    })
}

fn region() -> impl Strategy<Value = RegionName> {
    prop_oneof![
        posix_name().prop_map(RegionName::PosixShm),
        sysv_name().prop_map(RegionName::SysvShm),
        file_path().prop_map(RegionName::FileMapping),
        descriptor().prop_map(RegionName::Descriptor),
    ]
}

fn file_range() -> impl Strategy<Value = FileRange> {
    let largest = i64::MAX.unsigned_abs();
    (file_path(), prop_oneof![Just(0), 0..=largest], prop_oneof![Just(0), 0..=largest])
        .prop_map(move |(path, start, len)| FileRange::new(path, start, len.min(largest - start)).unwrap())
}

fn signal_name() -> impl Strategy<Value = SignalName> {
    let signal = || (1..=64).prop_filter_map("no signal", |number| SignalNumber::new(number).ok());
    prop_oneof![
        (pid(), signal()).prop_map(|(pid, signal)| SignalName::to(pid, signal)),
        vec(signal(), 1..6).prop_filter_map("unreceivable", |signals| SignalName::received(signals).ok()),
    ]
}

fn channel_name() -> impl Strategy<Value = ChannelName> {
    prop_oneof![
        "[a-z?%@:\u{e4}\u{202e}]{1,20}".prop_map(|name| ChannelName::name(name).unwrap()),
        path(106).prop_map(|path| { ChannelName::path(OsString::from_vec([b"/", path.as_bytes()].concat())).unwrap() }),
    ]
}

fn address() -> impl Strategy<Value = Address> {
    let transfer = prop_oneof![
        descriptor().prop_map(Address::Descriptor),
        file_path().prop_map(Address::Fifo),
        file_path().prop_map(Address::Pty),
        unix_name().prop_map(Address::UnixStream),
        unix_name().prop_map(Address::UnixDgram),
        unix_name().prop_map(Address::UnixSeqpacket),
        host_port().prop_map(Address::Tcp),
        host_port().prop_map(Address::Udp),
        host_port().prop_map(Address::Sctp),
        posix_name().prop_map(Address::PosixMq),
    ];
    let memory = prop_oneof![
        sysv_name().prop_map(Address::SysvMq),
        posix_name().prop_map(Address::PosixShm),
        sysv_name().prop_map(Address::SysvShm),
        file_path().prop_map(Address::FileMapping),
        (pid(), any::<u64>(), any::<u64>()).prop_filter_map("empty", |(pid, address, len)| {
            MemoryRange::new(pid, address, len.min(u64::MAX - address)).ok().map(Address::Memory)
        }),
        posix_name().prop_map(Address::NamedSemaphore),
        region().prop_map(Address::Semaphore),
        sysv_name().prop_map(Address::SysvSemaphore),
        region().prop_map(Address::Futex),
    ];
    let locks = prop_oneof![
        file_range().prop_map(Address::RecordLock),
        file_range().prop_map(Address::OfdLock),
        file_path().prop_map(Address::FileLock),
        region().prop_map(Address::Mutex),
        region().prop_map(Address::Condvar),
        (region(), 1..=2_147_483_646_u32)
            .prop_map(|(region, parties)| Address::Barrier(BarrierName::new(region, parties).unwrap())),
        region().prop_map(Address::Rwlock),
        signal_name().prop_map(Address::Signal),
        channel_name().prop_map(Address::Channel),
    ];
    prop_oneof![transfer, memory, locks]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_parses_to_the_same(address in address()) {
        let text = address.to_string();
        prop_assert!(!text.contains(char::is_control), "{:?}", text);
        let again = text.parse::<Address>().map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&again, &address);
        prop_assert_eq!(again.to_string(), text);
    }

    #[test]
    fn the_name_of_a_channel_parses_without_its_scheme(name in channel_name()) {
        prop_assert_eq!(name.to_string().parse::<ChannelName>(), Ok(name));
    }

    #[test]
    fn a_damaged_address_parses_or_is_refused_at_a_place(
        address in address(),
        place in any::<prop::sample::Index>(),
        put in "[?%&=:@/a0-9\\[\\]+,\u{0}\u{e4}]{0,3}",
        drop in 0..3_usize,
    ) {
        let mut text: Vec<char> = address.to_string().chars().collect();
        let from = place.index(text.len());
        let to = (from + drop).min(text.len());
        text.splice(from..to, put.chars());
        check_any_text(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn any_text_parses_or_is_refused_at_a_place(text in any::<String>(), scheme in 0..28_usize) {
        check_any_text(&text)?;
        let schemes = ["fd", "fifo", "unix", "tcp", "mq", "sysv-mq", "mem", "sem", "record", "barrier", "signal", "channel"];
        check_any_text(&format!("{}:{text}", schemes[scheme % schemes.len()]))?;
    }
}

fn check_any_text(text: &str) -> Result<(), TestCaseError> {
    match text.parse::<Address>() {
        Ok(address) => {
            let printed = address.to_string();
            prop_assert_eq!(printed.parse::<Address>().ok(), Some(address), "{:?}", text);
        }
        Err(error) => {
            prop_assert!(error.position() <= text.len());
            prop_assert!(text.is_char_boundary(error.position()), "{}", error.position());
            prop_assert!(!error.to_string().contains(char::is_control), "{:?}", error.to_string());
            prop_assert_eq!(error.input(), text);
        }
    }
    Ok(())
}
