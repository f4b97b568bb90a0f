//! Values that nobody may see.
//!
//! Like an envelope that shows only that it is one: a [`Secret`] prints, serialises and formats as `(secret)`, and its text is
//! reached by one named method that a reviewer can search for. A file form is read when it is used, so a rotated credential needs
//! no restart. Weakness: the text is ordinary memory; a core dump of this process holds it.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What stands wherever a secret would have been.
pub const MASK: &str = "(secret)";

/// Largest credential file that is read, in bytes; a larger one is a wrong path.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// A text that is never shown. Compares by content, so that a changed credential counts as a changed configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one place that sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(MASK)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Secret, D::Error> {
        String::deserialize(d).map(Secret)
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        super::unit::SecretText::json_schema(generator)
    }
}

/// Where a secret comes from: the configuration itself (a warning of `check`), or a file that is read at each use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    Inline(Secret),
    File(PathBuf),
}

impl SecretSource {
    /// The secret as of now. Reads the file form anew each time; one line end at its end is not part of the secret.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            SecretSource::Inline(secret) => Ok(secret.clone()),
            SecretSource::File(path) => read_file(path),
        }
    }
}

impl Serialize for SecretSource {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        SourceForm::from(self.clone()).serialize(s)
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<SecretSource, D::Error> {
        Ok(match SourceForm::deserialize(d)? {
            SourceForm::Text(secret) => SecretSource::Inline(secret),
            SourceForm::File(form) => SecretSource::File(form.file),
        })
    }
}

impl From<SecretSource> for SourceForm {
    fn from(source: SecretSource) -> SourceForm {
        match source {
            SecretSource::Inline(secret) => SourceForm::Text(secret),
            SecretSource::File(file) => SourceForm::File(FileForm { file }),
        }
    }
}

/// How a header's value is written: the text, or the file that holds it.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum SourceForm {
    Text(Secret),
    File(FileForm),
}

/// The file form of a header's value.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct FileForm {
    /// File that holds the value; read at each use.
    #[schemars(with = "super::unit::PathText")]
    file: PathBuf,
}

/// A credential could not be read; nothing was sent without it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the credential file {path}: {source}; check that it exists and that this user may read it")]
    Read { path: String, source: std::io::Error },
    #[error("the credential file {path} is larger than {SECRET_FILE_BYTES_MAX} bytes; is it the right file?")]
    TooLarge { path: String },
    #[error("the credential file {path} is not UTF-8 text; a credential is one line of text")]
    NotText { path: String },
    #[error("the credential file {path} is empty; write the credential into it")]
    Empty { path: String },
}

/// Reads one credential; bounded, so that a path to a device or a log cannot fill the memory.
pub(super) fn read_file(path: &Path) -> Result<Secret, SecretError> {
    let name = path.display().to_string();
    let failed = |source| SecretError::Read { path: name.clone(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(SECRET_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SECRET_FILE_BYTES_MAX {
        return Err(SecretError::TooLarge { path: name });
    }
    let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText { path: name.clone() })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(SecretError::Empty { path: name });
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_only_that_it_is_one() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "(secret) (secret)");
        assert_eq!(serde_json::to_string(&secret).ok().as_deref(), Some("\"(secret)\""));
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_file_form_is_read_anew_at_each_use() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("token");
        let source = SecretSource::File(path.clone());
        assert!(source.read().is_err_and(|error| error.to_string().contains("token")));
        std::fs::write(&path, "first\n")?;
        assert_eq!(source.read()?.expose(), "first");
        std::fs::write(&path, "second\r\n")?;
        assert_eq!(source.read()?.expose(), "second");
        std::fs::write(&path, "\n")?;
        assert!(matches!(source.read(), Err(SecretError::Empty { .. })));
        std::fs::write(&path, vec![b'x'; SECRET_FILE_BYTES_MAX as usize + 1])?;
        assert!(matches!(source.read(), Err(SecretError::TooLarge { .. })));
        Ok(())
    }
}
