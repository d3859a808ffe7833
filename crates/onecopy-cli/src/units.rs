//! Sizes and times as people write them.

use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

/// `4096`, `64K`, `16M`, `1GiB`: bytes; the letters are powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const FORMS: &str = "write bytes, or with a power of 1024 as 64K, 16M or 1GiB";
    let (digits, unit) = split(text);
    let number: u64 = number(digits, &format!("no size: {FORMS}"))?;
    let shift = match unit.strip_suffix("iB").unwrap_or(unit).to_ascii_uppercase().as_str() {
        "" if !unit.is_empty() => return Err(format!("no size: {FORMS}")),
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("no size: {FORMS}")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("larger than the {} bytes that a size can be", u64::MAX))
}

/// `500ms`, `2s`, `1.5m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const FORMS: &str = "no time: write it as 500ms, 2s, 1.5m or 1h";
    let (digits, unit) = split(text);
    let number: f64 = digits.parse().map_err(|_| FORMS.to_owned())?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(FORMS.to_owned()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| "longer than a time can be".to_owned())
}

/// How many messages, 0 for all.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    number(text, "no number of messages: write 3, or 0 for all")
}

/// How many messages fit.
pub(crate) fn capacity(text: &str) -> Result<u64, String> {
    number(text, "no number of messages: write it in digits, as 10")
}

/// The value of a semaphore.
pub(crate) fn value(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("no value of a semaphore: write it in digits, from 0 to {}", i32::MAX))
}

/// The permission bits of an object, in octal: `600`, `0600`, `0o600`.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777 && !digits.starts_with('+'));
    mode.ok_or_else(|| "no permission bits: write them in octal, from 0 to 0777, as 0600".to_owned())
}

/// A number in digits. `forms` says of something else what it is not, and how that is written.
pub(crate) fn number<N: FromStr<Err = ParseIntError>>(text: &str, forms: &str) -> Result<N, String> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "the number is too large".to_owned(),
        _ => forms.to_owned(),
    })
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("7B", 7), ("64K", 65_536), ("16m", 16 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "1.5M", "-1", "+1", "64KB", "1iB", "1 K", "18446744073709551616", "99999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        let times = [("500ms", 500), ("2s", 2000), ("1m", 60_000), ("1.5s", 1500), ("0s", 0), ("1h", 3_600_000)];
        for (text, ms) in times {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1x", "1e3s", "inf", "nans", "1..2s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn permission_bits() {
        assert_eq!((mode("600"), mode("0640"), mode("0o777")), (Ok(0o600), Ok(0o640), Ok(0o777)));
        for text in ["", "8", "1000", "-1", "+7", "rw"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }
}
