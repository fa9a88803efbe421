//! The call of the app for the route or page of a request, and its conversion into an answer.

use super::Exchange;
use crate::{
    http::answer::{self, HttpAnswer},
    http::refusal::{RequestRefusal, refuse},
    http::request_body::RequestBody,
    http::trailers,
    pages::{self, PageRequest},
    server::Version,
    sse::heartbeats,
    websocket::upgrade::{self, UpgradeRequest},
};
use bytes::Bytes;
use http::{Method, header};
use http_body::Body as _;
use std::sync::Arc;
use tidegate_hub::{self as hub, Fault, Request, RequestId};
use tidegate_routing::Target;

impl Exchange {
    /// Calls the app for the route, or the page, of the request.
    pub(super) async fn respond(
        &self,
        version: &Arc<Version>,
        target: Target,
        mut head: Request,
        body: RequestBody,
        opening: Option<Box<UpgradeRequest>>,
    ) -> Result<HttpAnswer, Fault> {
        // These targets hold memory for long. A plain request is small, or its memory is checked
        // again with its body.
        if target != Target::Http {
            if self.memory.is_scarce() {
                return Ok(refuse(RequestRefusal::Memory));
            }
            self.state.note_connection(&head.headers);
        }
        // All branches but the most common one are boxed: every request's future has room for its
        // largest inline branch.
        match target {
            Target::Http => self.http(version, head, body).await,
            Target::Stream => {
                head.id = RequestId::next();
                let streamed = version.app.stream(&head, Box::pin(body)).await;
                // The client is at fault, whatever the app answers.
                if self.state.is_late() {
                    Ok(refuse(RequestRefusal::slow_body()))
                } else {
                    self.streamed(&head, streamed?)
                }
            }
            Target::Feed => Box::pin(self.feed(version, head)).await,
            Target::WebSocket => {
                let opening = opening.expect("a handshake was read for every websocket route");
                let (server, drain) = (self.server.clone(), self.drain.clone());
                Box::pin(upgrade::upgrade(
                    server,
                    version.clone(),
                    drain,
                    head,
                    opening,
                ))
                .await
            }
            Target::Page => Box::pin(self.page(version, head, body)).await,
        }
    }

    fn streamed(
        &self,
        head: &Request,
        streamed: hub::StreamingResponse,
    ) -> Result<HttpAnswer, Fault> {
        let accepts_trailers = trailers::are_accepted(&head.headers);
        let answer = heartbeats::add(
            answer::from_stream(streamed, head.id, accepts_trailers)?,
            self.server.hub.limits().comment_every,
        );
        // An answer without chunks has no place for trailers.
        let has_chunks = !answer.headers().contains_key(header::CONTENT_LENGTH);
        self.state.trailers.accept(accepts_trailers && has_chunks);
        Ok(answer)
    }

    async fn http(
        &self,
        version: &Version,
        head: Request,
        body: RequestBody,
    ) -> Result<HttpAnswer, Fault> {
        let body = if body.is_end_stream() {
            Bytes::new()
        } else {
            match Box::pin(self.collect(body)).await {
                Ok(body) => body,
                Err(refusal) => return Ok(refuse(refusal)),
            }
        };
        answer::from_app(version.app.handle(&head, body).await?)
    }

    async fn page(
        &self,
        version: &Arc<Version>,
        head: Request,
        body: RequestBody,
    ) -> Result<HttpAnswer, Fault> {
        let is_form = head.method == Method::POST;
        let page_request = self.page_request(version, head);
        if !is_form {
            return pages::show::show(page_request, None).await;
        }
        let collect = async |body| self.collect(body).await.map_err(refuse);
        pages::act::act(page_request, body, self.memory.form(), collect).await
    }

    /// Returns the request to a page that its guards have admitted.
    pub(super) fn page_request(&self, version: &Arc<Version>, head: Request) -> PageRequest {
        let stopping = self.drain.stopping.clone();
        PageRequest::new(self.server.clone(), version.clone(), stopping, head)
    }
}
