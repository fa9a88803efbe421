//! Parameters of the app's exports, lowered from where they are: nothing is copied on the way into the guest's memory.

use crate::{
    bindings::{exports::tidegate::app::pages::RenderInput, tidegate::app::types::HandlerError},
    connection::Connection,
    form::Form,
};
use tidegate_hub::{CloseEvent, Message, Request};
use wasmtime::component::{ComponentType, Lower, Resource, ResourceAny};

/// WIT `types.request`.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct RequestRef<'a> {
    method: &'a str,
    scheme: &'a str,
    authority: &'a str,
    #[component(name = "path-with-query")]
    path_with_query: &'a str,
    headers: &'a [(&'a str, &'a [u8])],
    params: &'a [(String, String)],
    peer: &'a str,
    route: u32,
    context: &'a [(String, String)],
}

/// The headers of a request, as [`RequestRef`] borrows them.
pub(crate) fn headers(request: &Request) -> Vec<(&str, &[u8])> {
    request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

impl<'a> RequestRef<'a> {
    pub(crate) fn new(request: &'a Request, headers: &'a [(&'a str, &'a [u8])]) -> RequestRef<'a> {
        RequestRef {
            method: request.method.as_str(),
            scheme: request.scheme,
            authority: &request.authority,
            path_with_query: &request.path,
            headers,
            params: &request.params,
            peer: &request.peer,
            route: request.route,
            context: &request.context,
        }
    }
}

/// WIT `types.message`.
#[derive(ComponentType, Lower)]
#[component(variant)]
pub(crate) enum MessageRef<'a> {
    #[component(name = "text")]
    Text(&'a str),
    #[component(name = "binary")]
    Binary(&'a [u8]),
}

impl<'a> From<&'a Message> for MessageRef<'a> {
    fn from(message: &'a Message) -> MessageRef<'a> {
        match message {
            Message::Text(text) => MessageRef::Text(text),
            Message::Binary(bytes) => MessageRef::Binary(bytes),
        }
    }
}

/// WIT `websocket-handler.close-event`.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct CloseEventRef<'a> {
    code: u16,
    reason: &'a str,
    #[component(name = "was-clean")]
    was_clean: bool,
    #[component(name = "is-peer-initiated")]
    is_peer_initiated: bool,
}

impl<'a> From<&'a CloseEvent> for CloseEventRef<'a> {
    fn from(info: &'a CloseEvent) -> CloseEventRef<'a> {
        CloseEventRef {
            code: info.code,
            reason: &info.reason,
            was_clean: info.was_clean,
            is_peer_initiated: info.is_peer_initiated,
        }
    }
}

pub(crate) type Check<'a> = (u32, RequestRef<'a>);
pub(crate) type Handle<'a> = (RequestRef<'a>, &'a [u8]);
pub(crate) type Upgrade<'a> = (RequestRef<'a>, &'a [String]);
pub(crate) type Open<'a> = (Resource<Connection>, RequestRef<'a>);
pub(crate) type Messages<'a> = (Resource<Connection>, &'a [MessageRef<'a>]);
pub(crate) type Close<'a> = (Resource<Connection>, CloseEventRef<'a>);
pub(crate) type Subscribe<'a> = (RequestRef<'a>, Option<&'a str>);
pub(crate) type Wake<'a> = (&'a str, &'a str);
pub(crate) type Alarm = (u32,);
pub(crate) type Answer<'a> = (&'a [u8],);
pub(crate) type Load<'a> = (u32, &'a str, RequestRef<'a>);
pub(crate) type Render<'a> = (u32, RequestRef<'a>, &'a RenderInput);
pub(crate) type Act<'a> = (u32, &'a str, RequestRef<'a>, Resource<Form>);
pub(crate) type Next = (ResourceAny,);
pub(crate) type AnswerResult = (Result<Vec<u8>, HandlerError>,);
