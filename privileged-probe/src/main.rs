//! `probe`: reads the command line and hands over to [`probe::life`].

use clap::Parser;
use probe::cli::{Cli, Command};
use probe::{config, doctor, life};
use std::process::ExitCode;

/// Bad configuration.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (flags, report) = match cli.command {
        None => (cli.flags, None),
        Some(Command::Run(flags)) => (flags, None),
        Some(Command::Doctor { json, flags }) => (flags, Some(json)),
    };
    let options = match config::load(&flags) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("probe: {e}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match report {
        None => life::run(&options, flags.log_format),
        Some(json) => {
            let rows = doctor::checks(&options);
            if json {
                println!("{}", serde_json::to_string(&rows).unwrap_or_default());
            } else {
                print!("{}", doctor::table(&rows));
            }
            ExitCode::from(u8::from(rows.iter().any(|r| !r.ok)))
        }
    }
}
