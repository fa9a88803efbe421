//! Components that a test generates: a manifest of any routes, and handlers that trap.

use std::path::Path;
use tidegate_routing::Target;
use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection, Function,
    FunctionSection, ImportSection, Instruction, MemorySection, MemoryType, Module, TypeSection,
    ValType,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Function as WitFunction, Resolve, abi::AbiVariant, abi::WasmType};

/// Description of a component. It exports `tidegate:app/manifest` if it has routes or guards.
#[derive(Default)]
pub(crate) struct Fixture<'a> {
    /// Routes: methods with commas between them, pattern, target.
    pub(crate) routes: &'a [(&'a str, &'a str, Target)],
    /// Patterns of guards.
    pub(crate) guards: &'a [&'a str],
    /// Interfaces of `tidegate:app` that it exports, as in "http-handler": all of their functions
    /// trap.
    pub(crate) handlers: &'a [&'a str],
    /// An interface that it imports and that no host has, as in "test:secret/door", with or without
    /// a version.
    pub(crate) import: Option<&'a str>,
    /// Patterns of pages, with the names of their actions. It exports `tidegate:app/pages` if there
    /// is one.
    pub(crate) pages: &'a [(&'a str, &'a [&'a str])],
    /// The room class of all of its routes.
    pub(crate) room: Option<&'a str>,
    /// True if it traps when the host calls for its manifest.
    pub(crate) speechless: bool,
}

/// Returns an empty core module: a wasm file, but no component.
pub(crate) fn core_module() -> Vec<u8> {
    Module::new().finish()
}

/// Returns the component as if it were built for `tidegate:app@0.1.0`: the version of each of its
/// interfaces is replaced.
pub(crate) fn built_for_0_1(mut component: Vec<u8>) -> Vec<u8> {
    const PACKAGE: &[u8] = b"tidegate:app/";
    const VERSION: &[u8] = b"@0.2.0";
    let mut at = 0;
    while at + PACKAGE.len() < component.len() {
        if component[at..].starts_with(PACKAGE) {
            let name = &component[at + PACKAGE.len()..];
            let name_bytes = name
                .iter()
                .take_while(|byte| byte.is_ascii_lowercase() || **byte == b'-')
                .count();
            if name[name_bytes..].starts_with(VERSION) {
                let version = at + PACKAGE.len() + name_bytes;
                component[version..version + VERSION.len()].copy_from_slice(b"@0.1.0");
            }
        }
        at += 1;
    }
    component
}

