//! Bytes of a log file as they lie in the log, and whose they are.
//!
//! A carbon copy with a shelf mark: the bytes are what stood in the file, the mark ([`FileRef`]) says where. Everything that
//! is to be known of them is worked out here, when they are read: lines ([`join`]), labels ([`Source`], [`FileLabels`]), a
//! level ([`level`]), and the OTLP form ([`otlp`]).
//!
//! A pod's names come from its folder's name, read from the right against the grammar that Kubernetes enforces; whatever does
//! not follow it is somebody's invention and is shown as hex under the label `invalid`, never as a name. Weakness: paths reach
//! the log as text in which a byte that is no UTF-8 reads `\xNN`, so a hostile name may look like another one's escape; it is
//! invalid either way.

pub mod join;
pub mod level;
pub mod otlp;

use crate::cri::Stream;
use crate::envelope::FileRef;
use std::collections::BTreeMap;

/// The root under which a container runtime writes.
pub const PODS: &str = "pods";
/// Bytes of a path that the label `invalid` shows, as twice as many hex digits.
const INVALID_BYTES_MAX: usize = 512;
/// Longest name of a namespace or a container, and of a pod, in Kubernetes. Unit: bytes.
const LABEL_BYTES_MAX: usize = 63;
const SUBDOMAIN_BYTES_MAX: usize = 253;

/// A container as its log's path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub pod: String,
    /// Of the API object; of a static pod, the hash of its manifest.
    pub uid: String,
    pub container: String,
    /// How often the container had been restarted.
    pub restart: u32,
}

impl Pod {
    /// Reads `<namespace>_<pod>_<uid>/<container>/<restart>.log`, with or without what a rotation appends. None: any other path.
    pub fn parse(path: &str) -> Option<Pod> {
        let (rest, file) = path.rsplit_once('/')?;
        let (folder, container) = rest.rsplit_once('/')?;
        let (rest, uid) = folder.rsplit_once('_')?;
        let (namespace, pod) = rest.rsplit_once('_')?;
        let restart = base_name(file)?.strip_suffix(LOG)?.parse().ok()?;
        if !(is_label(namespace) && is_subdomain(pod) && is_uid(uid) && is_label(container)) {
            return None;
        }
        let [namespace, pod, uid, container] = [namespace, pod, uid, container].map(str::to_owned);
        Some(Pod { namespace, pod, uid, container, restart })
    }
}

const LOG: &str = ".log";

/// `7.log` of `7.log`, `7.log.20260101-101010` and `7.log.20260101-101010.gz`.
fn base_name(file: &str) -> Option<&str> {
    let digits = file.bytes().take_while(u8::is_ascii_digit).count();
    let end = digits + LOG.len();
    let fits = (1..=10).contains(&digits) && file.get(digits..end) == Some(LOG);
    let ends = file.len() == end || file.as_bytes().get(end) == Some(&b'.');
    file.get(..end).filter(|_| fits && ends)
}

/// RFC 1123 label: lower-case letters, digits and `-`, none at an end.
fn is_label(name: &str) -> bool {
    name.len() <= LABEL_BYTES_MAX && is_part(name)
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= SUBDOMAIN_BYTES_MAX && name.split('.').all(is_part)
}

