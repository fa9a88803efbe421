//! Pages: HTML with values that loaders bring, in the first answer and for as long as they like, and forms that work without JavaScript.

use crate::{
    Error, IntoResponse, Request, Response, Result,
    form::{Denied, Done, Form},
    loader::{Running, Sink},
    world,
};
use serde::de::DeserializeOwned;
use std::{future::Future, pin::Pin, rc::Rc};
use tidegate_routing::FirstValue;

/// One page. The host starts its loaders, has it rendered with what they have by then (within 50 ms by default), sends that at once,
/// and streams to the browser what they bring later; `/__tidegate/client.js` takes it there. Its forms are posted to its own path,
/// with a field `__action`.
///
/// ```
/// use tidegate::{prelude::*, testing};
///
/// struct Tides;
///
/// impl Page for Tides {
///     const LOADERS: &[Loader] = &[Loader::new("water")];
///     const ACTIONS: &[&str] = &["rename"];
///
///     async fn load(&self, _: &str, req: &Request, sink: &mut Sink) -> Result {
///         let port: String = req.param("port")?;
///         sink.send(&format!("high at {port}")).await?;
///         sink.send(&"falling").await
///     }
///
///     async fn act(&self, _: &str, _: &Request, form: &mut Form) -> Result<Done> {
///         #[derive(serde::Deserialize)]
///         struct Name {
///             name: String,
///         }
///         let Name { name } = form.read().await?; // a missing field is the client's 422, at its place in the form
///         match name.as_str() {
///             "" => Ok(Done::deny(422, "please look again").field("name", "a name, please")),
///             _ => Ok(Done::redirect(&format!("/tides/{name}"))),
///         }
///     }
///
///     fn render(&self, _: &Request, view: &View) -> Result<Response> {
///         let water: Option<String> = view.value("water")?;
///         Ok(Response::html(format!("<p>{}</p>{}", water.unwrap_or_default(), view.script())))
///     }
/// }
///
/// let mut server = testing::serve(App::new().page("/tides/{port}", Tides));
/// let page = server.get("/tides/calais");
/// assert!(page.text().contains("<p>high at calais</p>"));
/// assert_eq!(server.load("/tides/{port}", "water", &[("port", "calais")]).values::<String>(), ["high at calais", "falling"]);
/// let reply = server.submit("/tides/calais", "rename", &[("name", "dover")]);
/// assert_eq!((reply.status(), reply.header("location")), (303, Some("/tides/dover")));
/// assert_eq!(server.submit("/tides/calais", "rename", &[("name", "")]).status(), 422);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no page",
    label = "not a type that implements `Page`",
    note = "write `impl Page for {Self}`; of its functions only `render` is needed"
)]
pub trait Page: 'static {
    /// What brings its values, each by a name of its own.
    const LOADERS: &[Loader] = &[];
    /// What its forms do, by name.
    const ACTIONS: &[&str] = &[];

    /// Brings the values of a loader, one after the other. Each run of each loader has an instance of its own; it is dropped where it
    /// waits when its client goes away. Returning ends it.
    fn load(
        &self,
        loader: &str,
        request: &Request,
        sink: &mut Sink,
    ) -> impl Future<Output = Result> {
        _ = (request, sink);
        async move {
            Err(Error::fault(format!(
                "the page has a loader {loader:?}, and no `load`"
            )))
        }
    }

    /// Does what a form asks for. It has an instance of its own.
    fn act(
        &self,
        action: &str,
        request: &Request,
        form: &mut Form,
    ) -> impl Future<Output = Result<Done>> {
        _ = (request, form);
        async move {
            Err(Error::fault(format!(
                "the page has an action {action:?}, and no `act`"
            )))
        }
    }

    /// The whole page. What comes later goes where `<!--tidegate-->` stands, or else before the end of the body.
    fn render(&self, request: &Request, view: &View) -> Result<Response>;
}

/// What brings values to a page, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loader {
    pub(crate) name: &'static str,
    pub(crate) live: bool,
    pub(crate) due: FirstValue,
}

impl Loader {
    /// It ends within 30 seconds, or the host ends it.
    pub const fn new(name: &'static str) -> Loader {
        Loader {
            name,
            live: false,
            due: FirstValue::Soon,
        }
    }

    /// It goes on for as long as the client stays.
    pub const fn live(name: &'static str) -> Loader {
        Loader {
            live: true,
            ..Loader::new(name)
        }
    }

    /// The page is not rendered before its first value.
    pub const fn awaited(self) -> Loader {
        Loader {
            due: FirstValue::Awaited,
            ..self
        }
    }

    /// It begins when the page has gone out: for what is known to be slow. One that sleeps at first is not waited for either way.
    pub const fn deferred(self) -> Loader {
        Loader {
            due: FirstValue::Deferred,
            ..self
        }
    }
}

/// What a page is rendered of.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(crate) first: Vec<(String, First)>,
    pub(crate) nonce: String,
    pub(crate) denied: Option<(String, Done)>,
}

