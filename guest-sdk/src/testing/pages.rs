//! Pages under test: rendered with what their loaders bring, loaders by themselves, and forms.

use super::{Connect, Reply, Server, call::Call, reply::within_contract, server::PIECES_MAX};
use crate::{
    Field, Request, Response,
    form::{Denied, Done},
    loader::{Progress, Running},
    page::{First, View},
    request::Head,
    stream::Body,
    world::{self, Form},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{collections::VecDeque, time::Duration};
use tidegate_hub::{
    contract,
    json::members,
    page::{ActionOutcome, FormDenial},
};
use tidegate_routing::{AMBIGUOUS, Page, Path, Pattern, RouteMatch, Wants};

/// Bytes of a piece of an upload: few, so that a test's file has several.
const PIECE_BYTES: usize = 64;

/// The nonce of every page under test.
const NONCE: &str = "test-nonce";

type Parameters<'a> = &'a [(&'a str, &'a str)];

/// What a loader brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    values: Vec<String>,
    ended: Option<(u16, String)>,
    /// Under the clock of the test.
    took: Duration,
}

impl Load {
    /// Its values in their order. Panics if one is no `T`.
    pub fn values<T: DeserializeOwned>(&self) -> Vec<T> {
        self.values
            .iter()
            .map(|json| {
                serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {json}"))
            })
            .collect()
    }

    /// Status and text of its error; none if it ended well, or was left while it went on.
    pub fn error(&self) -> Option<(u16, &str)> {
        self.ended
            .as_ref()
            .map(|(status, message)| (*status, message.as_str()))
    }

    /// How long it slept.
    pub fn took(&self) -> Duration {
        self.took
    }
}

/// A file of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Of its field.
    pub name: String,
    /// As the client calls it.
    pub filename: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Pages.
impl Server {
    /// Runs a loader by itself, as `/__loaders` does: to its end, or to its thousandth value. The page is named by its pattern.
    pub fn load(&mut self, page: &str, loader: &str, params: Parameters<'_>) -> Load {
        self.load_some(page, loader, params, PIECES_MAX)
    }

