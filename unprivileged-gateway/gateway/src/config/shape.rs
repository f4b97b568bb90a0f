//! What the configuration may look like, taken from the types themselves.
//!
//! Like a cast made from the statue: the types of `Config` give a JSON schema, and the schema gives this small closed set of
//! shapes, against which a tree is walked with every key and value at hand. So the types, the published schema, the checks and the
//! suggestions cannot disagree. Weakness: only the part of JSON schema that our own types produce is understood; a test fails when
//! a new type leaves it.

use super::Config;
use super::later;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Most keys of a struct that is nothing but a credential.
const CREDENTIAL_KEYS_MAX: usize = 3;

/// What may stand at one place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Known keys. `one_of`: groups of which exactly one key, or (`false`) at most one, may be given.
    Struct {
        fields: BTreeMap<String, Field>,
        one_of: Vec<(bool, Vec<String>)>,
    },
    /// Free keys, one shape of value.
    Map(Box<Shape>),
    List(Box<Shape>),
    Text(Form),
    /// One of these words.
    Word(Vec<String>),
    /// Whole number up to this.
    Integer(u64),
    Bool,
    /// A scalar or a map, such as `auth: none` and `auth: { ... }`.
    Either {
        scalar: Box<Shape>,
        map: Box<Shape>,
    },
}

/// One known key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) shape: Shape,
    pub(super) required: bool,
}

/// What a text must be; the words are the schema's `format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Any,
    Size,
    Duration,
    Address,
    AddressOrOff,
    Path,
    PathOrEmpty,
    Secret,
    Url,
    Endpoint,
}

impl Shape {
    /// True if whatever stands here, right or wrong, may be a secret: credentials and maps of them, not whole destinations.
    pub(super) fn is_credential(&self) -> bool {
        match self {
            Shape::Text(form) => *form == Form::Secret,
            Shape::Struct { fields, .. } => {
                fields.len() <= CREDENTIAL_KEYS_MAX && fields.values().any(|field| field.shape.is_credential())
            }
            Shape::Map(inner) | Shape::List(inner) => matches!(**inner, Shape::Either { .. }) && inner.is_credential(),
            Shape::Either { scalar, map } => scalar.is_credential() || map.is_credential(),
            Shape::Word(_) | Shape::Integer(_) | Shape::Bool => false,
        }
    }

    /// What to say was expected.
    pub(super) fn describe(&self) -> String {
        match self {
            Shape::Struct { fields, .. } => format!("a map with {}", list_of(fields.keys())),
            Shape::Map(_) => "a map of names to values".to_owned(),
            Shape::List(_) => "a list".to_owned(),
            Shape::Text(form) => form.describe().to_owned(),
            Shape::Word(words) => {
                let served = words.iter().filter(|word| later::signal_notice(word).is_none());
                format!("one of {}", list_of(served))
            }
            Shape::Integer(_) => "a whole number".to_owned(),
            Shape::Bool => "true or false".to_owned(),
            Shape::Either { scalar, map } => format!("{}, or {}", scalar.describe(), map.describe()),
        }
    }
}

/// `a, b, c`.
pub(super) fn list_of<'a>(words: impl Iterator<Item = &'a String>) -> String {
    let words: Vec<&str> = words.map(String::as_str).collect();
    words.join(", ")
}

impl Form {
    pub(super) const fn describe(self) -> &'static str {
        match self {
            Form::Any => "a text",
            Form::Size => "a size with its unit, such as 64MiB",
            Form::Duration => "a duration with its unit, such as 30s or 1h30m",
            Form::Address => "an address and port, such as 127.0.0.1:4317",
            Form::AddressOrOff => "an address and port, such as 127.0.0.1:4317, or off",
            Form::Path | Form::PathOrEmpty => "a path",
            Form::Secret => "a secret text",
            Form::Url => "an http:// or https:// URL",
            Form::Endpoint => "host:port, or an http:// or https:// URL",
        }
    }
}

/// The shape of a whole configuration; built once.
pub(super) fn root() -> &'static Shape {
    static ROOT: LazyLock<Shape> = LazyLock::new(|| {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let schema = settings.into_generator().into_root_schema_for::<Config>();
        shape_of(&schema.to_value()).unwrap_or(Shape::Struct { fields: BTreeMap::new(), one_of: Vec::new() })
    });
    &ROOT
}

/// None: a part of JSON schema that is not understood; `the_types_stay_within_the_shapes` keeps that from shipping.
fn shape_of(schema: &Json) -> Option<Shape> {
    if let Some(options) = schema.get("anyOf").and_then(Json::as_array) {
        return either_of(options);
    }
    match type_of(schema)? {
        "object" => match (schema.get("properties"), schema.get("additionalProperties")) {
            (Some(Json::Object(properties)), _) => struct_of(schema, properties),
            (_, Some(value)) => Some(Shape::Map(Box::new(shape_of(value)?))),
            _ => None,
        },
        "array" => Some(Shape::List(Box::new(shape_of(schema.get("items")?)?))),
        "string" => match schema.get("enum").and_then(Json::as_array) {
            Some(words) => Some(Shape::Word(words.iter().filter_map(Json::as_str).map(str::to_owned).collect())),
            None => Some(Shape::Text(form_of(schema.get("format").and_then(Json::as_str))?)),
        },
        "integer" => (schema.get("format")?.as_str()? == "uint32").then_some(Shape::Integer(u64::from(u32::MAX))),
        "boolean" => Some(Shape::Bool),
        _ => None,
    }
}

