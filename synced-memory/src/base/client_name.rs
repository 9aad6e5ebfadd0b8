//! What a connection is called in the server's `CLIENT LIST`.

use std::path::{Path, PathBuf};

/// The longest name, in bytes: that of a pod has at most 253.
const LONGEST: usize = 255;

/// Checks that `CLIENT SETNAME` takes the name.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn check(name: &str) -> Result<(), &'static str> {
    if name.len() > LONGEST {
        return Err("is longer than 255 bytes");
    }
    if !name.chars().all(is_taken) {
        return Err(
            "has a character that `CLIENT SETNAME` refuses: letters and digits of ASCII and \
             punctuation are taken, spaces and line breaks are not",
        );
    }
    Ok(())
}

/// The name of this program, as `CLIENT SETNAME` takes it. `None` if it is not known.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "what servers alone are told")
)]
pub(crate) fn of_program() -> Option<String> {
    let program = std::env::current_exe().ok();
    let program = program.or_else(|| std::env::args_os().next().map(PathBuf::from));
    of_path(&program?)
}

/// The name of the program at a path: its file name without the extension, in which `_` stands for
/// each character that is refused.
fn of_path(program: &Path) -> Option<String> {
    let name = program.file_stem()?.to_string_lossy();
    // Linux says so of a program whose file was replaced since it started.
    let name = name.strip_suffix(" (deleted)").unwrap_or(&name);
    let taken = |character| if is_taken(character) { character } else { '_' };
    // All that is left is ASCII, of one byte each.
    let name: String = name.chars().take(LONGEST).map(taken).collect();
    Some(name).filter(|name| !name.is_empty())
}

/// What Redis takes, from `!` to `~`; no other server takes less.
fn is_taken(character: char) -> bool {
    character.is_ascii_graphic()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_called_by_its_file_name_without_path_and_extension() {
        let long = "x".repeat(300);
        for (path, expected) in [
            ("/usr/bin/shop", Some("shop")),
            ("worker.bin", Some("worker")),
            ("/a b/job runner", Some("job_runner")),
            ("/a/caf\u{e9}\n", Some("caf__")),
            ("/a/shop (deleted)", Some("shop")),
            ("/a/shop.bin (deleted)", Some("shop")),
            ("/", None),
            ("", None),
            (&long, Some(&long[..LONGEST])),
        ] {
            let name = of_path(Path::new(path));
            assert_eq!(name.as_deref(), expected, "{path}");
            assert_eq!(name.map_or(Ok(()), |name| check(&name)), Ok(()), "{path}");
        }
    }

    #[test]
    fn this_program_has_a_name() {
        let name = of_program().expect("a test has a file");
        assert!(name.starts_with("synced_memory"), "{name}");
        assert_eq!(check(&name), Ok(()));
    }
}
