//! Bytes in addresses: what would be misread, or cannot be read, is percent-encoded.

use std::fmt::{self, Write};

use super::error::Problem;

/// Writes `bytes` so that [`decode`] gives them back: `%`, `?`, control and invisible characters and bytes that are no
/// UTF-8 become `%XX`.
pub(super) fn encode(out: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_unsafe(character) {
                let mut utf8 = [0; 4];
                encode_all(out, character.encode_utf8(&mut utf8).as_bytes())?;
            } else {
                out.write_char(character)?;
            }
        }
        encode_all(out, chunk.invalid())?;
    }
    Ok(())
}

/// Writes every byte as `%XX`.
pub(super) fn encode_all(out: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "%{byte:02X}"))
}

/// Whether a character could end a path, break a line, or make a terminal show something else than what is there.
pub(super) fn is_unsafe(character: char) -> bool {
    let invisible =
        matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    matches!(character, '%' | '?') || character.is_control() || invisible
}

/// The bytes that `text` stands for; `at` is its position in the whole input.
pub(super) fn decode(text: &str, at: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let byte = after.get(..2).and_then(hex_byte).ok_or_else(|| {
            Problem::new(
                at + text.len() - rest.len(),
                "% without two hexadecimal digits (a percent sign itself is %25)",
            )
        })?;
        bytes.push(byte);
        rest = &after[2..];
    }
    Ok(bytes)
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}
