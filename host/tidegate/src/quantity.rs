//! Parses and formats sizes, durations and counts: "64 MiB", "30s", "1000".

use std::{fmt, time::Duration};

const SIZES: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Maximum of a duration. A longer one is a mistake, and adding it to a clock may overflow.
const TIME_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// Parses a size, in bytes.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let wrong = || {
        format!(
            "{text:?} is not a size: write a number of bytes, or one with KiB, MiB or GiB, as in \"64 MiB\""
        )
    };
    let bytes = read(text, &SIZES).ok_or_else(wrong)?;
    usize::try_from(bytes).map_err(|_| wrong())
}

/// Parses a duration.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("{text:?} is not a duration: write a number with ms, s, m, h or d, as in \"30s\"")
    };
    let time = match text.trim() {
        "0" => Duration::ZERO,
        text => Duration::from_millis(read(text, &TIMES).ok_or_else(wrong)?),
    };
    if time > TIME_MAX {
        Err(format!("{text:?} is longer than ten years"))
    } else {
        Ok(time)
    }
}

/// Parses a duration that must not be zero.
pub(crate) fn time_above_zero(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    if time.is_zero() {
        Err("zero is too short: write a longer duration, as in \"30s\"".into())
    } else {
        Ok(time)
    }
}

/// Parses a whole number.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    text.trim()
        .replace('_', "")
        .parse()
        .map_err(|_| format!("{text:?} is not a whole number: write one, as in \"1000\""))
}

/// Parses a whole number of at least `min`, or "auto", which is none.
pub(crate) fn count_or_auto(min: usize, text: &str) -> Result<Option<usize>, String> {
    if text.trim() == "auto" {
        return Ok(None);
    }
    let count = count(text).map_err(|what| format!("{what}, or \"auto\""))?;
    if count >= min {
        Ok(Some(count))
    } else {
        Err(format!("{count} is less than {min}"))
    }
}

/// Parses a whole number from 1 to `max`.
pub(crate) fn count_to(max: usize, text: &str) -> Result<usize, String> {
    let count = count(text)?;
    if (1..=max).contains(&count) {
        Ok(count)
    } else {
        Err(format!("{count} is not from 1 to {max}"))
    }
}

fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit() && c != '_')
            .unwrap_or(text.len()),
    );
    let number: u64 = number.replace('_', "").parse().ok()?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.checked_mul(*factor)
}

/// Formats a size in the syntax of [`size`], in the largest unit that divides it.
pub(crate) struct Size(pub(crate) usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |shift: &u32| self.0 > 0 && self.0.is_multiple_of(1 << shift);
        match [30, 20, 10].into_iter().find(divides) {
            Some(shift) => write!(
                f,
                "{} {}",
                self.0 >> shift,
                ["KiB", "MiB", "GiB"][shift as usize / 10 - 1]
            ),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// Formats a duration in the syntax of [`time`], in the largest unit that divides it.
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let divides = |(_, factor): &&(&str, u64)| ms > 0 && ms.is_multiple_of(u128::from(*factor));
        match TIMES.iter().rev().find(divides) {
            Some((unit, factor)) => write!(f, "{}{unit}", ms / u128::from(*factor)),
            None => write!(f, "{ms}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_whole_number_and_a_unit() {
        let cases = [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("1_000", Some(1000)),
            ("1 MiB", Some(1 << 20)),
            ("64MiB", Some(64 << 20)),
            (" 4  KiB ", Some(4096)),
            ("1 GiB", Some(1 << 30)),
            ("3 B", Some(3)),
            ("1 MB", Some(1_000_000)),
            ("1 kB", Some(1_000)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.5 MiB", None),
            ("1 mib", None),
            ("1 TiB", None),
            ("99999999999 GiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_duration_has_a_whole_number_and_a_unit() {
        let cases = [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("30 s", Some(30_000)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("1d", Some(86_400_000)),
            ("30", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1w", None),
            ("4000d", None),
            ("99999999999999999999s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                time(text).ok(),
                expected.map(Duration::from_millis),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_count_may_be_auto() {
        let cases = [
            ("auto", Some(None)),
            (" auto ", Some(None)),
            ("1", Some(Some(1))),
            ("0", None),
            ("-1", None),
            ("Auto", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(count_or_auto(1, text).ok(), expected, "{text:?}");
        }
        assert_eq!(count_or_auto(0, "0"), Ok(Some(0)));
    }

    #[test]
    fn formatted_quantities_parse_to_the_same_value() {
        for bytes in [0, 1, 1000, 1024, 64 << 10, 1 << 20, 3 << 30, 1025] {
            assert_eq!(size(&Size(bytes).to_string()), Ok(bytes));
        }
        for ms in [0, 1, 999, 1000, 1500, 60_000, 90_000, 3_600_000, 86_400_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(time(&Time(duration).to_string()), Ok(duration));
        }
        assert_eq!(
            (
                Size(16 << 20).to_string(),
                Time(Duration::from_secs(90)).to_string()
            ),
            ("16 MiB".into(), "90s".into())
        );
    }
}
