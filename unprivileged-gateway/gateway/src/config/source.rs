//! Where a value was written: the file, variable or flag, and the place in it.
//!
//! Like the margin numbers of a contract: every clause can be pointed at, whoever wrote it. All texts that take part in one load
//! are kept here once, and a [`Place`] is a small index into them. Weakness: the texts, inline secrets included, stay in memory for
//! as long as the findings and the origins do.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// Who said it; a later layer wins over an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    Default,
    File,
    Env,
    Flag,
}

impl Layer {
    /// As in `config print --explain` and `/api/v1/config`.
    pub const fn name(self) -> &'static str {
        match self {
            Layer::Default => "default",
            Layer::File => "file",
            Layer::Env => "env",
            Layer::Flag => "flag",
        }
    }
}

/// One text that was read.
#[derive(Clone, Debug)]
pub struct Source {
    pub layer: Layer,
    /// File name as the person gave it, `BULKHEAD_HTTP`, or `--http`.
    pub name: String,
    /// Its lines, without line ends.
    pub lines: Vec<String>,
}

impl Source {
    pub fn new(layer: Layer, name: impl Into<String>, text: &str) -> Source {
        Source { layer, name: name.into(), lines: text.lines().map(str::to_owned).collect() }
    }
}

/// A stretch of one source. Lines count from 1, columns from 0 and in characters; the end is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index into [`Sources`].
    pub source: usize,
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
}

/// All texts of one load, in the order in which they were read, and which stretches of them are secret.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    all: Vec<Source>,
    secrets: Vec<Place>,
    /// Sources that became a tree, so that their secrets are known by place.
    understood: BTreeSet<usize>,
}

impl Sources {
    pub fn add(&mut self, source: Source) -> usize {
        self.all.push(source);
        self.all.len() - 1
    }

    pub fn get(&self, index: usize) -> Option<&Source> {
        self.all.get(index)
    }

    /// From now on this stretch is never shown in an excerpt.
    pub fn hide(&mut self, place: Place) {
        self.secrets.push(place);
    }

    /// This source became a tree, and every secret of it has been hidden.
    pub(super) fn understand(&mut self, source: usize) {
        self.understood.insert(source);
    }

    pub(super) fn is_understood(&self, source: usize) -> bool {
        self.understood.contains(&source)
    }

    pub(super) fn hidden(&self) -> &[Place] {
        &self.secrets
    }

    /// `gateway.yaml:3` or `--http`, for people.
    pub fn name_of(&self, place: Place) -> String {
        match self.get(place.source) {
            Some(source) if source.layer == Layer::File => format!("{}:{}", source.name, place.line),
            Some(source) => source.name.clone(),
            None => String::new(),
        }
    }

    pub fn layer_of(&self, place: Place) -> Layer {
        self.get(place.source).map_or(Layer::Default, |source| source.layer)
    }

    /// Files that were read, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        self.all.iter().filter(|source| source.layer == Layer::File).map(|source| PathBuf::from(&source.name)).collect()
    }
}
