//! The app as the hub sees it: each event is a call of an export on an idle instance, in the task that has the event.

use crate::{
    bindings::{
        exports::tidegate::app::{events_handler, guard_handler, websocket_handler},
        tidegate::app::types,
    },
    contract::{self, Check, Close, CloseInfoRef, Handle, MessageRef, Messages, Open, RequestRef, Subscribe, Upgrade},
    fault::{fault, told},
    http02, http03, meter,
    pool::{Instance, Pool, shortened},
};
use bytes::Bytes;
use std::sync::Arc;
use tidegate_hub::{
    Accept, App, Body, Call, CloseInfo, Conn, Decision, Fault, Feed, First, Header, Hub, Message, Passed, Request, Response, Streamed,
    Verdict,
};

/// A started app.
pub struct Guest {
    pool: Arc<Pool>,
    hub: Arc<Hub>,
    /// For `wasi:http` 0.3.
    proxy: Option<http03::Proxy>,
    /// Whether an instance may serve one streamed request after another.
    reuse: bool,
}

impl Guest {
    pub(crate) fn new(pool: Pool, has_manifest: bool) -> Arc<Guest> {
        let reuse = has_manifest || pool.options().reuse_foreign;
        let hub = pool.hub().expect("started with a hub").clone();
        let pool = Arc::new(pool);
        let proxy =
            pool.interfaces().handler.is_some().then(|| http03::Proxy::new(pool.clone(), hub.clone(), pool.options().reuse_foreign));
        Arc::new(Guest { pool, hub, proxy, reuse })
    }

    /// Runs one event: an idle instance, its limits, and back to the others unless it failed.
    async fn event<T>(&self, conn: Option<Arc<Conn>>, call: impl AsyncFnOnce(&mut Instance) -> wasmtime::Result<T>) -> Result<T, Fault> {
        self.hub.counters().guest_calls.add(1);
        let outcome = self.run(conn, call).await;
        if outcome.is_err() {
            self.hub.counters().faults.add(1);
        }
        outcome
    }

    async fn run<T>(&self, conn: Option<Arc<Conn>>, call: impl AsyncFnOnce(&mut Instance) -> wasmtime::Result<T>) -> Result<T, Fault> {
        let mut taken = self.pool.take().await?;
        let instance = &mut taken.instance;
        let state = instance.store.data_mut();
        state.memory.denied = false;
        let clock = state.meter.clone();
        state.set_connection(conn).map_err(|error| Fault::Host(told(&error)))?;
        instance.store.set_epoch_deadline(1);
        match meter::event(&clock, self.pool.options().wall_max, call(instance)).await? {
            Ok(value) => {
                _ = taken.instance.store.data_mut().set_connection(None);
                taken.give_back();
                Ok(value)
            }
            Err(error) => Err(fault(&error, &taken.instance.store)),
        }
    }
}

/// Calls an export with parameters that live as long as the call.
macro_rules! call {
    ($instance:ident.$export:ident, $params:ty => $return:ty, $values:expr) => {{
        let Some(export) = $instance.exports.$export else {
            return Err(wasmtime::format_err!(concat!("the component has no handler for ", stringify!($export))));
        };
        shortened!(export, $params, $return).call_async(&mut $instance.store, $values).await
    }};
}

