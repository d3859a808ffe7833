//! All UNIX sockets as /proc/net/unix tells them, for kernels without sock_diag(7). It shows a NUL in an abstract name as `@`, and a
//! line feed in a name breaks its line.

use std::fs;

use super::{Sort, UnixSocket, name_of};

/// `__SO_ACCEPTCON`.
const LISTENING: u32 = 1 << 16;
/// `SS_CONNECTED`.
const CONNECTED: u32 = 3;

pub(super) fn sockets() -> Vec<UnixSocket> {
    let table = fs::read("/proc/net/unix").unwrap_or_default();
    table.split(|byte| *byte == b'\n').skip(1).filter_map(parse).collect()
}

/// `Num: RefCount Protocol Flags Type St Inode Path`.
fn parse(line: &[u8]) -> Option<UnixSocket> {
    let mut fields =
        line.splitn(2, |byte| *byte == b':').nth(1)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let mut hex = |skip: usize| u32::from_str_radix(std::str::from_utf8(fields.nth(skip)?).ok()?, 16).ok();
    let (flags, kind, state) = (hex(2)?, hex(0)?, hex(0)?);
    let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let mut socket = UnixSocket::new(inode, Sort::of(kind)?, flags & LISTENING != 0);
    socket.is_connected = state == CONNECTED;
    // The path may hold blanks: it is all that follows the inode's column.
    let start = line
        .windows(inode.to_string().len() + 1)
        .rposition(|window| window == [inode.to_string().as_bytes(), b" "].concat());
    socket.name = start.and_then(|start| {
        let name = &line[start + inode.to_string().len() + 1..];
        match name.strip_prefix(b"@") {
            Some(name) => name_of(&[b"\0", name].concat()),
            None => name_of(name),
        }
    });
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_a_name_are_read() {
        let line = b"00000000b7f1a2c3: 00000002 00000000 00010000 0001 01 24789 /tmp/a b";
        let socket = parse(line).unwrap();
        assert_eq!(
            (socket.inode, socket.is_listening, socket.name.unwrap().to_string()),
            (24789, true, "/tmp/a b".into())
        );
        let socket = parse(b"00000000b7f1a2c3: 00000002 00000000 00000000 0002 01 7 @x").unwrap();
        assert_eq!((socket.sort, socket.name.unwrap().to_string()), (Sort::Dgram, "@x".into()));
        assert!(parse(b"00000000b7f1a2c3: 00000003 00000000 00000000 0005 03 9").unwrap().name.is_none());
        assert!(parse(b"a line that a name broke").is_none() && parse(b"").is_none());
    }
}
