//! A guest's outbound HTTP cannot reach internal addresses.
//!
//! Both guests have the same route: `errand` sends over `wasi:http` 0.2, `errand03` over 0.3. The
//! connector's own tests cover lookups by a scripted resolver (`tidegate_wasm::outbound`).

use crate::support::{Tidegate, client::soon, component};
use rcgen::{CertificateParams, KeyPair};
use std::{fs, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

const GUESTS: [&str; 2] = ["errand", "errand03"];
const ANSWER: &str = "HTTP/1.1 203 Fine\r\ncontent-length: 5\r\n\r\nthere";

async fn fetch(server: &Tidegate, scheme: &str, authority: &str) -> (u16, String) {
    let url = server.url(&format!("/fetch?scheme={scheme}&authority={authority}"));
    let answer = soon(authority, reqwest::get(url)).await.unwrap();
    (
        answer.status().as_u16(),
        soon(authority, answer.text()).await.unwrap(),
    )
}

/// Binds another server on this machine, and returns its address.
async fn upstream() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Reads the head of the next request, and answers with these bytes.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the head", stream.read_u8()).await.unwrap());
    }
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    String::from_utf8(head).unwrap().to_lowercase()
}

/// Returns true if no connection waits to be accepted, so that the next one is the caller's own.
async fn is_untouched(listener: &TcpListener) -> bool {
    let address = listener.local_addr().unwrap();
    let own = tokio::net::TcpStream::connect(address).await.unwrap();
    let (_, peer) = soon("the probe", listener.accept()).await.unwrap();
    peer == own.local_addr().unwrap()
}

#[tokio::test]
async fn a_granted_request_is_sent_and_its_connection_reused() {
    for guest in GUESTS {
        let (granted, address) = upstream().await;
        let server = Tidegate::serve(
            &component(guest),
            &["--allow-outbound", &format!("http://{address}")],
        );
        let asking = fetch(&server, "http", &address);
        let serving = async {
            let (mut stream, _) = soon("the first request", granted.accept()).await.unwrap();
            (answer(&mut stream, ANSWER).await, stream)
        };
        let (first, (head, mut stream)) = tokio::join!(asking, serving);
        assert_eq!(first, (200, "203 there".into()), "{guest}");
        assert!(
            head.starts_with("get /errand http/1.1\r\n")
                && head.contains(&format!("host: {address}\r\n")),
            "{head}"
        );
        let (second, _) = tokio::join!(
            fetch(&server, "http", &address),
            answer(&mut stream, ANSWER)
        );
        assert_eq!(second, (200, "203 there".into()), "{guest}");
        assert!(is_untouched(&granted).await, "{guest}: a second connection");
    }
}

#[tokio::test]
async fn a_target_without_a_grant_is_never_connected() {
    let ((granted, address), (other, elsewhere)) = (upstream().await, upstream().await);
    let [port, other_port] =
        [&address, &elsewhere].map(|address| address.split_once(':').unwrap().1.to_owned());
    let grants = [
        format!("http://{address}"),
        format!("http://localhost:{other_port}"),
        format!("127.0.0.1:{other_port}"),
    ];
    let grants: Vec<&str> = grants
        .iter()
        .flat_map(|grant| ["--allow-outbound", grant])
        .collect();
    let not_granted = "grant it with --allow-outbound ";
    let cases = [
        ("http", elsewhere.clone(), not_granted),
        ("https", address.clone(), not_granted),
        ("http", format!("127.0.0.2:{port}"), not_granted),
        ("http", format!("127.1:{port}"), not_granted),
        ("http", format!("2130706433:{port}"), not_granted),
        ("http", format!("0x7f000001:{port}"), not_granted),
        ("http", format!("0177.0.0.1:{port}"), not_granted),
        ("http", format!("127.0.0.1.:{port}"), not_granted),
        ("http", format!("[::1]:{port}"), not_granted),
        ("http", format!("[::127.0.0.1]:{port}"), not_granted),
        ("http", format!("[64:ff9b::7f00:1]:{port}"), not_granted),
        ("http", format!("localhost.:{other_port}"), not_granted),
        ("http", "localhost".into(), not_granted),
        ("http", "127.0.0.1".into(), not_granted),
        ("http", "169.254.169.254".into(), not_granted),
        ("http", format!("user@{address}"), ""),
        ("http", format!("{address}@{elsewhere}"), ""),
        // A grant of a port does not permit internal addresses.
        ("http", format!("localhost:{other_port}"), "it leads to "),
        ("http", format!("LOCALHOST:{other_port}"), "it leads to "),
    ];
    for guest in GUESTS {
        let server = Tidegate::serve(&component(guest), &grants);
        for (scheme, authority, reason) in &cases {
            let (status, text) = fetch(&server, scheme, authority).await;
            assert_eq!(status, 502, "{guest} {scheme} {authority}: {text}");
            server.wait_for(reason);
        }
        assert!(
            is_untouched(&granted).await && is_untouched(&other).await,
            "{guest}"
        );
    }
}

