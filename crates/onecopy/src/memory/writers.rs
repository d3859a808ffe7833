//! Who may write shared memory. What trusts the others with more than bytes (a lock, whose words lead to addresses) asks first.

use rustix::fs::Stat;
use rustix::process::geteuid;

use crate::sys::sysctl::is_overflow;

/// Who may write the object behind a mapping, as the kernel knew when it was mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Writers {
    /// This process and the children that it forks: the mapping has neither name nor descriptor.
    Children,
    /// Whoever was passed a descriptor of the memfd, or may trace one who was. Its mode protects nothing; its maker decides.
    Holders { maker: u32 },
    /// Whom the owner and the mode admit. Where there is an access control list, the bits of the group bound what it grants.
    Mode { owner: u32, creator: u32, mode: u32 },
}

impl Writers {
    /// Those of a memfd.
    pub(super) fn of_memfd(stat: &Stat) -> Self {
        Self::Holders { maker: stat.st_uid }
    }

    /// Those of a file with a name.
    pub(super) fn of_file(stat: &Stat) -> Self {
        Self::Mode { owner: stat.st_uid, creator: stat.st_uid, mode: stat.st_mode & 0o777 }
    }

    /// Why others than this user and root may write it; `None` when they may not.
    ///
    /// A process of this user could trace this one in any case, and root can do anything.
    pub(crate) fn strangers(self) -> Option<String> {
        let own = geteuid().as_raw();
        let is_trusted = |uid: u32| uid == 0 || (uid == own && !is_overflow(uid));
        let ours = match is_overflow(own) {
            true => format!("user {own}, which is anybody without a number in this user namespace"),
            false => format!("user {own}"),
        };
        match self {
            Self::Children => None,
            Self::Holders { maker } if is_trusted(maker) => None,
            Self::Holders { maker } => Some(format!(
                "it was made by user {maker}, who decides whom it is passed to, and this process is {ours}"
            )),
            Self::Mode { owner, creator, .. } if !is_trusted(owner) || !is_trusted(creator) => {
                let stranger = if is_trusted(owner) { creator } else { owner };
                Some(format!("it belongs to user {stranger}, and this process is {ours}"))
            }
            Self::Mode { mode, .. } if mode & 0o022 != 0 => {
                Some(format!("its mode {mode:o} lets its group or others write it"))
            }
            Self::Mode { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_user_and_root_are_no_strangers() {
        let own = geteuid().as_raw();
        let file = |owner, creator, mode| Writers::Mode { owner, creator, mode }.strangers();
        assert_eq!(file(own, own, 0o644), None);
        assert_eq!(file(0, own, 0o600), None);
        assert_eq!(Writers::Holders { maker: 0 }.strangers(), None);
        for (refusal, part) in [
            (file(own, own, 0o620), "mode 620"),
            (file(own, own, 0o602), "mode 602"),
            (file(own + 7, own, 0o600), "belongs to user"),
            (file(own, own + 7, 0o600), "belongs to user"),
            (Writers::Holders { maker: own + 7 }.strangers(), "made by user"),
        ] {
            let refusal = refusal.unwrap();
            assert!(refusal.contains(part), "{refusal}");
        }
    }
}
