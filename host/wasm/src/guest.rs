//! The app as the hub sees it: each event is a call of an export on an idle instance, in the task that has the event.

use crate::{
    http02::Http02,
    http03::Http03,
    pages,
    permits::Use,
    pool::{GuestInstance, Pool},
    room::RoomGuest,
    stdio::EventContext,
    streamed,
};
use bytes::Bytes;
use std::{pin::Pin, sync::Arc};
use tidegate_hub::{
    ActionRun, App, BodyStream, Call, CloseEvent, Conn, Decision, Fault, Feed, Hub, LoaderRun,
    Message, Pages, Request, Response, StreamingResponse, Verdict, app,
    page::{Form, RenderInput, Shell},
};

/// A started app.
pub struct Guest {
    pool: Arc<Pool>,
    hub: Arc<Hub>,
    /// Whether an instance may serve one streamed request after another.
    reuse: bool,
    /// Use that a streamed request counts as. A component without a manifest has only streamed requests, which may use all instances.
    stream: Use,
}

impl Guest {
    pub(crate) fn new(pool: Pool, has_manifest: bool) -> Arc<Guest> {
        let reuse = has_manifest || pool.options().reuse_foreign;
        let hub = pool.hub().expect("started with a hub").clone();
        let pool = Arc::new(pool);
        let stream = if has_manifest {
            Use::Stream
        } else {
            Use::Event
        };
        Arc::new(Guest {
            pool,
            hub,
            reuse,
            stream,
        })
    }

    /// Runs one event on an idle instance, which goes back to the others unless it failed.
    fn event<T>(
        &self,
        about: EventContext,
        call: impl AsyncFnOnce(&mut GuestInstance) -> wasmtime::Result<T>,
    ) -> impl Future<Output = Result<T, Fault>> {
        self.event_of(Use::Event, about, call)
    }

    async fn event_of<T>(
        &self,
        of: Use,
        about: EventContext,
        call: impl AsyncFnOnce(&mut GuestInstance) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        self.hub.counters().guest_calls.add(1);
        let mut taken = self.pool.take(of).await?;
        let outcome = taken
            .instance
            .run(about, self.pool.options().wall_max, call)
            .await;
        if outcome.is_ok() {
            taken.give_back();
        }
        outcome
    }
}

impl App for Guest {
    fn check<'a>(&'a self, guard: u32, request: &'a Request) -> Call<'a, Verdict> {
        Box::pin(self.event(EventContext::default(), async move |instance| {
            instance.check(guard, request).await
        }))
    }

    fn handle<'a>(&'a self, request: &'a Request, body: Bytes) -> Call<'a, Response> {
        Box::pin(self.event(at(request), async move |instance| {
            instance.handle(request, &body).await
        }))
    }

    fn stream<'a>(&'a self, request: &'a Request, body: BodyStream) -> Call<'a, StreamingResponse> {
        self.hub.counters().guest_calls.add(1);
        Box::pin(async move {
            let app = (&self.pool, &self.hub);
            match self.pool.interfaces().handler {
                Some(_) => {
                    streamed::stream::<Http03>(app, request, body, self.stream, self.reuse).await
                }
                None => {
                    streamed::stream::<Http02>(app, request, body, self.stream, self.reuse).await
                }
            }
        })
    }

    fn upgrade<'a>(&'a self, request: &'a Request, offered: &'a [String]) -> Call<'a, Decision> {
        Box::pin(self.event(at(request), async move |instance| {
            instance.upgrade(request, offered).await
        }))
    }

    fn open(self: Arc<Self>, conn: Arc<Conn>, request: Request) -> Call<'static, ()> {
        Box::pin(async move {
            self.event(of(conn), async |instance| instance.open(&request).await)
                .await
        })
    }

    fn messages(self: Arc<Self>, conn: Arc<Conn>, messages: Vec<Message>) -> Call<'static, ()> {
        Box::pin(async move {
            self.event(of(conn), async |instance| {
                instance.messages(&messages).await
            })
            .await
        })
    }

    fn close(self: Arc<Self>, conn: Arc<Conn>, info: CloseEvent) -> Call<'static, ()> {
        Box::pin(async move {
            self.event(of(conn), async |instance| instance.close(&info).await)
                .await
        })
    }

    fn subscribe<'a>(
        &'a self,
        request: &'a Request,
        last_event_id: Option<&'a str>,
    ) -> Call<'a, Result<Feed, Response>> {
        Box::pin(self.event(at(request), async move |instance| {
            instance.subscribe(request, last_event_id).await
        }))
    }

    fn instance(&self) -> Call<'_, Box<dyn app::Instance>> {
        Box::pin(async {
            let instance = RoomGuest::new(&self.pool, &self.hub).await?;
            Ok(Box::new(instance) as Box<dyn app::Instance>)
        })
    }

    fn pages(&self) -> &dyn Pages {
        self
    }

    fn wait_for_shortage(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let account = self.pool.account().clone();
        Box::pin(async move { account.shortage().await })
    }
}

impl Pages for Guest {
    fn load<'a>(
        &'a self,
        page: u32,
        loader: &'a str,
        request: &'a Request,
    ) -> Call<'a, Box<dyn LoaderRun>> {
        Box::pin(pages::load((&self.pool, &self.hub), page, loader, request))
    }

    fn render<'a>(
        &'a self,
        page: u32,
        request: &'a Request,
        view: &'a RenderInput,
    ) -> Call<'a, Shell> {
        Box::pin(
            self.event_of(Use::Render, at(request), async move |instance| {
                instance.render(page, request, view).await
            }),
        )
    }

    fn act<'a>(
        &'a self,
        page: u32,
        action: &'a str,
        request: &'a Request,
        form: Box<dyn Form>,
    ) -> Call<'a, Box<dyn ActionRun>> {
        Box::pin(pages::act(
            (&self.pool, &self.hub),
            page,
            action,
            request,
            form,
        ))
    }
}

fn at(request: &Request) -> EventContext {
    EventContext {
        route: Some(request.route),
        ..EventContext::default()
    }
}

fn of(conn: Arc<Conn>) -> EventContext {
    EventContext {
        conn: Some(conn),
        ..EventContext::default()
    }
}
