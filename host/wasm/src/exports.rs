//! Handlers that a component exports: their interfaces, and their functions in one instance.

use crate::{
    bindings::{
        exports::tidegate::app::{
            feed_handler::Feed,
            guard_handler::Verdict,
            pages::{ActionStep, LoaderStep, Shell},
            websocket_handler::Decision,
        },
        tidegate::app::types::{HandlerError, Response},
    },
    contract::{
        ActParams, AlarmParams, AnswerParams, AnswerResult, CheckParams, CloseParams, HandleParams,
        LoadParams, MessagesParams, NextParams, OpenParams, RenderParams, SubscribeParams,
        UpgradeParams, WakeParams,
    },
    state::State,
};
use std::marker::PhantomData;
use wasmtime::{
    Store,
    component::{ComponentNamedList, Func, Instance as Raw, Lift, Lower, ResourceAny},
};

/// Full names of the interfaces that the component exports, with their versions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interfaces {
    pub(crate) manifest: Option<String>,
    pub(crate) guard: Option<String>,
    pub(crate) http: Option<String>,
    pub(crate) websocket: Option<String>,
    pub(crate) feed: Option<String>,
    pub(crate) room: Option<String>,
    pub(crate) pages: Option<String>,
    pub(crate) incoming: Option<String>,
    pub(crate) handler: Option<String>,
}

/// Exported handlers of the component; `None` for an interface that it does not export.
pub(crate) struct HandlerExports {
    pub(crate) check: Option<Export<CheckParams<'static>, (Verdict,)>>,
    pub(crate) handle: Option<Export<HandleParams<'static>, (Response,)>>,
    pub(crate) upgrade: Option<Export<UpgradeParams<'static>, (Decision,)>>,
    pub(crate) open: Option<Export<OpenParams<'static>, ()>>,
    pub(crate) messages: Option<Export<MessagesParams<'static>, ()>>,
    pub(crate) close: Option<Export<CloseParams<'static>, ()>>,
    pub(crate) subscribe: Option<Export<SubscribeParams<'static>, (Result<Feed, Response>,)>>,
    pub(crate) wake: Option<Export<WakeParams<'static>, (Result<(), String>,)>>,
    pub(crate) alarm: Option<Export<AlarmParams, ()>>,
    pub(crate) answer: Option<Export<AnswerParams<'static>, AnswerResult>>,
    pub(crate) load: Option<Export<LoadParams<'static>, (ResourceAny,)>>,
    pub(crate) next_step: Option<Export<NextParams, (Result<LoaderStep, HandlerError>,)>>,
    pub(crate) render: Option<Export<RenderParams<'static>, (Shell,)>>,
    pub(crate) act: Option<Export<ActParams<'static>, (ResourceAny,)>>,
    pub(crate) next_update: Option<Export<NextParams, (ActionStep,)>>,
}

/// A function whose type was checked once, for parameters that live as long as one call.
pub(crate) struct Export<Params, Return> {
    func: Func,
    of: PhantomData<fn(Params) -> Return>,
}

impl<Params, Return> Clone for Export<Params, Return> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Params, Return> Copy for Export<Params, Return> {}

impl<Params: ComponentNamedList + Lower, Return: ComponentNamedList + Lift> Export<Params, Return> {
    fn find(
        raw: &Raw,
        store: &mut Store<State>,
        interface: Option<&String>,
        name: &str,
    ) -> wasmtime::Result<Option<Self>> {
        let Some(interface) = interface else {
            return Ok(None);
        };
        let index = raw.get_export_index(&mut *store, None, interface);
        let index =
            index.and_then(|interface| raw.get_export_index(&mut *store, Some(&interface), name));
        let func = index.and_then(|index| raw.get_func(&mut *store, index));
        let func = func.ok_or_else(|| {
            wasmtime::format_err!("the component exports {interface} without {name}")
        })?;
        func.typed::<Params, Return>(&*store)?;
        Ok(Some(Export {
            func,
            of: PhantomData,
        }))
    }
}

/// Gives a checked function the lifetime of one call's parameters.
macro_rules! shortened {
    ($export:expr, $params:ty, $return:ty) => {{
        // SAFETY: `find` checked the function's type for the same parameters; a lifetime makes no other type of them.
        #[allow(unsafe_code)]
        unsafe {
            wasmtime::component::TypedFunc::<$params, $return>::new_unchecked($export.func())
        }
    }};
}
pub(crate) use shortened;

impl<Params, Return> Export<Params, Return> {
    pub(crate) fn func(&self) -> Func {
        self.func
    }
}

impl HandlerExports {
    pub(crate) fn find(
        raw: &Raw,
        store: &mut Store<State>,
        interfaces: &Interfaces,
    ) -> wasmtime::Result<HandlerExports> {
        let Interfaces {
            guard,
            http,
            websocket,
            feed,
            room,
            pages,
            ..
        } = interfaces;
        Ok(HandlerExports {
            check: Export::find(raw, store, guard.as_ref(), "check")?,
            handle: Export::find(raw, store, http.as_ref(), "handle")?,
            upgrade: Export::find(raw, store, websocket.as_ref(), "on-upgrade")?,
            open: Export::find(raw, store, websocket.as_ref(), "on-open")?,
            messages: Export::find(raw, store, websocket.as_ref(), "on-messages")?,
            close: Export::find(raw, store, websocket.as_ref(), "on-close")?,
            subscribe: Export::find(raw, store, feed.as_ref(), "on-subscribe")?,
            wake: Export::find(raw, store, room.as_ref(), "on-wake")?,
            alarm: Export::find(raw, store, room.as_ref(), "on-alarm")?,
            answer: Export::find(raw, store, room.as_ref(), "on-call")?,
            load: Export::find(raw, store, pages.as_ref(), "start-loader")?,
            next_step: Export::find(raw, store, pages.as_ref(), "[method]loader-run.next")?,
            render: Export::find(raw, store, pages.as_ref(), "render")?,
            act: Export::find(raw, store, pages.as_ref(), "start-action")?,
            next_update: Export::find(raw, store, pages.as_ref(), "[method]action-run.next")?,
        })
    }
}
