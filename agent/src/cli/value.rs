//! Values as people write them: times, durations, `NAME=VALUE`, text with escapes. Pure.

use std::time::{Duration, UNIX_EPOCH};

/// A duration with its unit, such as `500ms`, `10s` or `1h 30m`; a bare number is seconds.
///
/// # Errors
/// What is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|_| text.starts_with(|c: char| c.is_ascii_digit()));
    let duration = match seconds {
        Some(seconds) => Duration::from_secs(seconds),
        None => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write 500ms, 10s, 5m, 2h or 7d"))?,
    };
    // What is added to a clock must not overflow it.
    let longest = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    if duration.is_zero() || longest < duration {
        return Err("must be above zero, and below a hundred years".to_owned());
    }
    Ok(duration)
}

/// A moment in milliseconds since 1970: RFC 3339 in UTC, a date, or a number of milliseconds.
///
/// # Errors
/// What is wrong with it.
pub fn parse_timestamp(text: &str) -> Result<i64, String> {
    if let Ok(millis) = text.parse::<i64>() {
        let is_time = 0 <= millis;
        return is_time.then_some(millis).ok_or_else(|| "is before 1970".to_owned());
    }
    let is_date = text.len() == "2026-01-31".len();
    let whole = if is_date { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&whole).map_err(|_| {
        format!("{text:?} is no time: write 2026-01-31, 2026-01-31T12:00:00Z (UTC) or milliseconds")
    })?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "is before 1970".to_owned())?;
    i64::try_from(since.as_millis()).map_err(|_| "is too late".to_owned())
}

/// A moment as RFC 3339 in UTC with milliseconds; empty when it is none.
pub fn timestamp_text(millis: i64) -> String {
    // Years above 9999 have no RFC 3339; a hostile producer can send them.
    const YEAR_10000: i64 = 253_402_300_800_000;
    match u64::try_from(millis) {
        Ok(since) if millis < YEAR_10000 => {
            let time = UNIX_EPOCH + Duration::from_millis(since);
            humantime::format_rfc3339_millis(time).to_string()
        }
        _ => String::new(),
    }
}

/// `NAME=VALUE`; the value may be empty and may have further `=`.
///
/// # Errors
/// There is no `=`, or no name.
pub fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Text with `\n`, `\r`, `\t`, `\0`, `\\` and `\xNN` as the bytes they stand for.
///
/// # Errors
/// An escape there is none of.
pub fn parse_escaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (byte, length) = escape(&rest[at..])?;
        bytes.push(byte);
        rest = &rest[at + length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// The byte of the escape that `text` begins with, and the escape's length.
fn escape(text: &str) -> Result<(u8, usize), String> {
    let byte = match text.as_bytes().get(1) {
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'0') => 0,
        Some(b'\\') => b'\\',
        Some(b'x') => {
            let digits = text.get(2..4).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
            let byte = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
            return byte.map(|byte| (byte, 4)).ok_or("\\x needs two hex digits".to_owned());
        }
        _ => {
            let seen: String = text.chars().take(2).collect();
            return Err(format!("{seen} is no escape: use \\n \\r \\t \\0 \\\\ or \\xNN"));
        }
    };
    Ok((byte, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_dates_as_rfc_3339_and_as_milliseconds() {
        let noon = 1_769_860_800_000;
        assert_eq!(parse_timestamp("2026-01-31T12:00:00Z"), Ok(noon));
        assert_eq!(parse_timestamp("2026-01-31 12:00:00"), Ok(noon));
        assert_eq!(parse_timestamp("2026-01-31"), Ok(noon - 12 * 3_600_000));
        assert_eq!(parse_timestamp("1769860800000"), Ok(noon));
        for bad in ["yesterday", "", "-5", "2026-13-01", "1969-12-31"] {
            assert!(parse_timestamp(bad).is_err(), "{bad}");
        }
        assert_eq!(timestamp_text(noon), "2026-01-31T12:00:00.000Z");
        assert_eq!(timestamp_text(-1), "");
        assert_eq!(timestamp_text(i64::MAX), "");
    }

    #[test]
    fn durations_have_units_and_are_never_zero() {
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["0", "0s", "ten", "18446744073709551615"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn escapes_are_bytes_and_an_unknown_one_is_named() {
        assert_eq!(parse_escaped(r"a\n\t\x00\\é").as_deref(), Ok("a\n\t\0\\é".as_bytes()));
        for bad in [r"\q", r"\x0", r"\xé1", r"\x+1", "\\"] {
            assert!(parse_escaped(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pair_has_a_name_and_may_have_an_empty_value() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(parse_pair("=b").is_err() && parse_pair("a").is_err());
    }
}
