//! A YAML document as a tree in which every key and value knows its place.
//!
//! Like a parsed sentence that keeps its page and line: the parser's events carry marks, and this keeps them, because a value
//! that has become a struct can no longer be pointed at. Values stay text (`012` and `no` mean what they say) until the schema
//! says what they are. Weakness: a text with a syntax error gives one finding, for nothing after it can be trusted.

use super::finding::Finding;
use super::source::Place;
use granit_parser::{Event, Options, Parser, ScalarStyle, Span};

/// Most nodes of one document, aliases counted as often as they are used; far above any real file, far below a bomb.
const NODES_MAX: usize = 100_000;

/// Deepest nesting; the configuration needs 6.
const DEPTH_MAX: usize = 32;

/// One value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What stands there. Scalars are text; what they mean is the schema's business.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`, unquoted.
    Null,
    /// A finding was already given; say no more.
    Unusable,
    Scalar(Scalar),
    Map(Vec<Entry>),
    List(Vec<Node>),
}

/// A text and how it came about.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Written without quotes: `${NAME}` is expanded here and only here.
    pub(super) plain: bool,
    /// Holds text from the environment, which messages must not repeat.
    pub(super) expanded: bool,
}

/// One key of a map, in file order.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn plain(text: &str, place: Place) -> Node {
        Node { place, value: Value::Scalar(Scalar { text: text.to_owned(), plain: true, expanded: false }) }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// One step down a path: the child, the place of its key, and what remains. Keys may hold dots themselves, so the longest wins.
    fn step<'a>(&self, path: &'a str) -> Option<(&Node, Place, &'a str)> {
        let rest_after = |key: &str| match path.strip_prefix(key)? {
            "" => Some(""),
            rest => rest.strip_prefix('.'),
        };
        match &self.value {
            Value::Map(entries) => {
                let fits = |entry: &'_ &Entry| rest_after(&entry.key).is_some();
                let entry = entries.iter().filter(fits).max_by_key(|entry| entry.key.len())?;
                Some((&entry.node, entry.key_place, rest_after(&entry.key)?))
            }
            Value::List(items) => {
                let index = path.split('.').next()?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, item.place, rest_after(index)?))
            }
            Value::Scalar(_) | Value::Null | Value::Unusable => None,
        }
    }

    /// The place of a path's value, or of the deepest key on the way to it (`false`); None if not even its first key is there.
    pub(super) fn nearest(&self, path: &str) -> Option<(Place, bool)> {
        let (mut node, mut place, mut rest) = (self, None, path);
        while !rest.is_empty() {
            match node.step(rest) {
                Some((next, key_place, after)) => (node, place, rest) = (next, Some(key_place), after),
                None => return place.map(|place| (place, false)),
            }
        }
        let of_value = !matches!(node.value, Value::Map(_));
        place.map(|place| (if of_value { node.place } else { place }, true))
    }

    /// True if a variable went into the text at a path.
    pub(super) fn is_expanded(&self, path: &str) -> bool {
        let (mut node, mut rest) = (self, path);
        while !rest.is_empty() {
            match node.step(rest) {
                Some((next, _, after)) => (node, rest) = (next, after),
                None => return false,
            }
        }
        matches!(&node.value, Value::Scalar(scalar) if scalar.expanded)
    }

    /// Puts a value at a path unless something is there already, making maps on the way.
    pub(super) fn put_if_absent(&mut self, path: &[&str], value: Node) {
        let (Value::Map(entries), Some((key, rest))) = (&mut self.value, path.split_first()) else { return };
        let at = match entries.iter().position(|entry| entry.key == *key) {
            Some(_) if rest.is_empty() => return,
            Some(at) => at,
            None => {
                let empty = Node { place: value.place, value: Value::Map(Vec::new()) };
                let node = if rest.is_empty() { value.clone() } else { empty };
                entries.push(Entry { key: (*key).to_owned(), key_place: value.place, node });
                entries.len() - 1
            }
        };
        entries[at].node.put_if_absent(rest, value);
    }
}

/// Parses a whole text; an empty one is an empty map.
pub(super) fn parse(text: &str, source: usize, findings: &mut Vec<Finding>) -> Option<Node> {
    let node = parse_value(text, source, findings)?;
    let value = if matches!(node.value, Value::Null) { Value::Map(Vec::new()) } else { node.value };
    Some(Node { place: node.place, value })
}

