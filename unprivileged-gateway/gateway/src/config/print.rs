//! The effective configuration, shown: what holds, and who said so.
//!
//! Like a bill with every item's origin beside it. Secrets are masked by their type, so that this cannot forget one.
//! Weakness: what is printed is not meant to be loaded again; masked secrets would be taken at their word.

use super::load::Loaded;
use super::source::Layer;
use super::walk::join;
use serde::Serialize;
use serde_json::Value as Json;

/// One value and where it comes from; the rows of `config print --explain` and of `/api/v1/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    pub path: String,
    pub value: String,
    /// `default`, `file`, `env` or `flag`.
    pub layer: &'static str,
    /// `gateway.yaml:3`, `BULKHEAD_HTTP`, `--http`; for a default what decided it, or nothing.
    #[serde(rename = "where")]
    pub place: String,
}

impl Loaded {
    /// The whole configuration as YAML, defaults included, secrets masked.
    pub fn yaml(&self) -> String {
        serde_saphyr::to_string(&self.config).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }

    /// The same as JSON.
    pub fn json(&self) -> Json {
        serde_json::to_value(&self.config).unwrap_or(Json::Null)
    }

    /// Every value with its layer, sorted by path.
    pub fn explain(&self) -> Vec<Explained> {
        let mut rows = Vec::new();
        self.collect(&self.json(), String::new(), &mut rows);
        rows
    }

    fn collect(&self, value: &Json, path: String, rows: &mut Vec<Explained>) {
        match value {
            Json::Object(map) if !map.is_empty() => {
                map.iter().for_each(|(key, value)| self.collect(value, join(&path, key), rows));
            }
            _ => {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let (layer, place) = match self.tree.nearest(&path).filter(|(_, exact)| *exact) {
                    Some((place, _)) => (self.sources.layer_of(place), self.sources.name_of(place)),
                    None => (Layer::Default, String::new()),
                };
                let place = if place == "default" { String::new() } else { place };
                rows.push(Explained { path, value: shown, layer: layer.name(), place });
            }
        }
    }

    /// The rows in columns, for a terminal.
    pub fn explained_text(&self) -> String {
        let rows = self.explain();
        let width = |text: fn(&Explained) -> usize| rows.iter().map(text).max().unwrap_or(0).min(48);
        let (paths, values) = (width(|row| row.path.chars().count()), width(|row| row.value.chars().count()));
        let line = |row: &Explained| {
            let text = format!("{:paths$}  {:values$}  {:7}  {}", row.path, row.value, row.layer, row.place);
            format!("{}\n", text.trim_end())
        };
        rows.iter().map(line).collect()
    }
}
