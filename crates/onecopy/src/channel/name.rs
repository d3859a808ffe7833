//! Where a channel of some name is found: the UNIX sockets behind it.
//!
//! An abstract name is free for anybody in the network namespace to bind, so it says which user it belongs to, and whoever
//! connects asks the kernel whether that user's process answers. Nothing here depends on the environment, which in a
//! set-user-ID program is the caller's and not the owner's.

use crate::address::ChannelName;
use crate::{Result, UnixName};

/// What begins every abstract name. With the longest user's id and its slash it leaves 80 bytes for the name, as
/// [`ChannelName`] promises.
const PREFIX: &str = "onecopy-channel/";

/// The address of a channel.
pub(super) fn object(name: &ChannelName) -> String {
    format!("channel:{name}")
}

/// The socket at which `user` listens for `name`.
pub(super) fn place(name: &ChannelName, user: u32) -> Result<UnixName> {
    match name {
        ChannelName::Name(name) => UnixName::abstract_name(format!("{PREFIX}{user}/{name}")),
        ChannelName::Path(path) => UnixName::path(path),
    }
}

/// The sockets at which one of `users` may listen for `name`, in their order.
pub(super) fn places(name: &ChannelName, users: impl IntoIterator<Item = u32>) -> Result<Vec<UnixName>> {
    let mut found = Vec::new();
    for user in users {
        let place = place(name, user)?;
        if !found.contains(&place) {
            found.push(place);
        }
    }
    Ok(found)
}

impl ChannelName {
    /// The channel that listens at the abstract socket `socket`, and the user whose it is; `None` when no channel has such a name. A
    /// socket file says nothing of what listens there.
    ///
    /// ```
    /// use onecopy::UnixName;
    /// use onecopy::address::ChannelName;
    ///
    /// let socket = UnixName::abstract_name("onecopy-channel/1000/frames")?;
    /// assert_eq!(ChannelName::behind(&socket), Some((ChannelName::name("frames")?, 1000)));
    /// assert_eq!(ChannelName::behind(&UnixName::path("/run/frames")?), None);
    /// # Ok::<(), onecopy::Error>(())
    /// ```
    #[must_use]
    pub fn behind(socket: &UnixName) -> Option<(Self, u32)> {
        let UnixName::Abstract(socket) = socket else { return None };
        let (user, name) = socket.to_str()?.strip_prefix(PREFIX)?.split_once('/')?;
        let (name, user) = (Self::name(name).ok()?, user.parse().ok()?);
        // Only the one way to write the user's id is looked for.
        (place(&name, user).ok()? == UnixName::Abstract(socket.clone())).then_some((name, user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_of_the_highest_user_just_fits() {
        let name = ChannelName::name("n".repeat(80)).unwrap();
        let UnixName::Abstract(longest) = place(&name, u32::MAX).unwrap() else { panic!("no abstract name") };
        assert_eq!(longest.len(), 107);
    }

    #[test]
    fn a_name_has_a_place_for_each_user_and_a_path_has_one() {
        let name = ChannelName::name("frames").unwrap();
        let places_of_name: Vec<String> = places(&name, [7, 0, 7]).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(places_of_name, ["@onecopy-channel/7/frames", "@onecopy-channel/0/frames"]);
        let path = ChannelName::path("/run/frames").unwrap();
        assert_eq!(places(&path, [7, 0]).unwrap(), [UnixName::path("/run/frames").unwrap()]);
        assert_eq!(object(&path), "channel:/run/frames");
    }
}
