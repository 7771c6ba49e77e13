//! Files of the server's machine.

use pgrx::pg_sys;
use std::ffi::CStr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What can be said of a file that only the server may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// An ordinary file with something in it, outside the data directory, for the server's user alone.
    Well,
    Missing,
    /// A directory, a device, or empty.
    NoFile,
    InsideDataDirectory,
    /// Somebody else owns it.
    Foreign,
    /// Its mode lets others read or write it.
    Open,
}

fn data_directory() -> PathBuf {
    // SAFETY: a NUL-terminated string that every process of the server has from its start.
    let text = unsafe { CStr::from_ptr(pg_sys::DataDir) };
    PathBuf::from(text.to_string_lossy().into_owned())
}

/// How well a file is kept from others. Follows links: what they lead to counts.
pub fn guarded(path: &str) -> Guarded {
    let data = data_directory();
    let Ok(real) = std::fs::canonicalize(path) else { return Guarded::Missing };
    let (Ok(file), Ok(home)) = (std::fs::metadata(&real), std::fs::metadata(&data)) else { return Guarded::Missing };
    if !file.is_file() || file.len() == 0 {
        return Guarded::NoFile;
    }
    if std::fs::canonicalize(&data).is_ok_and(|data| real.starts_with(data)) {
        return Guarded::InsideDataDirectory;
    }
    // The data directory belongs to the server's user: it does not start otherwise.
    if file.uid() != home.uid() {
        return Guarded::Foreign;
    }
    if file.mode() & 0o077 != 0 { Guarded::Open } else { Guarded::Well }
}

/// The text of a small file; None when it cannot be read, is no text, or has more bytes.
pub fn text(path: &str, most: u64) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    if file.metadata().ok()?.len() > most {
        return None;
    }
    std::io::read_to_string(std::io::Read::take(file, most)).ok()
}
