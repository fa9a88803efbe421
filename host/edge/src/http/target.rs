//! Host and form of a request's target (RFC 9112 section 3.2), read before any other part of the
//! request.

use crate::{
    http::answer::{AnswerBody, HttpAnswer},
    http::authority::{Authority, Hosts},
    http::refusal::RequestRefusal,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};

/// Form of a request's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetForm {
    /// A path, alone or in a URL of this server.
    Path,
    /// `OPTIONS *`: the server as a whole.
    Server,
}

impl TargetForm {
    /// Returns the form of a request's target, or refuses a form or method that this kind of server
    /// does not support.
    pub(crate) fn of<B>(request: &Request<B>) -> Result<TargetForm, RequestRefusal> {
        let (method, uri) = (request.method(), request.uri());
        if method == Method::CONNECT || method == Method::TRACE {
            return Err(RequestRefusal::head(
                StatusCode::NOT_IMPLEMENTED,
                "this server answers no CONNECT and no TRACE",
            ));
        }
        let is_web = |scheme: &str| {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        };
        match (uri.scheme_str(), uri.authority(), uri.path()) {
            (None, None, "*") if method == Method::OPTIONS => Ok(TargetForm::Server),
            (Some(scheme), ..) if !is_web(scheme) => Err(RequestRefusal::bad_head(
                "the target has another scheme than http or https",
            )),
            (None, None, path) | (Some(_), Some(_), path)
                if path.starts_with('/') && path.is_ascii() =>
            {
                Ok(TargetForm::Path)
            }
            // Among these are a host and a port, which belong to CONNECT.
            _ => Err(RequestRefusal::bad_head("the target is not a path")),
        }
    }
}

/// Returns the answer to `OPTIONS *`, which is a ping (RFC 9110 section 9.3.7).
pub(crate) fn about_server() -> HttpAnswer {
    let mut answer = http::Response::new(AnswerBody::Whole(None));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// Host that a request names.
pub(crate) struct RequestHost {
    /// Host and port as the client wrote them.
    pub(crate) authority: String,
    /// True if this server serves that host.
    pub(crate) is_served: bool,
}

impl RequestHost {
    /// Reads the host from an absolute target, otherwise from the `Host` header; both must be
    /// valid. `own` is the authority for an HTTP/1.0 request without a host.
    pub(crate) fn of<B>(
        request: &Request<B>,
        hosts: &Hosts,
        own: impl FnOnce() -> String,
    ) -> Result<RequestHost, &'static str> {
        let mut headers = request.headers().get_all(header::HOST).iter();
        let header = match (headers.next(), headers.next()) {
            (Some(host), None) if host.is_empty() => return Err("the Host header is empty"),
            (Some(host), None) => {
                let text = host.to_str().map_err(|_| NOT_VALID)?;
                Some((text, Authority::parse(text).ok_or(NOT_VALID)?))
            }
            (None, _) if request.version() < Version::HTTP_11 => None,
            (None, _) => return Err("the Host header is missing"),
            (Some(_), Some(_)) => return Err("there is more than one Host header"),
        };
        let target = match request
            .uri()
            .authority()
            .map(|authority| authority.as_str())
        {
            Some(text) => Some((
                text,
                Authority::parse(text).ok_or("the target names no valid host")?,
            )),
            None => None,
        };
        let named = |(text, parsed): (&str, Authority<'_>)| RequestHost {
            authority: text.to_owned(),
            is_served: hosts.admit(parsed.host),
        };
        Ok(target.or(header).map_or_else(
            || {
                let authority = own();
                let is_served =
                    Authority::parse(&authority).is_some_and(|own| hosts.admit(own.host));
                RequestHost {
                    authority,
                    is_served,
                }
            },
            named,
        ))
    }
}

/// Sets the `Host` header that the app reads to the host of an absolute target (RFC 9112 section
/// 3.2.2). Otherwise the header could name a host that is not served.
pub(crate) fn replace_host(headers: &mut HeaderMap, authority: &str) {
    let host = HeaderValue::from_str(authority).expect("an authority is ASCII without controls");
    headers.insert(header::HOST, host);
}

