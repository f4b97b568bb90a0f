//! What to do, from a file of one page and from flags.
//!
//! Like a form with few fields: unknown ones are refused with their place, missing ones have a default, and the flag on the
//! desk wins over the form. The weakness: no reload; a probe is started again instead, which loses no log byte.

use crate::cli::{self, Flags};
use crate::profiler::WINDOW;
use ipc::peer::Rule;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Where the gateway looks for the door.
pub const SOCKET: &str = "/run/bulkhead/probe.sock";
/// Where positions are kept unless something else is said.
pub const STATE: &str = "/var/lib/bulkhead-probe";
/// Where Kubernetes keeps pod logs.
pub const LOG_ROOT: &str = "/var/log/pods";
/// Samples a second and CPU: not a divisor of anything that ticks.
pub const HZ: u32 = 97;
/// Largest configuration file, bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What to do, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The door.
    pub socket: PathBuf,
    /// Folder for positions.
    pub state: PathBuf,
    /// Who may connect.
    pub peer: Rule,
    /// CPU profiles, unless off.
    pub cpu: Option<Cpu>,
    /// Log files, unless off.
    pub logs: Option<Logs>,
}

/// CPU profiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Samples a second and CPU, 1 to 1000.
    pub hz: u32,
    /// Unwind by `.eh_frame` rows.
    pub tables: bool,
    /// Length of a window of stacks.
    pub window: Duration,
}

/// Log files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    /// Folders of pod logs.
    pub roots: Vec<PathBuf>,
    /// Plain files: name and glob.
    pub files: Vec<(String, String)>,
}

