//! From files, variables and flags to one [`Config`].
//!
//! Like glazing: one coat on another, each covering what is below only where it reaches: defaults, files in the order given,
//! `BULKHEAD_` variables, flags. Every value remembers its coat. Weakness: a map can be added to but not emptied by a later layer;
//! what an earlier file says and a later one does not want must be removed from the earlier one.

use super::check;
use super::expand::expand;
use super::finding::Finding;
use super::shape;
use super::source::{Layer, Place, Source, Sources};
use super::surroundings::Surroundings;
use super::tree::{self, Entry, Node, Value};
use super::unit::print_size;
use super::walk::{hide_secrets, walk};
use super::{BUDGET_BYTES_DEFAULT, Config, Findings, PROBE_SOCKET};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest configuration file, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;

/// What runs when no file is named: both OTLP doors on loopback, this machine's own numbers, the last minutes in memory; nothing
/// leaves the machine.
const BUILT_IN: &str = "receive: { otlp: {} }\nscrape: { self: {}, host: {} }\nlocal_view: {}\n";
/// Added where a probe is to be expected: its socket is named or already there.
const BUILT_IN_PROBE: &str = "probe: {}\nlogs: { pods: {} }\nprofiles: { cpu: {} }\n";
/// Added where journalctl is installed.
const BUILT_IN_JOURNAL: &str = "logs: { journal: {} }\n";
/// The variable that names the probe's socket.
const SOCKET_VARIABLE: &str = "BULKHEAD_PROBE_SOCKET";
/// Where programs are looked for when `PATH` is not set.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// What to load.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Files, or folders whose `*.yaml` are read in name order. None: the built-in local view.
    pub files: Vec<PathBuf>,
    /// From variables and flags; applied in this order, so variables first.
    pub overrides: Vec<Override>,
    /// Warnings from whoever made the request, reported with the others.
    pub notices: Vec<Finding>,
}

/// One value that a variable or a flag gives.
#[derive(Clone, Debug)]
pub struct Override {
    pub layer: Layer,
    /// As the person knows it: `--http`, `BULKHEAD_HTTP`.
    pub name: String,
    pub value: Given,
}

/// How it is given.
#[derive(Clone, Debug)]
pub enum Given {
    /// A text for one fixed path.
    At(&'static str, String),
    /// `a.b=c`, the value in YAML.
    Set(String),
}

/// A configuration that may be used, and where its values come from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Warnings only.
    pub findings: Findings,
    /// Files that were read, in order; empty for the built-in local view.
    pub files: Vec<PathBuf>,
    pub(super) tree: Node,
    pub(super) sources: Sources,
}

impl Loaded {
    /// True when no file was named, so that the built-in local view runs.
    pub fn built_in(&self) -> bool {
        self.files.is_empty()
    }
}

/// Reads, merges, expands, checks. `Err` holds at least one error, and every one that could be found.
pub fn load(request: &Request, surroundings: &dyn Surroundings) -> Result<Loaded, Findings> {
    let mut load =
        Loading { sources: Sources::default(), findings: request.notices.clone(), surroundings, partial: false };
    let mut trees = Vec::new();
    if request.files.is_empty() {
        for text in load.built_in() {
            trees.extend(load.text(Source::new(Layer::Default, "built-in", text), text));
        }
    }
    for file in request.files.iter().flat_map(|path| load.yaml_files(path)).collect::<Vec<_>>() {
        trees.extend(load.file(&file));
    }
    trees.extend(request.overrides.iter().filter_map(|given| load.given(given)));
    let start = Place { source: usize::MAX, line: 1, column: 0, end_line: 1, end_column: 0 };
    let empty = Node { place: start, value: Value::Map(Vec::new()) };
    let mut tree = trees.into_iter().fold(empty, tree::merge);
    load.fill_defaults(&mut tree);
    load.judge(tree)
}

struct Loading<'a> {
    sources: Sources,
    findings: Vec<Finding>,
    surroundings: &'a dyn Surroundings,
    /// A text could not be read; what it would have said is not known.
    partial: bool,
}

