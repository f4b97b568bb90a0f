//! What this node collects by itself: through the probe, from the journal, from the host's own files.
//!
//! Like the list of meters in a cellar that somebody reads on a round: each entry names one meter and how often it is read; what
//! is not on the list is not read. Weakness: an entry promises nothing about the meter. A probe that is not running or a journal
//! that nobody may read shows when the round begins, not when the list is checked.

use super::unit::{self, DurationText, PathOrEmptyText, PathText};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Where the probe listens unless somebody says otherwise.
pub const PROBE_SOCKET: &str = "/run/bulkhead/probe.sock";

/// The connection to the probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// The Unix socket on which the probe listens. Default: `BULKHEAD_PROBE_SOCKET`, else `/run/bulkhead/probe.sock`.
    #[schemars(with = "PathText")]
    pub socket: PathBuf,
}

impl Default for Probe {
    fn default() -> Probe {
        Probe { socket: PathBuf::from(PROBE_SOCKET) }
    }
}

/// Logs that this node reads itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// Logs of pods below the probe's log roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<Pods>,
    /// Plain files that the probe reads, by the name it was given with `--files NAME=GLOB`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, LogFiles>,
    /// The journal of this machine; the gateway reads it itself, through journalctl.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<Journal>,
}

/// Logs of pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pods {
    /// Which of the known labels each stream carries.
    #[schemars(with = "Vec<PodLabel>")]
    pub labels: Vec<String>,
}

/// The labels that a pod's log can carry; only a schema, so that `check` knows the words.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[allow(dead_code, reason = "its names are read by the derived schema")]
enum PodLabel {
    Namespace,
    Pod,
    Container,
    App,
    Job,
    Stream,
    ContainerRuntime,
}

impl Default for Pods {
    fn default() -> Pods {
        let labels = ["namespace", "pod", "container", "app", "job", "stream"];
        Pods { labels: labels.map(str::to_owned).into() }
    }
}

/// One set of plain log files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogFiles {
    /// Labels of every line of these files; `job` is the set's name where none is given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The journal of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// Units to read, such as `ssh.service`; empty: all.
    pub units: Vec<String>,
    /// A folder of journal files, as journalctl's `-D`; empty: the machine's own journal.
    #[serde(with = "unit::path_or_empty", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PathOrEmptyText")]
    pub directory: Option<PathBuf>,
}

/// Metrics that this node reads itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scrape {
    /// The gateway's own metrics, those of `/metrics`, as series with `job="bulkhead"`.
    #[serde(rename = "self", skip_serializing_if = "Option::is_none")]
    pub own: Option<Every>,
    /// This host's processor, memory, disks, network and pressure under node-exporter's names, with `job="host"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Every>,
}

/// How often something is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Every {
    /// Time from one reading to the next; the first one is at the start.
    #[serde(with = "unit::duration")]
    #[schemars(with = "DurationText")]
    pub interval: Duration,
}

impl Default for Every {
    fn default() -> Every {
        Every { interval: Duration::from_secs(15) }
    }
}

/// Profiles that this node takes itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Profiles {
    /// Processor time of every process, sampled by the probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
}

/// Processor profiles from the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cpu {
    /// How much time one profile covers.
    #[serde(with = "unit::duration")]
    #[schemars(with = "DurationText")]
    pub window: Duration,
}

impl Default for Cpu {
    fn default() -> Cpu {
        Cpu { window: Duration::from_secs(15) }
    }
}
