//! Who is admitted to a channel, and what both sides may do there.

use rustix::process::geteuid;

use super::Peer;
use crate::sys::sysctl::is_overflow;

/// The default of [`Policy::message_limit_bytes`].
const MESSAGE_LIMIT_BYTES: usize = 1 << 30;

/// Whom `PR_SET_PTRACER` lets attach ([prctl(2)](https://man7.org/linux/man-pages/man2/PR_SET_PTRACER.2const.html)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tracer {
    /// The process on the other side, and its descendants. The kernel keeps one such process: the first one stays it until it
    /// has exited, and channels to further ones do without.
    FirstPeer,
    /// Every process whose user and group are this one's.
    Anybody,
}

/// Who is admitted, and what may be done.
///
/// Each side has its own policy, and both have to admit the other. Who the other side is the kernel says: its effective user
/// and group. A user without a number in this user namespace shows as the overflow uid (65534,
/// `/proc/sys/kernel/overflowuid`), which identifies nobody there and is never admitted.
///
/// ```
/// use onecopy::channel::Policy;
///
/// // The web server's user may connect, too, and nobody attaches to anybody's memory.
/// let policy = Policy::same_user().admit_user(33).separate().message_limit_bytes(16 << 20);
/// assert_eq!(policy, policy.clone());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    users: Vec<u32>,
    groups: Vec<u32>,
    attachable: bool,
    tracer: Option<Tracer>,
    message_limit_bytes: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self::same_user()
    }
}

impl Policy {
    /// Admits this process's own effective user, attachable, with messages of up to 1 GiB.
    #[must_use]
    pub fn same_user() -> Self {
        Self {
            users: Vec::new(),
            groups: Vec::new(),
            attachable: true,
            tracer: None,
            message_limit_bytes: MESSAGE_LIMIT_BYTES,
        }
    }

    /// Admits user `uid`, too. A side that connects to a name looks for a listener of this user's as well.
    #[must_use]
    pub fn admit_user(mut self, uid: u32) -> Self {
        self.users.push(uid);
        self
    }

    /// Admits processes of group `gid`, too: whose effective or supplementary group it is, as `/proc/PID/status` tells.
    /// A listener of such a process is found at a path only, since a name begins with a user.
    #[must_use]
    pub fn admit_group(mut self, gid: u32) -> Self {
        self.groups.push(gid);
        self
    }

    /// No cross-memory attach: messages travel through the memory that both share, and through nothing else.
    ///
    /// With the usual policy, attachable, a side of the same user may read and write the whole memory of the other one, as the
    /// kernel lets it do without any channel. Between two users it is as with this.
    #[must_use]
    pub fn separate(mut self) -> Self {
        self.attachable = false;
        self
    }

    /// Lets the other side attach where Yama (`/proc/sys/kernel/yama/ptrace_scope` of 1) would not.
    ///
    /// This gives it all that ptrace(2) can do, it and its descendants, and takes the place of what a crash handler may
    /// have set. It has no effect with [`Policy::separate`], nor on a peer of another user.
    #[must_use]
    pub fn allow_ptracer(mut self, tracer: Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// The longest message that this side takes, in bytes; 1 GiB unless set.
    #[must_use]
    pub fn message_limit_bytes(mut self, bytes: usize) -> Self {
        self.message_limit_bytes = bytes;
        self
    }

    pub(super) fn is_attachable(&self) -> bool {
        self.attachable
    }

    pub(super) fn tracer(&self) -> Option<Tracer> {
        self.tracer.filter(|_| self.attachable)
    }

    pub(super) fn limit_bytes(&self) -> usize {
        self.message_limit_bytes
    }

    /// The users that are admitted by name, this process's own first.
    pub(super) fn users(&self) -> impl Iterator<Item = u32> {
        std::iter::once(geteuid().as_raw()).chain(self.users.iter().copied())
    }

    /// Whether users other than this process's own may be admitted.
    pub(super) fn admits_others(&self) -> bool {
        !self.groups.is_empty() || self.users().any(|user| user != geteuid().as_raw())
    }

    /// Whether a process of user `uid` may be admitted: as that user, or for its groups, which are not asked for here.
    pub(super) fn may_admit(&self, uid: u32) -> bool {
        !self.groups.is_empty() || self.admits_user(uid)
    }

    fn admits_user(&self, uid: u32) -> bool {
        !is_overflow(uid) && self.users().any(|user| user == uid)
    }

    /// Why `peer` is not admitted, if it is not.
    pub(super) fn check(&self, peer: &Peer) -> Result<(), String> {
        if is_overflow(peer.uid()) {
            return Err(format!(
                "{peer} has the overflow uid, which identifies nobody: its user has no number in this user namespace; map \
                 that user into it, or run both sides in the same one"
            ));
        }
        let admits_group = |&group: &u32| !is_overflow(group) && peer.is_in_group(group);
        if self.admits_user(peer.uid()) || self.groups.iter().any(admits_group) {
            return Ok(());
        }
        Err(format!(
            "{peer} is not admitted, but {}; both sides run as one user, or each in a program whose policy admits the other's",
            self.admitted()
        ))
    }

    /// Who is admitted, in words.
    pub(super) fn admitted(&self) -> String {
        let list = |ids: &mut dyn Iterator<Item = u32>| ids.map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
        let users = list(&mut self.users());
        match &self.groups[..] {
            [] => format!("uid {users}"),
            groups => format!("uid {users} and gid {}", list(&mut groups.iter().copied())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uid: u32, gid: u32) -> Peer {
        Peer::nobody_visible(uid, gid)
    }

    #[test]
    fn the_usual_policy_admits_the_same_user_only() {
        let own = geteuid().as_raw();
        let policy = Policy::default();
        assert_eq!(policy.check(&of(own, 77)), Ok(()));
        let refusal = policy.check(&of(own + 1, 77)).unwrap_err();
        let expected =
            [format!("uid {}", own + 1), "gid 77".into(), format!("but uid {own};"), "whose policy admits".into()];
        for part in expected {
            assert!(refusal.contains(&part), "{refusal:?} lacks {part:?}");
        }
        assert!(!policy.admits_others() && !policy.clone().admit_user(own).admits_others());
    }

    #[test]
    fn named_users_and_groups_are_admitted_but_not_one_who_could_be_anybody() {
        let own = geteuid().as_raw();
        let policy = Policy::same_user().admit_user(own + 1).admit_group(88).admit_user(65_534);
        assert_eq!(policy.check(&of(own + 1, 0)), Ok(()));
        assert_eq!(policy.check(&of(own + 2, 88)), Ok(()));
        assert!(policy.check(&of(own + 2, 89)).is_err());
        // It is the user `nobody` where all users have numbers.
        match policy.check(&of(65_534, 88)) {
            Ok(()) => assert!(!is_overflow(65_534)),
            Err(refusal) => assert!(is_overflow(65_534) && refusal.contains("identifies nobody")),
        }
        assert!(policy.admits_others());
        assert_eq!(policy.admitted(), format!("uid {own}, {}, 65534 and gid 88", own + 1));
    }

    #[test]
    fn a_separate_side_allows_no_tracer() {
        let policy = Policy::same_user().allow_ptracer(Tracer::FirstPeer);
        assert_eq!(policy.tracer(), Some(Tracer::FirstPeer));
        assert_eq!(policy.separate().tracer(), None);
    }
}
