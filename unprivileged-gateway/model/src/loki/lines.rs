//! Lines of files on their way into a push: the shorter road beside that of OTLP records.
//!
//! A stamp pad for a shelf: label text and metadata of a file are set once, when its first line comes, and pressed onto every
//! line of the same chunk. Nothing is remembered beyond the last few files, and what is remembered changes no byte.

use super::Encoder;
use crate::chunk::Source;
use crate::chunk::join::Line;
use crate::chunk::level;
use crate::cri::Stream;
use crate::loki::entry::{ENTRY, cut, patch_timestamp, reserve_timestamp};
use crate::loki::label::Labels;
use crate::loki::metadata::{Level, Pair, plain_pair};
use crate::loki::{Offence, Options, label, resource};
use crate::wire::{close, open, put_bytes};
use std::borrow::Cow;
use std::sync::Arc;

/// Files whose stamps are kept: a chunk has three at most (two outputs, and lines of none).
const STAMPS: usize = 3;

/// What became of a line.
#[derive(Debug)]
pub enum LineAdded {
    /// It is in the push; true: its end was cut off.
    Entry { cut: bool },
    /// It breaks a limit and is in no push; it belongs into quarantine.
    Refused(RefusedLine),
}

/// Why a line is in no push.
#[derive(Debug)]
pub struct RefusedLine {
    /// Loki's name of the limit.
    pub reason: &'static str,
    pub detail: String,
    pub labels: Arc<str>,
}

/// What all lines of one file and output have in common, ready to be written.
pub(super) struct Stamp {
    source: Arc<Source>,
    stream: Option<Stream>,
    labels: Arc<str>,
    hash: u64,
    metadata: Level,
    offence: Option<Offence>,
}

impl Encoder {
    /// Adds one line of a file. It is written as it is, whatever [`super::Line`] says: it has no attributes to put into it.
    pub fn add_line(&mut self, line: &Line<'_>) -> LineAdded {
        let place = self.stamp(line);
        let Some(Stamp { labels, hash, offence, .. }) = self.stamps.get(place) else {
            return LineAdded::Entry { cut: false };
        };
        let (labels, hash) = (labels.clone(), *hash);
        if let Some(Offence { reason, detail }) = offence.clone() {
            return LineAdded::Refused(RefusedLine { reason, detail, labels });
        }
        let index = self.stream(&labels, hash);
        let Encoder { options, streams, snappy, bytes, stamps, .. } = self;
        let (Some(stream), Some(stamp)) = (streams.get_mut(index), stamps.get(place)) else {
            return LineAdded::Entry { cut: false };
        };
        let before = stream.entries.len();
        let cut = entry(&mut stream.entries, line, &stamp.metadata, options.limits.line_bytes);
        *bytes += stream.entries.len() - before;
        stream.count += 1;
        stream.pack(snappy);
        LineAdded::Entry { cut }
    }

    /// The place of a line's stamp, cut if it is not there.
    fn stamp(&mut self, line: &Line<'_>) -> usize {
        let is = |stamp: &Stamp| {
            stamp.stream == line.stream && (Arc::ptr_eq(&stamp.source, &line.source) || stamp.source == line.source)
        };
        if let Some(known) = self.stamps.iter().position(is) {
            return known;
        }
        if self.stamps.len() >= STAMPS {
            self.stamps.remove(0);
        }
        self.stamps.push(make(line, &self.options));
        self.stamps.len() - 1
    }
}

fn make(line: &Line<'_>, options: &Options) -> Stamp {
    let (pairs, shared) = options.files.of(&line.source, line.stream);
    let mut labels = Labels::default();
    for (name, value) in &pairs {
        labels.set(&label::label_name(name), value.as_bytes());
    }
    labels.under(&options.external_labels);
    let (labels, offence) = labels.finish(&options.limits);
    let mut metadata = Level::default();
    for (name, value) in &shared {
        let mut name = name.as_bytes().to_vec();
        if !label::clean(&mut name) {
            name = label::clean_wide(&name);
        }
        metadata.plain(&String::from_utf8_lossy(&name), value.as_bytes());
    }
    metadata.settle();
    let limits = &options.limits;
    let too_many = (metadata.entries() + 1 > limits.metadata_entries).then(|| Offence {
        reason: "structured_metadata_too_many",
        detail: format!("{} pairs of metadata, the limit is {}", metadata.entries() + 1, limits.metadata_entries),
    });
    let bytes = metadata.size + LEVEL_BYTES;
    let too_large = (bytes > limits.metadata_bytes).then(|| Offence {
        reason: "structured_metadata_too_large",
        detail: format!("{bytes} bytes of metadata, the limit is {}", limits.metadata_bytes),
    });
    let offence = offence.or(too_many).or(too_large);
    let hash = resource::labels_hash(&labels);
    Stamp { source: line.source.clone(), stream: line.stream, labels: labels.into(), hash, metadata, offence }
}

/// What a line's own level adds at most: name and value.
const LEVEL_BYTES: usize = 24;

