//! Files: validators, ranges, compressed forms, types, caches, links, and the fallback page of a
//! single-page app.

use crate::support::{Tidegate, client::Raw, component};
use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

/// A server with a directory of files, and the directory.
struct Site {
    server: Tidegate,
    files: TempDir,
}

/// Names and values of header fields.
type Fields<'a> = &'a [(&'a str, &'a str)];

const TEN: &str = "0123456789";

/// 2025-01-01, 00:00:00 UTC.
const NEW_YEAR: u64 = 1_735_689_600;
const BEFORE: &str = "Tue, 31 Dec 2024 23:59:59 GMT";
const THEN: &str = "Wed, 01 Jan 2025 00:00:00 GMT";
const AFTER: &str = "Wed, 01 Jan 2025 00:00:01 GMT";

fn write(root: &Path, name: &str, content: impl AsRef<[u8]>) {
    write_of(root, name, content, NEW_YEAR);
}

/// Writes a file whose modification time is this second.
fn write_of(root: &Path, name: &str, content: impl AsRef<[u8]>, modified: u64) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(modified);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
}

impl Site {
    fn new(settings: &str) -> Site {
        let files = tempfile::tempdir().unwrap();
        let root = files.path();
        write(root, "index.html", "<p>index");
        write(root, "ten.txt", TEN);
        write(root, "empty.txt", "");
        write(root, "large.bin", large());
        write(root, "app.js", "the plain form");
        for (suffix, content) in [
            ("br", "the br form"),
            ("zst", "the zst form"),
            ("gz", "the gz form"),
        ] {
            write(root, &format!("app.js.{suffix}"), content);
        }
        write(root, "only.css", "the plain style");
        write(root, "only.css.gz", "the gz style");
        write(root, "assets/main.3f2a1b4c.js", "hashed");
        write(root, "downloads/a.zip", "zip");
        write(root, "guarded/secret.txt", "guarded");
        write(root, "guarded/main.3f2a1b4c.js", "hashed and guarded");
        write(root, "calm", "a file at a route");
        write(root, "web/upload", "a file at a route of another method");
        write(root, "a b+c%.txt", "odd");
        write(root, ".env", "secret");
        write(root, ".well-known/acme", "known");
        write(root, "docs/index.html", "docs");
        write_of(root, "nix.txt", "of a store", 1);
        write_of(root, "later.txt", "of tomorrow", 1 << 35);
        symlink("ten.txt", root.join("inside.txt")).unwrap();
        symlink(root.join("ten.txt"), root.join("absolute.txt")).unwrap();
        symlink("/etc/hostname", root.join("outside.txt")).unwrap();
        symlink("/etc", root.join("etc")).unwrap();
        let config = root.join(".tidegate.toml");
        fs::write(&config, settings).unwrap();
        let server = Tidegate::serve(
            &component("rogue"),
            &[
                "--assets",
                root.to_str().unwrap(),
                "--config",
                config.to_str().unwrap(),
            ],
        );
        Site { server, files }
    }

    async fn ask(&self, method: &str, path: &str, headers: Fields<'_>) -> Answer {
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: 0\r\n\r\n"
        );
        let bytes = Raw::send(self.server.address(), &request)
            .await
            .rest_bytes()
            .await;
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a whole head")
            + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let fields = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        let headers = fields
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Answer {
            status: head[9..12].parse().unwrap(),
            headers,
            body: bytes[end..].to_vec(),
        }
    }

    async fn get(&self, path: &str, headers: Fields<'_>) -> Answer {
        self.ask("GET", path, headers).await
    }
}

fn large() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    }
}

