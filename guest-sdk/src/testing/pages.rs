//! Pages under test: rendering with the values of their loaders, single loaders, and forms.

use super::{
    ClientResponse, Connect, Server,
    call::{ClientBody, ClientRequest},
    server::PIECES_MAX,
};
use crate::world;
use bytes::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;
use std::{collections::VecDeque, future::ready, time::Duration};
use tidegate_hub::{
    App as _, Fault, Request, contract,
    dispatch::{Dispatch, LOADERS_PATH, LoaderName, LoaderTarget},
    envelope,
    form::{FormEncoding, WholeForm},
    page::{
        ActionOutcome, ActionStep, Field, Form, FormDenial, FormPiece, HandlerError, LoaderState,
        LoaderStep, RenderInput,
    },
};
use tidegate_routing::{Page, Path};

/// Size of a piece of an upload, in bytes: small, so that a test's file has several.
const PIECE_BYTES: usize = 64;

/// Nonce of every page under test.
const NONCE: &str = "test-nonce";

type Parameters<'a> = &'a [(&'a str, &'a str)];

/// Result of a loader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoaderOutput {
    values: Vec<String>,
    ended: Option<(StatusCode, String)>,
    /// Duration on the clock of the test.
    took: Duration,
}

impl LoaderOutput {
    /// Returns the values in their order. Panics if one is not a `T`.
    pub fn values<T: DeserializeOwned>(&self) -> Vec<T> {
        self.values
            .iter()
            .map(|json| {
                serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {json}"))
            })
            .collect()
    }

    /// Returns status and text of the error; `None` if the loader ended successfully, or was
    /// dropped while it ran.
    pub fn error(&self) -> Option<(u16, &str)> {
        self.ended
            .as_ref()
            .map(|(status, message)| (status.as_u16(), message.as_str()))
    }

    /// Returns the time that the loader slept.
    pub fn took(&self) -> Duration {
        self.took
    }
}

/// A file of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Name of the field.
    pub name: String,
    /// Name of the file at the client.
    pub filename: String,
    /// Content of the file.
    pub bytes: Vec<u8>,
}

/// Pages.
impl Server {
    /// Runs a loader, as `/__loaders` does, to its end or to its thousandth value. `page` is the
    /// page's pattern, `loader` a [`Loader`](crate::Loader) or its name.
    pub fn load(
        &mut self,
        page: &str,
        loader: impl AsRef<str>,
        params: Parameters<'_>,
    ) -> LoaderOutput {
        self.load_some(page, loader, params, PIECES_MAX)
    }

    /// Does the same as [`load`](Server::load) up to this number of values. Then the client leaves.
    pub fn load_some(
        &mut self,
        page: &str,
        loader: impl AsRef<str>,
        params: Parameters<'_>,
        values: usize,
    ) -> LoaderOutput {
        let loader = loader.as_ref();
        let params = params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let name = LoaderName {
            page,
            loader,
            params: &params,
            search: "",
        };
        let router = self.host.router.clone();
        let target = match LoaderTarget::find(&router, name) {
            Ok(target) => target,
            Err(problem) if router.page_of(page).is_none() => {
                panic!("{}: {page:?}", problem.message)
            }
            Err(problem) => return LoaderOutput::refused(problem.status, &problem.message),
        };
        let page_path = Path::parse(&target.target).expect("it was parsed before");
        let loaders_path = Path::parse(LOADERS_PATH).expect("a path");
        let mut dispatch = Dispatch::of_loader(&router, &page_path, &loaders_path, &target);
        let request = ClientRequest::get(Connect::to(&target.target), PIECES_MAX);
        let mut head = request.head(&page_path);
        let outcome = self.run(
            &mut dispatch,
            &mut head,
            &mut Vec::new(),
            |server, head, _| Ok(server.run_loader(&head, loader, values)),
        );
        let load =
            outcome.unwrap_or_else(|fault| LoaderOutput::from(ClientResponse::of_fault(&fault)));
        self.settle();
        load
    }

