//! Rules of the house that a compiler does not check.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is two folders up")
}

/// Names of all crates that `package` is built from, on every target we build for.
fn tree(package: &str) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--offline", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "cargo tree -p {package}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn pure_crates_know_no_runtime_no_network_and_no_clock_crate() {
    const STRANGERS: [&str; 12] = [
        "tokio",
        "hyper",
        "h2",
        "tonic",
        "reqwest",
        "axum",
        "rustls",
        "kube",
        "k8s-openapi",
        "chrono",
        "jiff",
        "quinn",
    ];
    for package in ["model", "wal", "ipc"] {
        let found = tree(package);
        let strangers: Vec<_> = STRANGERS.iter().filter(|s| found.contains(**s)).collect();
        assert!(strangers.is_empty(), "{package} must not depend on {strangers:?}");
    }
}

#[test]
fn pure_crates_do_not_know_each_other() {
    const PURE: [&str; 4] = ["model", "wal", "ipc", "ebpf-abi"];
    for package in PURE {
        let found = tree(package);
        let known: Vec<_> = PURE.iter().filter(|p| **p != package && found.contains(**p)).collect();
        assert!(known.is_empty(), "{package} must not depend on {known:?}");
    }
}

#[test]
fn the_probe_holds_no_runtime_no_network_and_no_tls() {
    let found = tree("privileged-probe");
    let strangers: Vec<_> = found
        .iter()
        .filter(|f| {
            ["tokio", "hyper", "h2", "tonic", "prost", "rustls", "reqwest", "axum", "quinn"]
                .iter()
                .any(|s| *f == s || f.starts_with(&format!("{s}-")))
        })
        .collect();
    assert!(strangers.is_empty(), "the privileged process must not depend on {strangers:?}");
    // Every crate in here runs with the right to look into other processes.
    assert!(found.len() <= 130, "the probe is built from {} crates; at most 130", found.len());
}

#[test]
fn there_is_one_tls_stack() {
    let found = tree("gateway");
    for stranger in ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"] {
        assert!(!found.contains(stranger), "{stranger} is in the tree; see docs/adr/0009");
    }
    assert!(found.contains("ring"));
}

#[test]
fn one_version_of_each_protocol_crate() {
    let out = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--offline", "-p", "gateway", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&out.stdout);
    for name in ["http", "hyper", "h2", "tonic", "prost", "rustls", "tokio", "axum"] {
        let versions: BTreeSet<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix(name)?.strip_prefix(" v"))
            .filter_map(|l| l.split(' ').next())
            .collect();
        assert!(versions.len() <= 1, "{name} is built in versions {versions:?}");
    }
}

/// Every Rust file of ours.
fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a source folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let skip = ["target", "node_modules", ".git", "dist"].iter().any(|s| name == *s);
        match path.is_dir() {
            true if !skip => sources(&path, out),
            false if path.extension().is_some_and(|e| e == "rs") => out.push(path),
            _ => {}
        }
    }
}

#[test]
fn unsafe_code_stays_in_the_files_that_argue_for_it() {
    /// Each of these begins with its reasons. `ipc/src/sys.rs`: the groups of a socket's peer, which nix does not ask for;
    /// `privileged-probe/src/sys.rs`: systemd's socket, and calls that are made to be refused; `nursery/sys.rs`: fork, and
    /// descriptors that arrive as numbers; `profiler/rows.rs`: a table shared with the kernel; `profiler/vdso.rs`: bytes of our own.
    const ALLOWED: [&str; 5] = [
        "ipc/src/sys.rs",
        "privileged-probe/src/sys.rs",
        "privileged-probe/src/nursery/sys.rs",
        "privileged-probe/src/profiler/rows.rs",
        "privileged-probe/src/profiler/vdso.rs",
    ];
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 30, "the walk found the tree");
    let word = concat!("un", "safe");
    let opens: Vec<String> = files
        .iter()
        .filter(|p| !ALLOWED.iter().any(|a| p.ends_with(a)))
        .filter(|p| {
            let text = std::fs::read_to_string(p).expect("a source file");
            text.contains(&format!("{word} {{"))
                || text.contains(&format!("{word} fn"))
                || text.contains(&format!("allow({word}_code"))
        })
        .map(|p| p.display().to_string())
        .collect();
    assert!(opens.is_empty(), "{word} code outside the list: {opens:?}");
}

#[test]
fn the_map_is_short_and_names_files_that_exist() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    assert!(map.lines().count() < 200, "ARCHITECTURE.md has {} lines; the limit is 200", map.lines().count());
    let missing: Vec<&str> = map
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|s| {
            s.contains('/')
                && [".rs", ".md", ".sh"].iter().any(|e| s.ends_with(e))
                && !s.contains('*')
                && !s.contains(' ')
        })
        .filter(|s| !root().join(s).exists() && !root().join("unprivileged-gateway").join(s).exists())
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names files that do not exist: {missing:?}");
}
