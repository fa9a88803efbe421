//! Parameters of the app's exports, lowered from where they are: nothing is copied on the way into the guest's memory.

use crate::{
    bindings::{exports::tidegate::app::pages::RenderInput, tidegate::app::types::HandlerError},
    connection::Connection,
    form::FormResource,
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

pub(crate) type CheckParams<'a> = (u32, RequestRef<'a>);
pub(crate) type HandleParams<'a> = (RequestRef<'a>, &'a [u8]);
pub(crate) type UpgradeParams<'a> = (RequestRef<'a>, &'a [String]);
pub(crate) type OpenParams<'a> = (Resource<Connection>, RequestRef<'a>);
pub(crate) type MessagesParams<'a> = (Resource<Connection>, &'a [MessageRef<'a>]);
pub(crate) type CloseParams<'a> = (Resource<Connection>, CloseEventRef<'a>);
pub(crate) type SubscribeParams<'a> = (RequestRef<'a>, Option<&'a str>);
pub(crate) type WakeParams<'a> = (&'a str, &'a str);
pub(crate) type AlarmParams = (u32,);
pub(crate) type AnswerParams<'a> = (&'a [u8],);
pub(crate) type LoadParams<'a> = (u32, &'a str, RequestRef<'a>);
pub(crate) type RenderParams<'a> = (u32, RequestRef<'a>, &'a RenderInput);
pub(crate) type ActParams<'a> = (u32, &'a str, RequestRef<'a>, Resource<FormResource>);
pub(crate) type NextParams = (ResourceAny,);
pub(crate) type AnswerResult = (Result<Vec<u8>, HandlerError>,);
