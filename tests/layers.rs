//! Imports point down only, between the rooms and inside them; only `clock.rs` reads the time, and
//! only `events.rs` calls subscribers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The rooms of `synced-memory/src`, from the top. A room may name itself, and those below it.
///
/// Inside a room the files have an order too, from the top: a file or folder may name itself, those
/// of its own floor, and those below. `mod` is the room's own `mod.rs`.
const ROOMS: &[(&str, &[&[&str]])] = &[
    ("macro_support", &[]),
    (
        "model",
        &[
            &["mod"],
            &["additions", "histories", "mutations"],
            &["assignments", "runner"],
            &["calls", "schedule"],
            &["reference", "steps"],
            &["cluster", "reads", "serving"],
            &["document", "network"],
            &["rules"],
            &["world"],
            &["audit", "near", "near_shards", "process"],
            &["placement"],
            &["action", "server"],
            &["check"],
        ],
    ),
    (
        "handle",
        &[
            &["watch"],
            &["synced"],
            &["schema"],
            &["path"],
            &["memory"],
            &["config", "dead_letter"],
            &["follow", "key", "reader", "status", "value"],
            &["mod"],
        ],
    ),
    (
        "client",
        &[
            &["core"],
            &["flusher", "retained"],
            &["fairness", "reentrancy", "refresher", "slot"],
            &["shared"],
            &["route"],
            &["large_reads", "state"],
            &["mod"],
        ],
    ),
    ("pending", &[&["journal", "rebase"], &["outbox"], &["mod"]]),
    (
        "cache",
        &[
            &["refresh", "whole"],
            &["mod"],
            &["near", "pace", "tracking"],
        ],
    ),
    (
        "backend",
        &[
            &["contract"],
            &["open"],
            &["process", "redis", "sqlite"],
            &["mod"],
            &["effects"],
            &["commit", "error", "sidecar", "test_servers"],
            &["layout", "shards"],
        ],
    ),
    (
        "value",
        &[
            &["addition", "document"],
            &["mutation"],
            &["envelope", "shape"],
            &["json"],
            &["mod"],
        ],
    ),
    (
        "base",
        &[
            &["settings", "waiting"],
            &[
                "address_map",
                "backoff",
                "credentials",
                "events",
                "redaction",
                "timer",
            ],
            &["callback", "fork"],
            &[
                "client_name",
                "clock",
                "error",
                "files",
                "hash",
                "lock",
                "policy",
                "random",
                "type_name",
            ],
            &["mod"],
        ],
    ),
];

/// Re-exports everything, and belongs to no floor. A name that is imported by way of it counts as a
/// name of its own room.
const ROOF: &str = "lib";

#[test]
fn imports_point_down_only() {
    let violations = imports(&House::of_the_library());
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn only_the_clock_reads_the_time() {
    let violations = reads_of_the_time(&House::of_the_library());
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn only_events_that_are_emitted_under_no_lock_call_subscribers() {
    let offences = calls_of_subscribers(&House::of_the_library());
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// The sources, parsed.
struct House {
    files: Vec<SourceFile>,
    /// What the roof re-exports, and the room that it comes from.
    re_exports: BTreeMap<String, String>,
}

struct SourceFile {
    /// Relative to `src`.
    name: PathBuf,
    /// The module: `["backend", "redis"]` for `backend/redis/mod.rs`, nothing for `lib.rs`.
    module: Vec<String>,
    syntax: syn::File,
    source: String,
}

impl House {
    fn of_the_library() -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR"))
            .with_file_name("synced-memory")
            .join("src");
        let mut paths = Vec::new();
        sources(&src, &mut paths);
        assert!(
            paths.iter().any(|path| path.ends_with("lib.rs")),
            "no library in {}",
            src.display()
        );
        Self::new(paths.into_iter().map(|path| {
            let source = fs::read_to_string(&path).expect("a source can be read");
            (
                path.strip_prefix(&src)
                    .expect("it was found in src")
                    .to_owned(),
                source,
            )
        }))
    }

    fn new(sources: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let files: Vec<SourceFile> = sources
            .into_iter()
            .map(|(name, source)| {
                let syntax = syn::parse_file(&source)
                    .unwrap_or_else(|error| panic!("{}: {error}", name.display()));
                SourceFile {
                    module: module(&name),
                    name,
                    syntax,
                    source,
                }
            })
            .collect();
        let mut re_exports = BTreeMap::new();
        for file in files.iter().filter(|file| file.module.is_empty()) {
            for item in &file.syntax.items {
                let syn::Item::Use(item) = item else { continue };
                flatten(&item.tree, &mut Vec::new(), &mut |leaf| {
                    let room = leaf
                        .path
                        .iter()
                        .find(|part| !matches!(part.as_str(), "crate" | "self"));
                    if let Some(room) = room.filter(|room| floor(room).is_some()) {
                        re_exports.insert(leaf.alias, room.clone());
                    }
                });
            }
        }
        Self { files, re_exports }
    }

    /// The room that a name in the root of the crate refers to.
    fn room_of(&self, name: &str) -> Option<&str> {
        let found = ROOMS
            .iter()
            .map(|(room, _)| *room)
            .find(|room| *room == name);
        found.or_else(|| self.re_exports.get(name).map(String::as_str))
    }
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("a directory can be listed").path())
        .collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

fn module(file: &Path) -> Vec<String> {
    let mut module: Vec<String> = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if module
        .last()
        .is_some_and(|last| last == "mod" || last == ROOF && module.len() == 1)
    {
        module.pop();
    }
    module
}

fn floor(room: &str) -> Option<usize> {
    ROOMS.iter().position(|(name, _)| *name == room)
}

/// The floor of a file inside its room.
fn floor_inside(room: &str, file: &str) -> Option<usize> {
    let (_, floors) = ROOMS.iter().find(|(name, _)| *name == room)?;
    floors.iter().position(|files| files.contains(&file))
}

/// The file or folder of a room that a name in it refers to; any other name is in its `mod.rs`.
fn file_of<'a>(room: &str, name: Option<&'a String>) -> &'a str {
    name.map(String::as_str)
        .filter(|name| floor_inside(room, name).is_some())
        .unwrap_or("mod")
}

