//! The limits in force for this process on this machine, and how to raise them.

mod table;

use std::fmt;
use std::io::ErrorKind;

use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};

use crate::Mechanism;
use table::{LIMITS, Row};

/// A limit in force.
///
/// ```
/// use onecopy::Mechanism;
/// use onecopy::limits::{Value, limits_of};
///
/// let limits = limits_of(Mechanism::Pipe);
/// let atomic = limits.iter().find(|limit| limit.name == "PIPE_BUF").expect("a constant");
/// assert_eq!((atomic.value, atomic.unit), (Value::Number(4096), "bytes"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// Its name: a sysctl, a resource limit, or a constant.
    pub name: &'static str,
    /// What it is at this moment. An administrator may change it at any time.
    pub value: Value,
    /// What the value counts: "bytes", "messages", "queues".
    pub unit: &'static str,
    /// What it limits, in a few words.
    pub meaning: &'static str,
    /// Where it was read: a path, a resource limit, or "a constant".
    pub source: String,
    /// The command that raises it, or why none can.
    pub how_to_raise: String,
}

/// The value of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number of what [`Limit::unit`] says.
    Number(u64),
    /// There is no limit.
    Unlimited,
    /// This kernel, or this container, does not have it.
    Absent,
    /// It is there and could not be read.
    Unreadable,
}

impl Value {
    /// The number, if it is one.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => f.pad(&number.to_string()),
            Self::Unlimited => f.pad("unlimited"),
            Self::Absent => f.pad("not present on this kernel"),
            Self::Unreadable => f.pad("cannot be read"),
        }
    }
}

/// Where a limit is found.
enum Source {
    /// The field with this index, from 0, of a file below /proc/sys.
    Sysctl(&'static str, usize),
    /// A resource limit, with its name and the option of prlimit(1).
    Resource(Resource, &'static str, &'static str),
    /// The size of the file system at /dev/shm, in bytes.
    SharedMemorySize,
    /// What is free there.
    SharedMemoryFree,
    /// Part of the kernel's interface or of the C library.
    Constant(u64),
}

/// Every limit that this library knows, each once.
#[must_use]
pub fn limits() -> Vec<Limit> {
    LIMITS.iter().map(Row::read).collect()
}

/// The limits that concern a mechanism.
#[must_use]
pub fn limits_of(mechanism: Mechanism) -> Vec<Limit> {
    LIMITS.iter().filter(|row| row.concerns.contains(&mechanism)).map(Row::read).collect()
}

impl Row {
    fn read(&self) -> Limit {
        Limit {
            name: self.name,
            value: self.source.value(),
            unit: self.unit,
            meaning: self.meaning,
            source: self.source.place(),
            how_to_raise: self.source.remedy(),
        }
    }
}

impl Source {
    fn value(&self) -> Value {
        match self {
            Self::Sysctl(path, field) => read_field(path, *field),
            Self::Resource(resource, ..) => getrlimit(*resource).current.map_or(Value::Unlimited, Value::Number),
            Self::SharedMemorySize => shared_memory(|size, _| size),
            Self::SharedMemoryFree => shared_memory(|_, free| free),
            Self::Constant(number) => Value::Number(*number),
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Sysctl(path, _) => format!("/proc/sys/{path}"),
            Self::Resource(_, name, _) => (*name).into(),
            Self::SharedMemorySize | Self::SharedMemoryFree => "statvfs of /dev/shm".into(),
            Self::Constant(_) => "a constant".into(),
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::Sysctl("kernel/pty/nr", _) => "it counts: close some".into(),
            Self::Sysctl("kernel/yama/ptrace_scope", _) => {
                "to allow more, as root: sysctl -w kernel.yama.ptrace_scope=0".into()
            }
            Self::Sysctl(path @ "kernel/sem", _) => sysctl(path, "'SEMMSL SEMMNS SEMOPM SEMMNI'"),
            Self::Sysctl(path @ "net/ipv4/ip_local_port_range", _) => sysctl(path, "'FIRST LAST'"),
            Self::Sysctl(path @ ("net/ipv4/tcp_wmem" | "net/ipv4/tcp_rmem"), _) => sysctl(path, "'MIN DEFAULT MAX'"),
            Self::Sysctl(path, _) => sysctl(path, "N"),
            Self::Resource(resource, _, option) => resource_remedy(*resource, option),
            Self::SharedMemorySize | Self::SharedMemoryFree => {
                "as root: mount -o remount,size=SIZE /dev/shm; a container's is set when it starts (--shm-size)".into()
            }
            Self::Constant(_) => "it cannot be raised".into(),
        }
    }
}

fn sysctl(path: &str, value: &str) -> String {
    format!("as root: sysctl -w {}={value}", path.replace('/', "."))
}

/// prlimit(1) takes the units of the kernel, where ulimit's differ from shell to shell.
fn resource_remedy(resource: Resource, option: &str) -> String {
    let limits = getrlimit(resource);
    match limits.maximum {
        None => format!("prlimit --pid $$ {option}=N:"),
        Some(maximum) if limits.current.is_some_and(|current| current < maximum) => {
            format!("prlimit --pid $$ {option}=N: up to {maximum}; above that as root")
        }
        Some(_) => format!("as root: prlimit --pid PID {option}=N; for good in limits.conf"),
    }
}

fn read_field(path: &str, field: usize) -> Value {
    match std::fs::read_to_string(format!("/proc/sys/{path}")) {
        Ok(text) => match text.split_whitespace().nth(field).and_then(|word| word.parse().ok()) {
            Some(number) => Value::Number(number),
            None => Value::Unreadable,
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Value::Absent,
        Err(_) => Value::Unreadable,
    }
}

fn shared_memory(pick: fn(u64, u64) -> u64) -> Value {
    match statvfs("/dev/shm") {
        // A tmpfs without a limit says 0 blocks.
        Ok(stat) if stat.f_blocks == 0 => Value::Unlimited,
        Ok(stat) => {
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
            Value::Number(pick(bytes(stat.f_blocks), bytes(stat.f_bavail)))
        }
        Err(rustix::io::Errno::NOENT) => Value::Absent,
        Err(_) => Value::Unreadable,
    }
}
