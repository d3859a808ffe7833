//! Lines of text from a stream whose other side may be anybody.

use crate::failure::Failure;

/// The longest line that is taken, in bytes: a token has about 200.
pub(crate) const LINE_BYTES: usize = 512;

/// The next line of `object` without its end. `ahead` keeps what `read` brought beyond it, for the next call. `None` is the end
/// of the stream; a last line without an end counts.
pub(crate) fn next_line(
    ahead: &mut Vec<u8>,
    object: &str,
    mut read: impl FnMut(&mut [u8]) -> onecopy::Result<usize>,
) -> Result<Option<String>, Failure> {
    let (len, end) = loop {
        let found = ahead.iter().position(|byte| *byte == b'\n');
        if found.unwrap_or(ahead.len()) > LINE_BYTES {
            return Err(Failure::failed(format!("{object} sent a line of more than {LINE_BYTES} bytes")));
        }
        if let Some(len) = found {
            break (len, len + 1);
        }
        let filled = ahead.len();
        ahead.resize(filled + LINE_BYTES, 0);
        let count = read(&mut ahead[filled..]);
        ahead.truncate(filled + count.as_ref().unwrap_or(&0));
        match (count?, filled) {
            (0, 0) => return Ok(None),
            (0, len) => break (len, len),
            _ => {}
        }
    };
    let line = String::from_utf8(ahead[..len].to_vec());
    ahead.drain(..end);
    line.map(Some).map_err(|_| Failure::failed(format!("{object} sent something else than text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of `chunks`, each the bytes of one read.
    fn lines(chunks: &[&[u8]]) -> Vec<Result<Option<String>, String>> {
        let mut chunks = chunks.iter();
        let mut ahead = Vec::new();
        let mut lines = Vec::new();
        loop {
            let line = next_line(&mut ahead, "s", |buffer| {
                let chunk = chunks.next().copied().unwrap_or_default();
                buffer[..chunk.len()].copy_from_slice(chunk);
                Ok(chunk.len())
            });
            lines.push(line.map_err(|failure| failure.text().unwrap_or_default().to_owned()));
            if !matches!(lines.last(), Some(Ok(Some(_)))) {
                return lines;
            }
        }
    }

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(
            lines(&[b"on", b"e\ntwo\n\nth", b"ree"]),
            [some("one"), some("two"), some(""), some("three"), Ok(None)]
        );
        assert_eq!(lines(&[]), [Ok(None)]);
    }

    #[test]
    fn what_is_no_short_line_of_text_is_refused() {
        let longest = [b'x'; LINE_BYTES];
        assert_eq!(lines(&[&longest, b"\n"]).len(), 2);
        assert_eq!(lines(&[&longest, b"x"]), [Err("s sent a line of more than 512 bytes".into())]);
        assert_eq!(lines(&[b"\xff\n"]), [Err("s sent something else than text".into())]);
    }
}
