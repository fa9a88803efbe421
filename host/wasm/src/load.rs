//! From a file to an app that is ready to be started.

use crate::{
    Options,
    bindings::exports::tidegate::app::{manifest as wit, pages as wit_pages},
    cache::Cache,
    exports::Interfaces,
    guest::Guest,
    import,
    instances::Instances,
    load_error::{LoadError, UNGRANTED},
    meter, pages,
    pool::{GuestInstance, Pool},
    precompiled::{self, Precompiled},
    runtime::Runtime,
    state::State,
};
use std::{
    fs,
    path::Path,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_hub::{Fault, Hub};
use tidegate_routing::{Exports, Guard, Manifest, Page, Route, Target};
use wasmparser::{Parser, Payload};
use wasmtime::{
    Strategy,
    component::{Component, ComponentNamedList, Lift, Linker},
};

/// Where the machine code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compilation {
    /// Origin of the machine code.
    pub origin: CodeOrigin,
    /// Reading and compiling, or only reading.
    pub took: Duration,
}

/// Origin of the machine code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeOrigin {
    /// The compiler, just now.
    Compiler,
    /// An earlier start, which kept it.
    Cache,
    /// `tidegate compile`.
    Ahead,
}

/// An app that can be started.
pub struct LoadedApp {
    manifest: Option<Arc<Manifest>>,
    exports: Exports,
    ungranted: Vec<UngrantedImport>,
    compiled: Compilation,
    pool: Pool,
}

/// A part of WASI that a component imports and no grant covers: its functions are there, and each call is refused with an error that WASI
/// defines for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UngrantedImport {
    /// Full name of the import; of `wasi:sockets`, the first one.
    pub import: String,
    /// How calls are refused.
    pub refusal: &'static str,
    /// How to grant it, or to do without.
    pub help: &'static str,
}

impl LoadedApp {
    /// Returns the app's manifest, or none for a component that exports only `wasi:http`, which
    /// receives every request.
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        self.manifest.as_ref()
    }

    /// Which handlers the component exports.
    pub fn exports(&self) -> Exports {
        self.exports
    }

    /// Imports whose calls are refused.
    pub fn ungranted(&self) -> &[UngrantedImport] {
        &self.ungranted
    }

    /// Where its code came from.
    pub fn compiled(&self) -> Compilation {
        self.compiled
    }

    /// Connects the app to its hub, and to the account of the instances of all its versions.
    pub fn start(mut self, hub: Arc<Hub>, instances: &Instances) -> Arc<Guest> {
        for UngrantedImport {
            import, refusal, ..
        } in &self.ungranted
        {
            tracing::info!(
                "the app imports {import}, which is not granted: {refusal} ({UNGRANTED})"
            );
        }
        let has_manifest = self.manifest.is_some();
        self.pool.connect(hub, self.manifest, instances);
        Guest::new(self.pool, has_manifest)
    }
}

/// Reads, checks and compiles a component (or takes its code from the cache), and asks it for its manifest.
///
/// Blocks while it compiles: seconds for a large app.
///
/// # Errors
///
/// The reason why the component cannot be served, with its code.
pub async fn load(path: &Path, options: Options) -> Result<LoadedApp, LoadError> {
    let began = Instant::now();
    let bytes = read(path, options.component_bytes_max)?;
    let ahead = Precompiled::read(path, &bytes)?;
    let outline = ComponentInfo::read(ahead.as_ref().map_or(&bytes, |ahead| ahead.wasm))?;
    let ungranted = outline.check(&options)?;
    let concurrent = outline.is_concurrent();
    let (runtime, component, origin) = match &ahead {
        None => make(&bytes, &options, concurrent).map_err(LoadError::Invalid)?,
        Some(ahead) => {
            let runtime = Runtime::new(&options, concurrent, Strategy::Cranelift)
                .map_err(LoadError::Invalid)?;
            let component = ahead.component(&runtime.engine)?;
            (runtime, component, CodeOrigin::Ahead)
        }
    };
    let pre = link(&runtime, &component).map_err(LoadError::Invalid)?;
    let compiled = Compilation {
        origin,
        took: began.elapsed(),
    };
    let interfaces = outline.interfaces();
    let exports = Exports {
        guard: interfaces.guard.is_some(),
        http: interfaces.http.is_some(),
        stream: interfaces.incoming.is_some() || interfaces.handler.is_some(),
        websocket: interfaces.websocket.is_some(),
        feed: interfaces.feed.is_some(),
        room: interfaces.room.is_some(),
        pages: interfaces.pages.is_some(),
    };
    let pool = Pool::new(runtime, pre, interfaces, options);
    let manifest = match &pool.interfaces().manifest {
        Some(name) => Some(Arc::new(
            describe(&pool, name).await.map_err(LoadError::Describe)?,
        )),
        None => None,
    };
    Ok(LoadedApp {
        manifest,
        exports,
        ungranted,
        compiled,
        pool,
    })
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
    let metadata = fs::metadata(path).map_err(LoadError::Read)?;
    if metadata.len() > bytes_max {
        return Err(LoadError::TooLarge(bytes_max));
    }
    fs::read(path).map_err(LoadError::Read)
}

