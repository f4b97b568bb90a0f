//! The probe: the privileged process that opens, samples and reads, and parses nothing foreign.
//!
//! Like a night watchman with the keys: he opens doors and carries out what is asked for on a fixed list; he reads no letters
//! and takes no orders through the window. Threads and `poll`, no runtime; what leaves the process leaves through
//! [`outbox`] and the door ([`serve`]). The weakness: what the watchman may open, a mistake in him may open too, so he hands
//! back every key he no longer needs ([`privilege`]) and is locked in ([`seccomp`]) before he sees anybody.

pub mod cli;
pub mod config;
pub mod doctor;
pub mod life;
pub mod nursery;
pub mod outbox;
pub mod parser;
pub mod pod_log;
pub mod privilege;
pub mod profiler;
pub mod seccomp;
pub mod serve;
mod sys;
pub mod vitals;
