//! Pages: HTML with the values of loaders, in the first answer and streamed after it, and forms
//! that work without JavaScript.

use crate::{
    Error, IntoResponse, Request, Response, Result,
    form::{Denied, Done, Form},
    loader::{HandlerRun, Loader, Sink},
    value_slot::ValueSlot,
    world,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, pin::Pin, rc::Rc};
use tidegate_routing::{self as routing, LoaderInfo};

/// A page: a function that renders it, loaders that bring its values, and actions for its forms.
///
/// The host starts the loaders, renders the page with the values that are there (within 50 ms by
/// default), sends it at once, and streams later values to the browser, where
/// `/__tidegate/client.js` receives them. Forms are posted to the page's own path with a field
/// `__action`, the name of the action.
///
/// A loader is a constant, a [`Loader`], that has the type of its values. Page, function and view
/// use that constant, so a name without a function, a misspelt name and a value of another type do
/// not compile.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// const WATER: Loader<String> = Loader::new("water");
///
/// fn app() -> App {
///     let tides = Page::new(render).loader(WATER, water).action("rename", rename);
///     App::new().page("/tides/{port}", tides)
/// }
///
/// async fn water(req: &Request, sink: &mut Sink<String>) -> Result {
///     let port: String = req.param("port")?;
///     sink.send(&format!("high at {port}")).await?;
///     sink.send(&"falling".to_owned()).await
/// }
///
/// #[derive(serde::Deserialize)]
/// struct Name {
///     name: String,
/// }
///
/// async fn rename(_: &Request, form: &mut Form) -> Result<Done> {
///     let Name { name } = form.read().await?; // a missing field is a 422, shown at the field
///     match name.as_str() {
///         "" => Ok(Done::deny(422, "please look again").field("name", "a name, please")),
///         _ => Ok(Done::redirect(&format!("/tides/{name}"))),
///     }
/// }
///
/// fn render(_: &Request, view: &View) -> Result<Response> {
///     let water = view.value(WATER)?;
///     Ok(Response::html(format!("<p>{}</p>{}", water.unwrap_or_default(), view.script())))
/// }
///
/// let mut server = testing::serve(app());
/// let page = server.get("/tides/calais");
/// assert!(page.text().contains("<p>high at calais</p>"));
/// let load = server.load("/tides/{port}", WATER, &[("port", "calais")]);
/// assert_eq!(load.values::<String>(), ["high at calais", "falling"]);
/// let reply = server.submit("/tides/calais", "rename", &[("name", "dover")]);
/// assert_eq!((reply.status(), reply.header("location")), (303, Some("/tides/dover")));
/// assert_eq!(server.submit("/tides/calais", "rename", &[("name", "")]).status(), 422);
/// ```
///
/// A name without its function, a misspelt name and a value of another type are errors of the
/// compiler:
///
/// ```compile_fail,E0061
/// # use tidegate::prelude::*;
/// const WATER: Loader<String> = Loader::new("water");
/// let page = Page::new(|_: &Request, _: &View| Response::html("")).loader(WATER);
/// ```
///
/// ```compile_fail,E0425
/// # use tidegate::prelude::*;
/// const WATER: Loader<String> = Loader::new("water");
/// fn render(_: &Request, view: &View) -> Result<String> {
///     Ok(view.value(WATTER)?.unwrap_or_default())
/// }
/// ```
///
/// ```compile_fail,E0308
/// # use tidegate::prelude::*;
/// const WATER: Loader<String> = Loader::new("water");
/// fn render(_: &Request, view: &View) -> Result<Option<u32>> {
///     view.value(WATER)
/// }
/// ```
pub struct Page {
    loaders: Vec<(LoaderInfo, RunLoader)>,
    actions: Vec<(&'static str, RunAction)>,
    render: RenderPage,
}

type LoaderFuture = Pin<Box<dyn Future<Output = Result>>>;
type ActionFuture = Pin<Box<dyn Future<Output = Result<Done>>>>;
type RunLoader = Box<dyn Fn(Request, ValueSlot) -> LoaderFuture>;
type RunAction = Box<dyn Fn(Request, Form) -> ActionFuture>;
type RenderPage = Box<dyn Fn(&Request, &View) -> Result<Response>>;

/// A loader's function: an async closure or function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a loader",
    label = "neither an `async` closure nor an `async fn` of a `&Request` and a `&mut Sink<{T}>`",
    note = "write `async fn name(req: &Request, sink: &mut Sink<{T}>) -> Result`"
)]
pub trait LoaderHandler<T: ?Sized>: AsyncFn(&Request, &mut Sink<T>) -> Result {}

