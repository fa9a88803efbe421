//! Byte ranges of a request (RFC 9110 section 14.1).

use http::{HeaderMap, header};
use std::ops::Range;

/// Maximum number of ranges in one answer. A request for more gets the whole file.
pub(crate) const RANGES_MAX: usize = 8;

/// The part of a file that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// The request has no range, or one that must be ignored.
    Whole,
    /// One or more ranges, of which no two overlap or touch.
    Parts(Vec<Range<u64>>),
    /// The answer is 416.
    Unsatisfiable,
}

/// Returns the ranges that a request asks for, of a file of `length` bytes.
pub(crate) fn requested_ranges(headers: &HeaderMap, length: u64) -> Ranges {
    let mut values = headers.get_all(header::RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Ranges::Whole;
    };
    let Some(specs) = value.to_str().ok().and_then(parse) else {
        return Ranges::Whole;
    };
    let parts: Vec<Range<u64>> = specs
        .iter()
        .filter_map(|spec| spec.within(length))
        .collect();
    let parts = merged(parts);
    match parts.len() {
        // The last bytes of an empty file are all of it, but no range can express that.
        0 if length == 0
            && specs
                .iter()
                .any(|spec| matches!(spec, RangeSpec::Last(1..))) =>
        {
            Ranges::Whole
        }
        0 => Ranges::Unsatisfiable,
        1..=RANGES_MAX => Ranges::Parts(parts),
        _ => Ranges::Whole,
    }
}

enum RangeSpec {
    /// First and last index, in bytes.
    Between(u64, u64),
    From(u64),
    /// Number of bytes at the end.
    Last(u64),
}

/// Returns `None` for another unit, or if the value does not match the grammar.
fn parse(value: &str) -> Option<Vec<RangeSpec>> {
    let (unit, set) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let specs = set
        .split(',')
        .map(str::trim)
        .filter(|spec| !spec.is_empty())
        .map(RangeSpec::parse)
        .collect::<Option<Vec<_>>>()?;
    (!specs.is_empty()).then_some(specs)
}

impl RangeSpec {
    fn parse(text: &str) -> Option<RangeSpec> {
        let (first, last) = text.split_once('-')?;
        // A number that does not fit into `u64` is larger than any file.
        let number = |text: &str| -> Option<u64> {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse().unwrap_or(u64::MAX))
        };
        match (first, last) {
            ("", last) => number(last).map(RangeSpec::Last),
            (first, "") => number(first).map(RangeSpec::From),
            (first, last) => match (number(first)?, number(last)?) {
                (first, last) if first <= last => Some(RangeSpec::Between(first, last)),
                _ => None,
            },
        }
    }

    /// Returns the range within a file of this length; `None` if it contains no byte of the file.
    fn within(&self, length: u64) -> Option<Range<u64>> {
        let part = match *self {
            RangeSpec::Between(first, last) => first..last.saturating_add(1).min(length),
            RangeSpec::From(first) => first..length,
            RangeSpec::Last(bytes) => length.saturating_sub(bytes)..length,
        };
        (part.start < part.end).then_some(part)
    }
}

/// Returns the ranges in the order of the request if no two overlap or touch, otherwise merged in
/// the order of the file.
fn merged(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = parts.clone();
    sorted.sort_by_key(|part| part.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for part in sorted {
        match merged.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => merged.push(part),
        }
    }
    if merged.len() == parts.len() {
        parts
    } else {
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_grammar_has_them_and_merged() {
        use Ranges::*;
        let one = |part: Range<u64>| Parts(vec![part]);
        let many = |count: u64| {
            (0..count)
                .map(|at| format!("{0}-{0}", at * 2))
                .collect::<Vec<_>>()
                .join(",")
        };
        let rows = [
            ("bytes=2-3", one(2..4)),
            ("bytes=-3", one(7..10)),
            ("bytes=5-", one(5..10)),
            ("bytes=0-0", one(0..1)),
            ("bytes=0-99", one(0..10)),
            ("bytes=-99", one(0..10)),
            ("bytes=0-99999999999999999999", one(0..10)),
            ("Bytes= 1-2", one(1..3)),
            ("bytes=0-1,4-5", Parts(vec![0..2, 4..6])),
            ("bytes=4-5, 0-1", Parts(vec![4..6, 0..2])),
            ("bytes=4-5,0-1,5-6", Parts(vec![0..2, 4..7])),
            ("bytes=0-1,2-3", one(0..4)),
            ("bytes=0-,0-,0-,0-,0-", one(0..10)),
            ("bytes=0-1,20-30", one(0..2)),
            ("bytes=,0-1,", one(0..2)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=20-30", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=3-2", Whole),
            ("bytes=abc", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes=1-x", Whole),
            ("bytes=+1-2", Whole),
            ("bytes", Whole),
            ("items=0-1", Whole),
        ];
        let ranges = |value: &str, length| {
            requested_ranges(
                &HeaderMap::from_iter([(header::RANGE, value.parse().unwrap())]),
                length,
            )
        };
        for (value, expected) in rows {
            assert_eq!(ranges(value, 10), expected, "{value}");
        }
        assert_eq!(
            ranges(&format!("bytes={}", many(8)), 100),
            Parts((0..8).map(|at| at * 2..at * 2 + 1).collect())
        );
        assert_eq!(ranges(&format!("bytes={}", many(9)), 100), Whole);
        assert_eq!(
            (ranges("bytes=0-", 0), ranges("bytes=-5", 0)),
            (Unsatisfiable, Whole)
        );
        assert_eq!(requested_ranges(&HeaderMap::new(), 10), Whole);
    }
}
