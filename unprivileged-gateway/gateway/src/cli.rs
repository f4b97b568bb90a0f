//! The command line: words in, one [`Invocation`] out; and the two verbs that only read, `check` and `config`.
//!
//! Like a reception desk: it understands what is wanted, answers what it can from the book in front of it, and sends the rest to
//! whoever does the work. Every flag has a variable, `BULKHEAD_` and the flag's name; a flag wins over its variable, both over the
//! files. Weakness: variables are read by the parser from the process, so a test of them needs a process.

use crate::config::reach::{Answer, Subject, reach};
use crate::config::{self, Finding, Findings, Given, Layer, Loaded, Machine, Override, Request, Surroundings};
use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// How this program ends; the numbers are part of the outside contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Also after a drained SIGTERM.
    Fine = 0,
    /// Failed at run time.
    Failed = 1,
    /// The command line was wrong.
    Usage = 2,
    /// A port, peer or backend is not available.
    Unavailable = 69,
    Storage = 74,
    /// Start me again.
    Again = 75,
    /// A privilege is missing.
    Privilege = 77,
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// What was asked for.
#[derive(Clone, Debug)]
pub enum Invocation {
    Run { request: Request, log_format: LogFormat },
    Check { request: Request, offline: bool, format: Format },
    ConfigSchema,
    ConfigPrint { request: Request, explain: bool },
    Demo { endpoint: Option<String> },
    Wal { request: Request, verb: WalVerb },
}

const USAGE: &str = "gateway [run] [OPTIONS]\n       gateway <COMMAND>";

const EXAMPLES: &str = "Examples:
  gateway                          keep and show the last minutes of what this machine sends
  gateway -c gateway.yaml          receive and forward as the file says
  gateway check -c gateway.yaml    say everything that is wrong with it
Flags are listed by `gateway run --help`; each is also a variable: BULKHEAD_OTLP_GRPC and so on.
Exit: 0 fine, 1 failed, 2 usage, 69 backend or port, 74 storage, 77 privilege, 78 configuration";

/// Receives, keeps on disk, forwards and shows telemetry.
#[derive(Parser)]
#[command(name = "gateway", version, after_help = EXAMPLES, override_usage = USAGE, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the gateway; the default, so the word may be left out.
    Run(RunArgs),
    /// Say everything that is wrong with a configuration.
    ///
    /// Without --offline also whether its folder can be written, its files read and its backends reached.
    Check(CheckArgs),
    /// Show the configuration or its schema.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Send sample logs and traces to a running gateway.
    Demo(DemoArgs),
    /// Look into the write-ahead log.
    Wal(WalArgs),
}

/// What decides the configuration; the same for every verb that needs one.
#[derive(Args)]
struct ConfigArgs {
    /// File, or folder whose *.yaml are read in name order; repeat it, later wins. Without it: the built-in local view.
    #[arg(short = 'c', long = "config", value_name = "FILE_OR_DIR", env = "BULKHEAD_CONFIG", hide_env_values = true)]
    config: Vec<PathBuf>,
    /// Folder that holds every accepted record until it is delivered.
    #[arg(long, value_name = "DIR", env = "BULKHEAD_STORAGE", hide_env_values = true)]
    storage: Option<String>,
    /// Address of the page, the API, health and metrics.
    #[arg(long, value_name = "ADDR", env = "BULKHEAD_HTTP", hide_env_values = true)]
    http: Option<String>,
    /// Address for OTLP over gRPC.
    #[arg(long, value_name = "ADDR", env = "BULKHEAD_OTLP_GRPC", hide_env_values = true)]
    otlp_grpc: Option<String>,
    /// Address for OTLP over HTTP.
    #[arg(long, value_name = "ADDR", env = "BULKHEAD_OTLP_HTTP", hide_env_values = true)]
    otlp_http: Option<String>,
    /// One value of the configuration, such as storage.max=16GiB; repeat it. As a variable: one a line.
    #[arg(long, value_name = "PATH=VALUE", env = "BULKHEAD_SET", hide_env_values = true)]
    set: Vec<String>,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How the program's own log is written; auto: text on a terminal, JSON lines otherwise.
    #[arg(long, value_name = "FORMAT", env = "BULKHEAD_LOG_FORMAT", hide_env_values = true, default_value = "auto")]
    log_format: LogFormat,
}

