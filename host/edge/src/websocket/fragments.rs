//! Counts the frames of each incoming message: the one limit that the WebSocket library does not
//! have.

/// Tracks frame boundaries (RFC 6455 section 5.2) in the received bytes, and checks nothing else.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    header: [u8; 10],
    header_length: u8,
    /// Number of bytes of mask and payload that are still to come.
    skip: u64,
    /// Number of frames in the current message.
    count: usize,
    /// Number of frames in all. It wraps.
    total: usize,
    /// Number of payload bytes in the current message.
    partial: usize,
    /// True if the current payload is that of a message's last frame.
    is_data: bool,
    is_final: bool,
    /// True if a message had too many frames: no more bytes are admitted.
    exceeded: bool,
}

impl Fragments {
    /// Returns the number of these bytes before the frame that exceeds the limit of its message.
    pub(crate) fn admit(&mut self, all: &[u8], max: usize) -> usize {
        if self.exceeded {
            return 0;
        }
        let mut bytes = all;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() as u64);
                self.skip -= skipped;
                bytes = &bytes[skipped as usize..];
                self.count_payload(skipped as usize);
                continue;
            }
            self.header[self.header_length as usize] = bytes[0];
            self.header_length += 1;
            bytes = &bytes[1..];
            if self.header_length as usize == self.header_size() && self.begin_frame() > max {
                self.exceeded = true;
                return all.len() - bytes.len();
            }
        }
        all.len()
    }

    /// Number of frames whose header has arrived. It wraps.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Returns true if a message had too many frames.
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded
    }

    /// Returns true if a frame, or a message of several, has begun and is not whole.
    pub(crate) fn is_within_message(&self) -> bool {
        self.skip > 0 || self.header_length > 0 || self.count > 0
    }

    /// Returns the number of bytes in the message that has begun and is not whole.
    pub(crate) fn partial(&self) -> usize {
        self.partial
    }

    fn count_payload(&mut self, bytes: usize) {
        if self.is_data {
            self.partial = if self.is_final && self.skip == 0 {
                0
            } else {
                self.partial + bytes
            };
        }
    }

    /// Returns the size without the mask, as far as it is known.
    fn header_size(&self) -> usize {
        match self.header[1] & 0x7f {
            _ if self.header_length < 2 => 2,
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    /// Returns the number of frames of the message, including this one; zero for a control frame.
    fn begin_frame(&mut self) -> usize {
        let length = match (self.header[1] & 0x7f, &self.header) {
            (126, [_, _, a, b, ..]) => u64::from(u16::from_be_bytes([*a, *b])),
            (127, [_, _, long @ ..]) => u64::from_be_bytes(*long),
            (short, _) => u64::from(short),
        };
        let mask = if self.header[1] & 0x80 != 0 { 4 } else { 0 };
        self.skip = length.saturating_add(mask);
        self.header_length = 0;
        self.total = self.total.wrapping_add(1);
        let (is_final, is_control) = (self.header[0] & 0x80 != 0, self.header[0] & 0x08 != 0);
        (self.is_data, self.is_final) = (!is_control, is_final);
        self.count_payload(0);
        if is_control {
            return 0;
        }
        let frames = self.count + 1;
        self.count = if is_final { 0 } else { frames };
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(0x80 | length as u8),
            126..65536 => {
                frame.extend([&[0x80 | 126][..], &(length as u16).to_be_bytes()].concat())
            }
            _ => frame.extend([&[0x80 | 127][..], &(length as u64).to_be_bytes()].concat()),
        }
        frame.extend(vec![0xff; 4 + length]);
        frame
    }

    #[test]
    fn a_message_that_is_not_whole_is_known_at_every_byte() {
        let (start, last, ping, whole) = (0x01, 0x80, 0x89, 0x82);
        let bytes = [
            frame(whole, 3),
            frame(start, 200),
            frame(ping, 0),
            frame(last, 0),
        ]
        .concat();
        let ends = [0, frame(whole, 3).len(), bytes.len()];
        let mut fragments = Fragments::default();
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(
                fragments.is_within_message(),
                !ends.contains(&at),
                "before byte {at}"
            );
            fragments.admit(&[*byte], 9);
        }
        assert!(!fragments.is_within_message());
    }

    #[test]
    fn fragments_are_counted_over_control_frames_and_any_split_of_the_bytes() {
        let (start, more, last, ping, whole) = (0x01, 0x00, 0x80, 0x89, 0x82);
        let cases: [(&[(u8, usize)], bool); 6] = [
            (
                &[(whole, 5), (whole, 300), (whole, 70_000), (whole, 0)],
                true,
            ),
            (
                &[
                    (start, 1),
                    (more, 200),
                    (last, 1),
                    (start, 1),
                    (more, 0),
                    (last, 0),
                ],
                true,
            ),
            (
                &[(start, 1), (ping, 125), (more, 1), (ping, 0), (last, 1)],
                true,
            ),
            (&[(start, 1), (more, 1), (more, 1), (last, 1)], false),
            (&[(start, 1), (more, 1), (more, 1)], true),
            (
                &[(start, 70_000), (more, 0), (ping, 3), (more, 0), (more, 0)],
                false,
            ),
        ];
        for (frames, admitted) in cases {
            let bytes: Vec<u8> = frames
                .iter()
                .flat_map(|(first, length)| frame(*first, *length))
                .collect();
            for size in [1, 3, 7, bytes.len()] {
                let mut fragments = Fragments::default();
                bytes
                    .chunks(size)
                    .for_each(|chunk| _ = fragments.admit(chunk, 3));
                assert_eq!(
                    !fragments.exceeded(),
                    admitted,
                    "{frames:?} in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn the_bytes_of_a_message_count_until_it_is_whole() {
        let (start, last, ping, whole) = (0x02, 0x80, 0x89, 0x82);
        // A mask counts as payload: four bytes a frame.
        let steps: [(&[u8], usize); 7] = [
            (&frame(whole, 70_000)[..40_000], 39_990),
            (&frame(whole, 70_000)[40_000..], 0),
            (&frame(start, 1000), 1004),
            (&frame(ping, 100), 1004),
            (&frame(last, 500)[..104], 1104),
            (&frame(last, 500)[104..], 0),
            (&frame(whole, 0), 0),
        ];
        let mut fragments = Fragments::default();
        for (number, (bytes, partial)) in steps.into_iter().enumerate() {
            fragments.admit(bytes, 9);
            assert_eq!(fragments.partial(), partial, "step {number}");
        }
    }
}