impl Fixture<'_> {
    /// Returns the component's bytes.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        resolve.push_dir(&wit).expect("the contract is valid");
        let package = resolve
            .push_str("fixture.wit", &self.wit())
            .expect("the fixture's world is valid");
        let world = resolve
            .select_world(&[package], Some("fixture"))
            .expect("it has one world");
        let exports = resolve.worlds[world]
            .exports
            .values()
            .filter_map(|item| match item {
                wit_parser::WorldItem::Interface { id, .. } => Some(*id),
                _ => None,
            });
        let functions = exports.flat_map(|id| {
            let name = resolve
                .id_of(id)
                .expect("an interface of a package has a name");
            resolve.interfaces[id]
                .functions
                .values()
                .map(move |function| (format!("{name}#{}", function.name), function))
        });
        let mut module = self.module(&resolve, &functions.collect::<Vec<_>>());
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .expect("the world can be encoded");
        let mut encoder = ComponentEncoder::default();
        let encoder = encoder
            .validate(true)
            .module(&module)
            .expect("the module fits the world");
        encoder.encode().expect("the component can be encoded")
    }

    fn has_manifest(&self) -> bool {
        !self.routes.is_empty() || !self.guards.is_empty() || !self.pages.is_empty()
    }

    fn wit(&self) -> String {
        let manifest = self.has_manifest().then_some("manifest");
        let export = |interface: &str| format!("  export tidegate:app/{interface}@0.2.0;\n");
        let pages = (!self.pages.is_empty()).then_some("pages");
        let exports: String = manifest
            .into_iter()
            .chain(pages)
            .chain(self.handlers.iter().copied())
            .map(export)
            .collect();
        let (import, foreign) = match self.import.and_then(|import| import.split_once('/')) {
            None => (String::new(), String::new()),
            Some((package, interface)) => {
                let (name, version) =
                    interface.split_at(interface.find('@').unwrap_or(interface.len()));
                let foreign = format!(
                    "package {package}{version} {{ interface {name} {{ knock: func() -> u32; }} }}\n"
                );
                (format!("  import {package}/{interface};\n"), foreign)
            }
        };
        format!("package test:fixture;\nworld fixture {{\n{import}{exports}}}\n{foreign}")
    }

    /// Builds the core module: every function traps but `describe`, which returns a pointer to the
    /// manifest.
    fn module(&self, resolve: &Resolve, functions: &[(String, &WitFunction)]) -> Vec<u8> {
        let (mut types, mut imports, mut declared) = (
            TypeSection::new(),
            ImportSection::new(),
            FunctionSection::new(),
        );
        let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
        types.ty().function([], [ValType::I32]);
        types.ty().function([ValType::I32; 4], [ValType::I32]);
        let imported = self
            .import
            .map(|import| imports.import(import, "knock", EntityType::Function(0)))
            .iter()
            .count() as u32;
        declared.function(1);
        code.function(
            Function::new([])
                .instruction(&Instruction::Unreachable)
                .instruction(&Instruction::End),
        );
        exports.export("cabi_realloc", ExportKind::Func, imported);
        let data = Data::manifest(self);
        for (index, (name, function)) in (0..).zip(functions) {
            let signature = resolve.wasm_signature(AbiVariant::GuestExport, function);
            types.ty().function(
                signature.params.iter().map(value),
                signature.results.iter().map(value),
            );
            declared.function(2 + index);
            let body = match name.as_str() {
                _ if self.speechless => Instruction::Unreachable,
                "tidegate:app/manifest@0.2.0#describe" => Instruction::I32Const(data.root as i32),
                "tidegate:app/pages@0.2.0#describe" => Instruction::I32Const(data.pages as i32),
                _ => Instruction::Unreachable,
            };
            code.function(
                Function::new([])
                    .instruction(&body)
                    .instruction(&Instruction::End),
            );
            exports.export(name, ExportKind::Func, imported + 1 + index);
        }
        exports.export("memory", ExportKind::Memory, 0);
        let mut memory = MemorySection::new();
        memory.memory(MemoryType {
            minimum: 4,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut bytes = DataSection::new();
        bytes.active(0, &ConstExpr::i32_const(Data::BASE as i32), data.bytes);
        let mut module = Module::new();
        module
            .section(&types)
            .section(&imports)
            .section(&declared)
            .section(&memory)
            .section(&exports)
            .section(&code)
            .section(&bytes);
        module.finish()
    }
}

fn value(ty: &WasmType) -> ValType {
    match ty {
        WasmType::I64 | WasmType::PointerOrI64 => ValType::I64,
        WasmType::F32 => ValType::F32,
        WasmType::F64 => ValType::F64,
        WasmType::I32 | WasmType::Pointer | WasmType::Length => ValType::I32,
    }
}

/// Lays out the manifest in memory (canonical ABI).
struct Data {
    bytes: Vec<u8>,
    root: u32,
    pages: u32,
}

impl Data {
    const BASE: u32 = 16;

    fn manifest(fixture: &Fixture<'_>) -> Data {
        let mut data = Data {
            bytes: Vec::new(),
            root: 0,
            pages: 0,
        };
        let mut routes = Vec::new();
        for (methods, pattern, target) in fixture.routes {
            let methods: Vec<[u32; 2]> = methods
                .split_terminator(',')
                .map(|method| data.text(method))
                .collect();
            let target = [
                Target::Http,
                Target::Stream,
                Target::WebSocket,
                Target::Feed,
            ]
            .iter()
            .position(|other| other == target);
            routes.extend(data.list(&methods.concat(), methods.len()));
            routes.extend(data.text(pattern));
            routes.push(target.expect("there are four") as u32);
            match fixture.room {
                None => routes.extend([0; 3]),
                Some(class) => {
                    routes.push(1);
                    routes.extend(data.text(class));
                }
            }
        }
        let guards: Vec<u32> = fixture
            .guards
            .iter()
            .flat_map(|pattern| data.text(pattern))
            .collect();
        let routes = data.list(&routes, fixture.routes.len());
        let guards = data.list(&guards, fixture.guards.len());
        [data.root, _] = data.list(&[routes, guards].concat(), 1);
        let mut pages = Vec::new();
        for (pattern, actions) in fixture.pages {
            let actions: Vec<[u32; 2]> = actions.iter().map(|action| data.text(action)).collect();
            let actions = data.list(&actions.concat(), actions.len());
            pages.extend([data.text(pattern), [0, 0], actions].concat());
            pages.push(0); // no fallback
        }
        let pages = data.list(&pages, fixture.pages.len());
        [data.pages, _] = data.list(&pages, 1);
        data
    }

    /// Writes pointer and length.
    fn text(&mut self, text: &str) -> [u32; 2] {
        let at = Data::BASE + self.bytes.len() as u32;
        self.bytes.extend(text.as_bytes());
        [at, text.len() as u32]
    }

    /// Writes pointer and number of elements, each of some words.
    fn list(&mut self, words: &[u32], count: usize) -> [u32; 2] {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let at = Data::BASE + self.bytes.len() as u32;
        self.bytes
            .extend(words.iter().flat_map(|word| word.to_le_bytes()));
        [at, count as u32]
    }
}
