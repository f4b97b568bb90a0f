#![forbid(unsafe_code)]
//! Capability tests: short scenes with the real gateway, one file a capability.
//!
//! Scenes whose clock matters play alone, the others side by side. `BULKHEAD_KILLS` sets the rounds of the kill scene,
//! `BULKHEAD_LOKI_BIN`, `BULKHEAD_TEMPO_BIN` and `BULKHEAD_PYROSCOPE_BIN` name real backends; each part that does not play prints `SKIP name: reason`.

mod backend;
mod crash;
mod delivery;
mod destination;
mod durable;
mod own;
mod probe;
mod profiles;
mod real;
mod sdk;
mod space;
mod start;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static STAGE: RwLock<()> = RwLock::const_new(());

/// Others may play at the same time.
async fn shared() -> RwLockReadGuard<'static, ()> {
    STAGE.read().await
}

/// Nobody else plays: the scene measures time or memory.
async fn alone() -> RwLockWriteGuard<'static, ()> {
    STAGE.write().await
}