/// Why there is no configuration: exit code 78.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot be read: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        why: std::io::Error,
    },
    /// The file is not one page.
    #[error("{0}: larger than 1 MiB; this is not the probe's configuration")]
    Size(PathBuf),
    /// The file says something unknown.
    #[error("{path}: {why}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Line, column, excerpt.
        why: String,
    },
    /// A value that makes no sense.
    #[error("{0}")]
    Value(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    socket: Option<PathBuf>,
    state: Option<PathBuf>,
    peer: PeerFile,
    cpu: CpuFile,
    logs: LogsFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PeerFile {
    uid: Option<u32>,
    group: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CpuFile {
    enabled: bool,
    hz: u32,
    tables: bool,
    window: Option<String>,
}

impl Default for CpuFile {
    fn default() -> CpuFile {
        CpuFile { enabled: true, hz: HZ, tables: true, window: None }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogsFile {
    enabled: bool,
    roots: Option<Vec<PathBuf>>,
    files: BTreeMap<String, Globs>,
}

impl Default for LogsFile {
    fn default() -> LogsFile {
        LogsFile { enabled: true, roots: None, files: BTreeMap::new() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Globs {
    One(String),
    Many(Vec<String>),
}

/// Reads the file, if one is named, and lays the flags over it.
pub fn load(flags: &Flags) -> Result<Options, ConfigError> {
    let file = match &flags.config {
        None => File::default(),
        Some(path) => read(path)?,
    };
    merge(file, flags)
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let cannot = |why| ConfigError::Read { path: path.to_owned(), why };
    if std::fs::metadata(path).map_err(cannot)?.len() > FILE_BYTES_MAX {
        return Err(ConfigError::Size(path.to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
        return Ok(File::default());
    }
    serde_saphyr::from_str(&text).map_err(|e| ConfigError::Yaml { path: path.to_owned(), why: e.to_string() })
}

fn merge(file: File, flags: &Flags) -> Result<Options, ConfigError> {
    let group = flags.peer_group.as_ref().or(file.peer.group.as_ref()).map(|g| group_id(g)).transpose()?;
    let uid = flags.peer_uid.or(file.peer.uid);
    // Without a rule, the door is for whoever runs the probe by hand, as the same user.
    let own = (uid.is_none() && group.is_none()).then(|| nix::unistd::geteuid().as_raw());
    let hz = flags.hz.unwrap_or(file.cpu.hz);
    if !(1..=1000).contains(&hz) {
        return Err(ConfigError::Value(format!("cpu.hz is {hz}; wanted 1 to 1000 samples a second and CPU")));
    }
    let of_file = file.cpu.window.as_deref().map(cli::window).transpose();
    let of_file = of_file.map_err(|why| ConfigError::Value(format!("cpu.window: {why}")))?;
    let window = flags.window.or(of_file).unwrap_or(WINDOW);
    let mut files: Vec<(String, String)> = flags.files.clone();
    if files.is_empty() {
        for (name, globs) in file.logs.files {
            let globs = match globs {
                Globs::One(glob) => vec![glob],
                Globs::Many(globs) => globs,
            };
            files.extend(globs.into_iter().map(|g| (name.clone(), g)));
        }
    }
    if let Some((name, glob)) = files.iter().find(|(_, g)| !g.starts_with('/')) {
        return Err(ConfigError::Value(format!("logs.files.{name} is {glob:?}; wanted an absolute path")));
    }
    let roots = match &flags.log_root[..] {
        [] => file.logs.roots.unwrap_or_else(|| vec![LOG_ROOT.into()]),
        roots => roots.to_vec(),
    };
    Ok(Options {
        socket: flags.socket.clone().or(file.socket).unwrap_or_else(|| SOCKET.into()),
        state: flags.state.clone().or(file.state).unwrap_or_else(default_state),
        peer: Rule { uid: uid.or(own), group },
        cpu: (file.cpu.enabled && !flags.no_cpu).then_some(Cpu {
            hz,
            tables: file.cpu.tables && !flags.no_tables,
            window,
        }),
        logs: (file.logs.enabled && !flags.no_logs).then_some(Logs { roots, files }),
    })
}

fn default_state() -> PathBuf {
    // systemd may name several folders, divided by colons; ours asks for one.
    match std::env::var("STATE_DIRECTORY") {
        Ok(dirs) if !dirs.is_empty() => dirs.split(':').next().unwrap_or(STATE).into(),
        _ => STATE.into(),
    }
}

fn group_id(name: &str) -> Result<u32, ConfigError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match nix::unistd::Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => Err(ConfigError::Value(format!(
            "there is no group {name:?}; make it (groupadd --system {name}) or name another"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn with(yaml: &str, flags: Flags) -> Result<Options, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(yaml.as_bytes()).expect("written");
        load(&Flags { config: Some(file.path().to_owned()), ..flags })
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let yaml = "socket: /a\nstate: /s\npeer: { uid: 5, group: '0' }\ncpu: { hz: 19, tables: false, window: 5s }\n\
                    logs:\n  roots: [ /r ]\n  files: { syslog: [ /var/log/syslog, /var/log/syslog.1 ], x: /x }\n";
        let got = with(yaml, Flags { socket: Some("/b".into()), hz: Some(49), ..Flags::default() }).expect("fine");
        assert_eq!(got.socket, Path::new("/b"));
        assert_eq!(got.state, Path::new("/s"));
        assert_eq!(got.peer, Rule { uid: Some(5), group: Some(0) });
        assert_eq!(got.cpu, Some(Cpu { hz: 49, tables: false, window: Duration::from_secs(5) }));
        let logs = got.logs.expect("on");
        assert_eq!(logs.roots, [Path::new("/r")]);
        let pair = |n: &str, g: &str| (n.to_owned(), g.to_owned());
        assert_eq!(
            logs.files,
            [pair("syslog", "/var/log/syslog"), pair("syslog", "/var/log/syslog.1"), pair("x", "/x")]
        );
    }

    #[test]
    fn an_empty_file_is_the_same_as_none() {
        let none = load(&Flags::default()).expect("fine");
        assert_eq!(with("# nothing\n\n", Flags::default()).expect("fine"), none);
        assert_eq!(none.socket, Path::new(SOCKET));
        assert_eq!(none.peer.uid, Some(nix::unistd::geteuid().as_raw()));
        assert_eq!(none.cpu, Some(Cpu { hz: 97, tables: true, window: WINDOW }));
        assert_eq!(none.logs.expect("on").roots, [Path::new(LOG_ROOT)]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let why = |yaml: &str| with(yaml, Flags::default()).expect_err("refused").to_string();
        assert!(why("sokcet: /a\n").contains("sokcet"), "{}", why("sokcet: /a\n"));
        assert!(why("cpu: { hertz: 4 }\n").contains("hertz"));
        assert!(why("cpu: { window: 15 }\n").contains("wanted 1s to 60s"));
        assert!(why("cpu: { hz: 5000 }\n").contains("1 to 1000"));
        assert!(why("logs: { files: { a: b/c } }\n").contains("logs.files.a"));
        assert!(why("peer: { group: no-such-group-here }\n").contains("groupadd"));
        assert!(load(&Flags { config: Some("/nowhere/x".into()), ..Flags::default() }).is_err());
    }

    #[test]
    fn off_is_off() {
        let got = with("cpu: { enabled: false }\n", Flags { no_logs: true, ..Flags::default() }).expect("fine");
        assert_eq!((got.cpu, got.logs), (None, None));
    }
}
