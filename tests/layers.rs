//! Imports point down only (DESIGN, section 6), and only `clock.rs` asks for the time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The house, from the top. A room is a file of `synced-memory/src`, or a folder; it may name
/// itself, the rooms of its own floor, and all that is below.
const FLOORS: &[&[&str]] = &[
    &["private", "model"], // what generated code may name, and the model test: everything
    &["synced", "watch"],
    &["schema"],
    &["part"], // a place in what is stored under a key, to read and to change
    &["memory"],
    &["config", "dead_letter"],
    &["core"],   // the callers' side of a connection
    &["source"], // where a value is read from: slots, and a place in what they show
    &["flusher", "refresher", "slot", "turns", "updating"],
    &["shared"],            // what callers and the I/O thread share
    &["state"],             // slots with the unanswered writes on top
    &["rebase", "journal"], // what to do with a write, given what is there
    &["outbox"],
    &["cache"],
    &["backend"],
    &["mutation", "commit"],
    &[
        "envelope", "key", "clock", "error", "fault", "json", "policy", "shape", "value", "wait",
    ],
];

/// Re-exports everything, and belongs to no floor. To name something by way of it is to name its
/// room.
const ROOF: &str = "lib";

#[test]
fn imports_point_down_only() {
    let offences = imports(&House::of_the_library());
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn only_the_clock_asks_for_the_time() {
    let offences = questions_of_time(&House::of_the_library());
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

    /// The room that a name in the root of the crate stands for.
    fn room_of(&self, name: &str) -> Option<&str> {
        let found = FLOORS
            .iter()
            .flat_map(|rooms| rooms.iter())
            .find(|room| **room == name);
        found
            .copied()
            .or_else(|| self.re_exports.get(name).map(String::as_str))
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
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn imports(house: &House) -> Vec<String> {
    let mut offences = Vec::new();
    for file in &house.files {
        let Some(room) = file.module.first() else {
            continue;
        };
        let Some(own) = floor(room) else {
            offences.push(format!(
                "src/{}: the room `{room}` has no floor: add it to FLOORS",
                file.name.display()
            ));
            continue;
        };
        let mut names = Names {
            module: file.module.clone(),
            found: Vec::new(),
        };
        names.visit_file(&file.syntax);
        for (name, span) in names.found {
            let line = span.start().line;
            match house.room_of(&name) {
                Some(other) if other == room || floor(other).is_some_and(|floor| floor >= own) => {}
                Some(other) => {
                    offences.push(format!("src/{}:{line}: `{room}` names `{other}`, which is above it", file.name.display()));
                }
                None => offences.push(format!(
                    "src/{}:{line}: `{room}` names `crate::{name}`, which is no room of FLOORS and nothing that lib.rs re-exports",
                    file.name.display()
                )),
            }
        }
    }
    offences.dedup(); // one `use` may name a room many times
    offences
}

fn questions_of_time(house: &House) -> Vec<String> {
    let mut offences = Vec::new();
    for file in house
        .files
        .iter()
        .filter(|file| file.module.first().is_none_or(|room| room != "clock"))
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
                    offences.push(format!(
                        "src/{}:{line}: `{clock}::now`: time is passed in",
                        file.name.display()
                    ));
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
    found: Vec<(String, Span)>,
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
        if rooted && let Some(name) = module.first().or(rest.first()) {
            self.found.push((name.clone(), span));
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

    /// Who may see something is no import.
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

/// Shows each leaf of a `use`.
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

/// Shows the words of each group of tokens, with `::` as one word.
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

/// The test is tested: what it finds in a house of a few files.
mod finds {
    use super::{House, imports, questions_of_time};

    const LIB: &str =
        "pub use crate::error::{Error, Result}; pub use memory::Memory; mod cache; mod memory;";

    fn house(file: &str, source: &str) -> House {
        House::new([
            ("lib.rs".into(), LIB.to_owned()),
            (file.into(), source.to_owned()),
        ])
    }

    fn offends(file: &str, source: &str) -> bool {
        let offences = imports(&house(file, source));
        assert!(offences.len() < 2, "{offences:?}");
        !offences.is_empty()
    }

    #[test]
    fn nothing_in_imports_that_point_down_stay_or_leave_the_crate() {
        for source in [
            "use crate::outbox::{Entry, Outbox}; use crate::{backend::Backend, clock};",
            "use std::sync::Arc; use super::error::Error; use ::redis::Client;",
            "fn f(e: crate::error::Error) -> crate::Result<()> { crate::cache::g(self::h()) }",
            "pub(in crate::memory) fn f() {} pub(crate) struct S; pub(super) struct T;",
            "mod tests { use super::*; use super::super::clock::Clock; fn f() { super::g() } }",
            "fn f() { matches!(x, crate::error::Kind::A); println!(\"crate::memory\"); }",
        ] {
            assert!(!offends("rebase.rs", source), "{source}");
        }
        assert!(!offends(
            "memory.rs",
            "use crate::config::Builder; use crate::core::Core;"
        ));
        assert!(!offends(
            "backend/redis/mod.rs",
            "use super::{Backend, process::P}; use super::super::clock::Clock;"
        ));
        assert!(!offends(
            "private.rs",
            "pub use crate::memory::Memory; pub use crate::Error;"
        ));
    }

    #[test]
    fn an_import_that_points_up_wherever_it_stands() {
        for source in [
            "use crate::memory::Memory;",
            "use crate::{error::Error, memory};",
            "use crate::memory::Memory as M;",
            "use crate::memory as m;",
            "use crate::memory::*;",
            "use super::flusher::Flusher;",
            "fn f(m: &crate::memory::Memory) {}",
            "fn f() { super::config::g() }",
            "impl crate::private::Sealed for S {}",
            "fn f() { assert!(crate::memory::g()); }",
            "fn f() { vec![(1, [super::memory::g()])]; }",
            "macro_rules! m { () => { $crate::memory::g() } }",
            "mod tests { use super::super::memory::Memory; }",
            "use crate::Memory;",
            "fn f(m: synced_memory::Memory) {}",
            "use crate::*;",
            "use crate::somewhere::Else;",
        ] {
            assert!(offends("cache.rs", source), "{source}");
        }
        assert!(offends(
            "backend/redis/mod.rs",
            "use super::super::outbox::Entry;"
        ));
        assert!(offends("commit.rs", "use crate::backend::Backend;"));
        assert!(offends("outbox.rs", "use crate::state::State;"));
    }

    #[test]
    fn a_room_without_a_floor() {
        assert!(offends("helpers.rs", ""));
    }

    #[test]
    fn a_question_of_time_outside_the_clock() {
        let asks = |file, source| !questions_of_time(&house(file, source)).is_empty();
        assert!(asks(
            "cache.rs",
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
        assert!(!asks("clock.rs", "fn f() { Instant::now(); }"));
        assert!(!asks(
            "cache.rs",
            "/// Not `Instant::now()`.\nfn f(clock: &Clock) { clock.now(); \"Instant::now\"; }"
        ));
    }
}