    /// As [`load`](Server::load), until it has brought so many values; then the client goes away.
    pub fn load_some(
        &mut self,
        page: &str,
        loader: &str,
        params: Parameters<'_>,
        values: usize,
    ) -> Load {
        let route = self
            .router
            .page_of(page)
            .unwrap_or_else(|| panic!("there is no page {page:?}"))
            .0;
        let pattern = Pattern::parse(page).expect("the rules let only patterns pass");
        let value_of = |name: &str| {
            params
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, value)| *value)
        };
        let path = pattern.path(value_of).unwrap_or_else(|name| {
            panic!("the parameter {name:?} of the page is missing, or empty")
        });
        let path = match Path::parse(&path) {
            Ok(path) => path,
            Err(bad) => return Load::refused(400, &format!("with these parameters {bad}")),
        };
        let params = match self.router.find("GET", Wants::Other, &path) {
            RouteMatch::Route { index, params, .. } if index == route => params,
            RouteMatch::Ambiguous => return Load::refused(400, AMBIGUOUS),
            _ => return Load::refused(404, "with these parameters it is another page"),
        };
        let mut head = Call::get(Connect::to(path.target()), PIECES_MAX).head(&path);
        let own = Path::parse("/__loaders").expect("a path");
        if let (_, Err(refusal)) = self.guard(&mut head, &[&path, &own]) {
            return Load::refused(refusal.status(), refusal.text());
        }
        (head.route, head.params) = (route, params);
        let outcome = self.run_loader(head, loader, values);
        self.settle();
        outcome
    }

    /// Sends a form of text fields to a page, as a browser without JavaScript does.
    pub fn submit(&mut self, path: &str, action: &str, fields: Parameters<'_>) -> Reply {
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

    /// Sends JSON to an action, as the browser's side does with `accept: application/json`: the answer is an envelope.
    pub fn submit_json(&mut self, path: &str, action: &str, value: &serde_json::Value) -> Reply {
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
    ) -> Reply {
        let mut form = Form::default();
        for (name, value) in fields {
            form.fields.push_back((
                Field {
                    name: (*name).to_owned(),
                    ..Field::default()
                },
                pieces(value.as_bytes()),
            ));
        }
        for Upload {
            name,
            filename,
            bytes,
        } in files
        {
            let field = Field {
                name: name.clone(),
                filename: Some(filename.clone()),
                content_type: None,
            };
            form.fields.push_back((field, pieces(bytes)));
        }
        let call = Call {
            method: "POST",
            ..Call::get(Connect::to(path).header("accept", "text/html"), PIECES_MAX)
        };
        let parsed = Path::parse(path).expect("a path");
        let RouteMatch::Route { index, params, .. } =
            self.router.find("POST", Wants::Other, &parsed)
        else {
            panic!("there is no page with actions at {path}")
        };
        let mut head = call.head(&parsed);
        if let (_, Err(refusal)) = self.guard(&mut head, &[&parsed]) {
            return refusal;
        }
        (head.route, head.params) = (index, params);
        let reply = self
            .act(head, action, form, false)
            .unwrap_or_else(|refusal| refusal);
        self.settle();
        reply
    }

    pub(super) fn page(&mut self, head: Head, call: &Call<'_>) -> Result<Reply, Reply> {
        if call.method != "POST" {
            return self.show(head, None);
        }
        let header = |name: &str| {
            head.headers
                .iter()
                .find(|(own, _)| own.eq_ignore_ascii_case(name))
        };
        let text = |name: &str| {
            header(name)
                .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
                .unwrap_or_default()
        };
        let is_json = text("accept").contains("application/json");
        let no_action =
            || Reply::of_host(400, "the form names no action: it needs a field __action");
        let (action, form) = match text("content-type").as_str() {
            "application/json" => {
                let text = std::str::from_utf8(call.body).map_err(|_| no_action())?;
                serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| no_action())?;
                // Its members reach the app as they were written, as the host hands them over.
                let is_action = |name: &str| {
                    serde_json::from_str::<String>(name).is_ok_and(|name| name == "__action")
                };
                let (actions, others): (Vec<_>, Vec<_>) = members(text)
                    .ok_or_else(no_action)?
                    .partition(|(name, _)| is_action(name));
                let action = actions
                    .first()
                    .and_then(|(_, action)| serde_json::from_str(action).ok())
                    .ok_or_else(no_action)?;
                let others: Vec<String> = others
                    .iter()
                    .map(|(name, value)| format!("{name}:{value}"))
                    .collect();
                (
                    action,
                    Form {
                        json: Some(format!("{{{}}}", others.join(","))),
                        ..Form::default()
                    },
                )
            }
            "application/x-www-form-urlencoded" => {
                let mut form = Form::default();
                let mut action = None;
                for (name, value) in form_urlencoded::parse(call.body) {
                    match &*name {
                        "__action" => action = Some(value.into_owned()),
                        _ => form.fields.push_back((
                            Field {
                                name: name.into_owned(),
                                ..Field::default()
                            },
                            pieces(value.as_bytes()),
                        )),
                    }
                }
                (action.ok_or_else(no_action)?, form)
            }
            _ => {
                return Err(Reply::of_host(
                    415,
                    "a form is multipart/form-data, application/x-www-form-urlencoded or application/json",
                ));
            }
        };
        self.act(head, &action, form, is_json)
    }

    /// With the first value of each loader, all of which have time enough here.
    fn show(&mut self, head: Head, denied: Option<(String, Denied)>) -> Result<Reply, Reply> {
        let (index, page) = self.page_of(&head);
        let first = page.loaders.iter().map(|info| {
            let load = self.run_loader(head.clone(), &info.name, 1);
            let first = match (load.values.into_iter().next(), load.ended) {
                (Some(json), _) => First::Value(json),
                (None, Some((status, message))) => First::Failed(status, message),
                (None, None) => First::Pending,
            };
            (info.name.clone(), first)
        });
        let first = first.collect();
        let status = denied.as_ref().map(|(_, denied)| denied.status);
        let denied = denied.map(|(action, denied)| (action, Done::Deny(denied)));
        let view = View {
            first,
            nonce: NONCE.to_owned(),
            denied,
        };
        let request = Request {
            head,
            body: Body::default(),
        };
        let shell = self
            .stage
            .event(|app| app.pages[index].render(&request, &view))
            .ok_or_else(Reply::trap)?;
        Ok(Reply::of_app(match status {
            Some(status) if shell.status == 200 => shell.with_status(status),
            _ => shell,
        }))
    }

    fn page_of(&self, head: &Head) -> (usize, Page) {
        let (index, page) = self
            .router
            .page(head.route)
            .expect("the request was led to a page");
        (index as usize, page.clone())
    }

    fn run_loader(&self, head: Head, loader: &str, values_max: usize) -> Load {
        let (index, page) = self.page_of(&head);
        assert!(
            page.loader(loader).is_some(),
            "the page {:?} has no loader {loader:?}",
            page.pattern
        );
        let request = Request {
            head,
            body: Body::default(),
        };
        let mut load = Load {
            values: Vec::new(),
            ended: None,
            took: Duration::ZERO,
        };
        let Some(mut run) = self
            .stage
            .event(|app| app.pages[index].load(loader.to_owned(), request))
        else {
            return load.trapped();
        };
        while load.values.len() < values_max {
            match self.step(&mut run) {
                None => return load.trapped(),
                Some(Progress::Value(json)) => {
                    self.check_value(&json);
                    load.values.push(json);
                }
                Some(Progress::Later(wait)) => {
                    load.took += wait;
                    world::pass(wait);
                }
                Some(Progress::Ended(Ok(()))) => return load,
                Some(Progress::Ended(Err(error))) => {
                    load.ended = Some(run.told(error));
                    return load;
                }
            }
        }
        // Its client goes away: what it holds is given up within an event, too.
        self.stage.event(|_| drop(run));
        load
    }

    fn step<T>(&self, run: &mut Running<T>) -> Option<Progress<T>> {
        self.stage.event(|_| run.next())
    }

    fn check_value(&self, json: &str) {
        within_contract(contract::check_value(
            json,
            self.stage.hub.limits().message_bytes_max,
        ));
    }

    fn act(&mut self, head: Head, action: &str, form: Form, is_json: bool) -> Result<Reply, Reply> {
        let (index, page) = self.page_of(&head);
        if !page.actions.iter().any(|own| own == action) {
            return Err(Reply::of_host(404, "the page has no such action"));
        }
        let request = Request {
            head: head.clone(),
            body: Body::default(),
        };
        let begun = self
            .stage
            .event(|app| app.pages[index].act(action.to_owned(), request, form));
        let mut run = begun.ok_or_else(Reply::trap)?;
        let done = loop {
            match self.step(&mut run).ok_or_else(Reply::trap)? {
                Progress::Value(json) => self.check_value(&json),
                Progress::Later(wait) => world::pass(wait),
                Progress::Ended(done) => break done,
            }
        };
        let done = done.map_err(|error| run.told(error));
        if let Ok(done) = &done {
            within_contract(contract::check_outcome(
                &outcome(done),
                &page,
                self.stage.hub.limits().message_bytes_max,
            ));
        }
        if is_json {
            return Ok(envelope(done));
        }
        match done {
            Ok(Done::Success(..)) => Ok(Reply::of_app(Response::redirect(&head.path))),
            Ok(Done::Redirect(status, location)) => Ok(Reply::of_app(
                Response::redirect(&location).with_status(status),
            )),
            Ok(Done::Deny(denied)) => self.show(head, Some((action.to_owned(), denied))),
            Err((status, message)) => Ok(Reply::of_host(status, &message)),
        }
    }
}

