//! The command line: `probe [run]` with flags that override the file, and `probe doctor`.
//!
//! Like a hotel's check-in form: what the guest writes wins over what the booking says. Every flag has a `BULKHEAD_...`
//! variable. The weakness: `run` is optional, so its flags are those of the program.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// What `probe` understands.
#[derive(Debug, Parser)]
#[command(
    name = "probe",
    version,
    about = "Samples CPU stacks and reads log files of this machine for Bulkhead's gateway"
)]
#[command(args_conflicts_with_subcommands = true, max_term_width = 120)]
pub struct Cli {
    /// What to do; `run` when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub flags: Flags,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run in the foreground (also without a verb).
    Run(Flags),
    /// Check what this machine and this user offer, and say how to get the rest; exit 1 if something is missing.
    Doctor {
        /// One JSON array instead of a table.
        #[arg(long)]
        json: bool,
        /// As for `run`.
        #[command(flatten)]
        flags: Flags,
    },
}

/// Flags of `run` and `doctor`; each overrides the file.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Configuration file (YAML).
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "BULKHEAD_PROBE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The door: Unix socket that the gateway connects to [default: /run/bulkhead/probe.sock].
    #[arg(long, value_name = "PATH", env = "BULKHEAD_PROBE_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Folder for positions [default: $STATE_DIRECTORY, else /var/lib/bulkhead-probe].
    #[arg(long, value_name = "DIR", env = "BULKHEAD_PROBE_STATE")]
    pub state: Option<PathBuf>,
    /// Folder of pod logs; may be repeated [default: /var/log/pods].
    #[arg(long = "log-root", value_name = "DIR", env = "BULKHEAD_LOG_ROOT", value_delimiter = ',')]
    pub log_root: Vec<PathBuf>,
    /// Plain log files under a name; may be repeated.
    #[arg(long, value_name = "NAME=GLOB", env = "BULKHEAD_FILES", value_delimiter = ',', value_parser = named_glob)]
    pub files: Vec<(String, String)>,
    /// CPU samples a second and CPU [default: 97].
    #[arg(long, value_name = "N", env = "BULKHEAD_HZ", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub hz: Option<u32>,
    /// Length of one window of stacks, 1s to 60s [default: 15s].
    #[arg(long, value_name = "SECONDS", env = "BULKHEAD_WINDOW", value_parser = window)]
    pub window: Option<Duration>,
    /// No CPU profiles.
    #[arg(long, env = "BULKHEAD_NO_CPU")]
    pub no_cpu: bool,
    /// No log files.
    #[arg(long, env = "BULKHEAD_NO_LOGS")]
    pub no_logs: bool,
    /// No unwinding by .eh_frame tables: frame pointers only.
    #[arg(long, env = "BULKHEAD_NO_TABLES")]
    pub no_tables: bool,
    /// User id that may connect to the door.
    #[arg(long, value_name = "N", env = "BULKHEAD_PEER_UID")]
    pub peer_uid: Option<u32>,
    /// Group (name or number) whose members may connect to the door.
    #[arg(long, value_name = "NAME", env = "BULKHEAD_PEER_GROUP")]
    pub peer_group: Option<String>,
    /// How to write the log on stderr: text, json, or by whether stderr is a terminal.
    #[arg(long, value_name = "auto|text|json", env = "BULKHEAD_LOG_FORMAT", default_value = "auto")]
    pub log_format: LogFormat,
}

/// Form of the log on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON lines otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// JSON lines.
    Json,
}

/// `15s`: whole seconds, 1 to 60. Shorter ones cost a profile each, longer ones hold more stacks than the outbox should.
pub(crate) fn window(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').and_then(|n| n.parse::<u64>().ok()).filter(|n| (1..=60).contains(n));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is no window; wanted 1s to 60s, for example 15s"))
}

fn named_glob(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, glob)) if !name.is_empty() && glob.starts_with('/') => Ok((name.to_owned(), glob.to_owned())),
        _ => Err("wanted NAME=GLOB with an absolute path, for example syslog=/var/log/syslog*".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_what_happens_without_a_verb() {
        let bare = Cli::try_parse_from(["probe", "--hz", "19", "--files", "s=/var/log/s*"]).expect("parses");
        assert!(bare.command.is_none());
        assert_eq!((bare.flags.hz, bare.flags.files), (Some(19), vec![("s".into(), "/var/log/s*".into())]));
        let verb =
            Cli::try_parse_from(["probe", "run", "--no-cpu", "--log-root", "/a", "--log-root", "/b"]).expect("parses");
        let Some(Command::Run(flags)) = verb.command else { panic!("run") };
        assert!(flags.no_cpu);
        assert_eq!(flags.log_root.len(), 2);
        assert!(matches!(
            Cli::try_parse_from(["probe", "doctor", "--json"]).expect("parses").command,
            Some(Command::Doctor { json: true, .. })
        ));
    }

    #[test]
    fn a_wrong_flag_is_refused_with_what_was_wanted() {
        for wrong in [
            ["probe", "--files", "x"],
            ["probe", "--files", "x=relative"],
            ["probe", "--hz", "0"],
            ["probe", "--window", "15"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
