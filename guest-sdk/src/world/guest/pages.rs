//! The component's export `pages`: manifest, loaders, rendering and actions.

use super::{
    Form,
    exports::{AppExports, EndOutput, handler_error, whole, with},
};
use crate::{
    App, Response, Serve,
    bindings::{
        exports::tidegate::app::pages,
        tidegate::app::{forms, types},
    },
    form::{Denied, Done},
    loader::{HandlerRun, RunStep},
    page::{FirstState, PageEntry, View},
};
use std::{cell::RefCell, time::Duration};
use tidegate_routing::{FirstValue, LoaderInfo, Page};

/// A run of a loader or an action, in its own instance. Its output is flushed after the run is
/// dropped.
#[doc(hidden)]
pub struct ExportedRun<T>(RefCell<HandlerRun<T>>, EndOutput);

fn with_page<S: Serve, T>(page: u32, event: impl FnOnce(&PageEntry) -> T) -> T {
    with::<S, _>(|app| event(app.page_at(page)))
}

impl<S: Serve> pages::Guest for AppExports<S> {
    type LoaderRun = ExportedRun<()>;
    type ActionRun = ExportedRun<Done>;

    fn describe() -> Vec<pages::Page> {
        let loader = |loader: LoaderInfo| pages::LoaderInfo {
            name: loader.name,
            is_live: loader.is_live,
            first_value: first_value(loader.first_value),
        };
        let page = |page: Page| pages::Page {
            pattern: page.pattern,
            loaders: page.loaders.into_iter().map(loader).collect(),
            actions: page.actions,
            is_fallback: page.is_fallback,
        };
        let pages = with::<S, _>(App::manifest).pages;
        pages.into_iter().map(page).collect()
    }

    fn start_loader(page: u32, loader: String, request: types::Request) -> pages::LoaderRun {
        let run = with_page::<S, _>(page, |page| page.load(loader, whole(request, Vec::new())));
        pages::LoaderRun::new(ExportedRun(RefCell::new(run), EndOutput))
    }

    fn render(page: u32, request: types::Request, input: pages::RenderInput) -> pages::Shell {
        let first = input.loaders.into_iter().map(|(name, state)| {
            let first = match state {
                pages::LoaderState::Value(json) => FirstState::Value(json),
                pages::LoaderState::Failed(error) => {
                    FirstState::Failed(error.status, error.message)
                }
                pages::LoaderState::Pending => FirstState::Pending,
            };
            (name, first)
        });
        let denied = input.denied.map(|denied| {
            let pages::FormDenial {
                status,
                message,
                errors,
                values,
            } = denied.denial;
            let denial = Denied {
                status,
                message,
                errors,
                values,
            };
            (denied.name, denial)
        });
        let view = View {
            first: first.collect(),
            nonce: input.nonce,
            denied,
        };
        let Response {
            status,
            headers,
            body,
        } = with_page::<S, _>(page, |page| page.render(&whole(request, Vec::new()), &view));
        let html = String::from_utf8(body)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        pages::Shell {
            status,
            headers,
            html,
        }
    }

    fn start_action(
        page: u32,
        action: String,
        request: types::Request,
        form: forms::Form,
    ) -> pages::ActionRun {
        let run = with_page::<S, _>(page, |page| {
            page.act(action, whole(request, Vec::new()), Form(form))
        });
        pages::ActionRun::new(ExportedRun(RefCell::new(run), EndOutput))
    }
}

impl pages::GuestLoaderRun for ExportedRun<()> {
    fn next(&self) -> Result<pages::LoaderStep, types::HandlerError> {
        let _end = EndOutput;
        match self.0.borrow_mut().next() {
            RunStep::Value(json) => Ok(pages::LoaderStep::Value(json)),
            RunStep::Later(wait) => Ok(pages::LoaderStep::Later(millis(wait))),
            RunStep::End(end) => end.map(|()| pages::LoaderStep::End).map_err(handler_error),
        }
    }
}

impl pages::GuestActionRun for ExportedRun<Done> {
    fn next(&self) -> pages::ActionStep {
        let _end = EndOutput;
        match self.0.borrow_mut().next() {
            RunStep::Value(json) => pages::ActionStep::Progress(json),
            RunStep::Later(wait) => pages::ActionStep::Later(millis(wait)),
            RunStep::End(end) => pages::ActionStep::Done(end.map(outcome).map_err(handler_error)),
        }
    }
}

fn outcome(done: Done) -> pages::ActionOutcome {
    match done {
        Done::Success(value, stale) => pages::ActionOutcome::Success(pages::ActionSuccess {
            value,
            stale_loaders: stale,
        }),
        Done::Redirect(status, location) => {
            pages::ActionOutcome::Redirect(pages::Redirect { status, location })
        }
        Done::Deny(denied) => pages::ActionOutcome::Deny(pages::FormDenial {
            status: denied.status,
            message: denied.message,
            errors: denied.errors,
            values: denied.values,
        }),
    }
}

fn first_value(due: FirstValue) -> pages::FirstValue {
    match due {
        FirstValue::Soon => pages::FirstValue::Soon,
        FirstValue::Awaited => pages::FirstValue::Awaited,
        FirstValue::Deferred => pages::FirstValue::Deferred,
    }
}

/// The wait is rounded up: the timer would not be ready at an earlier time.
fn millis(wait: Duration) -> u32 {
    wait.as_nanos()
        .div_ceil(1_000_000)
        .try_into()
        .unwrap_or(u32::MAX)
}
