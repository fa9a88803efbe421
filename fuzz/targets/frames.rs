//! Sends a client's bytes on an open WebSocket, in pieces. The app must receive the same messages
//! as if all bytes came at once, and the server must send back only whole frames.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{frames, pieces, stage, status};

const HEAD: &[u8] = b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fuzz_target!(|data: &[u8]| {
    let Some((lengths, bytes)) = data.split_at_checked(6) else {
        return;
    };
    let mut sent = vec![HEAD.to_vec()];
    sent.extend(pieces(lengths, bytes));
    let (answer, messages) = stage().exchange(&sent.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let (_, at_once) = stage().exchange(&[&[HEAD, bytes].concat()]);
    assert_eq!(status(&answer), Some(101));
    let end = answer
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .expect("the head ends")
        + 4;
    frames(&answer[end..]);
    assert_eq!(messages, at_once, "pieces make other messages");
});
