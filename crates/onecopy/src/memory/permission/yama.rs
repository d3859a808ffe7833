//! Yama, the security module that most distributions switch on: <https://docs.kernel.org/admin-guide/LSM/Yama.html>.

use std::path::Path;

/// `/proc/sys/kernel/yama/ptrace_scope`: who may attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// 0, or a kernel without Yama: whoever the other rules let.
    Classic,
    /// 1: an ancestor, or whom the process has named by `PR_SET_PTRACER`.
    Restricted,
    /// 2: only `CAP_SYS_PTRACE`.
    Admin,
    /// 3: nobody.
    Nobody,
}

impl Scope {
    /// What is in force. `sysctls` is `/proc/sys`, or what a test has put in its place.
    pub(super) fn read(sysctls: &Path) -> Self {
        let text = std::fs::read_to_string(sysctls.join("kernel/yama/ptrace_scope")).unwrap_or_default();
        match text.trim() {
            "1" => Self::Restricted,
            "2" => Self::Admin,
            "3" => Self::Nobody,
            _ => Self::Classic,
        }
    }

    /// The value of the sysctl.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Classic => 0,
            Self::Restricted => 1,
            Self::Admin => 2,
            Self::Nobody => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sysctl_is_read_and_its_absence_is_no_restriction() {
        let root = std::env::temp_dir().join(format!("onecopy-yama-{}", std::process::id()));
        std::fs::create_dir_all(root.join("kernel/yama")).unwrap();
        assert_eq!(Scope::read(&root), Scope::Classic);
        for (number, scope) in [Scope::Classic, Scope::Restricted, Scope::Admin, Scope::Nobody].into_iter().enumerate()
        {
            std::fs::write(root.join("kernel/yama/ptrace_scope"), format!("{number}\n")).unwrap();
            assert_eq!(Scope::read(&root), scope);
            assert_eq!(usize::from(scope.number()), number);
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