/// What a loader had when the page was due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum First {
    Value(String),
    Failed(u16, String),
    Pending,
}

impl View {
    /// The first value of a loader; none if it has none yet, or failed.
    pub fn value<T: DeserializeOwned>(&self, loader: &str) -> Result<Option<T>> {
        match self.first(loader)? {
            First::Value(json) => Ok(Some(serde_json::from_str(json)?)),
            _ => Ok(None),
        }
    }

    /// Status and text of a loader that failed.
    pub fn error(&self, loader: &str) -> Option<(u16, &str)> {
        match self.first(loader) {
            Ok(First::Failed(status, message)) => Some((*status, message)),
            _ => None,
        }
    }

    fn first(&self, loader: &str) -> Result<&First> {
        let found = self.first.iter().find(|(name, _)| name == loader);
        found
            .map(|(_, first)| first)
            .ok_or_else(|| Error::fault(format!("the page has no loader {loader:?}")))
    }

    /// Of this answer, for the `nonce` of every script of the page.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// A `Content-Security-Policy` under which only scripts with the nonce run.
    pub fn strict_policy(&self) -> String {
        format!(
            "script-src 'nonce-{}'; object-src 'none'; base-uri 'none'",
            self.nonce
        )
    }

    /// The element that loads the browser's side. It runs at once, while the page still streams.
    pub fn script(&self) -> String {
        format!(
            r#"<script type="module" async src="/__tidegate/client.js" nonce="{}"></script>"#,
            self.nonce
        )
    }

    /// The action that was refused, if this page is shown again because of that.
    pub fn denied(&self) -> Option<&str> {
        self.denied.as_ref().map(|(action, _)| action.as_str())
    }

    /// Why it was refused.
    pub fn message(&self) -> Option<&str> {
        self.denial().map(|denial| denial.message.as_str())
    }

    /// What is wrong with a field of the form that was refused.
    pub fn field_error(&self, field: &str) -> Option<&str> {
        find(&self.denial()?.errors, field)
    }

    /// What was sent in a field of the form that was refused; empty if nothing was.
    pub fn field(&self, field: &str) -> &str {
        self.denial()
            .and_then(|denial| find(&denial.values, field))
            .unwrap_or_default()
    }

    fn denial(&self) -> Option<&Denied> {
        match &self.denied {
            Some((_, Done::Deny(denied))) => Some(denied),
            _ => None,
        }
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(other, _)| other == name)
        .map(|(_, value)| value.as_str())
}

/// A page, its type forgotten.
pub(crate) struct Mounted {
    pub(crate) pattern: String,
    pub(crate) fallback: bool,
    pub(crate) loaders: &'static [Loader],
    pub(crate) actions: &'static [&'static str],
    page: Rc<dyn Live>,
}

type Loaded = Pin<Box<dyn Future<Output = Result>>>;
type Acted = Pin<Box<dyn Future<Output = Result<Done>>>>;

trait Live {
    fn load(self: Rc<Self>, loader: String, request: Request, sink: Sink) -> Loaded;
    fn act(self: Rc<Self>, action: String, request: Request, form: Form) -> Acted;
    fn render(&self, request: &Request, view: &View) -> Result<Response>;
}

impl<P: Page> Live for P {
    fn load(self: Rc<Self>, loader: String, request: Request, mut sink: Sink) -> Loaded {
        Box::pin(async move { Page::load(&*self, &loader, &request, &mut sink).await })
    }

    fn act(self: Rc<Self>, action: String, request: Request, mut form: Form) -> Acted {
        Box::pin(async move {
            let done = Page::act(&*self, &action, &request, &mut form).await;
            form.with_values(done)
        })
    }

    fn render(&self, request: &Request, view: &View) -> Result<Response> {
        Page::render(self, request, view)
    }
}

impl Mounted {
    pub(crate) fn new<P: Page>(pattern: &str, page: P, fallback: bool) -> Mounted {
        Mounted {
            pattern: pattern.to_owned(),
            fallback,
            loaders: P::LOADERS,
            actions: P::ACTIONS,
            page: Rc::new(page),
        }
    }

    /// A run of a loader.
    pub(crate) fn load(&self, loader: String, request: Request) -> Running<()> {
        let place = format!("page {}, loader {loader}", self.pattern);
        let page = self.page.clone();
        Running::new(place, |yielded| page.load(loader, request, Sink(yielded)))
    }

    /// A run of an action.
    pub(crate) fn act(&self, action: String, request: Request, form: world::Form) -> Running<Done> {
        let place = format!("page {}, action {action}", self.pattern);
        let page = self.page.clone();
        Running::new(place, |yielded| {
            page.act(action, request, Form::new(form, yielded))
        })
    }

    pub(crate) fn render(&self, request: &Request, view: &View) -> Response {
        let rendered = self.page.render(request, view).into_response();
        rendered.unwrap_or_else(|error| error.answer(format_args!("page {}", self.pattern)))
    }
}
