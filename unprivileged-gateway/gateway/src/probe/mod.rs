//! The gateway's side of the door: takes what the probe passes out, puts it into the log, and says how far it is safe.
//!
//! Image: a clerk at a hatch. Parcels come through it in numbered order, logs on one slip, stacks on the other; he stacks them on the
//! pile ([`crate::store::Store::lay`]) and pushes a slip back through the hatch only when the pile is locked away. When the pile's room
//! is full he keeps what he has in his hands, takes no more, and never lays a later parcel before an earlier one of the same slip
//! ([`lane`]). What he has seen before he recognises by its number or its place in its file and lays aside.
//!
//! Algorithm: connect, check Hello, answer with what is held already, then three things at once: read a frame while hands are free, lay
//! what waits, acknowledge what is synced ([`session`]). Anything that is not the protocol ends the connection; the next one comes
//! after a pause that grows ([`client`]).
//!
//! Weakness: one connection carries both slips, so a frame of 4 MiB of stacks delays the log line behind it by its own length.

mod board;
mod client;
mod files;
mod inbox;
mod lane;
mod lengths;
mod session;
mod stacks;

#[cfg(test)]
mod tests;

pub use board::{Board, Rates, Shown};
pub use client::{Setup, start};