/// Parses one value; an empty text is no value. Findings: a syntax error, a repeated key, a second document, an odd key.
pub(super) fn parse_value(text: &str, source: usize, findings: &mut Vec<Finding>) -> Option<Node> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder =
        Builder { source, findings, open: Vec::new(), anchors: Vec::new(), root: None, nodes: 0, documents: 0 };
    for event in parser {
        match event {
            Ok((event, span)) => {
                if !builder.take(event, &span) {
                    return None;
                }
            }
            Err(error) => {
                let mark = *error.marker();
                let place = builder.syntax_place(text, mark.line(), mark.col());
                findings.push(syntax_error(text, place, &error.info()));
                return None;
            }
        }
    }
    let start = Place { source, line: 1, column: 0, end_line: 1, end_column: 0 };
    Some(builder.root.unwrap_or(Node { place: start, value: Value::Null }))
}

fn syntax_error(text: &str, place: Place, info: &str) -> Finding {
    let line = text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
    let help = if line.contains('\t') {
        "indent with spaces; YAML forbids tabs"
    } else if line.contains("${") && line.contains('{') {
        "inside { } and [ ] a ${NAME} cannot stand; write this part in block style, one key a line"
    } else {
        "check quotes, brackets and indentation here and on the line above; nothing after it was read"
    };
    Finding::error("", Some(place), format!("this is not valid YAML: {info}")).help(help)
}

/// A collection that is still open.
enum Open {
    Map { place: Place, entries: Vec<Entry>, key: Option<(String, Place)>, anchor: usize },
    List { place: Place, items: Vec<Node>, anchor: usize },
}

struct Builder<'a> {
    source: usize,
    findings: &'a mut Vec<Finding>,
    open: Vec<Open>,
    anchors: Vec<(usize, Node)>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
}

impl Builder<'_> {
    fn place(&self, span: &Span) -> Place {
        let (start, end) = (span.start, span.end);
        let (line, column) = (start.line(), start.col());
        Place { source: self.source, line, column, end_line: end.line(), end_column: end.col() }
    }

    /// Errors at the end of the text are moved to its last line, so that there is something to show.
    fn syntax_place(&self, text: &str, line: usize, column: usize) -> Place {
        let last = text.lines().count().max(1);
        let (line, column) = if line > last {
            (last, text.lines().last().map_or(0, |line| line.chars().count()))
        } else {
            (line.max(1), column)
        };
        Place { source: self.source, line, column, end_line: line, end_column: column + 1 }
    }

    /// False: stop reading, a finding says why.
    fn take(&mut self, event: Event<'_>, span: &Span) -> bool {
        let place = self.place(span);
        match event {
            Event::DocumentStart(..) => return self.document(place),
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some() {
                    self.refuse_tag(place);
                }
                let plain = style == ScalarStyle::Plain;
                let value = if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Value::Null
                } else {
                    Value::Scalar(Scalar { text: text.into_owned(), plain, expanded: false })
                };
                return self.finish(Node { place, value }, anchor);
            }
            Event::MappingStart(_, anchor, tag) => {
                if tag.is_some() {
                    self.refuse_tag(place);
                }
                self.open.push(Open::Map { place, entries: Vec::new(), key: None, anchor });
            }
            Event::SequenceStart(_, anchor, tag) => {
                if tag.is_some() {
                    self.refuse_tag(place);
                }
                self.open.push(Open::List { place, items: Vec::new(), anchor });
            }
            Event::MappingEnd | Event::SequenceEnd => return self.close(place),
            Event::Alias(anchor) => return self.alias(anchor, place),
            _ => {}
        }
        true
    }

    fn document(&mut self, place: Place) -> bool {
        self.documents += 1;
        if self.documents > 1 {
            let finding = Finding::error("", Some(place), "a second YAML document begins here");
            self.findings.push(finding.help("keep one document a file; give several files with -c"));
        }
        self.documents <= 1
    }

    fn refuse_tag(&mut self, place: Place) {
        let finding = Finding::error("", Some(place), "YAML tags have no meaning here");
        self.findings.push(finding.help("remove the `!...` before the value"));
    }

    fn alias(&mut self, anchor: usize, place: Place) -> bool {
        let Some(node) = self.anchors.iter().rev().find(|(id, _)| *id == anchor).map(|(_, node)| node.clone()) else {
            let finding = Finding::error("", Some(place), "this alias stands inside the value it refers to");
            self.findings.push(finding.help("write the value out"));
            return false;
        };
        self.nodes += count(&node);
        self.finish(Node { place, ..node }, 0)
    }

    fn close(&mut self, end: Place) -> bool {
        let finish = |place: Place| Place { end_line: end.end_line, end_column: end.end_column, ..place };
        match self.open.pop() {
            Some(Open::Map { place, entries, anchor, .. }) => {
                self.finish(Node { place: finish(place), value: Value::Map(entries) }, anchor)
            }
            Some(Open::List { place, items, anchor }) => {
                self.finish(Node { place: finish(place), value: Value::List(items) }, anchor)
            }
            None => true,
        }
    }

    fn finish(&mut self, node: Node, anchor: usize) -> bool {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let finding = Finding::error("", Some(node.place), format!("more than {NODES_MAX} values in one file"));
            self.findings.push(finding.help("write fewer aliases; a configuration is a page, not a data set"));
            return false;
        }
        if anchor != 0 {
            self.anchors.push((anchor, node.clone()));
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some((key, key_place)) => {
                    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                        let message = format!("the key `{key}` stands here for the second time");
                        let help = format!("it is first on line {}; keep one of the two", first.key_place.line);
                        self.findings.push(Finding::error("", Some(key_place), message).help(help));
                    }
                    // Kept even so: its secrets must be found and hidden.
                    entries.push(Entry { key, key_place, node });
                }
                None => match node.value {
                    Value::Scalar(scalar) => *key = Some((scalar.text, node.place)),
                    Value::Null => *key = Some(("null".to_owned(), node.place)),
                    _ => {
                        let finding = Finding::error("", Some(node.place), "a key must be a plain word");
                        self.findings.push(finding.help("write `key: value`"));
                        return false;
                    }
                },
            },
        }
        true
    }
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::Map(entries) => entries.iter().map(|entry| count(&entry.node)).sum::<usize>() + 1,
        Value::List(items) => items.iter().map(count).sum::<usize>() + 1,
        _ => 1,
    }
}