/// How the program's own log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Auto,
    Text,
    Json,
}

#[derive(Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Judge the text alone: no folder, file or backend is tried.
    #[arg(long, env = "BULKHEAD_OFFLINE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    offline: bool,
    /// Text for people, or JSON for scripts.
    #[arg(long, value_name = "FORMAT", env = "BULKHEAD_FORMAT", hide_env_values = true, default_value = "text")]
    format: Format,
}

/// Text for people, or JSON for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Subcommand)]
enum ConfigVerb {
    /// Print the JSON schema of the configuration, for editors.
    Schema,
    /// Print the effective configuration, secrets masked.
    Print(PrintArgs),
}

#[derive(Args)]
struct PrintArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Beside each value say which layer it comes from, and where.
    #[arg(long, env = "BULKHEAD_EXPLAIN", hide_env_values = true, value_parser = FalseyValueParser::new())]
    explain: bool,
}

#[derive(Args)]
struct DemoArgs {
    /// OTLP over HTTP of the gateway to send to; default http://127.0.0.1:4318.
    #[arg(long, value_name = "URL", env = "BULKHEAD_ENDPOINT", hide_env_values = true)]
    endpoint: Option<String>,
}

#[derive(Args)]
struct WalArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    verb: WalVerb,
}

/// What to do with the log. Asks the running gateway; opens the folder read-only when nobody holds it.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum WalVerb {
    /// Bytes, segments, and what waits for each destination.
    Stats {
        /// Text for people, or JSON for scripts.
        #[arg(long, value_name = "FORMAT", env = "BULKHEAD_FORMAT", hide_env_values = true, default_value = "text")]
        format: Format,
    },
    /// Read every record and say what is damaged.
    Verify {
        /// Text for people, or JSON for scripts.
        #[arg(long, value_name = "FORMAT", env = "BULKHEAD_FORMAT", hide_env_values = true, default_value = "text")]
        format: Format,
    },
    /// Write the held records out, one JSON object a line.
    Export {
        /// Only this signal.
        #[arg(long, value_name = "SIGNAL", env = "BULKHEAD_SIGNAL", hide_env_values = true, value_parser = ["logs", "traces", "metrics", "profiles"])]
        signal: Option<String>,
        /// File to write; default: standard output.
        #[arg(short, long, value_name = "FILE", env = "BULKHEAD_OUTPUT", hide_env_values = true)]
        output: Option<PathBuf>,
    },
    /// Give up what waits for a destination that is no longer configured.
    Forget {
        /// As `gateway wal stats` shows it, such as loki/logs.
        #[arg(value_name = "KIND/NAME", value_parser = kind_and_name)]
        destination: String,
    },
    /// Records that a backend will never take.
    #[command(subcommand)]
    Quarantine(QuarantineVerb),
}

/// What to do with quarantined records.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum QuarantineVerb {
    /// One line a record: when, destination, reason, size.
    List {
        /// Text for people, or JSON for scripts.
        #[arg(long, value_name = "FORMAT", env = "BULKHEAD_FORMAT", hide_env_values = true, default_value = "text")]
        format: Format,
    },
    /// One record with its labels, reason and payload.
    Show {
        /// Its number, as `list` shows it.
        #[arg(value_name = "ID")]
        id: u64,
    },
    /// Write them all out, one JSON object a line.
    Export {
        /// File to write; default: standard output.
        #[arg(short, long, value_name = "FILE", env = "BULKHEAD_OUTPUT", hide_env_values = true)]
        output: Option<PathBuf>,
    },
}

fn kind_and_name(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => Ok(text.to_owned()),
        _ => Err("write KIND/NAME, such as loki/logs".to_owned()),
    }
}