#[tokio::test]
async fn conditional_requests_are_honoured() {
    let site = Site::new("");
    let whole = site.get("/ten.txt", &[]).await;
    assert_eq!(
        (whole.status, whole.text(), whole.header("last-modified")),
        (200, TEN, THEN)
    );
    let etag = whole.header("etag").to_owned();
    assert!(
        etag.starts_with('"') && etag.ends_with('"') && etag.len() > 20,
        "the tag is strong: {etag}"
    );
    let list = format!("\"x\", {etag}");
    let weak = format!("W/{etag}");
    let rows: &[(&str, Fields<'_>, u16)] = &[
        ("its own tag", &[("if-none-match", &etag)], 304),
        ("its own tag, as weak", &[("if-none-match", &weak)], 304),
        ("a list with its tag", &[("if-none-match", &list)], 304),
        ("any tag", &[("if-none-match", "*")], 304),
        ("another tag", &[("if-none-match", "\"x\"")], 200),
        (
            "another tag, and a later date",
            &[("if-none-match", "\"x\""), ("if-modified-since", AFTER)],
            200,
        ),
        (
            "its own tag, and an earlier date",
            &[("if-none-match", &etag), ("if-modified-since", BEFORE)],
            304,
        ),
        ("its own date", &[("if-modified-since", THEN)], 304),
        ("a later date", &[("if-modified-since", AFTER)], 304),
        ("an earlier date", &[("if-modified-since", BEFORE)], 200),
        ("no date", &[("if-modified-since", "recently")], 200),
        ("only its own tag", &[("if-match", &etag)], 200),
        ("only any tag", &[("if-match", "*")], 200),
        ("only a weak tag", &[("if-match", &weak)], 412),
        ("only another tag", &[("if-match", "\"x\"")], 412),
        (
            "only unchanged since then",
            &[("if-unmodified-since", THEN)],
            200,
        ),
        (
            "only unchanged since before",
            &[("if-unmodified-since", BEFORE)],
            412,
        ),
        (
            "its own tag, unchanged since before",
            &[("if-match", &etag), ("if-unmodified-since", BEFORE)],
            200,
        ),
        (
            "another tag, and known",
            &[("if-match", "\"x\""), ("if-none-match", &etag)],
            412,
        ),
    ];
    for method in ["GET", "HEAD"] {
        for (name, headers, status) in rows {
            let answer = site.ask(method, "/ten.txt", headers).await;
            assert_eq!(answer.status, *status, "{method} {name}: {answer:?}");
            assert_eq!(
                (answer.header("etag"), answer.header("cache-control")),
                (etag.as_str(), "no-cache"),
                "{method} {name}"
            );
            let content = if *status == 200 && method == "GET" {
                TEN
            } else {
                ""
            };
            assert!(
                *status == 412 || answer.text() == content,
                "{method} {name}: {answer:?}"
            );
        }
    }
    // The fixed date of a package store, or a future date, is not used.
    for path in ["/nix.txt", "/later.txt"] {
        let answer = site.get(path, &[("if-modified-since", AFTER)]).await;
        assert_eq!(
            (answer.status, answer.header("last-modified")),
            (200, ""),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_entity_tag_depends_on_content_and_not_on_dates() {
    let site = Site::new("");
    let root = site.files.path();
    let mut tags = Vec::new();
    for content in ["first", "other", "third", "first"] {
        // Length and date are the same each time, as after a rollback or in a package store.
        write(root, "app2.js", content);
        let answer = site.get("/app2.js", &[]).await;
        assert_eq!(answer.text(), content);
        let tag = answer.header("etag").to_owned();
        let again = site
            .get(
                "/app2.js",
                &[("if-none-match", &tag), ("if-modified-since", AFTER)],
            )
            .await;
        assert_eq!(again.status, 304, "{content}");
        if let Some(before) = tags.last() {
            let stale: &String = before;
            assert_eq!(
                site.get(
                    "/app2.js",
                    &[("if-none-match", stale), ("if-modified-since", AFTER)]
                )
                .await
                .status,
                200,
                "{content}"
            );
        }
        tags.push(tag);
    }
    assert!(
        tags[0] == tags[3] && tags[0] != tags[1] && tags[1] != tags[2],
        "{tags:?}"
    );
    // A copy of the file has the same tag: the tag does not depend on the inode.
    write(root, "copy.js", "first");
    assert_eq!(site.get("/copy.js", &[]).await.header("etag"), tags[0]);
}

#[tokio::test]
async fn ranges_are_merged_and_bounded() {
    let site = Site::new("");
    let etag = site.get("/ten.txt", &[]).await.header("etag").to_owned();
    let weak = format!("W/{etag}");
    let rows: &[(&str, Fields<'_>, u16, &str, &str)] = &[
        ("bytes=2-3", &[], 206, "bytes 2-3/10", "23"),
        ("bytes=-3", &[], 206, "bytes 7-9/10", "789"),
        ("bytes=5-", &[], 206, "bytes 5-9/10", "56789"),
        ("bytes=0-0", &[], 206, "bytes 0-0/10", "0"),
        (
            "bytes=0-99999999999999999999",
            &[],
            206,
            "bytes 0-9/10",
            TEN,
        ),
        (
            "bytes=0-,0-,0-,0-,0-,0-,0-,0-,0-,0-",
            &[],
            206,
            "bytes 0-9/10",
            TEN,
        ),
        ("bytes=0-1,1-2,3-4", &[], 206, "bytes 0-4/10", "01234"),
        ("bytes=8-,20-30", &[], 206, "bytes 8-9/10", "89"),
        (
            "bytes=10-",
            &[],
            416,
            "bytes */10",
            "the file has 10 bytes\n",
        ),
        (
            "bytes=20-30",
            &[],
            416,
            "bytes */10",
            "the file has 10 bytes\n",
        ),
        (
            "bytes=-0",
            &[],
            416,
            "bytes */10",
            "the file has 10 bytes\n",
        ),
        ("bytes=3-2", &[], 200, "", TEN),
        ("bytes=abc", &[], 200, "", TEN),
        ("items=0-1", &[], 200, "", TEN),
        (
            "bytes=2-3",
            &[("if-range", &etag)],
            206,
            "bytes 2-3/10",
            "23",
        ),
        (
            "bytes=2-3",
            &[("if-range", THEN)],
            206,
            "bytes 2-3/10",
            "23",
        ),
        ("bytes=2-3", &[("if-range", &weak)], 200, "", TEN),
        ("bytes=2-3", &[("if-range", "\"x\"")], 200, "", TEN),
        ("bytes=2-3", &[("if-range", AFTER)], 200, "", TEN),
        ("bytes=20-", &[("if-range", "\"x\"")], 200, "", TEN),
        ("bytes=2-3", &[("if-none-match", &etag)], 304, "", ""),
        ("bytes=2-3", &[("if-modified-since", THEN)], 304, "", ""),
        (
            "bytes=2-3",
            &[("if-match", "\"x\"")],
            412,
            "",
            "the file is not as the request wants it\n",
        ),
    ];
    for (range, headers, status, content_range, body) in rows {
        let headers = [&[("range", *range)][..], headers].concat();
        let answer = site.get("/ten.txt", &headers).await;
        assert_eq!(
            (answer.status, answer.header("content-range"), answer.text()),
            (*status, *content_range, *body),
            "{headers:?}"
        );
        assert_eq!(
            (answer.header("etag"), answer.header("accept-ranges")),
            (etag.as_str(), "bytes"),
            "{headers:?}"
        );
        if *status == 206 {
            assert_eq!(answer.header("last-modified"), THEN, "{headers:?}");
            assert_eq!(
                answer.header("content-type"),
                "text/plain; charset=utf-8",
                "{headers:?}"
            );
        }
    }
    // Ranges are for GET (RFC 9110 section 14.2).
    let head = site
        .ask("HEAD", "/ten.txt", &[("range", "bytes=2-3")])
        .await;
    assert_eq!(
        (head.status, head.header("content-length"), head.text()),
        (200, "10", "")
    );
    for (range, status) in [("bytes=0-", 416), ("bytes=-5", 200)] {
        assert_eq!(
            site.get("/empty.txt", &[("range", range)]).await.status,
            status,
            "{range} of nothing"
        );
    }
    let large = large();
    let answer = site
        .get("/large.bin", &[("range", "bytes=100000-299999")])
        .await;
    assert!(
        answer.status == 206 && answer.body == large[100_000..300_000],
        "{}",
        answer.body.len()
    );
    let answer = site.get("/large.bin", &[]).await;
    assert!(
        answer.status == 200 && answer.body == large,
        "{}",
        answer.body.len()
    );
}

#[tokio::test]
async fn several_ranges_are_sent_as_multipart() {
    let site = Site::new("");
    let parts = |count: u32| {
        (0..count)
            .map(|at| format!("{0}-{0}", at * 1000))
            .collect::<Vec<_>>()
            .join(",")
    };
    let large = large();
    for (path, length, range, expected) in [
        ("/ten.txt", 10, "bytes=0-1,4-5".to_owned(), vec![0..2, 4..6]),
        (
            "/ten.txt",
            10,
            "bytes=-1, 0-0".to_owned(),
            vec![9..10, 0..1],
        ),
        (
            "/large.bin",
            400_000,
            "bytes=0-49999,200000-299999".to_owned(),
            vec![0..50_000, 200_000..300_000],
        ),
        (
            "/large.bin",
            400_000,
            format!("bytes={}", parts(8)),
            (0..8).map(|at| at * 1000..at * 1000 + 1).collect(),
        ),
    ] {
        let answer = site.get(path, &[("range", &range)]).await;
        let boundary = answer
            .header("content-type")
            .strip_prefix("multipart/byteranges; boundary=")
            .expect("several parts")
            .to_owned();
        assert_eq!(
            (answer.status, answer.header("content-range")),
            (206, ""),
            "{range}"
        );
        assert_eq!(
            answer.header("content-length"),
            answer.body.len().to_string(),
            "{range}"
        );
        let (content, kind) = match path {
            "/ten.txt" => (TEN.as_bytes(), "text/plain; charset=utf-8"),
            _ => (&large[..], "application/octet-stream"),
        };
        let mut body = Vec::new();
        for part in &expected {
            let before = if body.is_empty() { "" } else { "\r\n" };
            let range = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            body.extend(
                format!(
                    "{before}--{boundary}\r\ncontent-type: {kind}\r\ncontent-range: {range}\r\n\r\n"
                )
                .bytes(),
            );
            body.extend(&content[part.clone()]);
        }
        body.extend(format!("\r\n--{boundary}--\r\n").bytes());
        assert!(
            answer.body == body,
            "{range}: {}",
            String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)])
        );
    }
    let many = site
        .get("/large.bin", &[("range", &format!("bytes={}", parts(9)))])
        .await;
    assert_eq!(
        (many.status, many.body.len()),
        (200, 400_000),
        "more than eight ranges are ignored"
    );
}

#[tokio::test]
async fn a_precompressed_file_is_sent_to_clients_that_accept_it() {
    let site = Site::new("");
    let mut tags = Vec::new();
    let rows: &[(&str, Option<&str>, &str, &str)] = &[
        ("/app.js", None, "", "the plain form"),
        ("/app.js", Some("identity"), "", "the plain form"),
        ("/app.js", Some("deflate"), "", "the plain form"),
        (
            "/app.js",
            Some("gzip, deflate, br, zstd"),
            "br",
            "the br form",
        ),
        (
            "/app.js",
            Some("gzip;q=0.5, zstd;q=0.8"),
            "zstd",
            "the zst form",
        ),
        ("/app.js", Some("gzip"), "gzip", "the gz form"),
        ("/app.js", Some("br;q=0, *"), "zstd", "the zst form"),
        ("/app.js", Some("br;q=0, gzip;q=0"), "", "the plain form"),
        (
            "/app.js",
            Some("identity;q=1, gzip;q=0.5"),
            "",
            "the plain form",
        ),
        ("/only.css", Some("br, gzip"), "gzip", "the gz style"),
        ("/only.css", Some("br"), "", "the plain style"),
        ("/only.css.gz", Some("gzip"), "", "the gz style"),
    ];
    for (path, accept, coding, body) in rows {
        let headers: Vec<(&str, &str)> = accept
            .iter()
            .map(|accept| ("accept-encoding", *accept))
            .collect();
        let answer = site.get(path, &headers).await;
        assert_eq!(
            (
                answer.status,
                answer.header("content-encoding"),
                answer.text()
            ),
            (200, *coding, *body),
            "{path} {accept:?}"
        );
        assert_eq!(
            answer.header("content-length"),
            body.len().to_string(),
            "{path} {accept:?}"
        );
        let kind = match *path {
            "/app.js" => "text/javascript; charset=utf-8",
            "/only.css" => "text/css; charset=utf-8",
            _ => "application/gzip",
        };
        assert_eq!(answer.header("content-type"), kind, "{path} {accept:?}");
        assert_eq!(
            answer.header("vary"),
            if path.ends_with(".gz") {
                ""
            } else {
                "accept-encoding"
            },
            "{path} {accept:?}"
        );
        tags.push((*body, answer.header("etag").to_owned()));
        let known = [&headers[..], &[("if-none-match", answer.header("etag"))]].concat();
        let known = site.get(path, &known).await;
        assert_eq!(
            (known.status, known.header("vary")),
            (304, answer.header("vary")),
            "{path} {accept:?}"
        );
    }
    for (one, tag) in &tags {
        for (other, other_tag) in &tags {
            assert_eq!(one == other, tag == other_tag, "{one} {other}");
        }
    }
    let part = site
        .get(
            "/app.js",
            &[("accept-encoding", "br"), ("range", "bytes=4-5")],
        )
        .await;
    assert_eq!(
        (part.status, part.text(), part.header("content-encoding")),
        (206, "br", "br"),
        "a range refers to the compressed form"
    );
    let plain = site.get("/ten.txt", &[("accept-encoding", "br")]).await;
    assert_eq!(plain.header("vary"), "", "it has no other form");
}

#[tokio::test]
async fn a_compressed_form_that_is_older_than_the_file_is_not_served() {
    let site = Site::new("");
    let root = site.files.path();
    let accept = ("accept-encoding", "br, gzip");
    let get = async || {
        let answer = site.get("/late.js", &[accept]).await;
        let [coding, vary] = ["content-encoding", "vary"].map(|name| answer.header(name));
        (answer.text().to_owned(), coding.to_owned(), vary.to_owned())
    };
    let expected = |text: &str, coding: &str, vary: &str| {
        (text.to_owned(), coding.to_owned(), vary.to_owned())
    };
    write_of(root, "late.js", "plain", NEW_YEAR);
    write_of(root, "late.js.br", "br", NEW_YEAR);
    write_of(root, "late.js.gz", "gz", NEW_YEAR + 1);
    assert_eq!(get().await, expected("br", "br", "accept-encoding"));
    // The file is edited, and only one of the forms is written again.
    write_of(root, "late.js", "plain 2", NEW_YEAR + 1);
    assert_eq!(get().await, expected("gz", "gzip", "accept-encoding"));
    write_of(root, "late.js", "plain 3", NEW_YEAR + 2);
    assert_eq!(get().await, expected("plain 3", "", ""));
    write_of(root, "late.js.br", "br 3", NEW_YEAR + 3);
    assert_eq!(get().await, expected("br 3", "br", "accept-encoding"));
}

#[tokio::test]
async fn head_has_the_headers_of_get() {
    let site = Site::new("");
    for (path, headers) in [
        ("/ten.txt", None),
        ("/empty.txt", None),
        ("/large.bin", None),
        ("/app.js", Some(("accept-encoding", "br"))),
    ] {
        let headers: Vec<_> = headers.into_iter().collect();
        let (get, head) = (
            site.get(path, &headers).await,
            site.ask("HEAD", path, &headers).await,
        );
        let values = |answer: &Answer| {
            let names = [
                "content-type",
                "content-length",
                "content-encoding",
                "etag",
                "last-modified",
                "cache-control",
                "vary",
                "accept-ranges",
            ];
            names.map(|name| answer.header(name).to_owned())
        };
        assert_eq!(
            (head.status, values(&head), head.body.len()),
            (200, values(&get), 0),
            "{path}"
        );
        assert_eq!(
            get.header("content-length"),
            get.body.len().to_string(),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_extension_decides_the_media_type_and_text_is_utf_8() {
    let site = Site::new("");
    let stream = [&[0x47][..], &[0; 187], &[0x47], &[0; 187]].concat();
    let rows: &[(&str, &[u8], &str)] = &[
        ("a.html", b"", "text/html; charset=utf-8"),
        ("A.HTML", b"x", "text/html; charset=utf-8"),
        ("a.css", b"x", "text/css; charset=utf-8"),
        ("a.mjs", b"x", "text/javascript; charset=utf-8"),
        ("a.md", b"x", "text/markdown; charset=utf-8"),
        ("a.json", b"x", "application/json"),
        ("a.webmanifest", b"x", "application/manifest+json"),
        ("a.wasm", b"x", "application/wasm"),
        ("a.svg", b"x", "image/svg+xml"),
        ("a.woff2", b"x", "font/woff2"),
        (
            "a.ts",
            b"export const one: number = 1;",
            "text/plain; charset=utf-8",
        ),
        ("b.ts", b"G starts a text too", "text/plain; charset=utf-8"),
        ("c.ts", &stream, "video/mp2t"),
        ("nothing", b"x", "application/octet-stream"),
    ];
    for (name, content, kind) in rows {
        write(site.files.path(), name, content);
        assert_eq!(
            site.get(&format!("/{name}"), &[])
                .await
                .header("content-type"),
            *kind,
            "{name}"
        );
    }
}

#[tokio::test]
async fn only_files_in_the_directory_are_served_and_only_by_their_exact_path() {
    let site = Site::new("");
    let rows = [
        ("/ten.txt", 200),
        ("/ten.txt?v=3", 200),
        ("/%74en.txt", 200),
        ("/x/../ten.txt", 200),
        ("/a%20b+c%25.txt", 200),
        ("/.well-known/acme", 200),
        ("/inside.txt", 200),
        ("/absolute.txt", 200),
        ("/outside.txt", 404),
        ("/etc/hostname", 404),
        ("/etc/ssl/openssl.cnf", 404),
        ("/.env", 404),
        ("/%2eenv", 404),
        ("/.tidegate.toml", 404),
        ("/TEN.TXT", 404),
        ("/ten.txt/", 404),
        ("/ten.txt%00.png", 400),
        ("/docs%2Findex.html", 400),
    ];
    for (path, status) in rows {
        assert_eq!(
            site.get(path, &[("accept", "text/plain")]).await.status,
            status,
            "{path}"
        );
    }
    let open = Site::new("[server]\nassets_links = true");
    for path in ["/outside.txt", "/etc/hostname", "/inside.txt"] {
        assert_eq!(
            open.get(path, &[("accept", "text/plain")]).await.status,
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_file_refuses_other_methods_unless_a_route_handles_them() {
    let site = Site::new("");
    let rows = [
        ("POST", "/ten.txt", 405, "GET, HEAD"),
        ("PUT", "/ten.txt", 405, "GET, HEAD"),
        ("DELETE", "/app.js", 405, "GET, HEAD"),
        ("PATCH", "/ten.txt", 405, "GET, HEAD"),
        ("OPTIONS", "/ten.txt", 405, "GET, HEAD"),
        ("POST", "/inside.txt", 405, "GET, HEAD"),
        ("POST", "/outside.txt", 404, ""),
        ("POST", "/nothing.txt", 404, ""),
        ("POST", "/.env", 404, ""),
        // A file precedes a route, and a route precedes the refusal.
        ("GET", "/calm", 200, ""),
        ("POST", "/web/upload", 200, ""),
        ("PUT", "/web/upload", 405, "POST, GET, HEAD"),
        ("GET", "/web/upload", 200, ""),
    ];
    for (method, path, status, allow) in rows {
        let answer = site.ask(method, path, &[]).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (status, allow),
            "{method} {path}"
        );
    }
    assert_eq!(site.get("/calm", &[]).await.text(), "a file at a route");
}

#[tokio::test]
async fn cache_control_follows_the_rules_and_the_file_names() {
    let rules = r#"[server]
        assets_cache = ["/downloads/* public, max-age=3600", "*.html no-store"]"#;
    let immutable = "max-age=31536000, immutable";
    let private = "private, max-age=31536000, immutable";
    let rows: &[(&str, Fields<'_>)] = &[
        (
            "",
            &[
                ("/ten.txt", "no-cache"),
                ("/index.html", "no-cache"),
                ("/downloads/a.zip", "no-cache"),
                ("/assets/main.3f2a1b4c.js", immutable),
                ("/guarded/secret.txt", "private, no-cache"),
                ("/guarded/main.3f2a1b4c.js", private),
                ("/some/page", "no-cache"),
            ],
        ),
        (
            rules,
            &[
                ("/ten.txt", "no-cache"),
                ("/index.html", "no-store"),
                ("/docs/index.html", "no-store"),
                ("/some/page", "no-store"),
                ("/downloads/a.zip", "public, max-age=3600"),
                ("/assets/main.3f2a1b4c.js", immutable),
            ],
        ),
    ];
    for (settings, paths) in rows {
        let site = Site::new(settings);
        for (path, expected) in *paths {
            let answer = site.get(path, &[]).await;
            assert_eq!(
                (answer.status, answer.header("cache-control")),
                (200, *expected),
                "{path} {settings:?}"
            );
            let known = site.get(path, &[("if-none-match", "*")]).await;
            assert_eq!(
                (known.status, known.header("cache-control")),
                (304, *expected),
                "{path} {settings:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_page_of_a_single_page_app_is_sent_only_to_navigations() {
    let site = Site::new("");
    let browser =
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
    let rows: &[(&str, &str, Option<&str>, u16)] = &[
        ("GET", "/", Some(browser), 200),
        ("GET", "/some/page", Some(browser), 200),
        ("HEAD", "/some/page", Some(browser), 200),
        ("GET", "/users/john.doe", Some(browser), 200),
        ("GET", "/users/v1.2/", Some("text/html"), 200),
        ("GET", "/docs", Some(browser), 200),
        ("GET", "/some/page", Some("*/*"), 200),
        ("GET", "/some/page", None, 200),
        ("GET", "/api/typo", Some("application/json"), 404),
        (
            "GET",
            "/api/typo",
            Some("application/json, text/plain;q=0.5"),
            404,
        ),
        (
            "GET",
            "/api/typo",
            Some("text/html;q=0, application/json"),
            404,
        ),
        ("GET", "/missing.js", Some("*/*"), 404),
        ("GET", "/missing.js", None, 404),
        (
            "GET",
            "/missing.png",
            Some("image/avif,image/webp,image/*,*/*;q=0.8"),
            404,
        ),
        ("GET", "/missing.css", Some("text/css,*/*;q=0.1"), 404),
        ("GET", "/events", Some("text/event-stream"), 404),
        ("POST", "/some/page", Some(browser), 404),
        ("GET", "/__reserved", Some(browser), 404),
    ];
    for (method, path, accept, status) in rows {
        let headers: Vec<(&str, &str)> = accept.iter().map(|accept| ("accept", *accept)).collect();
        let answer = site.ask(method, path, &headers).await;
        assert_eq!(answer.status, *status, "{method} {path} {accept:?}");
        if *status == 200 {
            assert_eq!(
                (answer.header("content-type"), answer.header("vary")),
                ("text/html; charset=utf-8", "accept"),
                "{path} {accept:?}"
            );
        }
    }
}
