//! The gateway's program: understand the command line, do what it says, end with a code that scripts can rely on.

use gateway::cli::{self, Exit, Invocation, LogFormat};
use gateway::config::{self, Loaded, Machine, Request};
use std::io::{IsTerminal, stderr, stdout};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(e) => return cli::answer(&e).into(),
    };
    match invocation {
        Invocation::Run { request, log_format } => {
            log_to_stderr(log_format);
            match load(&request) {
                Ok(loaded) => gateway::run::run(loaded),
                Err(code) => code,
            }
        }
        Invocation::Check { request, offline, format } => {
            said(cli::check(&request, offline, format, &mut stdout(), &mut stderr()))
        }
        Invocation::ConfigSchema => said(cli::config_schema(&mut stdout())),
        Invocation::ConfigPrint { request, explain } => {
            said(cli::config_print(&request, explain, &Machine, &mut stdout(), &mut stderr()))
        }
        Invocation::Demo { endpoint } => demo(endpoint.as_deref().unwrap_or("http://127.0.0.1:4318")),
        Invocation::Wal { request, verb } => match load(&request) {
            Ok(loaded) => gateway::wal_verbs::run(&loaded, &verb),
            Err(code) => code,
        },
    }
}

/// A closed pipe (`gateway config print | head`) is no failure worth words.
fn said(result: std::io::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Exit::Fine.into(),
        Err(e) => {
            eprintln!("error: writing the answer failed: {e}");
            Exit::Failed.into()
        }
    }
}

/// Warnings are said and pass; errors are all said, and end the program.
fn load(request: &Request) -> Result<Loaded, ExitCode> {
    match config::load(request, &Machine) {
        Ok(loaded) => {
            if !loaded.findings.is_empty() {
                eprint!("{}", loaded.findings.render());
            }
            Ok(loaded)
        }
        Err(findings) => Err(said(cli::refuse(&findings, &mut stderr()))),
    }
}

fn demo(endpoint: &str) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: no event loop could be started: {e}");
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(gateway::demo::run(endpoint)) {
        Ok(()) => Exit::Fine.into(),
        Err(e) => {
            eprintln!("error: {e:#}");
            Exit::Unavailable.into()
        }
    }
}

/// Text for people on a terminal, JSON lines for everything else; `RUST_LOG` narrows or widens it.
fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json { builder.json().init() } else { builder.with_target(false).init() }
}