/// Understands a command line, the program's name first. `Err` also for `--help` and `--version`; see [`answer`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let leading_flag = args.get(1).is_none_or(|first| {
        let first = first.to_string_lossy();
        first.starts_with('-') && !matches!(first.as_ref(), "-h" | "--help" | "-V" | "--version")
    });
    if leading_flag {
        args.insert(args.len().min(1), "run".into());
    }
    let matches = Cli::command().try_get_matches_from(args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let mut deepest = &matches;
    let mut with_config = &matches;
    while let Some((_, next)) = deepest.subcommand() {
        deepest = next;
        if next.try_contains_id("storage").is_ok() {
            with_config = next;
        }
    }
    let request = |args: ConfigArgs| request(args, with_config, std::env::vars_os().map(|(name, _)| name));
    Ok(match cli.verb {
        Verb::Run(args) => Invocation::Run { request: request(args.config), log_format: args.log_format },
        Verb::Check(args) => {
            Invocation::Check { request: request(args.config), offline: args.offline, format: args.format }
        }
        Verb::Config(ConfigVerb::Schema) => Invocation::ConfigSchema,
        Verb::Config(ConfigVerb::Print(args)) => {
            Invocation::ConfigPrint { request: request(args.config), explain: args.explain }
        }
        Verb::Demo(args) => Invocation::Demo { endpoint: args.endpoint },
        Verb::Wal(args) => Invocation::Wal { request: request(args.config), verb: args.verb },
    })
}

/// Prints what [`parse`] returned instead of an invocation: help on standard output, mistakes on standard error.
pub fn answer(error: &clap::Error) -> Exit {
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Fine }
}

/// Variables first, so that flags win; each value keeps the name under which the person knows it.
fn request(args: ConfigArgs, matches: &ArgMatches, variables: impl Iterator<Item = OsString>) -> Request {
    let from_variable = |id: &str| matches.value_source(id) == Some(ValueSource::EnvVariable);
    let given = |id: &str, flag: &str, value: Given| {
        let variable = format!("BULKHEAD_{}", id.to_ascii_uppercase());
        let (layer, name) = if from_variable(id) { (Layer::Env, variable) } else { (Layer::Flag, flag.to_owned()) };
        Override { layer, name, value }
    };
    let fixed = [
        ("storage", "--storage", "storage.path", args.storage),
        ("http", "--http", "http.listen", args.http),
        ("otlp_grpc", "--otlp-grpc", "receive.otlp.grpc", args.otlp_grpc),
        ("otlp_http", "--otlp-http", "receive.otlp.http", args.otlp_http),
    ];
    let mut overrides: Vec<Override> =
        fixed.into_iter().filter_map(|(id, flag, path, text)| Some(given(id, flag, Given::At(path, text?)))).collect();
    let lines = |text: &String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let sets = if from_variable("set") { args.set.iter().flat_map(lines).collect() } else { args.set };
    let sets = sets.into_iter().filter(|text| !text.trim().is_empty());
    overrides.extend(sets.map(|text| given("set", "--set", Given::Set(text))));
    overrides.sort_by_key(|given| given.layer);
    Request { files: args.config, overrides, notices: misspelt(variables) }
}

/// Variables of ours, for `did you mean`; a `BULKHEAD_` variable that is far from all of them is somebody else's.
const VARIABLES: [&str; 7] = ["CONFIG", "STORAGE", "HTTP", "OTLP_GRPC", "OTLP_HTTP", "SET", "LOG_FORMAT"];

fn misspelt(variables: impl Iterator<Item = OsString>) -> Vec<Finding> {
    let ours = |name: OsString| Some(name.to_str()?.strip_prefix("BULKHEAD_")?.to_owned());
    let notice = |name: String| {
        let known = VARIABLES.map(str::to_ascii_lowercase);
        let near = config::nearest(&name, known.iter().map(String::as_str))?.to_ascii_uppercase();
        let help = format!("write BULKHEAD_{near}");
        (near != name)
            .then(|| Finding::warning("", None, format!("the variable BULKHEAD_{name} is not read")).help(help))
    };
    variables.filter_map(ours).filter_map(notice).collect()
}

/// `gateway check`. Findings go to `err`, what was found in order to `out`; with `Format::Json` one object to `out`.
pub fn check(
    request: &Request,
    offline: bool,
    format: Format,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    let loaded = config::load(request, &Machine);
    let answers = match &loaded {
        Ok(loaded) if !offline => reach(&loaded.config),
        _ => Vec::new(),
    };
    let exit = if loaded.is_err() { Exit::Config } else { worst(&answers) };
    let findings = match &loaded {
        Ok(loaded) => &loaded.findings,
        Err(findings) => findings,
    };
    if format == Format::Json {
        let mut json = findings.json();
        json["ok"] = (exit == Exit::Fine).into();
        json["reached"] = serde_json::to_value(&answers).unwrap_or_default();
        writeln!(out, "{json:#}")?;
        return Ok(exit);
    }
    match &loaded {
        Err(findings) => writeln!(err, "{findings}")?,
        Ok(loaded) => report(loaded, &answers, out, err)?,
    }
    Ok(exit)
}

