//! Sends a multipart form in pieces. The server must answer every input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{pieces, stage, status};

fuzz_target!(|data: &[u8]| {
    let Some((lengths, body)) = data.split_at_checked(4) else {
        return;
    };
    let kind = if lengths[3] & 1 == 0 {
        "multipart/form-data; boundary=b"
    } else {
        "application/x-www-form-urlencoded"
    };
    let accept = if lengths[3] & 2 == 0 {
        "application/json"
    } else {
        "text/html"
    };
    let length = body.len();
    let head = format!(
        "POST /page HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\naccept: {accept}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let mut sent = vec![head.into_bytes()];
    sent.extend(pieces(&lengths[..3], body));
    let (answer, _) = stage().exchange(&sent.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let status = status(&answer).expect("a form has an answer");
    assert!(
        matches!(status, 200 | 303 | 400 | 404 | 408 | 413 | 415),
        "{status}"
    );
});