/// The type, whether or not null is allowed beside it.
fn type_of(schema: &Json) -> Option<&str> {
    match schema.get("type")? {
        Json::String(name) => Some(name),
        Json::Array(names) => names.iter().filter_map(Json::as_str).find(|name| *name != "null"),
        _ => None,
    }
}

fn either_of(options: &[Json]) -> Option<Shape> {
    let options: Vec<&Json> = options.iter().filter(|option| type_of(option) != Some("null")).collect();
    match options[..] {
        [only] => shape_of(only),
        [scalar, map] => Some(Shape::Either { scalar: Box::new(shape_of(scalar)?), map: Box::new(shape_of(map)?) }),
        _ => None,
    }
}

fn struct_of(schema: &Json, properties: &Map<String, Json>) -> Option<Shape> {
    let required = schema.get("required").and_then(Json::as_array);
    let is_required = |key: &str| required.is_some_and(|keys| keys.iter().any(|word| word == key));
    let mut fields = BTreeMap::new();
    for (key, value) in properties {
        fields.insert(key.clone(), Field { shape: shape_of(value)?, required: is_required(key) });
    }
    // Credentials that exclude each other; a destination (it has a timeout) may do without.
    let groups = [
        (true, &["password_file", "password"][..]),
        (!fields.contains_key("timeout"), &["bearer_file", "bearer", "basic"][..]),
    ];
    let present = |keys: &[&str]| keys.iter().all(|key| fields.contains_key(*key));
    let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    let one_of =
        groups.iter().filter(|(_, keys)| present(keys)).map(|(exactly, keys)| (*exactly, owned(keys))).collect();
    Some(Shape::Struct { fields, one_of })
}

fn form_of(format: Option<&str>) -> Option<Form> {
    Some(match format {
        None => Form::Any,
        Some("size") => Form::Size,
        Some("duration") => Form::Duration,
        Some("address") => Form::Address,
        Some("address-or-off") => Form::AddressOrOff,
        Some("path") => Form::Path,
        Some("path-or-empty") => Form::PathOrEmpty,
        Some("secret") => Form::Secret,
        Some("url") => Form::Url,
        Some("endpoint") => Form::Endpoint,
        Some(_) => return None,
    })
}

/// Every path that is a key of a struct, for `did you mean` across levels; free names are `NAME`.
pub(super) fn paths() -> Vec<String> {
    fn collect(shape: &Shape, at: &str, out: &mut Vec<String>) {
        match shape {
            Shape::Struct { fields, .. } => {
                for (key, field) in fields {
                    let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                    out.push(path.clone());
                    collect(&field.shape, &path, out);
                }
            }
            Shape::Map(inner) => collect(inner, &format!("{at}.NAME"), out),
            Shape::Either { map, .. } => collect(map, at, out),
            _ => {}
        }
    }
    let mut out = Vec::new();
    collect(root(), "", &mut out);
    out
}

/// True for a key whose value is, wherever the key is known, one scalar that is no secret.
pub(super) fn is_harmless_key(key: &str) -> bool {
    static HARMLESS: LazyLock<BTreeMap<String, bool>> = LazyLock::new(|| {
        fn collect(shape: &Shape, out: &mut BTreeMap<String, bool>) {
            match shape {
                Shape::Struct { fields, .. } => {
                    for (key, field) in fields {
                        let scalar =
                            matches!(field.shape, Shape::Text(_) | Shape::Word(_) | Shape::Integer(_) | Shape::Bool);
                        let word_or_map = matches!(field.shape, Shape::Either { .. } | Shape::Struct { .. });
                        let harmless = (scalar || word_or_map) && !field.shape.is_credential();
                        out.entry(key.clone()).and_modify(|all| *all &= harmless).or_insert(harmless);
                        collect(&field.shape, out);
                    }
                }
                Shape::Map(inner) | Shape::List(inner) => collect(inner, out),
                Shape::Either { map, .. } => collect(map, out),
                _ => {}
            }
        }
        let mut out = BTreeMap::new();
        collect(root(), &mut out);
        out
    });
    HARMLESS.get(key).copied().unwrap_or(false)
}

/// The schema for editors and Helm: what `gateway config schema` prints and `docs/config.schema.json` holds.
pub fn published() -> Json {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Config>().to_value();
    tidy(&mut schema);
    schema
}

/// Says what the checks do: no nulls, no unknown keys; and drops defaults that depend on the machine.
fn tidy(schema: &mut Json) {
    match schema {
        Json::Object(map) => {
            if let Some(Json::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Json::Array(options)) = map.get_mut("anyOf") {
                options.retain(|option| type_of(option) != Some("null"));
                if options.len() == 1
                    && let Json::Object(only) = options.remove(0)
                {
                    map.remove("anyOf");
                    only.into_iter().for_each(|(key, value)| {
                        map.entry(key).or_insert(value);
                    });
                }
            }
            if map.get("default").is_some_and(|value| value.is_null() || value == "" || value.is_object()) {
                map.remove("default");
            }
            if map.get("properties").is_some_and(Json::is_object) {
                map.insert("additionalProperties".to_owned(), Json::Bool(false));
            }
            map.values_mut().for_each(tidy);
        }
        Json::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_stay_within_the_shapes() {
        let known = paths();
        for path in ["http.listen", "receive.otlp.auth.basic.password_file", "send.loki.NAME.limits.stream_patience"] {
            assert!(known.iter().any(|known| known == path), "{path} is missing from {known:?}");
        }
    }

    #[test]
    fn a_secret_has_a_file_form_beside_it() {
        let known = paths();
        for path in known.iter().filter(|path| path.ends_with(".password") || path.ends_with(".bearer")) {
            assert!(known.contains(&format!("{path}_file")), "{path} has no file form");
        }
    }
}
