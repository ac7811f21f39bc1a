//! Sizes, durations and shares as users write them.
//!
//! Sizes are powers of 1024, as docker and podman read them: `64M` and `64MiB` are both 67,108,864
//! bytes. Durations are humantime's (`500ms`, `1m 30s`), a bare number being seconds.

use std::num::NonZeroU64;
use std::time::Duration;

const SUFFIXES: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

/// Reads a size in bytes: a whole number and an optional `K`, `M`, `G` or `T`, with or without `B`
/// or `iB` behind it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("'{text}' is not a size; write a whole number with K, M, G or T, for example 64M")
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let suffix = suffix.to_ascii_uppercase();
    let unit = |c: &char| [format!("{c}"), format!("{c}B"), format!("{c}IB")].contains(&suffix);
    let shift = match suffix.as_str() {
        "" | "B" => 0,
        _ => SUFFIXES.iter().find(|(c, _)| unit(c)).ok_or_else(wrong)?.1,
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is more than 16 EiB"))
}

/// Reads a size that is moved in a second, which is not zero.
pub fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(parse_size(text)?).ok_or_else(|| "a rate of zero lets nothing through".into())
}

/// Writes a size in the largest unit that holds it exactly: `64 MiB`.
pub fn format_size(bytes: u64) -> String {
    for (letter, shift) in SUFFIXES.iter().rev() {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{} {letter}iB", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

/// Reads a duration that is not zero.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("'{text}' is not a duration; write a number with ms, s, m or h, for example 30s")
    };
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?,
        Err(_) => humantime::parse_duration(text).map_err(|_| wrong())?,
    };
    if duration.is_zero() { Err("a duration of zero allows nothing".into()) } else { Ok(duration) }
}

/// Reads a number of processors such as `1`, `0.5` or `2.25` as thousandths.
pub fn parse_cpus(text: &str) -> Result<u32, String> {
    let wrong = || {
        format!("'{text}' is not a number of processors; write one from 0.01 up, for example 1.5")
    };
    cpus_from(text.parse().map_err(|_| wrong())?).map_err(|_| wrong())
}

/// The thousandths of a processor in `cpus`.
pub fn cpus_from(cpus: f64) -> Result<u32, String> {
    let milli = (cpus * 1000.0).round();
    if (10.0..=4_096_000.0).contains(&milli) {
        Ok(milli as u32)
    } else {
        Err(format!("{cpus} is not a number of processors from 0.01 up"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("1k", 1024),
            ("64M", 64 << 20),
            ("2GiB", 2 << 30),
            ("3tb", 3 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "M",
            "-1",
            "1.5G",
            "1X",
            "64 M",
            "99999999999999999999",
            "16777216T",
            "64IB",
            "1MIBIB",
            "1BB",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(format_size(64 << 20), "64 MiB");
        assert_eq!(format_size(1025), "1025 B");
        assert_eq!(format_size(0), "0 B");
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "0", "0s", "-1", "fast", "nan", "inf", "1e300"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus() {
        assert_eq!(parse_cpus("0.5"), Ok(500));
        assert_eq!(parse_cpus("2"), Ok(2000));
        for text in ["", "0", "-1", "nan", "inf", "1e9", "half"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }
}