fn report(loaded: &Loaded, answers: &[Answer], out: &mut dyn Write, err: &mut dyn Write) -> io::Result<()> {
    write!(err, "{}", loaded.findings.render())?;
    for answer in answers {
        match answer.ok {
            true => writeln!(out, "ok     {}: {}", answer.path, answer.text)?,
            false => writeln!(err, "failed {}: {}", answer.path, answer.text)?,
        }
    }
    let failed = answers.iter().filter(|answer| !answer.ok).count();
    let subject = match loaded.files.as_slice() {
        [] => "the built-in local view".to_owned(),
        files => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "),
    };
    match (failed, loaded.findings.warnings()) {
        (0, 0) => writeln!(out, "{subject}: fine"),
        (0, _) => writeln!(out, "{subject}: fine, {}", loaded.findings.count()),
        (failed, _) => writeln!(
            err,
            "{subject}: the configuration is sound, but {failed} of {} could not be reached",
            answers.len()
        ),
    }
}

/// A missing file is a mistake in the configuration; a folder or a backend may be mended without touching it.
fn worst(answers: &[Answer]) -> Exit {
    let failed = |subject| answers.iter().any(|answer| !answer.ok && answer.subject == subject);
    if failed(Subject::File) {
        Exit::Config
    } else if failed(Subject::Storage) {
        Exit::Storage
    } else if failed(Subject::Backend) {
        Exit::Unavailable
    } else {
        Exit::Fine
    }
}

/// `gateway config schema`.
pub fn config_schema(out: &mut dyn Write) -> io::Result<Exit> {
    writeln!(out, "{:#}", config::schema())?;
    Ok(Exit::Fine)
}

/// `gateway config print`.
pub fn config_print(
    request: &Request,
    explain: bool,
    surroundings: &dyn Surroundings,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    let loaded = match config::load(request, surroundings) {
        Ok(loaded) => loaded,
        Err(findings) => return refuse(&findings, err),
    };
    write!(err, "{}", loaded.findings.render())?;
    let text = if explain { loaded.explained_text() } else { loaded.yaml() };
    write!(out, "{text}{}", if text.ends_with('\n') { "" } else { "\n" })?;
    Ok(Exit::Fine)
}

