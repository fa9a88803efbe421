//! Loaders and actions: each runs in an instance that it has to itself, and that goes back to the others when it ends well.

use crate::{
    bindings::{exports::tidegate::app::pages as wit, tidegate::app::types},
    form::FormResource,
    permits::Use,
    pool::{GuestInstance, Pool, PooledInstance},
    stdio::EventContext,
};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tidegate_hub::{
    ActionRun, Call, Fault, FaultContext, Hub, LoaderRun, Request, contract,
    page::{
        self, ActionOutcome, ActionStep, FormDenial, HandlerError, LoaderState, LoaderStep,
        RenderInput, Shell,
    },
};
use tidegate_routing::{FirstValue, LoaderInfo, Page};
use tokio::{runtime::Handle, time::timeout};
use wasmtime::component::ResourceAny;

/// The least that a guest is left alone that asks for time: no loop of waiting takes a core.
const LATER_MIN: Duration = Duration::from_millis(1);

/// A resource of the guest that is asked again and again.
struct GuestRun {
    /// None while it is asked: a call that is given up takes the instance with it.
    rest: Option<(PooledInstance, ResourceAny)>,
    about: EventContext,
    wall_max: Duration,
    hub: Arc<Hub>,
}

impl GuestRun {
    async fn begin(
        (pool, hub): (&Arc<Pool>, &Arc<Hub>),
        of: Use,
        route: u32,
        wall_max: Duration,
        call: impl AsyncFnOnce(&mut GuestInstance) -> wasmtime::Result<ResourceAny>,
    ) -> Result<GuestRun, Fault> {
        let about = EventContext {
            route: Some(route),
            ..EventContext::default()
        };
        hub.counters().guest_calls.add(1);
        let mut taken = pool.take(of).await?;
        let resource = taken.instance.run(about.clone(), wall_max, call).await?;
        Ok(GuestRun {
            rest: Some((taken, resource)),
            about,
            wall_max,
            hub: hub.clone(),
        })
    }

    /// Asks once. After a fault the instance is gone.
    async fn ask<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut GuestInstance, ResourceAny) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        let Some((mut taken, resource)) = self.rest.take() else {
            return Err(Fault::Host(
                "it failed before, and can't be asked again".into(),
            ));
        };
        self.hub.counters().guest_calls.add(1);
        let value = taken
            .instance
            .run(self.about.clone(), self.wall_max, async |instance| {
                call(instance, resource).await
            })
            .await?;
        self.rest = Some((taken, resource));
        Ok(value)
    }
}

/// The guest's destructor runs as an event of its own, so a loader releases its resources when its client leaves. It counts as work after
/// an answer and has the same time limit.
impl Drop for GuestRun {
    fn drop(&mut self) {
        let (Some((taken, resource)), Ok(runtime)) = (self.rest.take(), Handle::try_current())
        else {
            return;
        };
        runtime.spawn(end(
            taken,
            resource,
            self.about.clone(),
            self.wall_max,
            self.hub.clone(),
        ));
    }
}

async fn end(
    mut taken: PooledInstance,
    resource: ResourceAny,
    about: EventContext,
    wall_max: Duration,
    hub: Arc<Hub>,
) {
    let wall_max = wall_max.min(hub.limits().after_answer_max);
    let end = async |instance: &mut GuestInstance| {
        resource.resource_drop_async(&mut instance.store).await
    };
    hub.counters().guest_calls.add(1);
    match taken.instance.run(about, wall_max, end).await {
        Ok(()) => taken.give_back(),
        Err(fault) => {
            let context = FaultContext {
                event: "a loader or an action failed when it was dropped",
                ..FaultContext::default()
            };
            fault.report(hub.counters(), context);
        }
    }
}

type PendingCall = Pin<
    Box<
        dyn Future<
                Output = (
                    Result<Result<wit::LoaderStep, types::HandlerError>, Fault>,
                    PooledInstance,
                ),
            > + Send,
    >,
