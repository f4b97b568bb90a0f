//! Builds the BPF programs of `ebpf/programs` with clang; the probe embeds the objects.
//!
//! Like a typesetter who is told to bring his own type: clang and libbpf's headers come from the machine, and where one is
//! missing the error names the package. Debug information is stripped where `llvm-strip` exists; BTF, which the loader needs,
//! stays. The weakness: the machine that builds needs clang; the one that runs does not.

use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 1] = ["cpu"];

fn main() {
    let root = PathBuf::from(env("CARGO_MANIFEST_DIR")).join("../ebpf/programs");
    let out = PathBuf::from(env("OUT_DIR"));
    println!("cargo:rerun-if-changed={}", root.display());
    println!("cargo:rerun-if-env-changed=CLANG");
    for name in PROGRAMS {
        let object = out.join(format!("{name}.bpf.o"));
        compile(&root.join(format!("{name}.bpf.c")), &object);
        // Without the tool the object is only larger.
        let strip = std::env::var("LLVM_STRIP").unwrap_or_else(|_| "llvm-strip".into());
        let _ = Command::new(strip).arg("-g").arg(&object).status();
    }
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| fail(&format!("cargo did not set {name}")))
}

fn compile(source: &Path, object: &Path) {
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let run = Command::new(&clang)
        .args(["-target", "bpf", "-mcpu=v3", "-g", "-O2", "-Wall", "-Werror", "-c"])
        .arg(source)
        .arg("-o")
        .arg(object)
        .output();
    match run {
        Err(e) => fail(&format!(
            "{clang} cannot be run ({e}); it builds the BPF programs. Debian: apt-get install clang libbpf-dev"
        )),
        Ok(done) if done.status.success() => {}
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            let fix = if said.contains("bpf/bpf_helpers.h") || said.contains("bpf/bpf_core_read.h") {
                "libbpf's headers are missing. Debian: apt-get install libbpf-dev"
            } else {
                "clang 14 or later with the bpf target is needed. Debian: apt-get install clang libbpf-dev"
            };
            fail(&format!("{} does not compile: {fix}\n{said}", source.display()))
        }
    }
}

fn fail(why: &str) -> ! {
    eprintln!("error: {why}");
    std::process::exit(1)
}