#[tokio::test]
async fn a_name_resolves_to_private_addresses_only_with_a_private_grant() {
    let (inside, address) = upstream().await;
    let name = format!("localhost:{}", address.split_once(':').unwrap().1);
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("tidegate.toml");
    fs::write(
        &settings,
        format!("[grants]\noutbound = [{{ host = \"http://{name}\", private = true }}]\n"),
    )
    .unwrap();
    for guest in GUESTS {
        let server = Tidegate::serve(&component(guest), &["--config", settings.to_str().unwrap()]);
        let serving = async {
            let (mut stream, _) = soon("the request", inside.accept()).await.unwrap();
            answer(&mut stream, ANSWER).await
        };
        let (outcome, head) = tokio::join!(fetch(&server, "http", &name), serving);
        assert_eq!(outcome, (200, "203 there".into()), "{guest}");
        assert!(head.contains(&format!("host: {name}\r\n")), "{head}");
    }
}

#[tokio::test]
async fn no_outbound_request_reaches_this_server() {
    for (guest, listen, spelling) in [
        ("errand", "127.0.0.1", "127.0.0.1"),
        ("errand03", "127.0.0.1", "localhost"),
        ("errand", "0.0.0.0", "127.0.0.3"),
    ] {
        // The grant has to name the port before a server listens on it.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let target = format!("{spelling}:{port}");
        let grant = format!("http://{target}::private");
        let server = Tidegate::serve_at(
            &format!("{listen}:{port}"),
            &component(guest),
            &["--allow-outbound", &grant],
        );
        let (status, text) = fetch(&server, "http", &target).await;
        assert_eq!(status, 502, "{guest} {target}: {text}");
        server.wait_for("where this server listens");
    }
}

#[tokio::test]
async fn a_silent_or_endless_upstream_is_cut_off() {
    let cases = [
        ("", ["response", "timeout"]),
        (
            "HTTP/1.1 200 Fine\r\ncontent-length: 5\r\n\r\nth",
            ["read", "timeout"],
        ),
        (
            &format!(
                "HTTP/1.1 200 Fine\r\ncontent-length: 3000\r\n\r\n{}",
                "x".repeat(3000)
            ),
            ["body", "size"],
        ),
        (
            "HTTP/1.1 200 Fine\r\ncontent-length: 5\r\n\r\nth\0CUT",
            ["response", "incomplete"],
        ),
        ("no HTTP at all\r\n\r\n", ["protocol", "error"]),
    ];
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("tidegate.toml");
    fs::write(
        &settings,
        "[app]\noutbound_silence_max = \"300ms\"\noutbound_bytes_max = \"2 KiB\"\n",
    )
    .unwrap();
    for guest in GUESTS {
        for (bytes, words) in cases {
            let (listener, address) = upstream().await;
            let args = [
                "--config",
                settings.to_str().unwrap(),
                "--allow-outbound",
                &format!("http://{address}"),
            ];
            let server = Tidegate::serve(&component(guest), &args);
            let serving = async {
                let (mut stream, _) = soon("the request", listener.accept()).await.unwrap();
                let (bytes, cut) = bytes.split_once('\0').unwrap_or((bytes, ""));
                answer(&mut stream, bytes).await;
                // Without a cut, the connection stays open for as long as the guest waits.
                cut.is_empty().then_some(stream)
            };
            let ((status, text), _stream) = tokio::join!(fetch(&server, "http", &address), serving);
            assert_eq!(status, 502, "{guest} {bytes:.40?}: {text}");
            // The two worlds spell their codes differently.
            let text = text.to_lowercase();
            assert!(
                words.iter().all(|word| text.contains(word)),
                "{guest} {words:?}: {text}"
            );
        }
    }
}

#[tokio::test]
async fn https_trusts_system_and_configured_authorities() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".into()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
    fs::write(
        dir.path().join("trusted.toml"),
        "[grants]\nca = \"ca.pem\"\n",
    )
    .unwrap();
    fs::write(dir.path().join("plain.toml"), "").unwrap();
    for guest in GUESTS {
        for (file, expected) in [
            ("trusted.toml", (200, "203 there")),
            ("plain.toml", (502, "certificate")),
        ] {
            let (listener, address) = upstream().await;
            let name = format!("localhost:{}", address.split_once(':').unwrap().1);
            let settings = dir.path().join(file);
            let grant = format!("{name}::private");
            let server = Tidegate::serve(
                &component(guest),
                &[
                    "--config",
                    settings.to_str().unwrap(),
                    "--allow-outbound",
                    &grant,
                ],
            );
            let serving = async {
                let (stream, _) = soon("the request", listener.accept()).await.unwrap();
                if let Ok(mut stream) = soon("the handshake", acceptor.accept(stream)).await {
                    answer(&mut stream, ANSWER).await;
                }
            };
            let ((status, text), ()) = tokio::join!(fetch(&server, "https", &name), serving);
            assert_eq!(status, expected.0, "{guest} {file}: {text}");
            assert!(
                text.to_lowercase().contains(expected.1),
                "{guest} {file}: {text}"
            );
        }
    }
}