/// A label of any length: of a pod's name only the whole is bounded.
fn is_part(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('-')
        && !part.ends_with('-')
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A UUID, or the hash of a static pod's manifest.
fn is_uid(uid: &str) -> bool {
    (32..=36).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// A file, as far as its lines need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub root: String,
    pub path: String,
    pub id: [u8; 16],
    pub generation: u32,
    /// None: not beneath the pods' root, or a path that no runtime wrote.
    pub pod: Option<Pod>,
    /// As known at receipt.
    pub enrichment: Vec<(String, String)>,
}

impl Source {
    pub fn new(file: &FileRef, enrichment: &[(String, String)]) -> Source {
        let pod = if file.root == PODS { Pod::parse(&file.path) } else { None };
        let (root, path) = (file.root.clone(), file.path.clone());
        Source { root, path, id: file.id, generation: file.generation, pod, enrichment: enrichment.to_vec() }
    }

    /// Whether its lines are a container runtime's records.
    pub fn is_pods(&self) -> bool {
        self.root == PODS
    }

    /// Whether `file` is the same file in the same generation.
    pub fn is(&self, file: &FileRef) -> bool {
        self.id == file.id && self.generation == file.generation
    }

    fn known(&self, names: &[&str]) -> Option<&str> {
        let found =
            self.enrichment.iter().rev().find(|(name, value)| names.contains(&name.as_str()) && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// What a person calls the thing that wrote this: app, else container, else nothing.
    pub fn service(&self) -> Option<&str> {
        self.known(&APP).or_else(|| self.pod.as_ref().map(|pod| pod.container.as_str()))
    }

    /// What its lines of one output are told apart by beyond the file: a container's successive files are one thing.
    fn key(&self, file: &FileRef) -> String {
        let base = self.pod.as_ref().and_then(|_| {
            let (folder, name) = file.path.rsplit_once('/')?;
            Some(format!("{folder}/{}", base_name(name)?))
        });
        base.unwrap_or_else(|| {
            let id: String = file.id.iter().map(|b| format!("{b:02x}")).collect();
            format!("{}:{id}", file.root)
        })
    }
}

/// Names under which the gateway may have learned of an application, a host and a runtime at receipt.
const APP: [&str; 2] = ["app", "k8s.pod.label.app.kubernetes.io/name"];
const HOST: [&str; 2] = ["host.name", "hostname"];
const RUNTIME: [&str; 1] = ["container_runtime"];

pub type Pairs = Vec<(String, String)>;

/// Which labels lines of files get; together with the records it decides every byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileLabels {
    /// Of `namespace`, `pod`, `container`, `app`, `job`, `stream`; empty means all of them.
    pub pods: Vec<String>,
    /// By the name of the file source.
    pub files: BTreeMap<String, BTreeMap<String, String>>,
}

impl FileLabels {
    /// Stream labels, and structured metadata that all lines of the stream have. No value is empty.
    pub fn of(&self, source: &Source, stream: Option<Stream>) -> (Pairs, Pairs) {
        let (mut labels, mut metadata) = (Pairs::new(), Pairs::new());
        if source.is_pods() {
            self.pod(source, stream, &mut labels);
            metadata.push(("filename".into(), source.path.clone()));
        } else {
            self.file(source, &mut labels);
        }
        let used = |name: &str| [&APP[..], &HOST[..], &RUNTIME[..]].iter().any(|names| names.contains(&name));
        metadata.extend(source.enrichment.iter().filter(|(name, value)| !used(name) && !value.is_empty()).cloned());
        (labels, metadata)
    }

    fn pod(&self, source: &Source, stream: Option<Stream>, labels: &mut Pairs) {
        let mut add = |name: &str, value: Option<&str>| {
            let wanted = self.pods.is_empty() || self.pods.iter().any(|p| p == name);
            if let Some(value) = value.filter(|_| wanted) {
                labels.push((name.to_owned(), value.to_owned()));
            }
        };
        if let Some(pod) = &source.pod {
            add("namespace", Some(&pod.namespace));
            add("pod", Some(&pod.pod));
            add("container", Some(&pod.container));
            add("job", Some(&format!("{}/{}", pod.namespace, pod.container)));
        }
        add("app", source.known(&APP));
        add("stream", stream.map(Stream::name));
        if let Some(runtime) = source.known(&RUNTIME) {
            labels.push(("container_runtime".into(), runtime.to_owned()));
        }
        if source.pod.is_none() {
            labels.push(("invalid".into(), hex(&source.path)));
        }
    }

    fn file(&self, source: &Source, labels: &mut Pairs) {
        let own = self.files.get(&source.root);
        if own.is_none_or(|own| !own.contains_key("job")) {
            labels.push(("job".into(), source.root.clone()));
        }
        labels.push(("filename".into(), source.path.clone()));
        labels.extend(source.known(&HOST).map(|host| ("hostname".to_owned(), host.to_owned())));
        for (name, value) in own.into_iter().flatten().filter(|(_, value)| !value.is_empty()) {
            labels.retain(|(held, _)| held != name);
            labels.push((name.clone(), value.clone()));
        }
        labels.retain(|(_, value)| !value.is_empty());
    }
}

/// The start of a path in hex digits.
fn hex(path: &str) -> String {
    path.bytes().take(INVALID_BYTES_MAX).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "0d1c2b3a-0000-4000-8000-00000000abcd";

    fn file(root: &str, path: &str) -> FileRef {
        FileRef { root: root.into(), path: path.into(), ..FileRef::default() }
    }

    fn labels(root: &str, path: &str, enrichment: &[(&str, &str)]) -> String {
        let enrichment: Pairs = enrichment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let source = Source::new(&file(root, path), &enrichment);
        let config = BTreeMap::from([("job".to_owned(), "syslog".to_owned()), ("env".to_owned(), "prod".to_owned())]);
        let files = BTreeMap::from([("sys".to_owned(), config)]);
        let (mut labels, metadata) = FileLabels { pods: Vec::new(), files }.of(&source, Some(Stream::Stderr));
        labels.sort();
        let text = |pairs: Pairs| pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ");
        format!("{} | {}", text(labels), text(metadata))
    }

    #[test]
    fn labels_of_a_pod_come_from_its_path() {
        let path = format!("shop_cart-7d9f.v2_{UID}/web/3.log.20260101-101010");
        let known = [("app", "cart"), ("container_runtime", "containerd"), ("k8s.node.name", "n1"), ("host.name", "h")];
        assert_eq!(
            labels(PODS, &path, &known),
            format!(
                "app=cart container=web container_runtime=containerd job=shop/web namespace=shop pod=cart-7d9f.v2 stream=stderr \
                 | filename={path} k8s.node.name=n1"
            )
        );
        let pod = Pod::parse(&path).unwrap();
        assert_eq!((pod.restart, &pod.uid[..]), (3, UID));
    }

    #[test]
    fn labels_of_a_file_are_its_job_its_name_and_the_host() {
        assert_eq!(
            labels("sys", "/var/log/syslog", &[("host.name", "h1")]),
            "env=prod filename=/var/log/syslog hostname=h1 job=syslog | "
        );
        assert_eq!(labels("other", "/x", &[]), "filename=/x job=other | ");
    }

    #[test]
    fn chosen_labels_are_the_only_ones() {
        let source = Source::new(&file(PODS, &format!("a_b_{UID}/c/0.log")), &[]);
        let chosen = FileLabels { pods: vec!["namespace".into(), "stream".into()], ..FileLabels::default() };
        let (labels, _) = chosen.of(&source, Some(Stream::Stdout));
        assert_eq!(labels, [("namespace".into(), "a".into()), ("stream".into(), "stdout".to_owned())]);
    }

    #[test]
    fn names_that_kubernetes_would_refuse_are_hex_under_invalid() {
        let long = "a".repeat(64);
        let names = [
            format!("../../etc_b_{UID}/c/0.log"),
            format!("A_b_{UID}/c/0.log"),
            format!("a_b\"}}_{UID}/c/0.log"),
            format!("a_b\n_{UID}/c/0.log"),
            format!("a_b_{UID}/c\\xff/0.log"),
            format!("a_b_{UID}/{long}/0.log"),
            format!("{long}_b_{UID}/c/0.log"),
            format!("a_-b_{UID}/c/0.log"),
            format!("a_b._{UID}/c/0.log"),
            format!("a_b_{UID}/c/.log"),
            format!("a_b_{UID}/c/0.logx"),
            format!("a_b_{UID}/c/99999999999.log"),
            "a_b_short/c/0.log".into(),
            "0.log".into(),
            String::new(),
        ];
        for path in names {
            assert_eq!(Pod::parse(&path), None, "{path}");
            let shown = labels(PODS, &path, &[]);
            assert!(shown.starts_with(&format!("invalid={} stream=stderr", hex(&path))), "{shown}");
        }
    }

    #[test]
    fn a_name_with_an_underscore_too_many_is_split_at_the_last_two() {
        assert_eq!(Pod::parse(&format!("a_b_c_{UID}/d/0.log")), None, "the namespace would hold an underscore");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn any_path_has_labels_and_no_bad_one(path in ".{0,300}", root in "(pods|sys|.{0,9})") {
            let source = Source::new(&file(&root, &path), &[]);
            let (labels, _) = FileLabels::default().of(&source, None);
            prop_assert!(root != PODS || !labels.is_empty());
            if source.is_pods() {
                for (name, value) in &labels {
                    prop_assert!(value.len() <= 1024, "{name}");
                    prop_assert!(value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-./".contains(&b)));
                }
            }
        }

        #[test]
        fn a_path_that_kubernetes_writes_is_read_back(
            namespace in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
            pod in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z0-9]{1,9})?",
            container in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
            uid in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}",
            restart in 0_u32..,
            rotated in prop::sample::select(vec!["", ".20260101-101010", ".20260101-101010.gz"]),
        ) {
            let path = format!("{namespace}_{pod}_{uid}/{container}/{restart}.log{rotated}");
            prop_assert_eq!(Pod::parse(&path), Some(Pod { namespace, pod, uid, container, restart }));
        }
    }
}
