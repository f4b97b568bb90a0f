//! The token that opens the page on loopback, kept beside the log.
//!
//! A key under the mat of one's own house: who may read the storage folder's owner-only files is the person the page is for, and
//! other users of the machine are not. Weakness: it never changes by itself; deleting the file makes a new one at the next start.

use crate::config::Secret;
use rustls::crypto::ring::default_provider;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// File below `storage.path`.
pub const TOKEN_FILE: &str = "token";
/// Random bytes of a new token; it is twice as many hex digits.
const TOKEN_BYTES: usize = 24;
/// A file with fewer characters is half-written.
const TOKEN_CHARS_MIN: usize = 32;
const TOKEN_CHARS_MAX: u64 = 4096;
const OWNER_ONLY: u32 = 0o600;

/// The page cannot be protected, so it is not served.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot use the token file {path}: {source}; check that this user owns it, or remove it")]
    File { path: PathBuf, source: io::Error },
    #[error("the system gives no random numbers for a new token")]
    Random,
}

/// The token of `folder`; made at the first call. Its file is readable by its owner only, and is made so if it was not.
pub fn token(folder: &Path) -> Result<Secret, TokenError> {
    let path = folder.join(TOKEN_FILE);
    let failed = |source| TokenError::File { path: path.clone(), source };
    if let Some(known) = read(&path).map_err(failed)? {
        return Ok(known);
    }
    let mut bytes = [0; TOKEN_BYTES];
    default_provider().secure_random.fill(&mut bytes).map_err(|_| TokenError::Random)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write(folder, &path, &text).map_err(failed)?;
    Ok(Secret::new(text))
}

fn read(path: &Path) -> io::Result<Option<Secret>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    }
    let mut text = String::new();
    file.take(TOKEN_CHARS_MAX).read_to_string(&mut text)?;
    let text = text.trim();
    let whole = text.len() >= TOKEN_CHARS_MIN && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    Ok(whole.then(|| Secret::new(text)))
}

/// Written aside and renamed, so that the file is whole or not there.
fn write(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    let aside = folder.join(format!("{TOKEN_FILE}.new"));
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(&aside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_only_its_owner_may_read_it() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let first = token(folder.path())?;
        let path = folder.path().join(TOKEN_FILE);
        let mode = || std::fs::metadata(&path).map(|metadata| metadata.permissions().mode() & 0o777);
        assert_eq!(mode()?, 0o600);
        assert_eq!(first.expose().len(), 2 * TOKEN_BYTES);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        assert_eq!(token(folder.path())?, first);
        assert_eq!(mode()?, 0o600, "tightened");
        Ok(())
    }

    #[test]
    fn a_half_written_token_is_replaced_and_a_folder_in_its_place_is_named() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join(TOKEN_FILE);
        std::fs::write(&path, "abc")?;
        assert_eq!(token(folder.path())?.expose().len(), 2 * TOKEN_BYTES);
        std::fs::remove_file(&path)?;
        std::fs::create_dir(&path)?;
        assert!(token(folder.path()).is_err_and(|error| error.to_string().contains("token")));
        Ok(())
    }
}