#[diagnostic::do_not_recommend]
impl<T: ?Sized, F> LoaderHandler<T> for F where F: AsyncFn(&Request, &mut Sink<T>) -> Result {}

/// An action's function: an async closure or function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an action",
    label = "neither an `async` closure nor an `async fn` of a `&Request` and a `&mut Form`",
    note = "write `async fn name(req: &Request, form: &mut Form) -> Result<Done>`"
)]
pub trait ActionHandler: AsyncFn(&Request, &mut Form) -> Result<Done> {}

#[diagnostic::do_not_recommend]
impl<F> ActionHandler for F where F: AsyncFn(&Request, &mut Form) -> Result<Done> {}

impl Page {
    /// A page without loaders and actions. `render` returns the complete page; values that arrive
    /// later are inserted at `<!--tidegate-->`, or before the end of the body.
    pub fn new<R: IntoResponse>(render: impl Fn(&Request, &View) -> R + 'static) -> Page {
        Page {
            loaders: Vec::new(),
            actions: Vec::new(),
            render: Box::new(move |request, view| render(request, view).into_response()),
        }
    }

    /// Adds a loader and the function that sends its values one after the other. Each run has an
    /// instance of its own, and ends when the function returns. The host drops a run that waits
    /// when its client disconnects.
    ///
    /// # Errors
    ///
    /// An error is sent to the browser with its status and text; a fault with 500 and a fixed text.
    ///
    /// # Limits
    ///
    /// A name has 1 to 64 letters, digits, `-`, `_` and `.`, and is unique in the page; the host
    /// refuses another one with TG024.
    pub fn loader<T: Serialize + ?Sized + 'static>(
        mut self,
        loader: Loader<T>,
        handler: impl LoaderHandler<T> + 'static,
    ) -> Page {
        let handler = Rc::new(handler);
        let run: RunLoader = Box::new(move |request, values| {
            let (handler, mut sink) = (handler.clone(), Sink::new(values));
            Box::pin(async move { handler(&request, &mut sink).await })
        });
        self.loaders.push((loader.info(), run));
        self
    }

    /// Adds an action: its name and the function that handles its form. Each run has an instance of
    /// its own.
    ///
    /// # Errors
    ///
    /// An error is the answer, with its status and text; a fault with 500 and a fixed text. To show
    /// the page again with what is wrong, return [`Done::deny`].
    ///
    /// # Limits
    ///
    /// Names are as those of [loaders](Page::loader).
    pub fn action(mut self, name: &'static str, handler: impl ActionHandler + 'static) -> Page {
        let handler = Rc::new(handler);
        let run: RunAction = Box::new(move |request, mut form| {
            let handler = handler.clone();
            Box::pin(async move {
                let done = handler(&request, &mut form).await;
                form.with_values(done)
            })
        });
        self.actions.push((name, run));
        self
    }
}

/// Input of a page's render function: first values of its loaders, and the form that was refused.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(crate) first: Vec<(String, FirstState)>,
    pub(crate) nonce: String,
    pub(crate) denied: Option<(String, Denied)>,
}

/// State of a loader when the page is rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FirstState {
    Value(String),
    Failed(u16, String),
    Pending,
}

impl View {
    /// Returns the first value of a loader; `None` if it has no value yet, or failed.
    ///
    /// # Errors
    ///
    /// A fault if the page does not have this loader, or if the value is written in a form that its
    /// type does not read.
    pub fn value<T: DeserializeOwned>(&self, loader: Loader<T>) -> Result<Option<T>> {
        match self.first(loader.name())? {
            FirstState::Value(json) => Ok(Some(serde_json::from_str(json)?)),
            _ => Ok(None),
        }
    }

