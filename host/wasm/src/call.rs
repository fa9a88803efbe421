//! Calls of an instance's exports, one function an export: the hub's values in, the hub's values out.

use crate::{
    bindings::{
        exports::tidegate::app::{feed_handler, guard_handler, pages as wit, websocket_handler},
        tidegate::app::types,
    },
    contract::{
        self, ActParams, AlarmParams, AnswerParams, AnswerResult, CheckParams, CloseEventRef,
        CloseParams, HandleParams, LoadParams, MessageRef, MessagesParams, NextParams, OpenParams,
        RenderParams, RequestRef, SubscribeParams, UpgradeParams, WakeParams,
    },
    exports::shortened,
    fault::fault,
    form::FormResource,
    meter, pages,
    pool::GuestInstance,
    state::{MEMORY_RETRY, MEMORY_WAIT},
    stdio::EventContext,
};
use bytes::Bytes;
use std::{pin::pin, time::Duration};
use tidegate_hub::{
    self as hub, Accept, CloseEvent, Decision, Fault, Feed, FeedEvent, Header, Message, Pass,
    Request, Response, RoomId, Verdict, page,
};
use tokio::time::{Instant, sleep};
use wasmtime::{
    Result,
    component::{Resource, ResourceAny},
};

/// Calls an export with parameters that live as long as the call.
macro_rules! call {
    ($instance:ident.$export:ident, $params:ty => $return:ty, $values:expr) => {{
        let Some(export) = $instance.exports.$export else {
            return Err(wasmtime::format_err!(concat!(
                "the component has no handler for ",
                stringify!($export)
            )));
        };
        shortened!(export, $params, $return)
            .call_async(&mut $instance.store, $values)
            .await
    }};
}

impl GuestInstance {
    /// Runs one event within its limits. After a fault the instance must not be used again.
    pub(crate) async fn run<T>(
        &mut self,
        about: EventContext,
        wall_max: Duration,
        call: impl AsyncFnOnce(&mut GuestInstance) -> Result<T>,
    ) -> std::result::Result<T, Fault> {
        if self.store.data_mut().memory.begin_call().is_err() {
            Box::pin(self.wait_to_begin_call()).await?;
        }
        let state = self.store.data_mut();
        state.memory.begin_event();
        let clock = state.meter.clone();
        state.set_about(about);
        self.store.set_epoch_deadline(1);
        let outcome = meter::event(&clock, wall_max, pin!(call(self))).await?;
        match outcome {
            Ok(value) => {
                let state = self.store.data_mut();
                state.memory.end_call();
                state.set_about(EventContext::default());
                Ok(value)
            }
            Err(error) => Err(fault(&error, &self.store)),
        }
    }

    /// Waits until the server has memory for the values that the next call may pass to the host.
    async fn wait_to_begin_call(&mut self) -> std::result::Result<(), Fault> {
        let until = Instant::now() + MEMORY_WAIT;
        while Instant::now() < until && !self.store.data().meter.is_evicted() {
            sleep(MEMORY_RETRY).await;
            if self.store.data_mut().memory.begin_call().is_ok() {
                return Ok(());
            }
        }
        Err(Fault::Shortage)
    }

