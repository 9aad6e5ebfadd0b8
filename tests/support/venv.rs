//! The Python environment that `.ci/test` makes: other servers, and the Python package.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a package of the workspace")
}

pub(crate) fn venv() -> PathBuf {
    let path =
        env::var_os("SYNCED_MEMORY_VENV").map_or_else(|| workspace().join(".venv"), PathBuf::from);
    assert!(
        path.is_dir(),
        "no Python environment at {}: run .ci/test",
        path.display()
    );
    path
}

pub(crate) fn python() -> PathBuf {
    existing(venv().join("bin/python3"))
}

/// A file of an installed package; `relative` may hold one `*` for a whole path component.
pub(crate) fn packaged(relative: &str) -> PathBuf {
    let lib = venv().join("lib");
    let pattern = Path::new("*/site-packages").join(relative);
    matching(lib.clone(), &pattern)
        .unwrap_or_else(|| panic!("no {relative} in {}: run .ci/test", lib.display()))
}

fn matching(base: PathBuf, pattern: &Path) -> Option<PathBuf> {
    let mut parts = pattern.components();
    let Some(first) = parts.next() else {
        return base.is_file().then_some(base);
    };
    let rest = parts.as_path();
    if first.as_os_str() != "*" {
        return matching(base.join(first), rest);
    }
    let mut entries: Vec<_> = base
        .read_dir()
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    entries.into_iter().find_map(|entry| matching(entry, rest))
}

pub(crate) fn existing(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "no {}: run .ci/test", path.display());
    path
}
