//! Payloads that differ: each text names its sender and its number, so that a mix-up cannot go
//! unnoticed.

const STAMP_DIGITS: usize = 16;

/// Makes the messages of one sender.
#[derive(Debug)]
pub struct Stamp {
    text: Vec<u8>,
    next: u64,
}

impl Stamp {
    /// Messages of `message_bytes` (at least 16), all of them different from those of other
    /// senders.
    pub fn new(sender: usize, message_bytes: usize) -> Self {
        assert!(
            message_bytes >= STAMP_DIGITS,
            "a message has at least {STAMP_DIGITS} bytes"
        );
        let text = (0..message_bytes)
            .map(|index| b'a' + (index % 26) as u8)
            .collect();
        Self {
            text,
            next: (sender as u64) << 40,
        }
    }

    /// The next message.
    pub fn advance(&mut self) -> &[u8] {
        for (digit, byte) in self.text[..STAMP_DIGITS].iter_mut().enumerate() {
            *byte = b"0123456789abcdef"[(self.next >> (4 * digit)) as usize & 0xF];
        }
        self.next += 1;
        &self.text
    }

    /// A mask for the next frame: never the same twice in a row, and not zero.
    pub fn mask(&self) -> [u8; 4] {
        ((self.next as u32).wrapping_mul(0x9E37_79B1) | 1).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_messages_are_the_same() {
        let mut seen = HashSet::new();
        for sender in 0..10 {
            let mut stamp = Stamp::new(sender, 64);
            for _ in 0..100 {
                let text = stamp.advance().to_vec();
                assert_eq!(text.len(), 64);
                assert!(text.is_ascii());
                assert!(seen.insert(text));
            }
        }
    }
}
