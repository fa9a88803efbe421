//! The host's own paths: health, the files of the browser's side, the channel of development, and
//! the loaders of pages.

use super::{AdmittedRequest, Exchange, Responder};
use crate::{
    dev,
    http::answer::{self, ACCESS, HttpAnswer},
    http::refusal::{RequestRefusal, refuse},
    http::request_body::RequestBody,
    pages,
};
use http::{Method, StatusCode};
use tidegate_hub::{
    EngineStatus, FaultContext,
    dispatch::{Dispatch, FILE_METHODS, HostRefusal, LOADERS_PATH},
};
use tidegate_routing::Path;

impl Exchange {
    /// Answers for the host's own paths.
    pub(super) fn host_endpoint(&self, method: &Method, path: &Path<'_>) -> HttpAnswer {
        let [_, endpoint] = path.segments() else {
            return refuse(HostRefusal::NotFound);
        };
        let channel = self.server.config.dev.as_deref();
        let answer = match &**endpoint {
            "health" => Some(self.health()),
            endpoint => pages::script(endpoint, channel.is_some())
                .or_else(|| dev::answer(endpoint, channel, self.drain.stopping.clone())),
        };
        match (answer, method) {
            (Some(answer), &Method::GET | &Method::HEAD) => answer,
            (Some(_), _) => refuse(HostRefusal::MethodNotAllowed(
                FILE_METHODS.map(str::to_owned).to_vec(),
            )),
            (None, _) => refuse(HostRefusal::NotFound),
        }
    }

    /// Answers whether everything that the app needs is available, for load balancers and
    /// supervisors.
    fn health(&self) -> HttpAnswer {
        match self.server.hub.storage_status() {
            EngineStatus::Open => answer::text(StatusCode::OK, "ok"),
            EngineStatus::Closed(why) => answer::text(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("the storage of rooms is closed: {why}"),
            ),
        }
    }

    /// Answers with one loader. The guards of its page cover it.
    pub(super) async fn load(
        &self,
        request: http::Request<RequestBody>,
        authority: String,
    ) -> HttpAnswer {
        if self.memory.is_scarce() {
            return refuse(RequestRefusal::Memory);
        }
        let version = self.server.version();
        let (parts, body) = request.into_parts();
        let format = match pages::load::requested_format(&parts.headers) {
            Ok(format) => format,
            Err(problem) => return pages::load::refuse(&problem),
        };
        let body = match self.collect(body).await {
            Ok(body) => body,
            Err(refusal) => return refuse(refusal),
        };
        let (loader, wanted) = match pages::load::read_call(&version, &body) {
            Ok(wanted) => wanted,
            Err(problem) => return pages::load::refuse(&problem),
        };
        self.state.note_connection(&parts.headers);
        let page_path = Path::parse(&wanted.target).expect("it was parsed before");
        let loaders_path = Path::parse(LOADERS_PATH).expect("a path");
        let dispatch = Dispatch::of_loader(&version.router, &page_path, &loaders_path, &wanted);
        let route = dispatch.pattern();
        let answer = self
            .run(AdmittedRequest {
                version: &version,
                dispatch,
                path: &page_path,
                head: self.head(Method::GET, authority, &wanted.target, parts.headers),
                responder: Responder::Loader {
                    name: &loader,
                    format,
                },
                context: FaultContext {
                    request: Some(LOADERS_PATH),
                    route,
                    ..FaultContext::default()
                },
            })
            .await;
        tracing::debug!(target: ACCESS, route, status = answer.status().as_u16(), peer = &*self.peer, "POST {LOADERS_PATH} {loader}");
        answer
    }
}
