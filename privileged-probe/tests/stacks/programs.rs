//! The programs whose stacks are looked at.

use crate::skip;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Argument that turns this test into one of the busy programs: this project's own code, built as everything else is.
pub(crate) const BUSY: &str = "--busy";

/// Twenty nested calls, the last with a frame of half a megabyte; with an argument it ends by itself after that many rounds, with a second it becomes that program.
const DEEP: &str = r"
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
volatile uint64_t sink;
static __attribute__((noinline)) void leaf(uint64_t n) { for (uint64_t i = 0; i < n; i++) sink += i * i; }
__attribute__((noinline)) void f20(uint64_t n) { volatile char big[536632]; big[n & 7] = 1; leaf(n); sink += big[0]; }
#define F(a, b) __attribute__((noinline)) void f##a(uint64_t n) { f##b(n); sink++; }
F(19,20) F(18,19) F(17,18) F(16,17) F(15,16) F(14,15) F(13,14) F(12,13) F(11,12) F(10,11)
F(9,10) F(8,9) F(7,8) F(6,7) F(5,6) F(4,5) F(3,4) F(2,3) F(1,2)
int main(int argc, char **argv) {
    uint64_t rounds = argc > 1 ? strtoull(argv[1], 0, 10) : UINT64_MAX;
    for (uint64_t i = 0; i < rounds; i++) f1(100000);
    if (argc > 2) execl(argv[2], argv[2], (char *)0);
    return 0;
}
";

/// Nothing but system calls.
const CALLS: &str = r#"
#include <fcntl.h>
#include <unistd.h>
static __attribute__((noinline)) void one(int fd) { char c; if (pread(fd, &c, 1, 0) < 0) _exit(1); }
int main(void) { int fd = open("/proc/self/exe", O_RDONLY); for (;;) one(fd); }
"#;

/// A program and the name its samples carry.
pub(crate) struct Running {
    pub(crate) comm: &'static str,
    child: Child,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How all but one are built: nothing helps the walker.
const HARD: [&str; 2] = ["-O2", "-fomit-frame-pointer"];
/// Same source, other code at the same addresses.
const OTHER: [&str; 2] = ["-O0", "-fno-omit-frame-pointer"];

fn build(folder: &Path, name: &str, source: &str, how: [&str; 2]) -> Option<PathBuf> {
    let (input, output) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&input, source).expect("written");
    let run = Command::new("gcc").args(how).arg("-o").arg(&output).arg(&input).status();
    run.is_ok_and(|s| s.success()).then_some(output)
}

/// A program that is not started yet.
pub(crate) struct Waiting {
    comm: &'static str,
    command: Command,
}

impl Waiting {
    /// Starts it; `None`, and says so, where this machine does not have it.
    pub(crate) fn start(mut self) -> Option<Running> {
        let quiet = self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match quiet.spawn() {
            Ok(child) => Some(Running { comm: self.comm, child }),
            Err(e) => {
                skip(&format!("stacks of {}", self.comm), &e.to_string(), &format!("install {}", self.comm));
                None
            }
        }
    }
}

/// All programs, the one with the most rows first.
pub(crate) fn all(folder: &Path) -> Vec<Waiting> {
    let mut out = Vec::new();
    let mut add = |comm: &'static str, program: &Path, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args);
        out.push(Waiting { comm, command });
    };
    add("node", Path::new("node"), &["-e", "function f(n){return n<2?n:f(n-1)+f(n-2)} for(;;) f(24)"]);
    let own = folder.join("bhown");
    std::fs::copy("/proc/self/exe", &own).expect("a copy of this program");
    add("bhown", &own, &[BUSY]);
    let python = "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nwhile True:\n    f(22)\n";
    add("python3", Path::new("/usr/bin/python3"), &["-c", python]);
    // The name of a process is the last element of the path it was started by.
    let ciphers = folder.join("bhsha");
    std::os::unix::fs::symlink("/usr/bin/python3", &ciphers).expect("a link");
    let hash = "import hashlib\nd = b'x' * (1 << 20)\nwhile True:\n    hashlib.sha512(d).digest()\n";
    add("bhsha", &ciphers, &["-c", hash]);
    let built = ["bhdeep", "bhshort", "bhexec"].map(|name| build(folder, name, DEEP, HARD));
    match (built, build(folder, "bhcalls", CALLS, HARD), build(folder, "bhbefore", DEEP, OTHER)) {
        ([Some(deep), Some(short), Some(exec)], Some(calls), Some(before)) => {
            add("bhdeep", &deep, &[]);
            add("bhcalls", &calls, &[]);
            // Sampled as another program first, under the same number and, without randomisation, at the same addresses.
            let (before, exec) = (before.to_string_lossy(), exec.to_string_lossy());
            add("bhexec", Path::new("setarch"), &["x86_64", "-R", &before, "5000", &exec]);
            // Ends by itself in the middle of a window.
            add("bhshort", &short, &["20000"]);
        }
        _ => skip("stacks of C programs", "gcc", "apt-get install gcc"),
    }
    out
}

/// Work of the kind the probe itself does, for ever.
pub(crate) fn busy() -> ! {
    let mut table = ipc::stacks::Table::default();
    for n in 0..64u64 {
        table.strings.push(format!("function {n}"));
        let function = n as u32;
        let kind = ipc::stacks::Kind::User;
        table.locations.push(ipc::stacks::Location { address: n, mapping: 0, function, file: 0, line: 0, kind });
    }
    loop {
        let bytes = std::hint::black_box(&table).encode();
        assert!(ipc::stacks::Table::decode(std::hint::black_box(&bytes)).is_ok());
    }
}