/// Appends the entry; true if the line was cut.
fn entry(out: &mut Vec<u8>, line: &Line<'_>, metadata: &Level, max: usize) -> bool {
    let start = open(out, ENTRY);
    let stamp = reserve_timestamp(out);
    let mut was_cut = line.cut;
    match String::from_utf8_lossy(&line.text) {
        Cow::Borrowed(text) if text.len() <= max => put_bytes(out, 2, text.as_bytes()),
        text => {
            let at = open(out, 2);
            out.extend_from_slice(text.as_bytes());
            was_cut |= cut(out, at, max);
            close(out, at);
        }
    }
    out.extend_from_slice(&metadata.rendered);
    if let Some(level) = level::detect(&line.text) {
        let Pair { .. } = plain_pair(out, "detected_level", level.as_bytes());
    }
    patch_timestamp(out, stamp, line.at);
    close(out, start);
    was_cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::FileLabels;
    use crate::envelope::FileRef;
    use crate::loki::{self, Push};

    const PATH: &str = "shop_cart_0d1c2b3a-0000-4000-8000-00000000abcd/web/0.log";

    fn source(root: &str, path: &str) -> Arc<Source> {
        let known = [("app".to_owned(), "cart".to_owned()), ("k8s.node.name".to_owned(), "n1".to_owned())];
        Arc::new(Source::new(&FileRef { root: root.into(), path: path.into(), ..FileRef::default() }, &known))
    }

    fn line<'a>(source: &Arc<Source>, at: u64, text: &'a [u8]) -> Line<'a> {
        let stream = (source.root == "pods").then_some(Stream::Stdout);
        Line { source: source.clone(), at, stream, text: Cow::Borrowed(text), cut: false }
    }

    fn encoder(line: loki::Line, line_bytes: usize) -> Encoder {
        let external_labels = vec![("cluster".to_owned(), "c1".to_owned())];
        let limits = loki::Limits { line_bytes, ..loki::Limits::default() };
        Encoder::new(Options { external_labels, line, limits, files: Arc::new(FileLabels::default()) })
    }

    fn raw(push: &Push) -> String {
        let raw = snap::raw::Decoder::new().decompress_vec(&push.body).unwrap();
        String::from_utf8_lossy(&raw).into_owned()
    }

    #[test]
    fn a_line_goes_out_as_it_is_with_its_labels_beside_it() {
        for form in [loki::Line::Body, loki::Line::AlloyJson] {
            let mut encoder = encoder(form, 1000);
            let pod = source("pods", PATH);
            assert!(matches!(encoder.add_line(&line(&pod, 7, b"level=warn x")), LineAdded::Entry { cut: false }));
            assert!(matches!(
                encoder.add_line(&line(&source("sys", "/x"), 8, b"y\xff")),
                LineAdded::Entry { cut: false }
            ));
            let pushes = encoder.finish(1, &|_| true);
            assert_eq!(pushes[0].entries, 2);
            let labels = r#"{app="cart", cluster="c1", container="web", job="shop/web", namespace="shop", pod="cart", stream="stdout"}"#;
            assert_eq!(pushes[0].streams[0], labels);
            assert_eq!(pushes[0].streams[1], r#"{cluster="c1", filename="/x", job="sys"}"#);
            let raw = raw(&pushes[0]);
            for part in ["level=warn x", "filename", PATH, "k8s_node_name", "detected_level", "warn", "y\u{fffd}"] {
                assert!(raw.contains(part), "{part} in {raw:?}");
            }
        }
    }

    #[test]
    fn a_long_line_is_cut_with_a_marker_between_characters() {
        let mut encoder = encoder(loki::Line::Body, 20);
        let text = "é".repeat(30);
        let file = source("sys", "/x");
        assert!(matches!(encoder.add_line(&line(&file, 7, text.as_bytes())), LineAdded::Entry { cut: true }));
        assert!(matches!(encoder.add_line(&line(&file, 7, b"12345678901234567890")), LineAdded::Entry { cut: false }));
        let raw = raw(&encoder.finish(1, &|_| true)[0]);
        assert!(
            raw.contains("éééééé...[cut]") && !raw.contains("ééééééé") && raw.contains("12345678901234567890"),
            "{raw:?}"
        );
    }

    #[test]
    fn a_file_whose_name_is_too_long_for_a_label_is_refused_and_named() {
        let mut encoder = encoder(loki::Line::Body, 1000);
        let added = encoder.add_line(&line(&source("sys", &"p".repeat(3000)), 7, b"x"));
        let LineAdded::Refused(refused) = added else { panic!("{added:?}") };
        assert_eq!(refused.reason, "label_value_too_long");
        assert!(encoder.finish(1, &|_| true).is_empty());
    }

    #[test]
    fn more_files_than_stamps_change_no_byte() {
        let files: Vec<_> = (0..9).map(|i| source("sys", &format!("/{i}"))).collect();
        let run = |order: &[usize]| {
            let mut encoder = encoder(loki::Line::Body, 1000);
            for &i in order {
                encoder.add_line(&line(&files[i], i as u64, b"x"));
            }
            encoder.finish(1, &|_| true).remove(0).body
        };
        let order = [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 8, 1];
        assert_eq!(run(&order), run(&order));
    }
}
