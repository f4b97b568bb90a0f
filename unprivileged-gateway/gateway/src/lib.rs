//! The gateway: receives, keeps on disk, forwards and shows telemetry, without any privilege.
//!
//! Data moves one way: `receiver` -> `store` (the write-ahead logs) -> `destination` loops and the local `view`. `admin` shows
//! it, `config` decides it, `telemetry` counts it. The map is ARCHITECTURE.md.

pub mod admin;
pub mod budget;
pub mod cli;
pub mod config;
pub mod demo;
pub mod destination;
pub mod host;
pub mod journal;
pub mod own;
pub mod probe;
pub mod receiver;
pub mod run;
pub mod scrape;
pub mod seam;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod view;
pub mod wal_verbs;