>;

struct LoaderInstance {
    running: GuestRun,
    /// The call that is asking it for its next step. If the client leaves, the call goes on, so that the destructor can run.
    asked: Option<(PendingCall, ResourceAny)>,
}

async fn ask(
    mut taken: PooledInstance,
    loader: ResourceAny,
    about: EventContext,
    wall_max: Duration,
) -> (
    Result<Result<wit::LoaderStep, types::HandlerError>, Fault>,
    PooledInstance,
) {
    let step = taken
        .instance
        .run(about, wall_max, async |instance| {
            instance.next_step(loader).await
        })
        .await;
    (step, taken)
}

impl LoaderRun for LoaderInstance {
    fn next(&mut self) -> Call<'_, Result<LoaderStep, HandlerError>> {
        Box::pin(async {
            if let Some((taken, loader)) = self.running.rest.take() {
                self.running.hub.counters().guest_calls.add(1);
                self.asked = Some((
                    Box::pin(ask(
                        taken,
                        loader,
                        self.running.about.clone(),
                        self.running.wall_max,
                    )),
                    loader,
                ));
            }
            let Some((asked, loader)) = &mut self.asked else {
                return Err(Fault::Host(
                    "it failed before, and can't be asked again".into(),
                ));
            };
            let ((step, taken), loader) = (asked.await, *loader);
            self.asked = None;
            let step = step?;
            self.running.rest = Some((taken, loader));
            Ok(match step {
                Ok(wit::LoaderStep::Value(json)) => Ok(LoaderStep::Value(json)),
                Ok(wit::LoaderStep::Later(ms)) => Ok(LoaderStep::Later(later(ms))),
                Ok(wit::LoaderStep::End) => Ok(LoaderStep::End),
                Err(error) => Err(handler_error(error)?),
            })
        })
    }
}

impl Drop for LoaderInstance {
    fn drop(&mut self) {
        let (Some((asked, loader)), Ok(runtime)) = (self.asked.take(), Handle::try_current())
        else {
            return;
        };
        let (about, wall_max, hub) = (
            self.running.about.clone(),
            self.running.wall_max,
            self.running.hub.clone(),
        );
        runtime.spawn(async move {
            match timeout(hub.limits().after_answer_max, asked).await {
                Ok((Ok(_), taken)) => end(taken, loader, about, wall_max, hub).await,
                // Its caller has given the call up, perhaps with a fault of its own.
                Ok((Err(fault), _)) => {
                    tracing::warn!("a loader whose client left failed: {fault}");
                }
                Err(_) => tracing::warn!(
                    "a loader whose client left had no end in time: its instance is dropped"
                ),
            }
        });
    }
}

struct ActionInstance(GuestRun);

impl ActionRun for ActionInstance {
    fn next(&mut self) -> Call<'_, ActionStep> {
        Box::pin(async {
            let update = self
                .0
                .ask(async |instance, attempt| instance.next_update(attempt).await)
                .await?;
            Ok(match update {
                wit::ActionStep::Progress(json) => ActionStep::Progress(json),
                wit::ActionStep::Later(ms) => ActionStep::Later(later(ms)),
                wit::ActionStep::Done(Ok(outcome)) => ActionStep::Done(Ok(self::outcome(outcome)?)),
                wit::ActionStep::Done(Err(error)) => ActionStep::Done(Err(handler_error(error)?)),
            })
        })
    }
}

pub(crate) async fn load(
    app: (&Arc<Pool>, &Arc<Hub>),
    index: u32,
    loader: &str,
    request: &Request,
) -> Result<Box<dyn LoaderRun>, Fault> {
    let wall_max = app.0.options().wall_max;
    let begin = async |instance: &mut GuestInstance| instance.load(index, loader, request).await;
    let running = GuestRun::begin(app, Use::Loader, request.route, wall_max, begin).await?;
    Ok(Box::new(LoaderInstance {
        running,
        asked: None,
    }))
}

