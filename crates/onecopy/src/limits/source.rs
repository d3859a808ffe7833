//! Where a limit is found, and what changes it there.

use std::io::ErrorKind;

use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};

use super::{Remedy, Value};

/// A place where the kernel keeps a limit.
pub(super) enum Source {
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

impl Source {
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Sysctl(path, field) => read_field(path, *field),
            Self::Resource(resource, ..) => getrlimit(*resource).current.map_or(Value::Unlimited, Value::Number),
            Self::SharedMemorySize => shared_memory(|size, _| size),
            Self::SharedMemoryFree => shared_memory(|_, free| free),
            Self::Constant(number) => Value::Number(*number),
        }
    }

    pub(super) fn place(&self) -> String {
        match self {
            Self::Sysctl(path, _) => format!("/proc/sys/{path}"),
            Self::Resource(_, name, _) => (*name).into(),
            Self::SharedMemorySize | Self::SharedMemoryFree => "statvfs of /dev/shm".into(),
            Self::Constant(_) => "a constant".into(),
        }
    }

    /// What raises the limit, in words.
    pub(super) fn how_to_raise(&self) -> String {
        match self {
            Self::Sysctl("kernel/pty/nr", _) => "it counts: close some".into(),
            Self::Sysctl("kernel/yama/ptrace_scope", _) => {
                "to allow more, as root: sysctl -w kernel.yama.ptrace_scope=0".into()
            }
            Self::Sysctl(path @ "kernel/sem", _) => words(path, "'SEMMSL SEMMNS SEMOPM SEMMNI'"),
            Self::Sysctl(path @ "net/ipv4/ip_local_port_range", _) => words(path, "'FIRST LAST'"),
            Self::Sysctl(path @ ("net/ipv4/tcp_wmem" | "net/ipv4/tcp_rmem"), _) => words(path, "'MIN DEFAULT MAX'"),
            Self::Sysctl(path, _) => words(path, "N"),
            Self::Resource(resource, _, option) => resource_words(*resource, option),
            Self::SharedMemorySize | Self::SharedMemoryFree => {
                "as root: mount -o remount,size=SIZE /dev/shm; a container's is set when it starts (--shm-size)".into()
            }
            Self::Constant(_) => "it cannot be raised".into(),
        }
    }

    /// The command that sets the limit to `value`.
    pub(super) fn remedy(&self, value: u64) -> Remedy {
        let as_root = |command| Remedy { command, as_root: true };
        match self {
            Self::Sysctl(path, field) => as_root(sysctl(path, &with_field(path, *field, value))),
            Self::Resource(resource, _, option) => resource_remedy(*resource, option, value),
            Self::SharedMemorySize | Self::SharedMemoryFree => {
                as_root(format!("mount -o remount,size={}M /dev/shm", value >> 20))
            }
            Self::Constant(_) => Remedy { command: self.how_to_raise(), as_root: false },
        }
    }
}

/// The command that sets a sysctl.
fn sysctl(path: &str, value: &str) -> String {
    format!("sysctl -w {}={value}", path.replace('/', "."))
}

fn words(path: &str, value: &str) -> String {
    format!("as root: {}", sysctl(path, value))
}

/// The fields of a sysctl that has several, with another value in one of them.
fn with_field(path: &str, field: usize, value: u64) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/{path}")).unwrap_or_default();
    let mut fields: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    match fields.as_mut_slice() {
        [] | [_] => value.to_string(),
        several => {
            if let Some(place) = several.get_mut(field) {
                *place = value.to_string();
            }
            format!("'{}'", several.join(" "))
        }
    }
}

/// prlimit(1) takes the units of the kernel, where ulimit's differ from shell to shell.
fn resource_words(resource: Resource, option: &str) -> String {
    let limits = getrlimit(resource);
    match limits.maximum {
        None => format!("prlimit --pid $$ {option}=N:"),
        Some(maximum) if limits.current.is_some_and(|current| current < maximum) => {
            format!("prlimit --pid $$ {option}=N: up to {maximum}; above that as root")
        }
        Some(_) => format!("as root: prlimit --pid PID {option}=N; for good in limits.conf"),
    }
}

/// Up to its hard limit a process raises its soft limit alone.
fn resource_remedy(resource: Resource, option: &str, value: u64) -> Remedy {
    if getrlimit(resource).maximum.is_none_or(|maximum| value <= maximum) {
        return Remedy { command: format!("prlimit --pid $$ {option}={value}:"), as_root: false };
    }
    Remedy { command: format!("prlimit --pid PID {option}={value}"), as_root: true }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_of_several_changes_alone() {
        let before = std::fs::read_to_string("/proc/sys/kernel/sem").unwrap();
        let before: Vec<&str> = before.split_whitespace().collect();
        let expected = format!("'{} {} 77 {}'", before[0], before[1], before[3]);
        assert_eq!(with_field("kernel/sem", 2, 77), expected);
        assert_eq!(with_field("kernel/msgmax", 0, 77), "77");
        assert_eq!(with_field("no/such", 0, 77), "77");
    }

    #[test]
    fn a_process_raises_its_soft_limit_alone() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let remedy = resource_remedy(Resource::Nofile, "--nofile", hard.unwrap_or(u64::MAX));
        assert!(!remedy.as_root && remedy.command.ends_with(':'), "{remedy:?}");
        if let Some(hard) = hard {
            let remedy = resource_remedy(Resource::Nofile, "--nofile", hard + 1);
            assert_eq!((remedy.command, remedy.as_root), (format!("prlimit --pid PID --nofile={}", hard + 1), true));
        }
    }
}