/// What a start with a bad configuration says.
pub fn refuse(findings: &Findings, err: &mut dyn Write) -> io::Result<Exit> {
    writeln!(err, "{findings}")?;
    Ok(Exit::Config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, clap::Error> {
        let words = line.split_whitespace().map(OsString::from);
        parse(std::iter::once(OsString::from("gateway")).chain(words))
    }

    #[test]
    fn the_definition_is_sound_and_every_flag_has_its_variable() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        fn visit(command: &clap::Command) {
            for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
                let Some(long) = arg.get_long().filter(|long| !matches!(*long, "help" | "version")) else { continue };
                let variable = format!("BULKHEAD_{}", long.to_ascii_uppercase().replace('-', "_"));
                assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&command);
    }

    #[test]
    fn the_word_run_may_be_left_out() {
        for line in ["", "run", "--http 127.0.0.1:0", "-c a.yaml -c b --set a.b=c --log-format json", "run -c a.yaml"] {
            assert!(matches!(parsed(line), Ok(Invocation::Run { .. })), "{line}");
        }
    }

    #[test]
    fn every_verb_of_this_version_is_understood_and_no_other() {
        let good = [
            "check -c a --offline --format json",
            "config schema",
            "config print --explain -c a",
            "demo",
            "demo --endpoint http://127.0.0.1:4318",
            "wal stats",
            "wal --storage d verify",
            "wal export -o x",
            "wal forget loki/logs",
            "wal quarantine list",
            "wal quarantine show 7",
            "wal quarantine export",
        ];
        good.iter().for_each(|line| assert!(parsed(line).is_ok(), "{line}"));
        let bad = [
            "leave",
            "top",
            "wal replay",
            "wal quarantine replay",
            "relabel x",
            "wal forget loki",
            "explain",
            "--nope",
            "cluster peers",
            "check --format yaml",
        ];
        for line in bad {
            assert_eq!(parsed(line).err().map(|error| error.use_stderr()), Some(true), "{line}");
        }
        for line in ["--help", "--version", "wal --help"] {
            assert_eq!(parsed(line).err().map(|error| error.use_stderr()), Some(false), "{line}");
        }
    }

    #[test]
    fn flags_become_overrides_under_their_own_names() {
        let Ok(Invocation::Run { request, .. }) = parsed("-c a.yaml --storage /d --set storage.max=16GiB") else {
            panic!("not understood")
        };
        assert_eq!(request.files, [PathBuf::from("a.yaml")]);
        let shown: Vec<_> = request.overrides.iter().map(|given| (given.layer, given.name.as_str())).collect();
        assert_eq!(shown, [(Layer::Flag, "--storage"), (Layer::Flag, "--set")]);
    }

    /// The parser reads the process's variables, so this runs itself again with some set.
    #[test]
    fn variables_become_the_layer_below_flags() {
        const NAME: &str = "cli::tests::variables_become_the_layer_below_flags";
        if std::env::var_os("BULKHEAD_OTLP_GRPC").is_none() {
            let again = std::env::current_exe().map(|program| {
                let variables = [
                    ("BULKHEAD_CONFIG", "env.yaml"),
                    ("BULKHEAD_OTLP_GRPC", "127.0.0.1:1"),
                    ("BULKHEAD_HTTP", "127.0.0.1:2"),
                    ("BULKHEAD_SET", "storage.max=1GiB\nnode.name=x\n"),
                    ("BULKHEAD_LOG_FORMAT", "json"),
                ];
                std::process::Command::new(program).args(["--exact", NAME, "--nocapture"]).envs(variables).output()
            });
            let output = again.and_then(|output| output).map(|output| (output.status.success(), output.stdout));
            assert!(output.as_ref().is_ok_and(|(success, _)| *success), "{output:?}");
            return;
        }
        let Ok(Invocation::Run { request, log_format }) = parsed("--http 127.0.0.1:3") else {
            panic!("not understood")
        };
        assert_eq!((request.files, log_format), (vec![PathBuf::from("env.yaml")], LogFormat::Json));
        let shown: Vec<_> = request.overrides.iter().map(|given| (given.layer, given.name.as_str())).collect();
        let (env, flag) = (Layer::Env, Layer::Flag);
        let expected = [(env, "BULKHEAD_OTLP_GRPC"), (env, "BULKHEAD_SET"), (env, "BULKHEAD_SET"), (flag, "--http")];
        assert_eq!(shown, expected);
        // `--set` replaces the variable's settings rather than adding to them; other flags leave them alone.
        let Ok(Invocation::Run { request, .. }) = parsed("--set a.b=c") else { panic!("not understood") };
        assert_eq!(request.overrides.iter().filter(|given| given.name.contains("SET")).count(), 0);
    }

    #[test]
    fn a_misspelt_variable_is_named_and_a_foreign_one_is_not() {
        let names =
            ["BULKHEAD_STORGE", "BULKHEAD_OTLP_GRCP", "BULKHEAD_LOKI_BIN", "BULKHEAD_SERVICE_HOST", "BULKHEAD_HTTP"];
        let notices = misspelt(names.iter().map(OsString::from));
        let texts: Vec<_> = notices.iter().map(|notice| notice.message.as_str()).collect();
        assert_eq!(texts, ["the variable BULKHEAD_STORGE is not read", "the variable BULKHEAD_OTLP_GRCP is not read"]);
    }

    #[test]
    fn help_never_shows_what_a_variable_holds() {
        fn visit(command: &clap::Command) {
            command.get_arguments().for_each(|arg| assert!(arg.get_env().is_none() || arg.is_hide_env_values_set()));
            command.get_subcommands().for_each(visit);
        }
        visit(&Cli::command());
    }

    #[test]
    fn the_first_screen_of_help_fits_a_terminal() {
        let help = Cli::command().render_help().to_string();
        assert!(help.lines().count() <= 24, "{help}");
    }
}