fn imports(house: &House) -> Vec<String> {
    let mut violations = Vec::new();
    for source in &house.files {
        let Some(room) = source.module.first() else {
            continue;
        };
        let path = source.name.display();
        let Some(own) = floor(room) else {
            violations.push(format!(
                "src/{path}: the room `{room}` has no floor: add it to ROOMS"
            ));
            continue;
        };
        let has_floors = !ROOMS[own].1.is_empty();
        let file = source.module.get(1).map_or("mod", String::as_str);
        if has_floors && floor_inside(room, file).is_none() && source.module.len() > 1 {
            if file != "tests" {
                violations.push(format!(
                    "src/{path}: `{file}` has no floor in `{room}`: add it"
                ));
            }
            continue;
        }
        let mut names = Names {
            module: source.module.clone(),
            found: Vec::new(),
        };
        names.visit_file(&source.syntax);
        for (name, inside, span) in names.found {
            let line = span.start().line;
            match house.room_of(&name) {
                Some(other) if other == room => {
                    let other = file_of(room, inside.as_ref());
                    if has_floors && floor_inside(room, other) < floor_inside(room, file) {
                        violations.push(format!(
                            "src/{path}:{line}: `{room}/{file}` names `{room}/{other}`, which is \
                             above it"
                        ));
                    }
                }
                Some(other) if floor(other).is_some_and(|floor| floor > own) => {}
                Some(other) => violations.push(format!(
                    "src/{path}:{line}: `{room}` names `{other}`, which is above it"
                )),
                None => violations.push(format!(
                    "src/{path}:{line}: `{room}` names `crate::{name}`, which is no room of ROOMS \
                     and nothing that lib.rs re-exports"
                )),
            }
        }
    }
    violations.dedup(); // one `use` may name a room many times
    violations
}

fn reads_of_the_time(house: &House) -> Vec<String> {
    let mut violations = Vec::new();
    for file in house
        .files
        .iter()
        .filter(|file| !file.name.ends_with("base/clock.rs"))
    {
        let tokens: TokenStream = file.source.parse().expect("it was parsed before");
        words(tokens, &mut |words| {
            for window in words.windows(3) {
                let [(clock, span), (colons, _), (now, _)] = window else {
                    continue;
                };
                if matches!(clock.as_str(), "Instant" | "SystemTime")
                    && colons == "::"
                    && now == "now"
                {
                    let line = span.start().line;
                    violations.push(format!(
                        "src/{}:{line}: `{clock}::now`: time is passed in",
                        file.name.display()
                    ));
                }
            }
        });
    }
    violations
}

fn calls_of_subscribers(house: &House) -> Vec<String> {
    let mut offences = Vec::new();
    for file in &house.files {
        if file.name.ends_with("base/events.rs") {
            continue;
        }
        let tokens: TokenStream = file.source.parse().expect("it was parsed before");
        words(tokens, &mut |words| {
            for window in words.windows(2) {
                let [(name, span), (colons, _)] = window else {
                    continue;
                };
                if name == "tracing" && colons == "::" {
                    let (line, file) = (span.start().line, file.name.display());
                    offences.push(format!("src/{file}:{line}: `event!` emits under no lock"));
                }
            }
        });
    }
    offences
}