/// Compiles a component ahead into a file for [`load`]. Returns the size of that file in bytes.
///
/// Blocks while it compiles. No code of the app runs, and grants do not matter.
///
/// # Errors
///
/// The reason why the component cannot be compiled, or why the file cannot be written.
pub fn compile(path: &Path, to: &Path, options: &Options) -> Result<u64, LoadError> {
    let wasm = read(path, options.component_bytes_max)?;
    let concurrent = ComponentInfo::read(&wasm)?.is_concurrent();
    let runtime =
        Runtime::new(options, concurrent, Strategy::Cranelift).map_err(LoadError::Invalid)?;
    let component = Component::new(&runtime.engine, &wasm).map_err(LoadError::Invalid)?;
    precompiled::write(to, &runtime.engine, &wasm, &component).map_err(LoadError::Write)
}

/// From the cache, or else from the compiler.
fn make(
    wasm: &[u8],
    options: &Options,
    concurrent: bool,
) -> wasmtime::Result<(Runtime, Component, CodeOrigin)> {
    if options.quick {
        let quick = Runtime::new(options, concurrent, Strategy::Winch);
        match quick.and_then(|runtime| Ok((Component::new(&runtime.engine, wasm)?, runtime))) {
            Ok((component, runtime)) => return Ok((runtime, component, CodeOrigin::Compiler)),
            Err(error) => tracing::debug!("left to the slower compiler: {error:#}"),
        }
    }
    let runtime = Runtime::new(options, concurrent, Strategy::Cranelift)?;
    let cache = options
        .cache
        .as_deref()
        .and_then(|directory| match Cache::open(directory) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!("{} is not used as a cache: {error}", directory.display());
                None
            }
        });
    if let Some(component) = cache
        .as_ref()
        .and_then(|cache| cache.get(&runtime.engine, wasm))
    {
        return Ok((runtime, component, CodeOrigin::Cache));
    }
    let component = Component::new(&runtime.engine, wasm)?;
    if let Some(Err(error)) = cache.map(|cache| cache.put(&runtime.engine, wasm, &component)) {
        tracing::warn!("the compiled code could not be kept: {error:#}");
    }
    Ok((runtime, component, CodeOrigin::Compiler))
}

