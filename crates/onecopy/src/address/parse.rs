//! Reading addresses: a table of schemes, and a reader for each kind of what follows.

use super::error::{Form, ParseAddressError, Problem};
use super::part::{Options, Parsed, Part};
use super::percent::is_unsafe;
use super::{
    Address, BarrierName, ChannelName, DescriptorName, FilePath, FileRange, HostPort, MemoryRange, Pid, PosixName,
    RegionName, SignalName, SignalNumber, SysvName, UnixName,
};
use crate::suggest::nearest;

/// A scheme: its name, how its addresses are written, and what reads them.
struct Scheme {
    name: &'static str,
    form: Form,
    read: fn(Part<'_>, &mut Options<'_>) -> Parsed<Address>,
}

const fn scheme(
    name: &'static str,
    form: &'static str,
    example: &'static str,
    read: fn(Part<'_>, &mut Options<'_>) -> Parsed<Address>,
) -> Scheme {
    Scheme { name, form: Form { form, example }, read }
}

const SCHEMES: &[Scheme] = &[
    scheme("fd", "fd:N or fd:PID:N", "fd:3", |part, _| descriptor(part).map(Address::Descriptor)),
    scheme("fifo", "fifo:PATH", "fifo:/tmp/jobs", |part, _| file(part).map(Address::Fifo)),
    scheme("pty", "pty:LINK", "pty:/tmp/terminal", |part, _| file(part).map(Address::Pty)),
    scheme("unix", "unix:PATH or unix:@NAME", "unix:/tmp/jobs.socket", |part, _| unix(part).map(Address::UnixStream)),
    scheme("unix-dgram", "unix-dgram:PATH or unix-dgram:@NAME", "unix-dgram:/tmp/jobs.socket", |part, _| {
        unix(part).map(Address::UnixDgram)
    }),
    scheme(
        "unix-seqpacket",
        "unix-seqpacket:PATH or unix-seqpacket:@NAME",
        "unix-seqpacket:/tmp/jobs.socket",
        |part, _| unix(part).map(Address::UnixSeqpacket),
    ),
    scheme("tcp", "tcp:HOST:PORT", "tcp:localhost:7000", |part, _| host(part).map(Address::Tcp)),
    scheme("udp", "udp:HOST:PORT", "udp:localhost:7000", |part, _| host(part).map(Address::Udp)),
    scheme("sctp", "sctp:HOST:PORT", "sctp:localhost:7000", |part, _| host(part).map(Address::Sctp)),
    scheme("mq", "mq:/NAME", "mq:/jobs", |part, _| posix(part).map(Address::PosixMq)),
    scheme("sysv-mq", "sysv-mq:KEY, sysv-mq:path:FILE?id=N or sysv-mq:id=N", "sysv-mq:0x4d2", |part, options| {
        sysv(part, options).map(Address::SysvMq)
    }),
    scheme("shm", "shm:/NAME", "shm:/frames", |part, _| posix(part).map(Address::PosixShm)),
    scheme("sysv-shm", "sysv-shm:KEY, sysv-shm:path:FILE?id=N or sysv-shm:id=N", "sysv-shm:0x4d2", |part, options| {
        sysv(part, options).map(Address::SysvShm)
    }),
    scheme("mmap", "mmap:PATH", "mmap:/tmp/frames", |part, _| file(part).map(Address::FileMapping)),
    scheme("mem", "mem:PID:ADDRESS+LENGTH", "mem:1234:0x7f0000001000+4096", |part, _| {
        memory(part).map(Address::Memory)
    }),
    scheme("sem", "sem:/NAME, sem:shm:/NAME, sem:mmap:PATH, sem:sysv-shm:KEY or sem:fd:N", "sem:/ready", semaphore),
    scheme("sysv-sem", "sysv-sem:KEY, sysv-sem:path:FILE?id=N or sysv-sem:id=N", "sysv-sem:0x4d2", |part, options| {
        sysv(part, options).map(Address::SysvSemaphore)
    }),
    scheme(
        "futex",
        "futex:shm:/NAME, futex:mmap:PATH, futex:sysv-shm:KEY or futex:fd:N",
        "futex:shm:/word",
        |part, options| region(part, options).map(Address::Futex),
    ),
    scheme("record", "record:PATH?start=S&len=L", "record:/tmp/table?start=0&len=100", |part, options| {
        range(part, options).map(Address::RecordLock)
    }),
    scheme("ofd", "ofd:PATH?start=S&len=L", "ofd:/tmp/table?start=0&len=100", |part, options| {
        range(part, options).map(Address::OfdLock)
    }),
    scheme("flock", "flock:PATH", "flock:/tmp/lock", |part, _| file(part).map(Address::FileLock)),
    scheme(
        "mutex",
        "mutex:shm:/NAME, mutex:mmap:PATH, mutex:sysv-shm:KEY or mutex:fd:N",
        "mutex:shm:/state",
        |part, options| region(part, options).map(Address::Mutex),
    ),
    scheme(
        "condvar",
        "condvar:shm:/NAME, condvar:mmap:PATH, condvar:sysv-shm:KEY or condvar:fd:N",
        "condvar:shm:/state",
        |part, options| region(part, options).map(Address::Condvar),
    ),
    scheme("barrier", "barrier:REGION?parties=N", "barrier:shm:/start?parties=4", barrier),
    scheme(
        "rwlock",
        "rwlock:shm:/NAME, rwlock:mmap:PATH, rwlock:sysv-shm:KEY or rwlock:fd:N",
        "rwlock:shm:/table",
        |part, options| region(part, options).map(Address::Rwlock),
    ),
    scheme("signal", "signal:PID?sig=NAME or signal:self?sig=NAME,NAME", "signal:1234?sig=USR1", signal),
    scheme("channel", "channel:NAME or channel:/PATH", "channel:frames", |part, _| channel(part).map(Address::Channel)),
];

