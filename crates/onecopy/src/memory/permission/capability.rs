//! The names of capabilities: [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html).

/// By number.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// How many are named before the rest is a number.
const SHOWN: usize = 4;

/// The members of a set in words.
pub(super) fn list(set: u64) -> String {
    let members = (0..u64::BITS).filter(|bit| set >> bit & 1 == 1);
    let name = |bit: u32| NAMES.get(bit as usize).map_or_else(|| format!("cap_{bit}"), |name| format!("cap_{name}"));
    let names: Vec<String> = members.map(name).collect();
    match names.len() {
        count if count > SHOWN + 1 => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_named() {
        assert_eq!(list(1 << 13), "cap_net_raw");
        assert_eq!(list(super::super::facts::SYS_PTRACE | 1), "cap_chown, cap_sys_ptrace");
        assert_eq!(list(1 << 40 | 1 << 63), "cap_checkpoint_restore, cap_63");
        assert_eq!(list(0b1_1111), "cap_chown, cap_dac_override, cap_dac_read_search, cap_fowner, cap_fsetid");
        assert_eq!(list(0b11_1111), "cap_chown, cap_dac_override, cap_dac_read_search, cap_fowner and 2 more");
    }
}