impl Loading<'_> {
    /// The parts of the built-in configuration that make sense on this machine.
    fn built_in(&self) -> Vec<&'static str> {
        let probe = self.variable(SOCKET_VARIABLE).is_some() || self.surroundings.exists(Path::new(PROBE_SOCKET));
        let folders = self.variable("PATH").unwrap_or_else(|| PATH_DEFAULT.to_owned());
        let journal = folders.split(':').any(|folder| self.surroundings.exists(&Path::new(folder).join("journalctl")));
        let parts = [(BUILT_IN, true), (BUILT_IN_PROBE, probe), (BUILT_IN_JOURNAL, journal)];
        parts.into_iter().filter(|(_, on)| *on).map(|(text, _)| text).collect()
    }

    /// A variable that is set and not empty.
    fn variable(&self, name: &str) -> Option<String> {
        self.surroundings.variable(name).filter(|value| !value.is_empty())
    }

    /// The files a `-c` stands for, in order.
    fn yaml_files(&mut self, path: &Path) -> Vec<PathBuf> {
        if !path.is_dir() {
            return vec![path.to_owned()];
        }
        let name = path.display();
        let entries = match std::fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()) {
            Ok(entries) => entries,
            Err(error) => {
                let finding = Finding::error("", None, format!("cannot read the folder {name}: {error}"));
                self.findings.push(finding.help("check the path given with -c and its permissions"));
                self.partial = true;
                return Vec::new();
            }
        };
        let visible = |path: &PathBuf| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'));
        let mut files: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).filter(visible).collect();
        files.sort();
        let ends = |path: &PathBuf, end: &str| path.extension().is_some_and(|extension| extension == end);
        for other in files.iter().filter(|path| ends(path, "yml")) {
            let finding = Finding::warning("", None, format!("{} is not read", other.display()));
            self.findings.push(finding.help("of a folder, files named *.yaml are read; rename it"));
        }
        files.retain(|path| ends(path, "yaml"));
        if files.is_empty() {
            let finding = Finding::error("", None, format!("the folder {name} holds no *.yaml file"));
            self.findings.push(finding.help("put the configuration there, or name another path with -c"));
            self.partial = true;
        }
        files
    }

    fn file(&mut self, path: &Path) -> Option<Node> {
        let name = path.display().to_string();
        // Bounded by what is read, not by what the folder says: a pipe or a device has no length.
        let mut bytes = Vec::new();
        let filled = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        let read = match filled.map(|_| bytes) {
            Ok(bytes) if bytes.len() as u64 > FILE_BYTES_MAX => {
                Err((format!("it is larger than {}", print_size(FILE_BYTES_MAX)), "is it the right file?"))
            }
            Ok(bytes) => Ok(bytes),
            Err(error) => Err((error.to_string(), "check the path given with -c, and who may read it")),
        };
        let text = read.and_then(|bytes| {
            let at = |error: std::string::FromUtf8Error| error.utf8_error().valid_up_to();
            String::from_utf8(bytes)
                .map_err(|error| (format!("byte {} is not UTF-8 text", at(error)), "save the file as UTF-8"))
        });
        match text {
            Ok(text) => self.text(Source::new(Layer::File, name, &text), &text),
            Err((why, help)) => {
                self.findings.push(Finding::error("", None, format!("cannot read {name}: {why}")).help(help));
                self.partial = true;
                None
            }
        }
    }

    fn text(&mut self, source: Source, text: &str) -> Option<Node> {
        let source = self.sources.add(source);
        let node = tree::parse(text, source, &mut self.findings);
        self.finish(node, source)
    }

    /// Secrets are hidden before anything else can speak of this tree.
    fn finish(&mut self, node: Option<Node>, source: usize) -> Option<Node> {
        let Some(mut node) = node else {
            self.partial = true;
            return None;
        };
        hide_secrets(&node, Some(shape::root()), "", &mut self.sources);
        self.sources.understand(source);
        let surroundings = self.surroundings;
        expand(&mut node, &|name| surroundings.variable(name), &mut self.findings);
        Some(node)
    }

    fn given(&mut self, given: &Override) -> Option<Node> {
        let text = match &given.value {
            Given::At(_, text) | Given::Set(text) => text,
        };
        let source = self.sources.add(Source::new(given.layer, given.name.clone(), text));
        let width = text.lines().next().map_or(0, |line| line.chars().count());
        let whole = Place { source, line: 1, column: 0, end_line: 1, end_column: width };
        match &given.value {
            Given::At(path, text) => {
                self.sources.understand(source);
                Some(nest(path, Node::plain(text, whole), whole))
            }
            Given::Set(text) => {
                let Some((path, value)) = text.split_once('=').filter(|(path, _)| well_formed(path)) else {
                    let finding = Finding::error("", Some(whole), format!("{} takes PATH=VALUE", given.name));
                    self.findings.push(finding.help("for example: --set storage.max=16GiB"));
                    return None;
                };
                // Blanks in place of the path keep the value's column as the person typed it.
                let padded = format!("{}{value}", " ".repeat(path.chars().count() + 1));
                let keys = Place { end_column: path.chars().count(), ..whole };
                let node = tree::parse_value(&padded, source, &mut self.findings).map(|node| nest(path, node, keys));
                self.finish(node, source)
            }
        }
    }

    /// What depends on the machine, or on what else is there. Each becomes a value of the lowest layer.
    fn fill_defaults(&mut self, tree: &mut Node) {
        let doors = tree.entry("receive").and_then(|receive| receive.node.entry("otlp")).map(|otlp| &otlp.node);
        if let Some(otlp) = doors.filter(|node| matches!(node.value, Value::Map(_))) {
            let named = otlp.entry("grpc").is_some() || otlp.entry("http").is_some();
            for (key, usual) in [("grpc", "127.0.0.1:4317"), ("http", "127.0.0.1:4318")] {
                self.default(tree, &["receive", "otlp", key], if named { "off" } else { usual }, "default");
            }
        }
        if tree.entry("probe").is_some_and(|probe| matches!(probe.node.value, Value::Map(_))) {
            let socket = match self.variable(SOCKET_VARIABLE) {
                Some(path) => (path, SOCKET_VARIABLE),
                None => (PROBE_SOCKET.to_owned(), "default"),
            };
            self.default(tree, &["probe", "socket"], &socket.0, socket.1);
        }
        let variable = |name: &str| self.variable(name);
        let name = match variable("K8S_NODE_NAME") {
            Some(name) => (name, "K8S_NODE_NAME"),
            None => (self.surroundings.host_name().unwrap_or_else(|| "localhost".to_owned()), "host name"),
        };
        let state = variable("STATE_DIRECTORY")
            .and_then(|list| Some((list.split(':').next()?.to_owned(), "STATE_DIRECTORY")))
            .or_else(|| Some((format!("{}/bulkhead", variable("XDG_STATE_HOME")?), "XDG_STATE_HOME")))
            .or_else(|| Some((format!("{}/.local/state/bulkhead", variable("HOME")?), "HOME")));
        let budget = match self.surroundings.memory_limit().map(|limit| limit / 4) {
            Some(quarter) if quarter < BUDGET_BYTES_DEFAULT => (quarter, "a quarter of the memory limit"),
            _ => (BUDGET_BYTES_DEFAULT, "default"),
        };
        self.default(tree, &["node", "name"], &name.0, name.1);
        self.default(tree, &["memory", "budget"], &print_size(budget.0), budget.1);
        match state {
            Some((path, because)) => self.default(tree, &["storage", "path"], &path, because),
            None if tree.nearest("storage.path").is_some_and(|(_, exact)| exact) => {}
            None => {
                let message = "`storage.path` is not set, and neither is STATE_DIRECTORY, XDG_STATE_HOME or HOME";
                self.findings.push(Finding::error("storage.path", None, message).help("give --storage DIR"));
                self.default(tree, &["storage", "path"], "unknown", "default");
            }
        }
    }

    fn default(&mut self, tree: &mut Node, path: &[&str], text: &str, because: &str) {
        let source = self.sources.add(Source::new(Layer::Default, because, text));
        self.sources.understand(source);
        let place = Place { source, line: 1, column: 0, end_line: 1, end_column: text.chars().count() };
        tree.put_if_absent(path, Node::plain(text, place));
    }

    fn judge(mut self, tree: Node) -> Result<Loaded, Findings> {
        let walked = walk(&tree, self.partial);
        self.findings.extend(walked.findings);
        let config: Config = match serde_json::from_value(walked.json) {
            Ok(config) => config,
            Err(error) => {
                // Shape and type disagree: our own mistake, said as one rather than as a panic.
                let finding = Finding::error("", None, format!("the configuration could not be read: {error}"));
                self.findings.push(finding.help("please report this with the file"));
                return Err(Findings::new(self.findings, self.sources));
            }
        };
        let checked = check::check(config, &tree, &walked.tainted, &self.sources);
        self.findings.extend(checked.findings);
        let findings = Findings::new(self.findings, self.sources.clone());
        if findings.errors() > 0 {
            return Err(findings);
        }
        Ok(Loaded { config: checked.config, findings, files: self.sources.files(), tree, sources: self.sources })
    }
}

fn well_formed(path: &str) -> bool {
    !path.is_empty() && path.split('.').all(|key| !key.is_empty() && !key.contains(char::is_whitespace))
}

/// The value below the keys of a path.
fn nest(path: &str, node: Node, place: Place) -> Node {
    let wrap = |node: Node, key: &str| {
        let entry = Entry { key: key.to_owned(), key_place: place, node };
        Node { place, value: Value::Map(vec![entry]) }
    };
    path.rsplit('.').fold(node, wrap)
}