/// Collects what a file names in the root of its crate: `crate::name::…`, in `use` and anywhere
/// else, macros included, `self` and `super` resolved.
struct Names {
    module: Vec<String>,
    /// The first name, and the one after it.
    found: Vec<(String, Option<String>, Span)>,
}

impl Names {
    fn path(&mut self, parts: &[String], span: Span) {
        let mut module = self.module.clone();
        let mut rest = parts;
        let mut rooted = false;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" | "synced_memory" => module.clear(),
                "self" => {}
                "super" => {
                    module.pop();
                }
                _ => break,
            }
            rooted = true;
            rest = after;
        }
        let mut names = module.iter().chain(rest);
        if rooted && let Some(name) = names.next() {
            self.found.push((name.clone(), names.next().cloned(), span));
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        flatten(&item.tree, &mut Vec::new(), &mut |leaf| {
            let parts: Vec<String> = leaf.path.iter().chain([&leaf.name]).cloned().collect();
            self.path(&parts, leaf.span);
        });
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.path(&parts, path.span());
        visit::visit_path(self, path);
    }

    /// A visibility such as `pub(in crate::handle)` is no import.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        words(call.tokens.clone(), &mut |words| {
            for (at, (word, span)) in words.iter().enumerate() {
                let starts = at == 0 || words[at - 1].0 != "::";
                if starts && matches!(word.as_str(), "crate" | "super" | "self" | "synced_memory") {
                    let mut parts = vec![word.clone()];
                    let mut rest = &words[at + 1..];
                    while let [(colons, _), (part, _), after @ ..] = rest
                        && colons == "::"
                    {
                        parts.push(part.clone());
                        rest = after;
                    }
                    if parts.len() > 1 {
                        self.path(&parts, *span);
                    }
                }
            }
        });
    }
}

/// A leaf of a `use`: `path::name as alias`. A glob is `*`.
struct Leaf<'a> {
    path: &'a [String],
    name: String,
    alias: String,
    span: Span,
}

/// Calls `show` with each leaf of a `use`.
fn flatten(tree: &syn::UseTree, path: &mut Vec<String>, show: &mut impl FnMut(Leaf<'_>)) {
    let (name, alias) = match tree {
        syn::UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            flatten(&tree.tree, path, show);
            path.pop();
            return;
        }
        syn::UseTree::Group(tree) => {
            return tree.items.iter().for_each(|tree| flatten(tree, path, show));
        }
        syn::UseTree::Name(tree) => (tree.ident.to_string(), tree.ident.to_string()),
        syn::UseTree::Rename(tree) => (tree.ident.to_string(), tree.rename.to_string()),
        syn::UseTree::Glob(_) => ("*".to_owned(), "*".to_owned()),
    };
    show(Leaf {
        path,
        name,
        alias,
        span: tree.span(),
    });
}

/// Calls `show` with the words of each group of tokens, with `::` as one word.
fn words(tokens: TokenStream, show: &mut impl FnMut(&[(String, Span)])) {
    let mut words: Vec<(String, Span)> = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                words.push(("(…)".to_owned(), group.span()));
                self::words(group.stream(), show);
            }
            TokenTree::Ident(word) => words.push((word.to_string(), word.span())),
            TokenTree::Punct(sign)
                if sign.as_char() == ':' && words.last().is_some_and(|(last, _)| last == ":") =>
            {
                let (_, span) = words.pop().expect("it was just looked at");
                words.push(("::".to_owned(), span));
            }
            TokenTree::Punct(sign) => words.push((sign.as_char().to_string(), sign.span())),
            TokenTree::Literal(literal) => words.push(("…".to_owned(), literal.span())),
        }
    }
    show(&words);
}

/// Tests of the tests: what they find in a house of a few files.
mod finds {
    use super::{House, calls_of_subscribers, imports, reads_of_the_time};

    const LIB: &str = "pub use crate::base::error::{Error, Result}; \
                       pub use handle::memory::Memory; mod cache; mod handle;";

    fn house(file: &str, source: &str) -> House {
        House::new([
            ("lib.rs".into(), LIB.to_owned()),
            (file.into(), source.to_owned()),
        ])
    }

    fn violates(file: &str, source: &str) -> bool {
        let violations = imports(&house(file, source));
        assert!(violations.len() < 2, "{violations:?}");
        !violations.is_empty()
    }

