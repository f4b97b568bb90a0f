//! Senders of other languages, unpacked under `target/tools` when first needed.
//!
//! Each is installed once per list of versions: a stamp file holds the list that was installed. Weakness: needs the registries the
//! first time; without them the scene is skipped and says so.

use crate::{tools, workspace};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn senders() -> PathBuf {
    workspace().join("unprivileged-gateway/tests/senders")
}

/// Runs to its end. Errors: a sentence with the last words of stderr.
fn call(command: &mut Command) -> Result<Output, String> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|e| format!("{shown}: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{shown}: {}: {}", output.status, said.trim().lines().last().unwrap_or("")))
}

/// True when `list` is what lies installed in `folder`.
fn installed(folder: &Path, list: &str) -> bool {
    fs::read_to_string(folder.join("installed")).is_ok_and(|l| l == list)
}

fn stamp(folder: &Path, list: &str) -> Result<(), String> {
    fs::write(folder.join("installed"), list).map_err(|e| e.to_string())
}

/// The Python SDK: what it says it sent.
pub fn python(protocol: &str, endpoint: &str, count: usize) -> Result<serde_json::Value, String> {
    let (venv, here) = (tools().join("venv"), senders().join("python"));
    let list = fs::read_to_string(here.join("requirements.txt")).map_err(|e| e.to_string())?;
    if !installed(&venv, &list) {
        call(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let pip = venv.join("bin/pip");
        call(
            Command::new(pip)
                .args(["install", "-q", "--disable-pip-version-check", "-r"])
                .arg(here.join("requirements.txt")),
        )?;
        stamp(&venv, &list)?;
    }
    let python = venv.join("bin/python");
    let args = [protocol.to_owned(), endpoint.to_owned(), count.to_string()];
    sent(call(Command::new(python).arg(here.join("send.py")).args(args)).unwrap_or_else(|e| panic!("{e}")))
}

/// The JavaScript SDK: what it says it sent.
pub fn javascript(form: &str, endpoint: &str, count: usize) -> Result<serde_json::Value, String> {
    let (node, here) = (tools().join("node"), senders().join("js"));
    let list = fs::read_to_string(here.join("package-lock.json")).map_err(|e| e.to_string())?;
    fs::create_dir_all(&node).map_err(|e| e.to_string())?;
    for file in ["package.json", "package-lock.json", "send.mjs"] {
        fs::copy(here.join(file), node.join(file)).map_err(|e| e.to_string())?;
    }
    if !installed(&node, &list) {
        call(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&node))?;
        stamp(&node, &list)?;
    }
    let args = ["send.mjs".to_owned(), form.to_owned(), endpoint.to_owned(), count.to_string()];
    sent(call(Command::new("node").args(args).current_dir(&node)).unwrap_or_else(|e| panic!("{e}")))
}

fn sent(output: Output) -> Result<serde_json::Value, String> {
    serde_json::from_slice(&output.stdout).map_err(|e| format!("what the sender printed is not JSON: {e}"))
}
