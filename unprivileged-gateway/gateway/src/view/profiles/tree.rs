//! Stacks laid over one another: equal beginnings become one branch.
//!
//! A family tree drawn from many lines of descent. A node is a frame under its caller; the way from the root is looked up step by step
//! in one table. Names are kept once. A tree that is too large loses its thinnest twigs: a node is never thicker than its parent, so
//! cutting by thickness never leaves a twig without its branch.
//!
//! Weakness: while it grows it may hold [`GROWN_MAX`] nodes, some tens of MiB; beyond that a stack ends where it leaves the known tree.

use model::pprof::{Frame, Kind, Profile, Sample};
use std::collections::HashMap;

/// Nodes of one answer.
pub const NODES_MAX: usize = 50_000;
/// Nodes while the tree grows.
const GROWN_MAX: usize = 500_000;
/// Name of the root.
const ROOT: &str = "";

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    parent: u32,
    name: u32,
    file: u32,
    kind: u8,
}

/// Name, file and kind of a frame.
#[derive(Clone, Copy)]
pub(super) struct Step(u32, u32, u8);

#[derive(Clone, Copy)]
struct Node {
    key: Key,
    own: u64,
    total: u64,
}

/// Each text once, numbered as it comes.
#[derive(Default)]
struct Texts {
    by_text: HashMap<String, u32>,
    list: Vec<String>,
}

impl Texts {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.by_text.get(text) {
            return number;
        }
        let number = self.list.len() as u32;
        self.by_text.insert(text.to_owned(), number);
        self.list.push(text.to_owned());
        number
    }
}

/// The tree while it grows.
pub(super) struct Tree {
    names: Texts,
    files: Texts,
    /// The root first; parents before children.
    nodes: Vec<Node>,
    places: HashMap<Key, u32>,
    /// Steps that found no room.
    refused: usize,
}

/// The tree as it is shown.
pub(super) struct Drawn {
    pub(super) samples: u64,
    pub(super) names: Vec<String>,
    pub(super) files: Vec<String>,
    pub(super) nodes: Vec<[u64; 6]>,
    pub(super) cut: usize,
}

impl Default for Tree {
    fn default() -> Tree {
        let (mut names, mut files) = (Texts::default(), Texts::default());
        let key = Key { parent: 0, name: names.number(ROOT), file: files.number(""), kind: Kind::User as u8 };
        Tree { names, files, nodes: vec![Node { key, own: 0, total: 0 }], places: HashMap::new(), refused: 0 }
    }
}

impl Tree {
    /// The frames of a profile in the tree's own numbers: each name is looked up once a profile, not once a stack.
    pub(super) fn steps(&mut self, profile: &Profile<'_>) -> Vec<Step> {
        let step =
            |frame: &Frame<'_>| Step(self.names.number(frame.name), self.files.number(frame.file), number(frame.kind));
        profile.frames.iter().map(step).collect()
    }

    pub(super) fn add(&mut self, steps: &[Step], sample: &Sample) {
        let mut at = 0;
        self.thicken(at, sample.count);
        for &Step(name, file, kind) in sample.frames.iter().rev().filter_map(|f| steps.get(*f as usize)) {
            let key = Key { parent: at, name, file, kind };
            let next = match self.places.get(&key) {
                Some(&next) => next,
                None if self.nodes.len() >= GROWN_MAX => {
                    self.refused += 1;
                    break;
                }
                None => {
                    let next = self.nodes.len() as u32;
                    self.nodes.push(Node { key, own: 0, total: 0 });
                    self.places.insert(key, next);
                    next
                }
            };
            at = next;
            self.thicken(at, sample.count);
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.own = node.own.saturating_add(sample.count);
        }
    }

    fn thicken(&mut self, at: u32, count: u64) {
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.total = node.total.saturating_add(count);
        }
    }

    /// The thickest `most` nodes, in the order in which they grew.
    pub(super) fn draw(self, most: usize) -> Drawn {
        let mut thickest: Vec<u32> = (0..self.nodes.len() as u32).collect();
        // Equal ones by age: a parent is older than its child.
        thickest.sort_by_key(|i| (std::cmp::Reverse(self.nodes[*i as usize].total), *i));
        let cut = thickest.len().saturating_sub(most);
        thickest.truncate(most);
        thickest.sort_unstable();
        let mut place = vec![0u64; self.nodes.len()];
        let (mut names, mut files) = (Shown::new(&self.names), Shown::new(&self.files));
        let mut nodes = Vec::with_capacity(thickest.len());
        for i in thickest {
            let Node { key, own, total } = self.nodes[i as usize];
            place[i as usize] = nodes.len() as u64;
            let parent = place[key.parent as usize];
            nodes.push([parent, names.number(key.name), files.number(key.file), key.kind.into(), own, total]);
        }
        let samples = self.nodes.first().map_or(0, |root| root.total);
        Drawn { samples, names: names.list, files: files.list, nodes, cut: cut + self.refused }
    }
}

fn number(kind: Kind) -> u8 {
    match kind {
        Kind::User => 0,
        Kind::Kernel => 1,
        Kind::Python => 2,
        Kind::Truncated => 3,
    }
}

/// The texts that are still needed after the cut.
struct Shown<'a> {
    from: &'a Texts,
    numbers: HashMap<u32, u64>,
    list: Vec<String>,
}

impl<'a> Shown<'a> {
    fn new(from: &'a Texts) -> Shown<'a> {
        Shown { from, numbers: HashMap::new(), list: Vec::new() }
    }

    fn number(&mut self, old: u32) -> u64 {
        let next = self.list.len() as u64;
        let number = *self.numbers.entry(old).or_insert(next);
        if number == next {
            self.list.push(self.from.list.get(old as usize).cloned().unwrap_or_default());
        }
        number
    }
}