/// Words that people write for a scheme.
const ALIASES: &[(&str, &str)] = &[
    ("pipe", "fd"),
    ("eventfd", "fd"),
    ("memfd", "fd"),
    ("anonymous-mapping", "fd"),
    ("file", "mmap"),
    ("file-mapping", "mmap"),
    ("path", "mmap"),
    ("unix-stream", "unix"),
    ("posix-mq", "mq"),
    ("mqueue", "mq"),
    ("posix-shm", "shm"),
    ("pid", "mem"),
    ("cma-read", "mem"),
    ("cma-write", "mem"),
    ("semaphore", "sem"),
    ("posix-named-semaphore", "sem"),
    ("posix-unnamed-semaphore", "sem"),
    ("sysv-semaphore", "sysv-sem"),
    ("record-lock", "record"),
    ("lock", "flock"),
    ("file-lock", "flock"),
    ("kill", "signal"),
    ("signal-standard", "signal"),
    ("signal-realtime", "signal"),
];

pub(super) fn address(input: &str) -> Result<Address, ParseAddressError> {
    let (name, rest) = input.split_once(':').unwrap_or((input, ""));
    let Some(scheme) = SCHEMES.iter().find(|scheme| scheme.name == name) else {
        return Err(no_scheme(input, name));
    };
    let result = match input.len() == name.len() {
        true => Err(Problem::new(name.len(), format!("nothing follows {name}"))),
        false => read(scheme, Part { text: rest, at: name.len() + 1 }),
    };
    result.map_err(|problem| problem.into_error(input, &scheme.form))
}

fn read(scheme: &Scheme, rest: Part<'_>) -> Parsed<Address> {
    let (part, mut options) = Options::split(rest)?;
    let address = (scheme.read)(part, &mut options)?;
    options.finish()?;
    Ok(address)
}