    #[test]
    fn nothing_in_imports_that_point_down_stay_or_leave_the_crate() {
        for source in [
            "use crate::pending::outbox::Entry; use crate::{backend::Backend, base::clock};",
            "use std::sync::Arc; use super::outbox::Outbox; use ::redis::Client;",
            "fn f(e: crate::base::error::Error) -> crate::Result<()> { crate::cache::g(self::h()) }",
            "pub(in crate::handle) fn f() {} pub(crate) struct S; pub(super) struct T;",
            "mod tests { use super::*; use super::super::outbox::Entry; fn f() { super::g() } }",
            "fn f() { matches!(x, crate::base::error::Kind::A); println!(\"crate::handle\"); }",
        ] {
            assert!(!violates("pending/rebase.rs", source), "{source}");
        }
        let memory = "use crate::handle::config::Builder; use crate::client::core::Core;";
        assert!(!violates("handle/memory.rs", memory));
        let redis = "use super::super::{Backend, commit::C}; use crate::base::clock::Clock;";
        assert!(!violates("backend/redis/reply.rs", redis));
        let support = "pub use crate::handle::memory::Memory; pub use crate::Error;";
        assert!(!violates("macro_support.rs", support));
    }

    #[test]
    fn an_import_that_points_up_in_any_syntax() {
        for source in [
            "use crate::handle::memory::Memory;",
            "use crate::{base::error::Error, handle};",
            "use crate::handle::memory::Memory as M;",
            "use crate::handle as h;",
            "use crate::handle::*;",
            "use super::super::client::flusher::Flusher;",
            "fn f(m: &crate::handle::memory::Memory) {}",
            "fn f() { super::super::handle::g() }",
            "impl crate::macro_support::Sealed for S {}",
            "fn f() { assert!(crate::handle::g()); }",
            "fn f() { vec![(1, [super::super::handle::g()])]; }",
            "macro_rules! m { () => { $crate::handle::g() } }",
            "mod tests { use super::super::super::handle::Memory; }",
            "use crate::Memory;",
            "fn f(m: synced_memory::Memory) {}",
            "use crate::*;",
            "use crate::somewhere::Else;",
        ] {
            assert!(violates("cache/near.rs", source), "{source}");
        }
        assert!(violates(
            "backend/redis/mod.rs",
            "use super::super::pending::outbox::Entry;"
        ));
        assert!(violates("value/json.rs", "use crate::backend::Backend;"));
    }

    #[test]
    fn an_import_that_points_up_inside_a_room() {
        assert!(violates(
            "client/state/mod.rs",
            "use crate::client::shared::Shared;"
        ));
        assert!(violates(
            "client/state/mod.rs",
            "use super::super::shared::Shared;"
        ));
        assert!(violates("backend/commit.rs", "use super::Backend;"));
        assert!(violates("backend/mod.rs", "use self::redis::Redis;"));
        assert!(!violates("backend/redis/mod.rs", "use super::Backend;"));
        assert!(!violates(
            "client/flusher.rs",
            "use super::{shared::Shared, state::State};"
        ));
    }

    #[test]
    fn a_room_or_a_file_without_a_floor() {
        assert!(violates("helpers.rs", ""));
        assert!(violates("client/helpers.rs", ""));
    }

    #[test]
    fn a_call_of_a_subscriber_outside_the_events() {
        let calls = |file, source| !calls_of_subscribers(&house(file, source)).is_empty();
        assert!(calls(
            "cache/mod.rs",
            "fn f() { tracing::warn!(key, \"late\"); }"
        ));
        assert!(calls("lib.rs", "use tracing::info;"));
        assert!(!calls("base/events.rs", "use tracing::Level;"));
        assert!(!calls(
            "cache/mod.rs",
            "fn f() { event!(WARN, \"tracing::\"); } // tracing::"
        ));
    }

    #[test]
    fn a_read_of_the_time_outside_the_clock() {
        let asks = |file, source| !reads_of_the_time(&house(file, source)).is_empty();
        assert!(asks(
            "cache/mod.rs",
            "fn f() { let now = std::time::Instant::now(); }"
        ));
        assert!(asks(
            "lib.rs",
            "fn f() { assert!(SystemTime :: now() > x); }"
        ));
        assert!(asks(
            "backend/mod.rs",
            "fn f() { xs.map_or_else(Instant::now, g) }"
        ));
        assert!(!asks("base/clock.rs", "fn f() { Instant::now(); }"));
        let words = "/// Not `Instant::now()`.\nfn f(c: &Clock) { c.now(); \"Instant::now\"; }";
        assert!(!asks("cache/mod.rs", words));
    }
}
