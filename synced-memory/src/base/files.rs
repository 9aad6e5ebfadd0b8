//! The files and directories that this library makes: they are their owner's, and no link is
//! followed in place of one (rule 19).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;

/// Creates a file that is not there yet, to read and write it.
///
/// Its owner alone may, and the group of its directory if that may write there and others may not:
/// such a directory is shared on purpose.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create_new(true).read(true).write(true);
    system::create(&mut options, path)
}

/// Opens a file that is there, to read and write it. A link is an error.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    system::follow_no_link(&mut options);
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
    }
}

/// Creates a directory if it is missing, for its owner alone, and those above it likewise.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    system::for_owner(&mut builder);
    builder.create(path)
}

/// Which file it is, whatever its name. Where the system does not say, all files are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| system::id(&metadata))
    }

    /// The file at `path`, if there is one; a link there is a file of its own.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        Some(system::id(&metadata))
    }
}

#[cfg(unix)]
mod system {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
    use std::path::Path;

    use rustix::fs::OFlags;

    use super::FileId;

    const OF_OWNER: u32 = 0o600;
    const OF_GROUP: u32 = 0o660;

    pub(super) fn create(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
        let mode = mode_beside(path);
        let file = options.mode(mode).open(path)?;
        if mode == OF_GROUP {
            // The process's umask has taken something away.
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(file)
    }

    /// The mode of a new file at `path`.
    fn mode_beside(path: &Path) -> u32 {
        let directory = path.parent().filter(|parent| *parent != Path::new(""));
        let directory = std::fs::metadata(directory.unwrap_or(Path::new(".")));
        match directory.map(|directory| directory.mode() & 0o022) {
            Ok(0o020) => OF_GROUP,
            _ => OF_OWNER,
        }
    }

    pub(super) fn follow_no_link(options: &mut OpenOptions) {
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    }

    pub(super) fn for_owner(builder: &mut DirBuilder) {
        builder.mode(0o700);
    }

    pub(super) fn id(metadata: &Metadata) -> FileId {
        FileId(metadata.dev(), metadata.ino())
    }
}

#[cfg(not(unix))]
mod system {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::path::Path;

    use super::FileId;

    pub(super) fn create(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
        options.open(path)
    }

    pub(super) fn follow_no_link(_: &mut OpenOptions) {}

    pub(super) fn for_owner(_: &mut DirBuilder) {}

    pub(super) fn id(_: &Metadata) -> FileId {
        FileId(0, 0)
    }
}