/// Says what is wrong with a text whose first word is no scheme.
fn no_scheme(input: &str, name: &str) -> ParseAddressError {
    let all = || SCHEMES.iter().map(|scheme| scheme.name);
    if input.is_empty() {
        return Problem::new(0, "scheme missing").with_correct_form(input, one_of(all()));
    }
    if name.is_empty() || name.contains('/') || !input.contains(':') && input.starts_with('.') {
        let path = if input.chars().any(is_unsafe) || input.len() > 40 { "PATH" } else { input };
        let forms = format!("fifo:{path}, unix:{path}, mmap:{path} or another scheme before it");
        return Problem::new(0, "a path without a scheme").with_correct_form(input, forms);
    }
    let shown: String = name.chars().take(20).collect();
    let problem = Problem::new(0, format!("unknown scheme {shown}"));
    let known = all().chain(ALIASES.iter().map(|&(alias, _)| alias));
    let mut forms: Vec<&Form> = Vec::new();
    for near in nearest(name, known) {
        let near = ALIASES.iter().find(|&&(alias, _)| alias == near).map_or(near, |&(_, scheme)| scheme);
        let form = SCHEMES.iter().find(|scheme| scheme.name == near).map(|scheme| &scheme.form);
        forms.extend(form.filter(|form| !forms.iter().any(|other| std::ptr::eq(*other, *form))));
    }
    match forms[..] {
        [] => problem.with_correct_form(input, one_of(all())),
        [only] => problem.into_error(input, only),
        _ => {
            let forms: Vec<_> = forms.iter().map(|form| form.example).collect();
            problem.with_correct_form(input, format!("for example {}", forms.join(" or ")))
        }
    }
}

fn one_of<'a>(schemes: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = schemes.map(|name| format!("{name}:")).collect();
    format!("SCHEME:REST with one of {}", names.join(" "))
}

fn file(part: Part<'_>) -> Parsed<FilePath> {
    part.name(FilePath::checked)
}

fn posix(part: Part<'_>) -> Parsed<PosixName> {
    part.name(PosixName::checked)
}

fn host(part: Part<'_>) -> Parsed<HostPort> {
    HostPort::parse(part.text, part.at)
}

fn unix(part: Part<'_>) -> Parsed<UnixName> {
    match part.without("@") {
        Some(name) => name.name(UnixName::checked_abstract),
        None => part.name(UnixName::checked_path),
    }
}

fn channel(part: Part<'_>) -> Parsed<ChannelName> {
    if part.text.starts_with('/') { part.name(ChannelName::checked_path) } else { part.name(ChannelName::checked_name) }
}

/// The name of a channel without its scheme.
pub(super) fn channel_name(text: &str) -> Result<ChannelName, ParseAddressError> {
    let form = Form { form: "NAME or /PATH", example: "frames" };
    channel(Part { text, at: 0 }).map_err(|problem| problem.into_error(text, &form))
}

fn descriptor(part: Part<'_>) -> Parsed<DescriptorName> {
    let (owner, number) = match part.split(':') {
        Some((pid, number)) => (Some(process(pid)?), number),
        None => (None, part),
    };
    DescriptorName::checked(owner, number.number("descriptor")?).map_err(|what| number.problem(what))
}

fn process(part: Part<'_>) -> Parsed<Pid> {
    Pid::checked(part.number("pid")?).map_err(|what| part.problem(what))
}

fn memory(part: Part<'_>) -> Parsed<MemoryRange> {
    let (pid, range) = part.split(':').ok_or_else(|| Problem::new(part.end(), "address missing"))?;
    let pid = process(pid)?;
    let (address, len) = range.split('+').ok_or_else(|| Problem::new(range.end(), "+ and the length missing"))?;
    MemoryRange::checked(pid, address.number("address")?, len.number("length")?).map_err(|what| len.problem(what))
}