pub(crate) async fn act(
    app: (&Arc<Pool>, &Arc<Hub>),
    index: u32,
    action: &str,
    request: &Request,
    form: Box<dyn page::Form>,
) -> Result<Box<dyn ActionRun>, Fault> {
    // It waits for its form.
    let wall_max = app.1.limits().upload_within;
    let begin = async |instance: &mut GuestInstance| {
        let form = instance.store.data_mut().table.push(FormResource(form))?;
        instance.act(index, action, request, form).await
    };
    Ok(Box::new(ActionInstance(
        GuestRun::begin(app, Use::Action, request.route, wall_max, begin).await?,
    )))
}

fn later(ms: u32) -> Duration {
    Duration::from_millis(ms.into()).max(LATER_MIN)
}

fn handler_error(error: types::HandlerError) -> Result<HandlerError, Fault> {
    Ok(HandlerError {
        status: contract::error_status(error.status)?,
        message: error.message,
    })
}

fn outcome(outcome: wit::ActionOutcome) -> Result<ActionOutcome, Fault> {
    Ok(match outcome {
        wit::ActionOutcome::Success(success) => ActionOutcome::Success {
            value: success.value,
            stale: success.stale_loaders,
        },
        wit::ActionOutcome::Redirect(redirect) => ActionOutcome::Redirect {
            status: contract::redirect_status(redirect.status)?,
            location: redirect.location,
        },
        wit::ActionOutcome::Deny(wit::FormDenial {
            status,
            message,
            errors,
            values,
        }) => ActionOutcome::Deny(FormDenial {
            status: contract::denial_status(status)?,
            message,
            errors,
            values,
        }),
    })
}

/// Converts a view to the contract's type.
pub(crate) fn render_input(view: &RenderInput) -> wit::RenderInput {
    let loaders = view.first.iter().map(|(name, initial)| {
        let state = match initial {
            LoaderState::Value(json) => wit::LoaderState::Value(json.clone()),
            LoaderState::Failed(HandlerError { status, message }) => {
                wit::LoaderState::Failed(types::HandlerError {
                    status: status.as_u16(),
                    message: message.clone(),
                })
            }
            LoaderState::Pending => wit::LoaderState::Pending,
        };
        (name.clone(), state)
    });
    let denied = view.denied.clone().map(|(action, denial)| {
        let FormDenial {
            status,
            message,
            errors,
            values,
        } = denial;
        wit::DeniedAction {
            name: action,
            denial: wit::FormDenial {
                status: status.as_u16(),
                message,
                errors,
                values,
            },
        }
    });
    wit::RenderInput {
        loaders: loaders.collect(),
        nonce: view.nonce.clone(),
        denied,
    }
}

pub(crate) fn shell(shell: wit::Shell) -> Result<Shell, Fault> {
    let headers = shell
        .headers
        .into_iter()
        .map(|(name, value)| (name, value.into()));
    Ok(Shell {
        status: contract::status(shell.status)?,
        headers: headers.collect(),
        html: shell.html,
    })
}

fn first_value(value: wit::FirstValue) -> FirstValue {
    match value {
        wit::FirstValue::Soon => FirstValue::Soon,
        wit::FirstValue::Awaited => FirstValue::Awaited,
        wit::FirstValue::Deferred => FirstValue::Deferred,
    }
}

/// Converts the pages of the app's manifest.
pub(crate) fn described(pages: Vec<wit::Page>) -> Vec<Page> {
    let loader = |loader: wit::LoaderInfo| LoaderInfo {
        name: loader.name,
        is_live: loader.is_live,
        first_value: first_value(loader.first_value),
    };
    let page = |page: wit::Page| Page {
        pattern: page.pattern,
        loaders: page.loaders.into_iter().map(loader).collect(),
        actions: page.actions,
        is_fallback: page.is_fallback,
    };
    pages.into_iter().map(page).collect()
}
