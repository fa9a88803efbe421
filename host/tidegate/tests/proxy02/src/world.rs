//! `/world/{what}`: the errors that a guest gets for sockets, files and requests that it was not
//! granted, through Rust's library or WASI itself.

use std::{
    fs, io,
    net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
};
use wasip2::{
    filesystem::preopens,
    http::{
        outgoing_handler,
        types::{Fields, OutgoingRequest, Scheme},
    },
    sockets::{
        instance_network, ip_name_lookup, network::IpAddressFamily, tcp_create_socket,
        udp_create_socket,
    },
};

pub(crate) fn reach(what: &str) -> String {
    match what {
        "std-connect" => kind(TcpStream::connect("127.0.0.1:9")),
        "std-listen" => kind(TcpListener::bind("127.0.0.1:0")),
        "std-udp" => kind(UdpSocket::bind("127.0.0.1:0")),
        "std-lookup" => if ("localhost", 80).to_socket_addrs().is_err() {
            "refused"
        } else {
            "resolved"
        }
        .to_owned(),
        "std-read" => kind(fs::read("/etc/hostname")),
        "std-write" => kind(fs::write("/tmp/tidegate-proxy02-was-here", "x")),
        "std-list" => kind(fs::read_dir("/")),
        "tcp" => code(tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4)),
        "udp" => code(udp_create_socket::create_udp_socket(IpAddressFamily::Ipv6)),
        "lookup" => lookup(),
        "fetch" => fetch(),
        "directories" => preopens::get_directories().len().to_string(),
        _ => panic!("nothing is called {what}"),
    }
}

fn kind<T>(outcome: io::Result<T>) -> String {
    outcome.map_or_else(|error| format!("{:?}", error.kind()), |_| "done".to_owned())
}

fn code<T, E: std::fmt::Debug>(outcome: Result<T, E>) -> String {
    outcome.map_or_else(|code| format!("{code:?}"), |_| "done".to_owned())
}

fn lookup() -> String {
    let network = instance_network::instance_network();
    match ip_name_lookup::resolve_addresses(&network, "localhost") {
        Ok(stream) => {
            stream.subscribe().block();
            code(stream.resolve_next_address())
        }
        Err(code) => format!("{code:?}"),
    }
}

fn fetch() -> String {
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).expect("it is one");
    request
        .set_authority(Some("127.0.0.1:9"))
        .expect("it is one");
    request.set_path_with_query(Some("/")).expect("it is one");
    match outgoing_handler::handle(request, None) {
        Ok(pending) => {
            pending.subscribe().block();
            code(
                pending
                    .get()
                    .expect("it is ready")
                    .expect("it is asked once"),
            )
        }
        Err(code) => format!("{code:?}"),
    }
}
