#![forbid(unsafe_code)]
//! The floor twin: OTLP gRPC in, checksum, one `fdatasync` for many requests, answer; then Loki push out. Nothing else.
//!
//! A stripped engine on a test bench: no configuration, limits, retries worth the name, metrics, recovery, other signals. What the
//! gateway costs above it is the price of being a product. It uses the product's own codec (crate `model`), so the comparison is
//! about everything around the transform. Weakness: a floor for this design, not for the problem; a faster idea lowers both.

mod door;
mod log;
mod push;

use std::collections::HashMap;
use std::process::ExitCode;

const USAGE: &str = "floor-twin --grpc ADDR --sink ADDR --data DIR";

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("floor-twin: {why}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), String> {
    let mut given = HashMap::new();
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        given.insert(name, words.next().ok_or("a flag without its value")?);
    }
    let get = |name: &str| given.get(name).ok_or(format!("{name} is missing"));
    let address = |name: &str| get(name)?.parse().map_err(|e| format!("{name}: {e}"));
    let (grpc, sink) = (address("--grpc")?, address("--sink")?);
    let (writer, reader) = log::create(get("--data")?.as_ref()).map_err(|e| format!("--data: {e}"))?;
    let pushing = std::thread::Builder::new().name("push".into()).spawn(move || push::run(reader, sink));
    pushing.map_err(|e| e.to_string())?;
    door::run(grpc, writer).map_err(|e| e.to_string())
}