impl Load {
    fn refused(status: u16, text: &str) -> Load {
        Load {
            values: Vec::new(),
            ended: Some((status, text.to_owned())),
            took: Duration::ZERO,
        }
    }

    fn trapped(mut self) -> Load {
        self.ended = Some((500, "internal error".to_owned()));
        self
    }
}

/// The outcome as the host gets it; the checks need nothing of a denial but its status.
fn outcome(done: &Done) -> ActionOutcome {
    match done.clone() {
        Done::Success(value, stale) => ActionOutcome::Success { value, stale },
        Done::Redirect(status, location) => ActionOutcome::Redirect { status, location },
        Done::Deny(Denied { status, .. }) => ActionOutcome::Deny(FormDenial {
            status,
            ..FormDenial::default()
        }),
    }
}

fn envelope(done: Result<Done, (u16, String)>) -> Reply {
    let (status, envelope) = match done {
        Ok(Done::Success(value, stale)) => {
            let value: serde_json::Value = serde_json::from_str(&value).expect("the SDK made it");
            (
                200,
                json!({ "outcome": "success", "value": value, "stale": stale }),
            )
        }
        Ok(Done::Redirect(status, location)) => (
            200,
            json!({ "outcome": "redirect", "status": status, "location": location }),
        ),
        Ok(Done::Deny(Denied {
            status,
            message,
            errors,
            ..
        })) => {
            let errors: serde_json::Map<_, _> = errors
                .into_iter()
                .map(|(name, why)| (name, why.into()))
                .collect();
            (
                status,
                json!({ "outcome": "deny", "status": status, "message": message, "errors": errors }),
            )
        }
        Err((status, message)) => (
            status,
            json!({ "outcome": "error", "status": status, "message": message }),
        ),
    };
    Reply::of_app(
        Response::json(&envelope)
            .expect("a value")
            .with_status(status),
    )
}

fn pieces(bytes: &[u8]) -> VecDeque<Vec<u8>> {
    bytes.chunks(PIECE_BYTES).map(<[u8]>::to_vec).collect()
}