    pub(crate) async fn check(&mut self, guard: u32, request: &Request) -> Result<Verdict> {
        let headers = contract::headers(request);
        let params = (guard, RequestRef::new(request, &headers));
        let (verdict,) = call!(self.check, CheckParams<'_> => (guard_handler::Verdict,), params)?;
        Ok(match verdict {
            guard_handler::Verdict::Pass(pass) => Verdict::Pass(Pass {
                headers: self::headers(pass.headers),
                context: pass.context,
            }),
            guard_handler::Verdict::Respond(answer) => Verdict::Answer(response(answer)?),
        })
    }

    pub(crate) async fn handle(&mut self, request: &Request, body: &[u8]) -> Result<Response> {
        let headers = contract::headers(request);
        let params = (RequestRef::new(request, &headers), body);
        let (answer,) = call!(self.handle, HandleParams<'_> => (types::Response,), params)?;
        Ok(response(answer)?)
    }

    pub(crate) async fn upgrade(
        &mut self,
        request: &Request,
        offered: &[String],
    ) -> Result<Decision> {
        let headers = contract::headers(request);
        let params = (RequestRef::new(request, &headers), offered);
        let (decision,) =
            call!(self.upgrade, UpgradeParams<'_> => (websocket_handler::Decision,), params)?;
        Ok(match decision {
            websocket_handler::Decision::Accept(accept) => Decision::Accept(Accept {
                protocol: accept.protocol,
                headers: self::headers(accept.headers),
                attachment: accept.attachment.into(),
                tags: accept.tags,
                room: None,
                route: None,
            }),
            websocket_handler::Decision::Reject(answer) => Decision::Reject(response(answer)?),
            websocket_handler::Decision::AcceptThenClose(close) => {
                Decision::AcceptThenClose(close.code, close.reason)
            }
        })
    }

    pub(crate) async fn open(&mut self, request: &Request) -> Result<()> {
        let headers = contract::headers(request);
        let params = (self.connection(), RequestRef::new(request, &headers));
        call!(self.open, OpenParams<'_> => (), params)
    }

    pub(crate) async fn messages(&mut self, messages: &[Message]) -> Result<()> {
        let (one, many);
        // Most often there is one, and nothing to allocate.
        let messages: &[MessageRef<'_>] = match messages {
            [message] => {
                one = [MessageRef::from(message)];
                &one
            }
            messages => {
                many = messages.iter().map(MessageRef::from).collect::<Vec<_>>();
                &many
            }
        };
        let params = (self.connection(), messages);
        call!(self.messages, MessagesParams<'_> => (), params)
    }

    pub(crate) async fn close(&mut self, info: &CloseEvent) -> Result<()> {
        let params = (self.connection(), CloseEventRef::from(info));
        call!(self.close, CloseParams<'_> => (), params)
    }

    pub(crate) async fn subscribe(
        &mut self,
        request: &Request,
        last_event_id: Option<&str>,
    ) -> Result<std::result::Result<Feed, Response>> {
        let headers = contract::headers(request);
        let params = (RequestRef::new(request, &headers), last_event_id);
        let (feed,) = call!(self.subscribe, SubscribeParams<'_> => (std::result::Result<feed_handler::Feed, types::Response>,), params)?;
        Ok(match feed {
            Ok(feed) => {
                let first = feed.initial_events.into_iter().map(|event| FeedEvent {
                    data: event.data,
                    event: event.event,
                });
                Ok(Feed {
                    topics: feed.topics,
                    first: first.collect(),
                    opened: None,
                })
            }
            Err(answer) => Err(response(answer)?),
        })
    }

    pub(crate) async fn wake(&mut self, room: &RoomId) -> Result<()> {
        let params = (room.class(), room.name());
        let (woken,) =
            call!(self.wake, WakeParams<'_> => (std::result::Result<(), String>,), params)?;
        woken.map_err(|why| wasmtime::format_err!("the room could not wake: {why}"))
    }

    pub(crate) async fn answer(
        &mut self,
        payload: &[u8],
    ) -> Result<std::result::Result<Bytes, (u16, String)>> {
        let (answer,) = call!(self.answer, AnswerParams<'_> => AnswerResult, (payload,))?;
        let answer = answer.map_err(|error| (error.status, error.message));
        Ok(answer.map(Bytes::from))
    }

    pub(crate) async fn alarm(&mut self, attempt: u32) -> Result<()> {
        call!(self.alarm, AlarmParams => (), (attempt,))
    }

    pub(crate) async fn load(
        &mut self,
        page: u32,
        loader: &str,
        request: &Request,
    ) -> Result<ResourceAny> {
        let headers = contract::headers(request);
        let params = (page, loader, RequestRef::new(request, &headers));
        let (loader,) = call!(self.load, LoadParams<'_> => (ResourceAny,), params)?;
        Ok(loader)
    }

    pub(crate) async fn next_step(
        &mut self,
        loader: ResourceAny,
    ) -> Result<std::result::Result<wit::LoaderStep, types::HandlerError>> {
        let (step,) = call!(self.next_step, NextParams => (std::result::Result<wit::LoaderStep, types::HandlerError>,), (loader,))?;
        Ok(step)
    }

    pub(crate) async fn render(
        &mut self,
        page: u32,
        request: &Request,
        view: &page::RenderInput,
    ) -> Result<page::Shell> {
        let (headers, input) = (contract::headers(request), pages::render_input(view));
        let params = (page, RequestRef::new(request, &headers), &input);
        let (shell,) = call!(self.render, RenderParams<'_> => (wit::Shell,), params)?;
        Ok(pages::shell(shell)?)
    }

    pub(crate) async fn act(
        &mut self,
        page: u32,
        action: &str,
        request: &Request,
        form: Resource<FormResource>,
    ) -> Result<ResourceAny> {
        let headers = contract::headers(request);
        let params = (page, action, RequestRef::new(request, &headers), form);
        let (attempt,) = call!(self.act, ActParams<'_> => (ResourceAny,), params)?;
        Ok(attempt)
    }

    pub(crate) async fn next_update(&mut self, attempt: ResourceAny) -> Result<wit::ActionStep> {
        let (update,) = call!(self.next_update, NextParams => (wit::ActionStep,), (attempt,))?;
        Ok(update)
    }
}

fn headers(headers: Vec<types::Header>) -> Vec<Header> {
    headers
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect()
}

/// Converts a response. A status that the contract does not allow is a fault.
fn response(response: types::Response) -> std::result::Result<Response, Fault> {
    Ok(Response {
        status: hub::contract::status(response.status)?,
        headers: headers(response.headers),
        body: response.body.into(),
    })
}