impl App for Guest {
    fn check<'a>(&'a self, guard: u32, request: &'a Request) -> Call<'a, Verdict> {
        Box::pin(async move {
            let headers = contract::headers(request);
            let verdict = self.event(None, async |instance| {
                let params = (guard, RequestRef::new(request, &headers));
                let (verdict,) = call!(instance.check, Check<'_> => (guard_handler::Verdict,), params)?;
                Ok(verdict)
            });
            Ok(match verdict.await? {
                guard_handler::Verdict::Pass(passed) => {
                    Verdict::Pass(Passed { headers: self::headers(passed.headers), context: passed.context })
                }
                guard_handler::Verdict::Answer(answer) => Verdict::Answer(response(answer)),
            })
        })
    }

    fn handle<'a>(&'a self, request: &'a Request, body: Bytes) -> Call<'a, Response> {
        Box::pin(async move {
            let headers = contract::headers(request);
            let answer = self.event(None, async |instance| {
                let params = (RequestRef::new(request, &headers), &body[..]);
                let (answer,) = call!(instance.handle, Handle<'_> => (types::Response,), params)?;
                Ok(answer)
            });
            Ok(response(answer.await?))
        })
    }

    fn stream<'a>(&'a self, request: &'a Request, body: Body) -> Call<'a, Streamed> {
        self.hub.counters().guest_calls.add(1);
        Box::pin(async move {
            let outcome = match &self.proxy {
                Some(proxy) => proxy.stream(request, body).await,
                None => http02::stream(&self.pool, &self.hub, request, body, self.reuse).await,
            };
            // What the guest answered against the contract is counted by who finds it at every other route.
            if outcome.as_ref().is_err_and(|fault| !matches!(fault, Fault::Answer(_))) {
                self.hub.counters().faults.add(1);
            }
            outcome
        })
    }

    fn upgrade<'a>(&'a self, request: &'a Request, offered: &'a [String]) -> Call<'a, Decision> {
        Box::pin(async move {
            let headers = contract::headers(request);
            let decision = self.event(None, async |instance| {
                let params = (RequestRef::new(request, &headers), offered);
                let (decision,) = call!(instance.upgrade, Upgrade<'_> => (websocket_handler::Decision,), params)?;
                Ok(decision)
            });
            Ok(match decision.await? {
                websocket_handler::Decision::Accept(accept) => Decision::Accept(Accept {
                    protocol: accept.protocol,
                    headers: self::headers(accept.headers),
                    attachment: accept.attachment.into(),
                    tags: accept.tags,
                }),
                websocket_handler::Decision::Reject(answer) => Decision::Reject(response(answer)),
                websocket_handler::Decision::AcceptThenClose((code, reason)) => Decision::AcceptThenClose(code, reason),
            })
        })
    }

    fn open(self: Arc<Self>, conn: Arc<Conn>, request: Request) -> Call<'static, ()> {
        Box::pin(async move {
            let headers = contract::headers(&request);
            self.event(Some(conn), async |instance| {
                let params = (instance.connection(), RequestRef::new(&request, &headers));
                call!(instance.open, Open<'_> => (), params)
            })
            .await
        })
    }

    fn messages(self: Arc<Self>, conn: Arc<Conn>, messages: Vec<Message>) -> Call<'static, ()> {
        Box::pin(async move {
            let messages: Vec<MessageRef<'_>> = messages.iter().map(MessageRef::from).collect();
            self.event(Some(conn), async |instance| {
                let params = (instance.connection(), &messages[..]);
                call!(instance.messages, Messages<'_> => (), params)
            })
            .await
        })
    }

    fn close(self: Arc<Self>, conn: Arc<Conn>, info: CloseInfo) -> Call<'static, ()> {
        Box::pin(async move {
            self.event(Some(conn), async |instance| {
                let params = (instance.connection(), CloseInfoRef::from(&info));
                call!(instance.close, Close<'_> => (), params)
            })
            .await
        })
    }

    fn subscribe<'a>(&'a self, request: &'a Request, last_event_id: Option<&'a str>) -> Call<'a, Result<Feed, Response>> {
        Box::pin(async move {
            let headers = contract::headers(request);
            let feed = self.event(None, async |instance| {
                let params = (RequestRef::new(request, &headers), last_event_id);
                let (feed,) = call!(instance.subscribe, Subscribe<'_> => (Result<events_handler::Feed, types::Response>,), params)?;
                Ok(feed)
            });
            Ok(match feed.await? {
                Ok(feed) => {
                    let first = feed.first.into_iter().map(|first| First { data: first.data, event: first.event });
                    Ok(Feed { topics: feed.topics, first: first.collect() })
                }
                Err(answer) => Err(response(answer)),
            })
        })
    }
}

fn headers(headers: Vec<types::Header>) -> Vec<Header> {
    headers.into_iter().map(|(name, value)| (name, value.into())).collect()
}

fn response(response: types::Response) -> Response {
    Response { status: response.status, headers: headers(response.headers), body: response.body.into() }
}