/// Lays `over` on `base`: maps merge key by key, everything else replaces.
pub(super) fn merge(base: Node, over: Node) -> Node {
    match (base.value, over.value) {
        (Value::Map(mut entries), Value::Map(new)) => {
            for entry in new {
                match entries.iter().position(|old| old.key == entry.key) {
                    Some(at) => {
                        let old = entries.remove(at);
                        entries.insert(at, Entry { node: merge(old.node, entry.node), ..entry });
                    }
                    None => entries.push(entry),
                }
            }
            Node { place: over.place, value: Value::Map(entries) }
        }
        (_, value) => Node { place: over.place, value },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> (Option<Node>, Vec<Finding>) {
        let mut findings = Vec::new();
        (parse(text, 0, &mut findings), findings)
    }

    #[test]
    fn every_value_knows_its_line_and_column() {
        let (node, findings) = tree("a:\n  b: { c: 1 }\n  d: [x, 'y']\n");
        assert!(findings.is_empty());
        let shown = |(place, exact): (Place, bool)| (place.line, place.column, place.end_column, exact);
        let at = |path| node.as_ref().and_then(|node| node.nearest(path)).map(shown);
        assert_eq!(at("a.b"), Some((2, 2, 3, true)));
        assert_eq!(at("a.b.c"), Some((2, 10, 11, true)));
        assert_eq!(at("a.d.1"), Some((3, 9, 12, true)));
        assert_eq!(at("a.zz"), Some((1, 0, 1, false)));
        assert_eq!(at("zz"), None);
    }

    #[test]
    fn aliases_are_values_and_bombs_are_refused() {
        let (node, findings) = tree("a: &x { b: 1 }\nc: *x\n");
        assert!(findings.is_empty() && node.is_some_and(|node| node.nearest("c.b").is_some_and(|(_, exact)| exact)));
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let before = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(",")));
        }
        let (node, findings) = tree(&bomb);
        assert!(node.is_none() && findings[0].message.contains("values in one file"));
    }

    #[test]
    fn nesting_without_end_is_refused_and_nothing_panics() {
        assert!(tree(&"[".repeat(100_000)).0.is_none());
        assert!(tree(&"a: ".repeat(10_000)).0.is_none());
        for text in [
            "\u{feff}a: 1",
            "? [a]\n: b",
            "- ",
            "--- a\n--- b",
            "a: !!str 1",
            "a: *b",
            "&a [*a]",
            "\0",
            "%YAML 9\n",
            "a: |\n",
        ] {
            let _ = tree(text);
        }
    }

    #[test]
    fn maps_merge_and_lists_replace() {
        let (base, over) = (tree("a: { b: 1, c: [1, 2] }"), tree("a: { c: [3], d: 4 }"));
        let merged = base.0.zip(over.0).map(|(base, over)| merge(base, over));
        let has = |path: &str| merged.as_ref().and_then(|node| node.nearest(path)).is_some_and(|(_, exact)| exact);
        assert!(has("a.b") && has("a.d") && has("a.c.0") && !has("a.c.1"));
    }
}
