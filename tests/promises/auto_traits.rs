//! Every public type can be sent, shared, moved, and used after a panic was caught around it.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};
use std::path::Path;

use synced_memory::{
    Builder, ConnectPolicy, ContendedKey, Credentials, DeadLetter, Durability, Error, ErrorKind,
    Key, Memory, NodeStatus, ReadPolicy, Status, Synced, SyncedMemory, Tracking, Watch, WatchIter,
    WritePolicy, Written,
};

#[derive(SyncedMemory, Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Inner {
    text: String,
}

#[derive(SyncedMemory)]
struct Outer {
    #[synced(default)]
    count: i64,
    #[synced(nested)]
    inner: Inner,
    jobs: Vec<String>,
}

fn has_all<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}

/// Asserts all of that of each type, and returns the names.
macro_rules! have_all {
    ($($type:ident $(<$argument:ty>)?),+ $(,)?) => {{
        $(has_all::<$type $(<$argument>)?>();)+
        [$(stringify!($type)),+]
    }};
}

/// What the library exports that is no type of its own.
const OTHERS: [&str; 8] = [
    "BoxError",
    "Handle",
    "Integer",
    "Number",
    "SyncedMemory",
    "Value",
    "ValueIndex",
    "rustls",
];

/// What its `lib.rs` exports, by name.
fn exported() -> BTreeSet<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = manifest.with_file_name("synced-memory").join("src/lib.rs");
    let source = fs::read_to_string(lib).expect("the library has a lib.rs");
    let file = syn::parse_file(&source).expect("it can be parsed");
    let mut names = BTreeSet::new();
    for item in file.items {
        match item {
            syn::Item::Use(item) if matches!(item.vis, syn::Visibility::Public(_)) => {
                names_in(&item.tree, &mut names);
            }
            _ => {}
        }
    }
    names
}

fn names_in(tree: &syn::UseTree, names: &mut BTreeSet<String>) {
    match tree {
        syn::UseTree::Path(path) => names_in(&path.tree, names),
        syn::UseTree::Name(name) => _ = names.insert(name.ident.to_string()),
        syn::UseTree::Rename(renamed) => _ = names.insert(renamed.rename.to_string()),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| names_in(tree, names)),
        syn::UseTree::Glob(_) => panic!("each name is exported by itself"),
    }
}

#[test]
fn every_public_type_is_send_sync_unpin_and_unwind_safe() {
    type Result = synced_memory::Result<()>;
    let types = have_all![
        Builder,
        ConnectPolicy,
        ContendedKey,
        Credentials,
        DeadLetter,
        Durability,
        Error,
        ErrorKind,
        Key<Vec<String>>,
        Memory,
        ReadPolicy,
        Result,
        NodeStatus,
        Status,
        Synced<Vec<String>>,
        Tracking,
        Watch<Vec<String>>,
        WatchIter<Vec<String>>,
        WritePolicy,
        Written,
    ];
    has_all::<<Outer as SyncedMemory>::Handle>();
    has_all::<<Inner as SyncedMemory>::Handle>();
    let asserted: BTreeSet<String> = types.into_iter().chain(OTHERS).map(String::from).collect();
    assert_eq!(exported(), asserted, "a new type belongs into the list");
}

#[test]
fn a_memory_goes_on_after_a_panic_in_a_closure_that_was_caught_around_it() {
    let handle = Outer::open("memory:").unwrap();
    handle.set_count(1).unwrap();
    let (memory, count) = (handle.memory(), handle.synced_count());
    let caught = catch_unwind(|| {
        count.update(|count| {
            *count += 1;
            assert!(*count < 2, "on purpose");
        })
    });
    assert!(caught.is_err());
    let caught = catch_unwind(|| count.with(|count| assert_eq!(*count, 2, "on purpose")));
    assert!(caught.is_err());
    assert_eq!(handle.count().unwrap(), 1, "it has changed nothing");
    count.update(|count| *count += 1).unwrap();
    assert_eq!(memory.get(&Key::<i64>::new("count")).unwrap(), Some(2));
}
