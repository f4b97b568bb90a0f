#!/usr/bin/env python3
"""What the probe costs: both processors busy, runs with and without it in turn, figures of this machine only.

    sudo scripts/probe-cost.py --bin target/release [--rounds 6] [--seconds 20] [--hz 97]

Three figures, because each is blind to something: work done by the busy loops (sees everything, but the machine's own noise with it),
processor time of the probe, its nursery and its parsers (no kernel time in interrupts), and time inside the BPF program (kernel.bpf_stats_enabled).
The gateway runs in both kinds of round and is not counted. Needs root, gcc and setpriv.
"""
import argparse, os, pathlib, re, shutil, signal, statistics, subprocess, sys, tempfile, time

BUSY = r"""
#include <signal.h>
#include <stdio.h>
#include <stdint.h>
static volatile sig_atomic_t stop;
static void on(int s) { (void)s; stop = 1; }
/* Twenty calls deep and back, so that every sample has a stack worth unwinding. */
static uint64_t deep(uint64_t x, int n) { uint64_t y = n ? deep(x * 6364136223846793005u + 1, n - 1) : x; return y ^ (x >> 7); }
int main(void) { signal(SIGTERM, on); uint64_t n = 0, x = 1; while (!stop) { x = deep(x, 20); n++; } printf("%llu %llu\n", (unsigned long long)n, (unsigned long long)x); return 0; }
"""
UID_PROBE, UID_GATEWAY, TICK = 62474, 62473, os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User and system time of a process and of its ended children, seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return sum(int(f) for f in fields[11:15]) / TICK


def children(pid):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if entry.joinpath("stat").read_text().rsplit(") ", 1)[1].split()[1] == str(pid):
                    found.append(int(entry.name))
            except (OSError, IndexError):
                pass
    return found


def bpf_seconds(pid):
    """Run time of every BPF program that a process holds, seconds; None where the kernel does not count it."""
    total = None
    for fd in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            found = re.search(r"^run_time_ns:\s+(\d+)", fd.read_text(), re.M)
        except OSError:
            continue
        if found:
            total = (total or 0) + int(found[1]) / 1e9
    return total


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_probe(folder, hz):
    caps = "-all,+bpf,+perfmon,+sys_ptrace"
    command = ["setpriv", f"--reuid={UID_PROBE}", f"--regid={UID_PROBE}", "--groups=0", "--no-new-privs", f"--bounding-set={caps}",
               f"--inh-caps={caps}", f"--ambient-caps={caps}", folder / "probe", "--socket", folder / "door/probe.sock",
               "--state", folder / "state", "--no-logs", "--hz", str(hz), "--peer-uid", str(UID_GATEWAY)]
    probe = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=open(folder / "probe.log", "ab"))
    deadline = time.monotonic() + 20
    while not (folder / "door/probe.sock").exists():
        if probe.poll() is not None or time.monotonic() > deadline:
            sys.exit("the probe did not start:\n" + (folder / "probe.log").read_text()[-2000:])
        time.sleep(0.05)
    return probe


def one_round(folder, seconds, hz):
    """Work of the busy loops; with `hz`, also processor and BPF time of the probe."""
    probe = start_probe(folder, hz) if hz else None
    time.sleep(3)  # tables of what already runs are made now, as after any start
    cost = {}
    if probe:
        cost = {"cpu": -sum(cpu_seconds(p) for p in [probe.pid, *children(probe.pid)]), "bpf": bpf_seconds(probe.pid)}
    loops = [subprocess.Popen(["taskset", "-c", str(cpu), folder / "busy"], stdout=subprocess.PIPE, text=True)
             for cpu in sorted(os.sched_getaffinity(0))]
    time.sleep(seconds)
    if probe:
        cost["cpu"] += sum(cpu_seconds(p) for p in [probe.pid, *children(probe.pid)])
        after = bpf_seconds(probe.pid)
        cost["bpf"] = None if after is None else after - (cost["bpf"] or 0)
    for loop in loops:
        loop.send_signal(signal.SIGTERM)
    work = sum(int(loop.communicate()[0].split()[0]) for loop in loops)
    if probe:
        end(probe)
        (folder / "door/probe.sock").unlink(missing_ok=True)
    return work, cost


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("target/release"))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--hz", type=int, default=97)
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("error: not root; the probe needs capabilities: sudo scripts/probe-cost.py")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="probe-cost-", dir="/var/tmp"))
    folder.chmod(0o755)
    stats = pathlib.Path("/proc/sys/kernel/bpf_stats_enabled")
    stats_was = stats.read_text() if stats.exists() else None
    gateway = None
    try:
        (folder / "busy.c").write_text(BUSY)
        subprocess.run(["gcc", "-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-o", folder / "busy", folder / "busy.c"], check=True)
        for name, uid in [("door", UID_PROBE), ("state", UID_PROBE), ("wal", UID_GATEWAY)]:
            (folder / name).mkdir(mode=0o755)
            os.chown(folder / name, uid, uid)
        for name in ["probe", "gateway"]:
            shutil.copy(args.bin / name, folder / name)
        if stats_was is not None:
            stats.write_text("1")
        environment = {"PATH": os.environ["PATH"], "STATE_DIRECTORY": str(folder / "wal"), "BULKHEAD_PROBE_SOCKET": str(folder / "door/probe.sock")}
        gateway = subprocess.Popen(["setpriv", f"--reuid={UID_GATEWAY}", f"--regid={UID_GATEWAY}", "--clear-groups", "--bounding-set=-all",
                                    "--inh-caps=-all", "--no-new-privs", folder / "gateway", "--http", "127.0.0.1:22345",
                                    "--otlp-grpc", "127.0.0.1:22317", "--otlp-http", "127.0.0.1:22318"],
                                   env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        without, with_probe, cpu, bpf = [], [], [], []
        for number in range(args.rounds):
            for hz in [0, args.hz] if number % 2 == 0 else [args.hz, 0]:
                work, cost = one_round(folder, args.seconds, hz)
                (with_probe if hz else without).append(work)
                if cost:
                    cpu.append(100 * cost["cpu"] / args.seconds)
                    bpf.append(None if cost["bpf"] is None else 100 * cost["bpf"] / args.seconds)
                print(f"round {number + 1} {'with' if hz else 'without'} probe: work {work}" + (f", cpu {cpu[-1]:.2f} % of one core, bpf {bpf[-1]} %" if cost else ""), flush=True)
        ratios = [w / o for w, o in zip(with_probe, without)]
        print(f"work with / without: median {statistics.median(ratios):.4f} (from {min(ratios):.4f} to {max(ratios):.4f})")
        print(f"probe, nursery and parsers: median {statistics.median(cpu):.2f} % of one core (from {min(cpu):.2f} to {max(cpu):.2f})")
        known = [b for b in bpf if b is not None]
        print(f"BPF program: median {statistics.median(known):.2f} % of one core (from {min(known):.2f} to {max(known):.2f})" if known else "BPF program: not counted by this kernel")
        print(f"{args.rounds} rounds of {args.seconds:.0f} s each way, {os.cpu_count()} processors busy, {args.hz} Hz")
    finally:
        if gateway:
            end(gateway)
        if stats_was is not None:
            stats.write_text(stats_was)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
