//! RFC 6455 frames as a client needs them: masked ones out, unmasked ones in. Nothing here knows
//! sockets.
//!
//! ```
//! use tidegate_bench::frame::{Opcode, encode, parse};
//!
//! let mut wire = Vec::new();
//! encode(Opcode::Text, b"hi", [0; 4], &mut wire);
//! assert_eq!(wire, [0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
//!
//! let frame = parse(&[0x81, 2, b'h', b'i']).unwrap().unwrap();
//! assert_eq!((frame.payload, frame.wire_bytes), (&b"hi"[..], 4));
//! ```

use anyhow::{Result, bail, ensure};

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// Type of a frame. Fragments are absent: no server under test has a reason to send them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A whole text message.
    Text = 0x1,
    /// A whole binary message.
    Binary = 0x2,
    /// The end of the connection.
    Close = 0x8,
    /// A question whether we are alive.
    Ping = 0x9,
    /// The answer to a ping.
    Pong = 0xA,
}

/// One frame from a server, borrowed from the bytes it was parsed from.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type of the frame.
    pub opcode: Opcode,
    /// The application's bytes.
    pub payload: &'a [u8],
    /// How many bytes the frame takes on the wire, header included.
    pub wire_bytes: usize,
}

/// Appends one final, masked frame to `wire`.
pub fn encode(opcode: Opcode, payload: &[u8], mask: [u8; 4], wire: &mut Vec<u8>) {
    wire.push(FINAL | opcode as u8);
    encode_length(payload.len(), wire);
    wire.extend_from_slice(&mask);
    let start = wire.len();
    wire.extend_from_slice(payload);
    apply_mask(&mut wire[start..], mask);
}

/// The frame at the start of `wire`, or `None` when more bytes are needed. A fragment, a masked
/// frame and a reserved bit are errors: this client negotiated none of them.
pub fn parse(wire: &[u8]) -> Result<Option<Frame<'_>>> {
    let [first, second, rest @ ..] = wire else {
        return Ok(None);
    };
    ensure!(first & FINAL != 0, "the server sent a fragment");
    ensure!(first & RESERVED == 0, "the server set a reserved bit");
    ensure!(second & MASKED == 0, "the server masked a frame");
    let opcode = parse_opcode(first & 0x0F)?;
    let Some((length, header_bytes)) = parse_length(*second, rest) else {
        return Ok(None);
    };
    let wire_bytes = header_bytes + usize::try_from(length)?;
    let payload = wire.get(header_bytes..wire_bytes);
    Ok(payload.map(|payload| Frame {
        opcode,
        payload,
        wire_bytes,
    }))
}

fn parse_opcode(bits: u8) -> Result<Opcode> {
    Ok(match bits {
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xA => Opcode::Pong,
        other => bail!("the server sent opcode {other:#x}"),
    })
}

/// The payload's length and the header's.
fn parse_length(second: u8, rest: &[u8]) -> Option<(u64, usize)> {
    match second {
        126 => Some((u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4)),
        127 => Some((u64::from_be_bytes(*rest.first_chunk()?), 10)),
        short => Some((u64::from(short), 2)),
    }
}

fn encode_length(length: usize, wire: &mut Vec<u8>) {
    match length {
        0..=125 => wire.push(MASKED | length as u8),
        126..=0xFFFF => {
            wire.push(MASKED | 126);
            wire.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            wire.push(MASKED | 127);
            wire.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    for chunk in bytes.chunks_mut(4) {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns a client's frame into the one that a server would send, to read it with our own
    /// parser.
    fn unmasked(mut wire: Vec<u8>, header_bytes: usize) -> Vec<u8> {
        wire[1] &= !MASKED;
        let mask = *wire[header_bytes..]
            .first_chunk()
            .expect("a masked frame has a key");
        wire.drain(header_bytes..header_bytes + 4);
        apply_mask(&mut wire[header_bytes..], mask);
        wire
    }

    #[test]
    fn the_masked_hello_of_the_rfc() {
        let mut wire = Vec::new();
        encode(Opcode::Text, b"Hello", [0x37, 0xfa, 0x21, 0x3d], &mut wire);
        assert_eq!(
            wire,
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
    }

    #[test]
    fn frames_of_every_length_form_round_trip() {
        for (length, header_bytes) in [
            (0, 2),
            (1, 2),
            (125, 2),
            (126, 4),
            (65_535, 4),
            (65_536, 10),
        ] {
            let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let mut wire = Vec::new();
            encode(Opcode::Binary, &payload, [1, 2, 3, 4], &mut wire);
            let wire = unmasked(wire, header_bytes);
            let frame = parse(&wire).unwrap().expect("the frame is whole");
            assert_eq!(frame.opcode, Opcode::Binary);
            assert_eq!(frame.payload, payload);
            assert_eq!(frame.wire_bytes, wire.len());
        }
    }

    #[test]
    fn an_incomplete_frame_needs_more_bytes() {
        let mut wire = vec![0x82, 126, 0, 200];
        wire.extend_from_slice(&[7; 200]);
        for cut in 0..wire.len() {
            assert_eq!(parse(&wire[..cut]).unwrap(), None, "{cut} bytes");
        }
        assert!(parse(&wire).unwrap().is_some());
    }

    #[test]
    fn only_the_first_of_two_frames_is_consumed() {
        let frame = parse(&[0x81, 1, b'a', 0x81, 1, b'b']).unwrap().unwrap();
        assert_eq!((frame.payload, frame.wire_bytes), (&b"a"[..], 3));
    }

    #[test]
    fn an_extension_that_was_not_negotiated_is_an_error() {
        for wire in [[0x01, 0], [0x80, 0], [0xC1, 0], [0x81, 0x80], [0x83, 0]] {
            assert!(parse(&wire).is_err(), "{wire:x?}");
        }
    }
}