fn sysv(part: Part<'_>, options: &mut Options<'_>) -> Parsed<SysvName> {
    if let Some(id) = part.without("id=") {
        let number = id.number("identifier")?;
        let number =
            i32::try_from(number).map_err(|_| id.problem(format!("identifier {number} is above {}", i32::MAX)))?;
        return SysvName::checked_id(number).map_err(|what| id.problem(what));
    }
    if let Some(path) = part.without("path:") {
        let id = options.demand("id", part.end())?;
        let number = id.number("id")?;
        let number = u8::try_from(number).map_err(|_| id.problem(format!("id {number} is above 255")))?;
        return path.name(|bytes| SysvName::checked_path(bytes, number));
    }
    SysvName::checked_key(key(part)?).map_err(|what| part.problem(what))
}

/// A key: signed in decimal, as /proc/sysvipc shows it, or its 32 bits in hexadecimal, as ipcs(1) does.
fn key(part: Part<'_>) -> Parsed<i32> {
    let (negative, digits) = part.without("-").map_or((false, part), |digits| (true, digits));
    let hexadecimal = digits.text.starts_with("0x") || digits.text.starts_with("0X");
    let number = i64::try_from(digits.number("key")?).unwrap_or(i64::MAX);
    let key = match u32::try_from(number) {
        Ok(bits) if hexadecimal && !negative => Ok(bits.cast_signed()),
        _ => i32::try_from(if negative { -number } else { number }),
    };
    key.map_err(|_| part.problem("the key has more than 32 bits"))
}

/// Shared memory inside another address; a name alone is POSIX shared memory.
fn region(part: Part<'_>, options: &mut Options<'_>) -> Parsed<RegionName> {
    if part.text.starts_with('/') {
        return posix(part).map(RegionName::PosixShm);
    }
    let Some((scheme, rest)) = part.split(':') else {
        return Err(part.problem("shared memory missing"));
    };
    match scheme.text {
        "shm" => posix(rest).map(RegionName::PosixShm),
        "sysv-shm" => sysv(rest, options).map(RegionName::SysvShm),
        "mmap" => file(rest).map(RegionName::FileMapping),
        "fd" => descriptor(rest).map(RegionName::Descriptor),
        _ => Err(part.problem("no shared memory")),
    }
}

fn semaphore(part: Part<'_>, options: &mut Options<'_>) -> Parsed<Address> {
    if part.text.starts_with('/') {
        return posix(part).map(Address::NamedSemaphore);
    }
    region(part, options).map(Address::Semaphore)
}

fn barrier(part: Part<'_>, options: &mut Options<'_>) -> Parsed<Address> {
    let region = region(part, options)?;
    let parties = options.demand("parties", part.end())?;
    let count = parties.number("number of parties")?;
    BarrierName::checked(region, count).map(Address::Barrier).map_err(|what| parties.problem(what))
}

fn range(part: Part<'_>, options: &mut Options<'_>) -> Parsed<FileRange> {
    let path = file(part)?;
    let start = options.number("start")?.unwrap_or(0);
    let len = options.number("len")?.unwrap_or(0);
    FileRange::checked(path, start, len).map_err(|what| Problem::new(part.end(), what))
}

fn signal(part: Part<'_>, options: &mut Options<'_>) -> Parsed<Address> {
    let target = if part.text == "self" { None } else { Some(process(part)?) };
    let list = options.demand("sig", part.end())?;
    let mut signals = Vec::new();
    let mut rest = Some(list);
    while let Some(names) = rest {
        let (name, next) = names.split(',').map_or((names, None), |(name, next)| (name, Some(next)));
        signals.push(SignalNumber::checked_name(name.text).map_err(|what| name.problem(what))?);
        rest = next;
    }
    match (target, &signals[..]) {
        (Some(pid), &[signal]) => Ok(Address::Signal(SignalName::to(pid, signal))),
        (Some(_), _) => Err(list.problem("one signal at a time can be sent")),
        (None, _) => SignalName::checked(signals).map(Address::Signal).map_err(|what| list.problem(what)),
    }
}