fn link(
    runtime: &Runtime,
    component: &Component,
) -> wasmtime::Result<wasmtime::component::InstancePre<State>> {
    let mut linker = Linker::new(&runtime.engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if runtime.concurrent {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    import::add_to_linker(&mut linker, runtime.concurrent)?;
    linker.instantiate_pre(component)
}

async fn describe(pool: &Pool, interface: &str) -> Result<Manifest, Fault> {
    let instance = &mut *pool.make().await?;
    let clock = instance.store.data().meter.clone();
    let wall_max = pool.options().wall_max;
    let call = async {
        instance.store.set_epoch_deadline(1);
        let (app,): (wit::App,) = told_by(instance, interface).await?;
        let pages = match &pool.interfaces().pages {
            Some(interface) => {
                told_by::<(Vec<wit_pages::Page>,)>(instance, interface)
                    .await?
                    .0
            }
            None => Vec::new(),
        };
        Ok((app, pages))
    };
    let outcome = meter::event(&clock, wall_max, pin!(call)).await?;
    match outcome {
        Ok((app, pages)) => Ok(manifest(app, pages::described(pages))),
        Err(error) => Err(crate::fault::fault(&error, &instance.store)),
    }
}

/// Calls the `describe` function of an interface.
async fn told_by<T: ComponentNamedList + Lift + 'static>(
    instance: &mut GuestInstance,
    interface: &str,
) -> wasmtime::Result<T> {
    let missing = || wasmtime::format_err!("the component exports {interface} without describe");
    let index = instance
        .raw
        .get_export_index(&mut instance.store, None, interface)
        .ok_or_else(missing)?;
    let index = instance
        .raw
        .get_export_index(&mut instance.store, Some(&index), "describe")
        .ok_or_else(missing)?;
    let describe = instance
        .raw
        .get_typed_func::<(), T>(&mut instance.store, index)?;
    describe.call_async(&mut instance.store, ()).await
}

fn manifest(app: wit::App, pages: Vec<Page>) -> Manifest {
    let target = |target: wit::Target| match target {
        wit::Target::Http => Target::Http,
        wit::Target::Stream => Target::Stream,
        wit::Target::Websocket => Target::WebSocket,
        wit::Target::Feed => Target::Feed,
    };
    let route = |route: wit::Route| Route {
        methods: route.methods,
        pattern: route.pattern,
        target: target(route.target),
        room: route.room,
    };
    Manifest {
        routes: app.routes.into_iter().map(route).collect(),
        guards: app
            .guards
            .into_iter()
            .map(|guard| Guard {
                pattern: guard.pattern,
            })
            .collect(),
        pages,
    }
}

/// Names of a component's imports and exports, read without compiling it.
struct ComponentInfo {
    imports: Vec<String>,
    exports: Vec<String>,
}

impl ComponentInfo {
    fn read(wasm: &[u8]) -> Result<ComponentInfo, LoadError> {
        if !wasm.starts_with(b"\0asm") {
            return Err(LoadError::NotWasm);
        }
        if Parser::is_core_wasm(wasm) {
            return Err(LoadError::CoreModule);
        }
        let mut outline = ComponentInfo {
            imports: Vec::new(),
            exports: Vec::new(),
        };
        outline
            .parse(wasm)
            .map_err(|error| LoadError::Invalid(wasmtime::format_err!("{error}")))?;
        Ok(outline)
    }

    /// Only the outermost component's own sections; those of what it contains are skipped.
    fn parse(&mut self, wasm: &[u8]) -> wasmparser::Result<()> {
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) if depth > 0 => depth -= 1,
                Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports {
                        self.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        self.exports.push(export?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Imports that are refused when they are called. Fails for those that this host does not have.
    fn check(&self, options: &Options) -> Result<Vec<UngrantedImport>, LoadError> {
        if let Some(other) = self
            .exports
            .iter()
            .chain(&self.imports)
            .find_map(|name| other_version(name))
        {
            return Err(LoadError::Version(other));
        }
        let other_wasi = |names: &[String], verb| {
            let name = names.iter().find(|name| is_other_wasi(name))?;
            Some(LoadError::WasiVersion {
                verb,
                name: name.clone(),
            })
        };
        if let Some(error) =
            other_wasi(&self.imports, "imports").or_else(|| other_wasi(&self.exports, "exports"))
        {
            return Err(error);
        }
        let interfaces = self.interfaces();
        if interfaces.manifest.is_none()
            && interfaces.incoming.is_none()
            && interfaces.handler.is_none()
        {
            return Err(LoadError::OtherWorld);
        }
        let mut ungranted = Vec::<UngrantedImport>::new();
        for import in &self.imports {
            let import = check_import(import, options)?;
            // One of each kind: sockets are seven interfaces.
            ungranted.extend(import.filter(|import| {
                ungranted
                    .iter()
                    .all(|other| other.refusal != import.refusal)
            }));
        }
        Ok(ungranted)
    }

    fn is_concurrent(&self) -> bool {
        let is_03 = |name: &String| name.starts_with("wasi:") && name.contains("@0.3");
        self.imports.iter().chain(&self.exports).any(is_03)
    }

    fn interfaces(&self) -> Interfaces {
        let find = |prefix: &str| {
            self.exports
                .iter()
                .find(|name| name.starts_with(prefix))
                .cloned()
        };
        Interfaces {
            manifest: find("tidegate:app/manifest@"),
            guard: find("tidegate:app/guard-handler@"),
            http: find("tidegate:app/http-handler@"),
            websocket: find("tidegate:app/websocket-handler@"),
            feed: find("tidegate:app/feed-handler@"),
            room: find("tidegate:app/room-handler@"),
            pages: find("tidegate:app/pages@"),
            incoming: find("wasi:http/incoming-handler@0.2"),
            handler: find("wasi:http/handler@0.3"),
        }
    }
}

/// The version, if the name is of another version of the contract.
fn other_version(name: &str) -> Option<String> {
    let (_, version) = name.strip_prefix("tidegate:app/")?.split_once('@')?;
    (!version.starts_with("0.2.")).then(|| version.to_owned())
}

/// Whether the name is of a version of WASI that this host does not have, such as a release candidate.
fn is_other_wasi(name: &str) -> bool {
    let version = name
        .strip_prefix("wasi:")
        .and_then(|name| name.split_once('@'));
    version.is_some_and(|(_, version)| {
        version.contains('-') || !(version.starts_with("0.2.") || version.starts_with("0.3."))
    })
}

/// All of WASI 0.2 and 0.3 is there, without what was not granted: no directories, no variables, and functions that refuse.
fn check_import(import: &str, options: &Options) -> Result<Option<UngrantedImport>, LoadError> {
    let refusing = |refusal, help| {
        Ok(Some(UngrantedImport {
            import: import.to_owned(),
            refusal,
            help,
        }))
    };
    let name = import.split('@').next().unwrap_or(import);
    match name {
        "wasi:http/outgoing-handler" | "wasi:http/client" if options.outbound.grants.is_empty() => {
            refusing(
                "each request fails with the error HTTP-request-denied",
                "name the hosts that the app may reach with --allow-outbound HOST",
            )
        }
        "wasi:http/outgoing-handler" | "wasi:http/client" | "wasi:http/types" => Ok(None),
        _ if name.starts_with("wasi:sockets/") => refusing(
            "no socket can be made (access-denied), and no name is resolved",
            "no app gets sockets; to send requests, use wasi:http with --allow-outbound HOST",
        ),
        _ if [
            "wasi:cli/",
            "wasi:clocks/",
            "wasi:filesystem/",
            "wasi:io/",
            "wasi:random/",
        ]
        .iter()
        .any(|group| name.starts_with(group)) =>
        {
            Ok(None)
        }
        "tidegate:app/types"
        | "tidegate:app/websockets"
        | "tidegate:app/topics"
        | "tidegate:app/room"
        | "tidegate:app/rooms"
        | "tidegate:app/forms" => Ok(None),
        _ => Err(LoadError::Unknown(import.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_wasi_is_known_or_not() {
        for (name, expected) in [
            ("wasi:http/types@0.2.0", false),
            ("wasi:http/types@0.2.12", false),
            ("wasi:http/handler@0.3.0", false),
            ("wasi:http/handler@0.3.0-rc-2025-09-16", true),
            ("wasi:cli/environment@0.3.0-rc-2026-01-06", true),
            ("wasi:http/types@0.2.0-rc-2023-12-05", true),
            ("wasi:http/types@0.4.0", true),
            ("wasi:http/types@1.0.0", true),
            ("wasi:http/types", false),
            ("test:secret/door@0.3.0-rc-1", false),
        ] {
            assert_eq!(is_other_wasi(name), expected, "{name}");
        }
    }
}
