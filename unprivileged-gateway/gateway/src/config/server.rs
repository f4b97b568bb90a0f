//! What a listener needs to know: certificates and who may come in.
//!
//! Like the plate beside a door: the key it takes and who is let through. One shape for every listener, so that a rule about
//! doors off loopback is written once. Weakness: one set of credentials a door; there are no users and no roles.

use super::secret::{Secret, SecretError, SecretSource};
use super::unit::PathText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Certificate of a listener; the folder of the files is watched, so that a renewed pair is served without a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file with the certificate and its chain.
    #[schemars(with = "PathText")]
    pub cert_file: PathBuf,
    /// PEM file with the private key.
    #[schemars(with = "PathText")]
    pub key_file: PathBuf,
    /// PEM file with the authorities of client certificates; with it a client must show one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    pub client_ca_file: Option<PathBuf>,
}

/// Who may use a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Nothing was said: fine on loopback (the page then asks for the printed token), refused off loopback.
    #[default]
    Unset,
    /// `auth: none`: anybody who reaches the port, said explicitly.
    Open,
    /// `auth: mtls`: whoever shows a certificate signed by `tls.client_ca_file`.
    Mtls,
    /// `Authorization: Bearer ...` must equal this.
    Bearer(SecretSource),
    /// `Authorization: Basic ...` must equal this.
    Basic(Basic),
}

impl Auth {
    pub fn is_unset(&self) -> bool {
        *self == Auth::Unset
    }
}

/// User and password, for a listener or towards a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basic {
    pub user: String,
    pub password: SecretSource,
}

impl Basic {
    /// The value of an `Authorization` header, `Basic ` and base64 of `user:password`.
    pub fn header(&self) -> Result<Secret, SecretError> {
        let password = self.password.read()?;
        Ok(Secret::new(format!("Basic {}", base64(format!("{}:{}", self.user, password.expose()).as_bytes()))))
    }
}

/// Standard alphabet with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = (group >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    text
}

/// How `auth` is written: a word, or a map with one kind of credential.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum AuthForm {
    Word(AuthWord),
    Credential(AuthCredential),
}

/// The kinds of `auth` that need no credential here.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum AuthWord {
    None,
    Mtls,
}

/// Exactly one of these.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthCredential {
    /// Token that `Authorization: Bearer` must carry; better kept in `bearer_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bearer: Option<Secret>,
    /// File with the token that `Authorization: Bearer` must carry; read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    bearer_file: Option<PathBuf>,
    /// User and password that `Authorization: Basic` must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    basic: Option<Basic>,
}

/// How `basic` is written.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BasicForm {
    /// User name.
    user: String,
    /// Password; better kept in `password_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<Secret>,
    /// File with the password; read at each use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    password_file: Option<PathBuf>,
}

/// The pair `x` and `x_file` as one source. `check` has refused both-or-neither with its line before this is asked.
fn one_of(inline: Option<Secret>, file: Option<PathBuf>) -> Option<SecretSource> {
    file.map(SecretSource::File).or(inline.map(SecretSource::Inline))
}

fn split(source: &SecretSource) -> (Option<Secret>, Option<PathBuf>) {
    match source {
        SecretSource::Inline(secret) => (Some(secret.clone()), None),
        SecretSource::File(path) => (None, Some(path.clone())),
    }
}

impl Serialize for Auth {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let credential =
            |bearer, bearer_file, basic| AuthForm::Credential(AuthCredential { bearer, bearer_file, basic });
        match self {
            Auth::Unset => return s.serialize_none(),
            Auth::Open => AuthForm::Word(AuthWord::None),
            Auth::Mtls => AuthForm::Word(AuthWord::Mtls),
            Auth::Bearer(source) => {
                let (bearer, file) = split(source);
                credential(bearer, file, None)
            }
            Auth::Basic(basic) => credential(None, None, Some(basic.clone())),
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Auth, D::Error> {
        let credential = match AuthForm::deserialize(d)? {
            AuthForm::Word(AuthWord::None) => return Ok(Auth::Open),
            AuthForm::Word(AuthWord::Mtls) => return Ok(Auth::Mtls),
            AuthForm::Credential(credential) => credential,
        };
        match (one_of(credential.bearer, credential.bearer_file), credential.basic) {
            (Some(source), None) => Ok(Auth::Bearer(source)),
            (None, Some(basic)) => Ok(Auth::Basic(basic)),
            _ => Err(serde::de::Error::custom("auth takes exactly one of bearer_file, bearer, basic")),
        }
    }
}

impl JsonSchema for Auth {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Auth".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        AuthForm::json_schema(generator)
    }
}

impl Serialize for Basic {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let (password, password_file) = split(&self.password);
        BasicForm { user: self.user.clone(), password, password_file }.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Basic {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Basic, D::Error> {
        let form = BasicForm::deserialize(d)?;
        let password = one_of(form.password, form.password_file)
            .ok_or_else(|| serde::de::Error::custom("basic needs password_file or password"))?;
        Ok(Basic { user: form.user, password })
    }
}

impl JsonSchema for Basic {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Basic".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        BasicForm::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basic_header_is_the_one_of_rfc_7617() {
        let password = SecretSource::Inline(Secret::new("open sesame"));
        let basic = Basic { user: "Aladdin".into(), password };
        let header = basic.header().map(|header| header.expose().to_owned());
        assert_eq!(header.ok().as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(["f", "fo", "foo"].map(|text| base64(text.as_bytes())), ["Zg==", "Zm8=", "Zm9v"]);
    }
}