    /// Sends a form of text fields to a page, as a browser without JavaScript does.
    pub fn submit(&mut self, path: &str, action: &str, fields: Parameters<'_>) -> ClientResponse {
        let pairs = [("__action", action)]
            .into_iter()
            .chain(fields.iter().copied());
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        let kind = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("accept", "text/html"),
        ];
        self.request("POST", path, &kind, body)
    }

    /// Sends JSON to an action, as the client's script does with `accept: application/json`. The
    /// answer is an envelope.
    pub fn submit_json(
        &mut self,
        path: &str,
        action: &str,
        value: &serde_json::Value,
    ) -> ClientResponse {
        let mut value = value.clone();
        value["__action"] = action.into();
        self.request(
            "POST",
            path,
            &[
                ("content-type", "application/json"),
                ("accept", "application/json"),
            ],
            value.to_string(),
        )
    }

    /// Sends a form of text fields and files to a page.
    pub fn upload(
        &mut self,
        path: &str,
        action: &str,
        fields: Parameters<'_>,
        files: &[Upload],
    ) -> ClientResponse {
        let texts = fields.iter().map(|(name, value)| {
            let field = Field {
                name: (*name).to_owned(),
                ..Field::default()
            };
            (field, pieces(value.as_bytes()))
        });
        let files = files.iter().map(|file| {
            let field = Field {
                name: file.name.clone(),
                filename: Some(file.filename.clone()),
                content_type: None,
            };
            (field, pieces(&file.bytes))
        });
        let form = PiecedForm {
            fields: texts.chain(files).collect(),
            current: VecDeque::new(),
        };
        let connect = Connect::to(path).header("accept", "text/html");
        self.call(ClientRequest {
            method: "POST",
            body: ClientBody::Form(action.to_owned(), Box::new(form)),
            ..ClientRequest::get(connect, PIECES_MAX)
        })
        .reply
    }

    pub(super) fn page(
        &mut self,
        head: Request,
        method: &str,
        body: ClientBody<'_>,
    ) -> Result<ClientResponse, Fault> {
        if method != "POST" {
            return self.show(&head, None);
        }
        let text = |name: &str| {
            let value = head.headers.get(name);
            value.map_or(String::new(), |value| {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            })
        };
        let is_json = text("accept").contains("application/json");
        let body = match body {
            ClientBody::Bytes(body) => body,
            ClientBody::Form(action, form) => return self.act(head, &action, form, is_json),
        };
        let encoding = match text("content-type").as_str() {
            "application/json" => FormEncoding::Json,
            "application/x-www-form-urlencoded" => FormEncoding::UrlEncoded,
            _ => {
                return Ok(ClientResponse::of_host(
                    415,
                    "a form is application/x-www-form-urlencoded or application/json; send files with `Server::upload`",
                ));
            }
        };
        match WholeForm::read(encoding, body) {
            Ok((action, form)) => self.act(head, &action, Box::new(form), is_json),
            Err(problem) => Ok(ClientResponse::of_host(
                problem.status.as_u16(),
                &problem.message,
            )),
        }
    }

    /// Renders the page with the first value of each loader. Each one has enough time here.
    fn show(
        &mut self,
        head: &Request,
        denied: Option<(String, FormDenial)>,
    ) -> Result<ClientResponse, Fault> {
        let (index, page) = self.page_at(head);
        let first = page.loaders.iter().map(|info| {
            let load = self.run_loader(head, &info.name, 1);
            let initial = match (load.values.into_iter().next(), load.ended) {
                (Some(json), _) => LoaderState::Value(json),
                (None, Some((status, message))) => {
                    LoaderState::Failed(HandlerError { status, message })
                }
                (None, None) => LoaderState::Pending,
            };
            (info.name.clone(), initial)
        });
        let view = RenderInput {
            first: first.collect(),
            nonce: NONCE.to_owned(),
            denied,
        };
        let app = self.host.app.clone();
        let shell = self.host.call(app.pages().render(index, head, &view))?;
        Ok(ClientResponse::of_app(tidegate_hub::Response {
            status: view.status_of(&shell),
            headers: shell.headers,
            body: shell.html.into(),
        }))
    }

    fn page_at(&self, head: &Request) -> (u32, Page) {
        let page = self.host.router.page(head.route);
        let (index, page) = page.expect("the request was led to a page");
        (index, page.clone())
    }

    fn run_loader(&self, head: &Request, loader: &str, values_max: usize) -> LoaderOutput {
        let mut load = LoaderOutput::default();
        if let Err(fault) = self.try_load(head, loader, values_max, &mut load) {
            let reply = ClientResponse::of_fault(&fault);
            load.ended = Some((fault.status(), reply.text().trim_end().to_owned()));
        }
        load
    }

    fn try_load(
        &self,
        head: &Request,
        loader: &str,
        values_max: usize,
        load: &mut LoaderOutput,
    ) -> Result<(), Fault> {
        let (index, _) = self.page_at(head);
        let (app, bytes_max) = (&self.host.app, self.host.limits().message_bytes_max);
        let mut run = self.host.call(app.pages().load(index, loader, head))?;
        while load.values.len() < values_max {
            match self.host.call(run.next())? {
                Ok(LoaderStep::Value(json)) => {
                    contract::check_value(&json, bytes_max)?;
                    load.values.push(json);
                }
                Ok(LoaderStep::Later(wait)) => {
                    load.took += wait;
                    world::pass(wait);
                }
                Ok(LoaderStep::End) => return Ok(()),
                Err(problem) => {
                    load.ended = Some((problem.status, problem.message));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn act(
        &mut self,
        head: Request,
        action: &str,
        form: Box<dyn Form>,
        is_json: bool,
    ) -> Result<ClientResponse, Fault> {
        let (index, page) = self.page_at(&head);
        if !page.actions.iter().any(|own| own == action) {
            return Ok(ClientResponse::of_host(404, "the page has no such action"));
        }
        let (app, bytes_max) = (self.host.app.clone(), self.host.limits().message_bytes_max);
        let mut run = self
            .host
            .call(app.pages().act(index, action, &head, form))?;
        let ended = loop {
            match self.host.call(run.next())? {
                ActionStep::Progress(json) => contract::check_value(&json, bytes_max)?,
                ActionStep::Later(wait) => world::pass(wait),
                ActionStep::Done(ended) => break ended,
            }
        };
        if let Ok(outcome) = &ended {
            contract::check_outcome(outcome, &page, bytes_max)?;
        }
        if is_json {
            let (status, json) = (envelope::status(&ended), envelope::encode(&ended));
            return Ok(ClientResponse::of_host_json(status.as_u16(), json));
        }
        match ended {
            Ok(ActionOutcome::Success { .. }) => Ok(ClientResponse::of_redirect(303, &head.path)),
            Ok(ActionOutcome::Redirect { status, location }) => {
                Ok(ClientResponse::of_redirect(status.as_u16(), &location))
            }
            Ok(ActionOutcome::Deny(denial)) => self.show(&head, Some((action.to_owned(), denial))),
            Err(problem) => Ok(ClientResponse::of_host(
                problem.status.as_u16(),
                &problem.message,
            )),
        }
    }
}

/// A form whose files come in several pieces.
struct PiecedForm {
    fields: VecDeque<(Field, VecDeque<Bytes>)>,
    /// Remaining pieces of the current field.
    current: VecDeque<Bytes>,
}

impl Form for PiecedForm {
    fn json(&self) -> Option<&str> {
        None
    }

    fn next(&mut self) -> FormPiece<'_, Field> {
        let (field, pieces) = self.fields.pop_front().unzip();
        self.current = pieces.unwrap_or_default();
        Box::pin(ready(Ok(field)))
    }

    fn read(&mut self) -> FormPiece<'_, Bytes> {
        Box::pin(ready(Ok(self.current.pop_front())))
    }
}

fn pieces(bytes: &[u8]) -> VecDeque<Bytes> {
    bytes
        .chunks(PIECE_BYTES)
        .map(Bytes::copy_from_slice)
        .collect()
}

impl LoaderOutput {
    fn refused(status: StatusCode, text: &str) -> LoaderOutput {
        LoaderOutput {
            ended: Some((status, text.to_owned())),
            ..LoaderOutput::default()
        }
    }
}

/// Converts a refusal before the loader ran.
impl From<ClientResponse> for LoaderOutput {
    fn from(reply: ClientResponse) -> LoaderOutput {
        let status = StatusCode::from_u16(reply.status()).expect("the status of an answer");
        LoaderOutput::refused(status, reply.text())
    }
}