    /// Returns status and text of a failed loader.
    pub fn error<T: ?Sized>(&self, loader: Loader<T>) -> Option<(u16, &str)> {
        match self.first(loader.name()) {
            Ok(FirstState::Failed(status, message)) => Some((*status, message)),
            _ => None,
        }
    }

    fn first(&self, loader: &str) -> Result<&FirstState> {
        let found = self.first.iter().find(|(name, _)| name == loader);
        found
            .map(|(_, first)| first)
            .ok_or_else(|| Error::fault(format!("the page has no loader {loader:?}")))
    }

    /// Returns the nonce of this answer, for every script of the page.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Returns a `Content-Security-Policy` that allows only scripts with the nonce.
    pub fn strict_policy(&self) -> String {
        format!(
            "script-src 'nonce-{}'; object-src 'none'; base-uri 'none'",
            self.nonce
        )
    }

    /// Returns the element that loads the client's script, which runs at once while the page still
    /// streams.
    pub fn script(&self) -> String {
        format!(
            r#"<script type="module" async src="/__tidegate/client.js" nonce="{}"></script>"#,
            self.nonce
        )
    }

    /// Returns the refused action, if this page is shown again for that reason.
    pub fn denied(&self) -> Option<&str> {
        self.denied.as_ref().map(|(action, _)| action.as_str())
    }

    /// Returns the reason of the refusal.
    pub fn message(&self) -> Option<&str> {
        self.denial().map(|denial| denial.message.as_str())
    }

    /// Returns the message at a field of the form that was refused.
    pub fn field_error(&self, field: &str) -> Option<&str> {
        find(&self.denial()?.errors, field)
    }

    /// Returns the value of a field of the form that was refused; empty if it was not sent.
    pub fn field(&self, field: &str) -> &str {
        self.denial()
            .and_then(|denial| find(&denial.values, field))
            .unwrap_or_default()
    }

    fn denial(&self) -> Option<&Denied> {
        self.denied.as_ref().map(|(_, denied)| denied)
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(other, _)| other == name)
        .map(|(_, value)| value.as_str())
}

/// A page of the manifest, and its functions.
pub(crate) struct PageEntry {
    pub(crate) declared: routing::Page,
    page: Page,
}

impl PageEntry {
    pub(crate) fn new(pattern: &str, page: Page, is_fallback: bool) -> PageEntry {
        let loaders = page.loaders.iter().map(|(info, _)| info.clone());
        let actions = page.actions.iter().map(|(name, _)| (*name).to_owned());
        let declared = routing::Page {
            pattern: pattern.to_owned(),
            loaders: loaders.collect(),
            actions: actions.collect(),
            is_fallback,
        };
        PageEntry { declared, page }
    }

    /// Starts a run of a loader. The name is one of those that the manifest declares.
    pub(crate) fn load(&self, loader: String, request: Request) -> HandlerRun<()> {
        let place = format!("page {}, loader {loader}", self.declared.pattern);
        let found = self.page.loaders.iter().find(|(own, _)| own.name == loader);
        HandlerRun::new(place, |values| match found {
            Some((_, run)) => run(request, values),
            None => Box::pin(async { Err(undeclared()) }),
        })
    }

    /// Starts a run of an action. The name is one of those that the manifest declares.
    pub(crate) fn act(
        &self,
        action: String,
        request: Request,
        form: world::Form,
    ) -> HandlerRun<Done> {
        let place = format!("page {}, action {action}", self.declared.pattern);
        let found = self.page.actions.iter().find(|(name, _)| *name == action);
        HandlerRun::new(place, |values| match found {
            Some((_, run)) => run(request, Form::new(form, values)),
            None => Box::pin(async { Err(undeclared()) }),
        })
    }

    pub(crate) fn render(&self, request: &Request, view: &View) -> Response {
        (self.page.render)(request, view)
            .unwrap_or_else(|error| error.answer(format_args!("page {}", self.declared.pattern)))
    }
}

/// The host asked for a name that the manifest does not have.
fn undeclared() -> Error {
    Error::fault("the page does not declare this name")
}
