#![forbid(unsafe_code)]
//! The stage of the capability tests: a gateway process, recording sinks, loads, and a judge.
//!
//! Like a film set: every scene builds its own small street (folder, ports, configuration), plays, and is torn down by dropping it.
//! Weakness: the binary is taken as found; build it first (`cargo build -p gateway`), or name its folder in `BULKHEAD_BIN_DIR`.

pub mod gateway;
pub mod http;
pub mod load;
pub mod pods;
pub mod probe;
pub mod tool;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Prints why a scene (or a part of it) does not play. `make test` collects these lines.
pub fn skip(name: &str, reason: &str) {
    use std::io::Write;
    // Past libtest's capture, so that a skip can be seen without --nocapture.
    let _ = writeln!(std::io::stdout().lock(), "\nSKIP {name}: {reason}");
}

/// A number of rounds from the environment.
pub fn rounds(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// The folder with `gateway`: `BULKHEAD_BIN_DIR`, else where this test was built.
pub fn binary(name: &str) -> PathBuf {
    let folder = match std::env::var_os("BULKHEAD_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let this = std::env::current_exe().expect("the path of this test");
            this.ancestors().nth(2).expect("target/PROFILE/deps/TEST").to_owned()
        }
    };
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: cargo build -p {name}, or set BULKHEAD_BIN_DIR", path.display());
    path
}

/// `target/tools` of this workspace, where senders of other languages are unpacked.
pub fn tools() -> PathBuf {
    workspace().join("target/tools")
}

pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("unprivileged-gateway/tests lies two below the root").to_owned()
}

/// A port that nobody listens on, below the range from which the kernel picks outgoing ports.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + (std::process::id() % 500) as u16 * 24;
    for _ in 0..2_000 {
        let port = base.wrapping_add(NEXT.fetch_add(1, Relaxed)).clamp(1_024, 32_700);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port near {base}");
}

/// Polls until `found` gives something. Panics with `what` when the time is over.
pub fn wait_for<T>(what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder on a real disk that goes away with the scene; kept and named when the scene fails.
pub struct Scratch(Option<tempfile::TempDir>);

impl Default for Scratch {
    fn default() -> Self {
        // Beside the build: /tmp may be a tmpfs, which the gateway refuses.
        let parent = workspace().join("target/e2e");
        std::fs::create_dir_all(&parent).expect("target/e2e");
        Scratch(Some(tempfile::Builder::new().prefix("scene-").tempdir_in(parent).expect("a folder for the scene")))
    }
}

impl Scratch {
    pub fn path(&self) -> &Path {
        self.0.as_ref().map(tempfile::TempDir::path).expect("held until drop")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let (true, Some(folder)) = (std::thread::panicking(), self.0.take()) {
            eprintln!("the scene's folder is kept: {}", folder.keep().display());
        }
    }
}
