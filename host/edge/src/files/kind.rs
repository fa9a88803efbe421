//! Media types of files, by the suffix of their names.

use http::HeaderValue;
use std::path::Path;

/// Number of bytes of a file's beginning that [`of`] may look at.
pub(crate) const BEGINNING_BYTES: u64 = 189;

/// Returns the content type of a file with this name and this beginning. Text is UTF-8.
pub(crate) fn of(name: &str, beginning: &[u8]) -> HeaderValue {
    let end = Path::new(name)
        .extension()
        .and_then(|end| end.to_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let kind = match end.as_str() {
        // MPEG streams and TypeScript share these suffixes. Browsers do not run TypeScript, so it
        // is sent as plain text.
        "ts" | "mts" if is_mpeg_stream(beginning) => "video/mp2t",
        "ts" | "mts" | "cts" | "tsx" | "jsx" | "vue" | "svelte" => "text/plain",
        "mjs" | "cjs" => "text/javascript",
        "webmanifest" => "application/manifest+json",
        "map" => "application/json",
        "md" => "text/markdown",
        "yaml" | "yml" => "application/yaml",
        "zst" => "application/zstd",
        "br" => "application/octet-stream",
        _ => mime_guess::from_ext(&end)
            .first_raw()
            .unwrap_or("application/octet-stream"),
    };
    if kind.starts_with("text/") {
        HeaderValue::try_from(format!("{kind}; charset=utf-8")).expect("a media type")
    } else {
        HeaderValue::from_static(kind)
    }
}

/// Returns true for packets of 188 bytes that each begin with the same byte (ISO/IEC 13818-1
/// section 2.4.3.2).
fn is_mpeg_stream(beginning: &[u8]) -> bool {
    beginning.first() == Some(&0x47) && beginning.get(188) == Some(&0x47)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_of_the_name_and_texts_are_utf_8() {
        let stream = [[0x47; 1].as_slice(), &[0; 187], &[0x47]].concat();
        let rows: &[(&str, &[u8], &str)] = &[
            ("index.html", b"", "text/html; charset=utf-8"),
            ("UP.HTML", b"", "text/html; charset=utf-8"),
            ("a.css", b"", "text/css; charset=utf-8"),
            ("a.js", b"", "text/javascript; charset=utf-8"),
            ("a.mjs", b"", "text/javascript; charset=utf-8"),
            ("a.txt", b"", "text/plain; charset=utf-8"),
            ("a.md", b"", "text/markdown; charset=utf-8"),
            ("a.csv", b"", "text/csv; charset=utf-8"),
            ("a.json", b"", "application/json"),
            ("a.js.map", b"", "application/json"),
            ("site.webmanifest", b"", "application/manifest+json"),
            ("a.wasm", b"", "application/wasm"),
            ("a.svg", b"", "image/svg+xml"),
            ("a.avif", b"", "image/avif"),
            ("a.webp", b"", "image/webp"),
            ("a.woff2", b"", "font/woff2"),
            ("a.mp4", b"", "video/mp4"),
            ("a.ts", b"export const a = 1", "text/plain; charset=utf-8"),
            ("a.ts", b"", "text/plain; charset=utf-8"),
            ("a.ts", b"Good morning", "text/plain; charset=utf-8"),
            ("a.ts", &stream, "video/mp2t"),
            (
                "a.ts",
                &[&[0x47][..], &[b'x'; 188]].concat(),
                "text/plain; charset=utf-8",
            ),
            ("a.d.mts", b"", "text/plain; charset=utf-8"),
            ("noext", b"", "application/octet-stream"),
            (".profile", b"", "application/octet-stream"),
            ("a.unheard", b"", "application/octet-stream"),
        ];
        for (name, beginning, expected) in rows {
            assert_eq!(of(name, beginning), *expected, "{name}");
        }
    }
}
