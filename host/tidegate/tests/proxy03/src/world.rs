//! `/world/{what}`: the errors that a guest gets for sockets, files and requests that it was not
//! granted.

use std::fmt::Debug;
use wasip3::{
    filesystem::preopens,
    http::{
        client,
        types::{Fields, Request, Scheme},
    },
    sockets::{
        ip_name_lookup,
        types::{IpAddressFamily, TcpSocket, UdpSocket},
    },
    wit_future,
};

pub(crate) async fn reach(what: &str) -> String {
    match what {
        "tcp" => code(TcpSocket::create(IpAddressFamily::Ipv4)),
        "udp" => code(UdpSocket::create(IpAddressFamily::Ipv6)),
        "lookup" => code(ip_name_lookup::resolve_addresses("localhost".to_owned()).await),
        "fetch" => fetch().await,
        "directories" => preopens::get_directories().len().to_string(),
        _ => panic!("nothing is called {what}"),
    }
}

fn code<T, E: Debug>(outcome: Result<T, E>) -> String {
    outcome.map_or_else(|code| format!("{code:?}"), |_| "done".to_owned())
}

async fn fetch() -> String {
    let (_trailers, none) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, none, None);
    request.set_scheme(Some(&Scheme::Http)).expect("it is one");
    request
        .set_authority(Some("127.0.0.1:9"))
        .expect("it is one");
    request.set_path_with_query(Some("/")).expect("it is one");
    code(client::send(request).await)
}
