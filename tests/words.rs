//! One word for one thing: no two types of the two library crates share a name. And what is
//! declared in one place is used in the others: methods of views, options, backends.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// The crates whose types are compared: the library and its derive.
const CRATES: &[&str] = &["synced-memory", "synced-memory-derive"];

#[test]
fn no_two_types_share_a_name() {
    let mut types = Types::default();
    for name in CRATES {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(name);
        let sources = sources_in(&root.join("src"));
        assert!(!sources.is_empty(), "no sources in {}", root.display());
        for path in sources {
            let source = fs::read_to_string(&path).expect("a source can be read");
            let file = path.strip_prefix(root.parent().expect("the workspace"));
            types.add(file.expect("a file of the workspace"), &source);
        }
    }
    let shared = types.shared_names();
    assert!(shared.is_empty(), "\n{}\n", shared.join("\n"));
}

/// The views whose methods share names, by their file, and what the test of the interface calls
/// one.
const RECEIVERS: &[(&str, &str)] = &[
    ("map.rs", "map"),
    ("set.rs", "set"),
    ("value.rs", "any"),
    ("vec.rs", "list"),
];

/// Methods in the bodies of macros count too: a macro makes the same methods for several
/// collections.
#[test]
fn every_method_of_a_view_is_called_by_the_test_of_the_interface() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let views = tests
        .with_file_name("synced-memory")
        .join("src/handle/synced");
    let interface = fs::read_to_string(tests.join("promises/interface.rs")).expect("it is there");
    let mut missing = Vec::new();
    let mut count = 0;
    for path in sources_in(&views) {
        let source = fs::read_to_string(&path).expect("a source can be read");
        let receiver = RECEIVERS.iter().find(|(file, _)| path.ends_with(file));
        let receiver = receiver.map_or("", |(_, name)| name);
        for line in source.lines().map(str::trim) {
            let method = line
                .strip_prefix("pub fn ")
                .or(line.strip_prefix("pub async fn "));
            let Some(name) = method.and_then(|rest| rest.split(['(', '<']).next()) else {
                continue;
            };
            count += 1;
            let calls = ["(", "::<"].map(|rest| format!("{receiver}.{name}{rest}"));
            if !calls.iter().any(|call| interface.contains(call)) {
                missing.push(format!("{}: `{}…)`", path.display(), calls[0]));
            }
        }
    }
    assert!(count > 30, "only {count} methods were found");
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

#[test]
fn every_option_is_read_where_it_has_its_effect() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("synced-memory/src");
    let table = src.join("base/settings.rs");
    let rows = fs::read_to_string(&table).expect("it is there");
    let lines: Vec<&str> = rows.lines().map(str::trim).collect();
    let options = lines.windows(2).filter_map(|lines| {
        let (name, _) = lines[0].split_once(": ")?;
        (lines[1].starts_with("set (") && !name.starts_with('$')).then_some(name)
    });
    let options: Vec<&str> = options.collect();
    assert!(options.len() > 10, "only {options:?} were found");

    let readers = sources_in(&src).into_iter().filter(|path| {
        *path != table
            && !path.starts_with(src.join("handle/config"))
            && !path.ends_with("tests.rs")
    });
    // Without white space: a chain of calls may be broken after `settings`.
    let readers: String = readers
        .map(|path| fs::read_to_string(path).expect("a source can be read"))
        .flat_map(|source| {
            source
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    let is_read = |name: &&str| {
        let is_part = |character: char| character.is_alphanumeric() || character == '_';
        let field = format!("settings.{name}");
        let mut rests = readers.split(&field).skip(1);
        rests.any(|rest| !rest.starts_with(is_part))
    };
    let unread: Vec<_> = options.into_iter().filter(|name| !is_read(name)).collect();
    assert!(unread.is_empty(), "no effect: {unread:?}");
}

#[test]
fn every_backend_has_its_place_among_the_promises() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path| fs::read_to_string(path).expect("it is there");
    let suite = read(tests.with_file_name("synced-memory/src/backend/contract/mod.rs"));
    let promises = read(tests.join("promises/contract.rs"));
    let rows = suite.lines().filter_map(|line| {
        let (backend, target) = line.trim().split_once(": ")?;
        target.starts_with("Target::").then_some(backend)
    });
    let backends: Vec<&str> = rows.collect();
    assert!(backends.len() > 2, "only {backends:?} were found");
    for backend in backends {
        let place = format!("on!({backend}, ");
        assert!(promises.contains(&place), "`{place}…)` in contract.rs");
    }
}

/// The types by their names, each with where it is declared.
///
/// Associated types and what macros make do not count, and neither do types inside functions: these
/// have no name outside.
#[derive(Default)]
struct Types {
    file: PathBuf,
    declared: BTreeMap<String, Vec<String>>,
}

impl Types {
    fn add(&mut self, file: &Path, source: &str) {
        let syntax =
            syn::parse_file(source).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        file.clone_into(&mut self.file);
        self.visit_file(&syntax);
    }

    fn declare(&mut self, name: &syn::Ident) {
        let line = name.span().start().line;
        let place = format!("{}:{line}", self.file.display());
        self.declared
            .entry(name.to_string())
            .or_default()
            .push(place);
    }

    fn shared_names(&self) -> Vec<String> {
        let shared = self.declared.iter().filter(|(_, places)| places.len() > 1);
        shared
            .map(|(name, places)| format!("`{name}`: {}", places.join(", ")))
            .collect()
    }
}

impl<'ast> Visit<'ast> for Types {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.declare(&item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.declare(&item.ident);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.declare(&item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.declare(&item.ident);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.declare(&item.ident);
    }

    fn visit_block(&mut self, _: &'ast syn::Block) {}
}

fn sources_in(dir: &Path) -> Vec<PathBuf> {
    let mut sources = Vec::new();
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for entry in entries {
        let path = entry.expect("a directory can be listed").path();
        if path.is_dir() {
            sources.extend(sources_in(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    sources.sort();
    sources
}

/// Tests of the test.
mod finds {
    use std::path::Path;

    use super::Types;

    fn shared_names(sources: &[&str]) -> Vec<String> {
        let mut types = Types::default();
        for source in sources {
            types.add(Path::new("a.rs"), source);
        }
        types.shared_names()
    }

    #[test]
    fn two_types_of_one_name() {
        for source in [
            "enum S {}",
            "pub(crate) union S { a: u8 }",
            "trait S {}",
            "type S<T> = Vec<T>;",
            "mod inner { struct S; }",
            "mod tests { struct S { a: u8 } }",
        ] {
            let shared = shared_names(&["struct S;", source]);
            assert_eq!(shared, ["`S`: a.rs:1, a.rs:1"], "{source}");
        }
    }

    #[test]
    fn nothing_in_associated_types_macros_and_bodies() {
        for source in [
            "trait T { type S; }",
            "impl T for U { type S = u8; }",
            "macro_rules! m { () => { struct S; } }",
            "m! { struct S; }",
            "fn f() { struct S; }",
            "use other::S;",
        ] {
            let shared = shared_names(&["struct S;", source]);
            assert!(shared.is_empty(), "{source}: {shared:?}");
        }
    }
}
