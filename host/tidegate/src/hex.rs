//! Bytes in hex: "00ff2a", with or without spaces and a leading 0x.

/// Parses hex. Returns none if the text is not hex.
pub(crate) fn read(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .trim()
        .trim_start_matches("0x")
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| match *pair {
        [high, low] => Some((digit(high)? * 16 + digit(low)?) as u8),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

/// Formats bytes in hex, with a leading 0x.
pub(crate) fn write(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_and_written() {
        for (text, bytes) in [
            ("0x00 ff2A", vec![0, 255, 42]),
            ("", vec![]),
            ("00 ff", vec![0, 255]),
        ] {
            assert_eq!(read(text), Some(bytes.clone()), "{text:?}");
            assert_eq!(read(&write(&bytes)), Some(bytes));
        }
        for bad in ["0", "xyz!", "+1", "ü"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