const NOT_VALID: &str = "the Host header is not a host, or a host and a port";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::refusal::refuse;

    /// Returns the status of a refusal, or the form with the authority.
    fn read(line: &str, hosts: &[&str]) -> Result<(TargetForm, String), u16> {
        let mut words = line.split(' ');
        let mut builder = Request::builder()
            .method(words.next().unwrap())
            .uri(words.next().unwrap());
        builder = builder.version(if words.next() == Some("1.0") {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        });
        let request = hosts
            .iter()
            .fold(builder, |builder, host| builder.header("host", *host))
            .body(())
            .map_err(|_| 400_u16)?;
        let named = RequestHost::of(&request, &Hosts::Any, || "127.0.0.1:80".into())
            .map_err(|_| 400_u16)?;
        TargetForm::of(&request)
            .map(|form| (form, named.authority))
            .map_err(|refusal| refuse(refusal).status().as_u16())
    }

    #[test]
    fn every_form_of_a_target_has_its_meaning() {
        let path = |authority: &str| Ok((TargetForm::Path, authority.to_owned()));
        let cases = [
            ("GET / 1.1", path("a")),
            ("GET /x:80 1.1", path("a")),
            ("OPTIONS /x 1.1", path("a")),
            ("OPTIONS * 1.1", Ok((TargetForm::Server, "a".to_owned()))),
            ("GET http://b 1.1", path("b")),
            ("GET http://b:80/x 1.1", path("b:80")),
            ("GET HTTPS://B/x 1.1", path("B")),
            ("GET http://b/x#y 1.1", path("b")),
            ("OPTIONS http://b 1.1", path("b")),
            ("GET * 1.1", Err(400)),
            ("POST * 1.1", Err(400)),
            ("GET x 1.1", Err(400)),
            ("GET x/y 1.1", Err(400)),
            ("GET ?x 1.1", Err(400)),
            ("GET other:80 1.1", Err(400)),
            ("OPTIONS other:80 1.1", Err(400)),
            ("GET user@b 1.1", Err(400)),
            ("GET http://user@b/ 1.1", Err(400)),
            ("GET http://user:word@b/ 1.1", Err(400)),
            ("GET http://@b/ 1.1", Err(400)),
            ("GET http://b:0/ 1.1", Err(400)),
            ("GET http://b:65536/ 1.1", Err(400)),
            ("GET http://b:x/ 1.1", Err(400)),
            ("GET http://:80/ 1.1", Err(400)),
            ("GET http:///x 1.1", Err(400)),
            ("GET ftp://b/ 1.1", Err(400)),
            ("GET ws://b/ 1.1", Err(400)),
            ("GET file:///etc/passwd 1.1", Err(400)),
            ("GET /é 1.1", Err(400)),
            ("CONNECT b:443 1.1", Err(501)),
            ("TRACE / 1.1", Err(501)),
        ];
        for (line, expected) in cases {
            assert_eq!(read(line, &["a"]), expected, "{line}");
        }
    }

    #[test]
    fn a_request_names_one_valid_host() {
        let cases: [(&str, &[&str], Result<&str, u16>); 12] = [
            ("GET / 1.1", &["a.example:8080"], Ok("a.example:8080")),
            ("GET / 1.1", &["[::1]:8080"], Ok("[::1]:8080")),
            ("GET / 1.0", &["a"], Ok("a")),
            ("GET / 1.0", &[], Ok("127.0.0.1:80")),
            ("GET http://b/ 1.0", &[], Ok("b")),
            ("GET / 1.1", &[], Err(400)),
            ("GET http://b/ 1.1", &[], Err(400)),
            ("GET / 1.1", &[""], Err(400)),
            ("GET / 1.1", &["a", "a"], Err(400)),
            ("GET / 1.1", &["user@a"], Err(400)),
            ("GET http://b/ 1.1", &["a:99999"], Err(400)),
            ("GET http://b/ 1.1", &["é"], Err(400)),
        ];
        for (line, hosts, expected) in cases {
            assert_eq!(
                read(line, hosts).map(|(_, authority)| authority),
                expected.map(str::to_owned),
                "{line} {hosts:?}"
            );
        }
    }
}
