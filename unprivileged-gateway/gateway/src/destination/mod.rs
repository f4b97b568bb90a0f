//! Destinations: readers of the log that put what they read somewhere else and move their cursor when it has been taken.
//!
//! [`run`] is the one loop for all of them; [`loki`], [`otlp`] and [`pyroscope`] know a protocol each; [`pass`] is the cursor's arithmetic, [`retry`]
//! the pauses, [`answer`] what backends say.

pub mod answer;
mod attempt;
pub mod http;
pub mod lines;
pub mod loki;
pub mod otlp;
pub mod pass;
pub mod pyroscope;
pub mod raw_codec;
pub mod retry;
pub mod run;
pub mod start;
pub mod tls;
mod transform;
pub mod view;
