#![forbid(unsafe_code)]
//! `loadgen sink | run | judge`: the three ends of a measurement, each a process of its own.

use clap::{Args, Parser, Subcommand};
use loadgen::ledger::Ledger;
use loadgen::sink::fault::Fault;
use loadgen::sink::{self, Sink};
use loadgen::{Compression, Endpoint, Signal, judge, run};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::watch;

/// `judge` found lost records.
const EXIT_LOST: u8 = 3;

#[derive(Parser)]
#[command(version, about = "OTLP load, recording sinks with faults, and a judge. Loopback only.")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Be a Loki, an OTLP gRPC and an OTLP HTTP backend that count unique records.
    Sink(SinkArgs),
    /// Send numbered records and write down what became of each.
    Run(RunArgs),
    /// Compare a ledger with a sink's report: lost and duplicated, as integers. Exit 3 if anything is lost.
    Judge(JudgeArgs),
}

#[derive(Args)]
struct SinkArgs {
    /// Loki push, HTTP/1.1.
    #[arg(long, value_name = "ADDR")]
    loki: Option<SocketAddr>,
    #[arg(long, value_name = "ADDR")]
    otlp_grpc: Option<SocketAddr>,
    #[arg(long, value_name = "ADDR")]
    otlp_http: Option<SocketAddr>,
    /// Pyroscope push, Connect over HTTP/1.1.
    #[arg(long, value_name = "ADDR")]
    pyroscope: Option<SocketAddr>,
    /// POST /fault, GET /report, GET /missing, GET /recent, POST /reset.
    #[arg(long, value_name = "ADDR")]
    control: Option<SocketAddr>,
    /// The first fault, as JSON: {"status":503,"ratio":0.5,"delay_ms":10,"stall":true,"for_s":20,...}.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    fault: String,
    /// Keep this many records in full for GET /recent.
    #[arg(long, default_value_t = 0)]
    keep: usize,
}

#[derive(Args)]
struct RunArgs {
    /// grpc://127.0.0.1:4317 or http://127.0.0.1:4318.
    #[arg(long)]
    endpoint: Endpoint,
    #[arg(long, value_enum, default_value = "logs")]
    signal: Signal,
    /// Records a request.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Length of a log body, bytes.
    #[arg(long, default_value_t = 95)]
    body_bytes: usize,
    /// Records a second, open loop: latency counts from the time a batch was due.
    #[arg(long, required_unless_present = "saturate", value_parser = positive)]
    rate: Option<f64>,
    /// Closed loop: as fast as answers come.
    #[arg(long, conflicts_with = "rate")]
    saturate: bool,
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    connections: u16,
    /// Calls in flight a connection, gRPC only.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    in_flight: u16,
    /// Seconds.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    duration: f64,
    /// Stop after this many records.
    #[arg(long)]
    records: Option<u64>,
    #[arg(long, value_enum, default_value = "none")]
    compression: Compression,
    /// Deadline of a call, seconds.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    timeout: f64,
    /// Sender number of the first connection. Give each run against one sink its own.
    #[arg(long, default_value_t = 1)]
    first_sender: u32,
    /// The ledger.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct JudgeArgs {
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
    /// A report file (from GET /report?runs=1) or a control port: http://127.0.0.1:PORT.
    #[arg(long)]
    report: String,
    /// Look again until nothing is missing, or nothing new has come for this many seconds.
    #[arg(long, default_value_t = 0.0, value_parser = not_negative)]
    wait: f64,
}

fn positive(text: &str) -> Result<f64, String> {
    not_negative(text).and_then(|v| if v > 0.0 { Ok(v) } else { Err("must be above 0".into()) })
}

fn not_negative(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if (0.0..=1e12).contains(&value) { Ok(value) } else { Err("must be a number from 0 to 10^12".into()) }
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(1, &format!("cannot start the runtime: {e}")),
    };
    match Cli::parse().verb {
        Verb::Sink(args) => runtime.block_on(sink_verb(args)),
        Verb::Run(args) => runtime.block_on(run_verb(args)),
        Verb::Judge(args) => judge_verb(&args),
    }
}

fn failed(code: u8, why: &str) -> ExitCode {
    eprintln!("loadgen: {why}");
    ExitCode::from(code)
}

async fn sink_verb(args: SinkArgs) -> ExitCode {
    let fault: Fault = match serde_json::from_str(&args.fault) {
        Ok(fault) => fault,
        Err(e) => return failed(2, &format!("--fault: {e}")),
    };
    let SinkArgs { loki, otlp_grpc, otlp_http, pyroscope, control, keep, .. } = args;
    let options = sink::Options { loki, otlp_grpc, otlp_http, pyroscope, control, keep, fault };
    let sink = match Sink::start(options).await {
        Ok(sink) => sink,
        Err(e) => return failed(69, &e.to_string()),
    };
    let doors = [
        ("loki", sink.loki),
        ("otlp/grpc", sink.otlp_grpc),
        ("otlp/http", sink.otlp_http),
        ("pyroscope", sink.pyroscope),
        ("control", sink.control),
    ];
    for (name, at) in doors {
        if let Some(at) = at {
            println!("{name} {at}");
        }
    }
    println!("ready");
    stopped().await;
    match serde_json::to_string(&sink.report(false)) {
        Ok(report) => println!("{report}"),
        Err(e) => return failed(1, &e.to_string()),
    }
    ExitCode::SUCCESS
}

async fn stopped() {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    match terminate {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

async fn run_verb(args: RunArgs) -> ExitCode {
    let options = run::Options {
        endpoint: args.endpoint,
        signal: args.signal,
        batch: args.batch as usize,
        body_bytes: args.body_bytes.clamp(loadgen::payload::ID_LEN, 8 << 20),
        rate: args.rate,
        connections: usize::from(args.connections),
        in_flight: usize::from(args.in_flight),
        duration: Duration::from_secs_f64(args.duration.min(1e6)),
        records: args.records,
        compression: args.compression,
        timeout: Duration::from_secs_f64(args.timeout.min(1e6)),
        first_sender: args.first_sender,
        out: args.out,
        progress: true,
    };
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        stopped().await;
        eprintln!("loadgen: stopping; what is in flight gets its answer. Once more to give up");
        let _ = stop.send(true);
        stopped().await;
        std::process::exit(130);
    });
    match run::run(options, stopping).await {
        Ok(summary) => print_json(&summary),
        Err(e) => failed(74, &format!("the ledger is incomplete: {e}")),
    }
}

fn print_json<T: serde::Serialize>(value: &T) -> ExitCode {
    match serde_json::to_string_pretty(value) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => failed(1, &e.to_string()),
    }
}

fn judge_verb(args: &JudgeArgs) -> ExitCode {
    let ledger = match Ledger::read(&args.ledger) {
        Ok(ledger) => ledger,
        Err(e) => return failed(74, &format!("{}: {e}", args.ledger.display())),
    };
    let patience = Duration::from_secs_f64(args.wait.min(1e6));
    match judge::judge_patiently(&ledger, patience, || judge::fetch(&args.report)) {
        Ok(verdict) => {
            let code = print_json(&verdict);
            if verdict.lost > 0 { ExitCode::from(EXIT_LOST) } else { code }
        }
        Err(e) => failed(1, &e),
    }
}
