//! Files of `--assets DIR`, by their exact path, with ranges and conditional requests.

use crate::{
    answer::{self, Answer, Body},
    sockets::Sockets,
};
use http::{HeaderMap, Method};
use hyper_staticfile::{AcceptEncoding, ResolveResult, Resolver, ResponseBuilder};
use std::{
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Instant,
};
use tidegate_hub::{Hub, path::Path};

/// A directory of files; its dotfiles are not served, but for `.well-known`.
pub(crate) struct Assets {
    root: PathBuf,
    resolver: Resolver,
    sockets: Arc<Sockets>,
    hub: Arc<Hub>,
}

impl Assets {
    pub(crate) fn new(root: &FilePath, sockets: Arc<Sockets>, hub: Arc<Hub>) -> Assets {
        Assets { root: root.to_owned(), resolver: Resolver::new(root), sockets, hub }
    }

    /// The file of exactly this path, if there is one.
    pub(crate) async fn file(&self, method: &Method, path: &Path<'_>, headers: &HeaderMap) -> Option<Answer> {
        let name = self.name(method, path)?;
        self.serve(&name, method, headers).await
    }

    /// `index.html`, for a page's path that nothing else answers: one whose last segment is not a file's name.
    pub(crate) async fn fallback(&self, method: &Method, path: &Path<'_>, headers: &HeaderMap) -> Option<Answer> {
        let is_file = path.segments().last().is_some_and(|last| last.contains('.'));
        if is_file || path.is_reserved() || !(method == Method::GET || method == Method::HEAD) {
            return None;
        }
        self.serve("index.html", method, headers).await
    }

    /// The relative name of an existing file; costs one look at the disk and no more where there is none.
    fn name(&self, method: &Method, path: &Path<'_>) -> Option<String> {
        let segments = path.segments();
        let hidden = |segment: &str| segment.starts_with('.') && segment != ".well-known";
        let served = |segment: &str| !hidden(segment) && !segment.contains(['/', '\\']);
        let is_read = method == Method::GET || method == Method::HEAD;
        if !is_read || segments.is_empty() || path.is_reserved() || !segments.iter().all(|segment| served(segment)) {
            return None;
        }
        let name = segments.join("/");
        self.root.join(&name).is_file().then_some(name)
    }

    async fn serve(&self, name: &str, method: &Method, headers: &HeaderMap) -> Option<Answer> {
        // It holds a descriptor for as long as the client takes to read it.
        let seat = match self.sockets.take_shared() {
            Ok(seat) => seat,
            Err(refusal) => {
                self.sockets.note(refusal, self.hub.counters(), Instant::now());
                return Some(answer::retry_later("too many connections, try again later"));
            }
        };
        let request_path = format!("/{}", encode(name));
        let resolved = self.resolver.resolve_path(&request_path, AcceptEncoding::none()).await.ok()?;
        if !matches!(resolved, ResolveResult::Found(_)) {
            return None;
        }
        let uri = request_path.parse().ok()?;
        let response = ResponseBuilder::new().request_parts(method, &uri, headers).build(resolved).ok()?;
        Some(response.map(|file| Body::File { file: Box::new(file), _seat: seat }))
    }
}

/// Percent-encodes what the file library would read as something else.
fn encode(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    name.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}
