#!/usr/bin/env python3
"""`make bench`: what a million log records cost, durable and delivered, beside the least they can cost.

Every system gets core 0, generator and sink share core 1; systems take turns, round by round, so that a busy hour hits all alike.
CPU is counted from before the load until the backlog is drained and divided by records *unique at the sink*: a system that
accepts faster than it delivers cannot hide work. A round that breaks a validity gate gives no number. Opponents come from
BENCH_ALLOY, BENCH_OTELCOL and BENCH_ROTEL (paths of binaries); without them the row says `not measured`, never an old number.

Weakness: loopback receive work partly runs on the sender's core, for everyone alike; two cores are the whole machine, so other
work on it shows up as discarded rounds.
"""

import argparse
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "target" / "bench"
SUT_CORE, LOAD_CORE = 0, 1
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# performance.md 4.2 item 8: a window is discarded above these.
DRIFT_MAX = 0.05
FOREIGN_LOAD_MAX = 0.3
# Bytes a line after decompression at the sink, for 95-byte bodies: below, lines are missing; above, something else was sent.
DECODED_BYTES_A_LINE = (100, 420)
RETRIES_A_ROUND = 2


class Invalid(Exception):
    """A validity gate broke: the round has no number."""


# ----------------------------------------------------------------------------- processes

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def spawn(command, core, log, env=None):
    with open(log, "ab") as out:
        return subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                env={**os.environ, **(env or {})}, preexec_fn=lambda: os.sched_setaffinity(0, {core}))


def stop(process, limit=10):
    if process and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def http(port, path, data=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def wait_port(port, process, log, limit=30):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Invalid(f"ended with {process.returncode} at the start: {tail(log)}")
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise Invalid(f"no listener on {port} within {limit} s: {tail(log)}")


def tail(log, size=300):
    try:
        return pathlib.Path(log).read_text(errors="replace")[-size:].strip().replace("\n", " | ")
    except OSError:
        return ""


# ----------------------------------------------------------------------------- readings from /proc

@dataclasses.dataclass
class Cpu:
    """CPU seconds of one process so far. `ns` sums the scheduler's own clock over its threads; `user` and `system` are ticks."""
    user: float
    system: float
    ns: float


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    user, system = int(fields[11]) + int(fields[13]), int(fields[12]) + int(fields[14])
    ns = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            ns += int((task / "schedstat").read_text().split()[0])
        except OSError:
            pass  # a thread that has just ended
    return Cpu(user * TICK_S, system * TICK_S, ns / 1e9)


def memory(pid):
    """VmHWM, VmRSS, RssAnon, RssFile in MiB."""
    wanted = {"VmHWM": 0.0, "VmRSS": 0.0, "RssAnon": 0.0, "RssFile": 0.0}
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in wanted:
            wanted[name] = int(value.split()[0]) / 1024
    return {name: round(v, 1) for name, v in wanted.items()}


def reset_peak(pid):
    try:
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
        return True
    except OSError:
        return False


def written(pid):
    try:
        for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
    except OSError:
        pass
    return None


def machine_busy():
    """CPU seconds all cores together were not idle since boot."""
    fields = [int(f) for f in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * TICK_S


def calibrate():
    """Seconds for a fixed amount of checksum and copy work on core 0."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SUT_CORE})
    block = bytes(range(256)) * 4096
    begun = time.thread_time()
    for _ in range(150):
        zlib.crc32(block)
        bytearray(block)
    took = time.thread_time() - begun
    os.sched_setaffinity(0, own)
    return took


# ----------------------------------------------------------------------------- systems

@dataclasses.dataclass
class System:
    name: str
    binary: pathlib.Path | None
    kind: str  # ours | twin | alloy | otelcol | rotel
    note: str

    def identity(self):
        if not self.binary:
            return "not measured"
        digest = hashlib.sha256(self.binary.read_bytes()).hexdigest()[:16]
        try:
            said = subprocess.run([self.binary, "--version"], capture_output=True, text=True, timeout=10)
            lines = (said.stdout or "").strip().splitlines()
        except (OSError, subprocess.TimeoutExpired):
            lines = []
        return f"{lines[0] if lines and self.kind != 'twin' else '-'} sha256 {digest}"


def systems(bin_dir):
    def ours(name):
        path = bin_dir / name
        return path if path.exists() else None

    def named(variable):
        path = os.environ.get(variable)
        if path and not os.access(path, os.X_OK):
            sys.exit(f"{variable}={path} is not an executable file")
        return pathlib.Path(path) if path else None

    return [System("bulkhead", ours("gateway"), "ours", "synced before the answer -> Loki"),
            System("floor twin", ours("floor-twin"), "twin", "synced before the answer -> Loki, nothing else"),
            System("Alloy", named("BENCH_ALLOY"), "alloy", "nothing on disk -> Loki"),
            System("otelcol", named("BENCH_OTELCOL"), "otelcol", "nothing on disk -> OTLP/HTTP, uncompressed"),
            System("rotel", named("BENCH_ROTEL"), "rotel", "nothing on disk -> OTLP gRPC")]


class Stage:
    """One system between a generator and a sink of its own, in a folder of its own."""

    def __init__(self, system, folder, loadgen, storage_max="16GiB"):
        self.system, self.folder, self.loadgen = system, folder, loadgen
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.grpc, self.loki, self.control = free_port(), free_port(), free_port()
        self.out_grpc, self.out_http, self.http = free_port(), free_port(), free_port()
        self.log = folder / "system.log"
        self.storage_max = storage_max
        self.sink = self.sut = None
        self.sender = 0

    def __enter__(self):
        try:
            self.start()
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        stop(self.sut)
        stop(self.sink)
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def start(self):
        at = "127.0.0.1:{}".format
        self.sink = spawn([self.loadgen, "sink", "--loki", at(self.loki), "--otlp-grpc", at(self.out_grpc), "--otlp-http",
                           at(self.out_http), "--control", at(self.control)], LOAD_CORE, self.folder / "sink.log")
        wait_port(self.control, self.sink, self.folder / "sink.log")
        self.start_system()

    def start_system(self):
        self.sut = spawn(self.command(), SUT_CORE, self.log, {"GOMAXPROCS": "1"})
        wait_port(self.grpc, self.sut, self.log)
        if self.system.kind == "ours":
            self.wait_ready()

    def wait_ready(self, limit=10):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            try:
                http(self.http, "/-/ready")
                return
            except OSError:
                time.sleep(0.02)
        raise Invalid(f"not ready within {limit} s: {tail(self.log)}")

    def command(self):
        return getattr(self, f"{self.system.kind}_command")()

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def ours_command(self):
        config = self.write("gateway.yaml", f"""\
storage: {{ path: {self.folder}/data, max: {self.storage_max} }}
http: {{ listen: "127.0.0.1:{self.http}", auth: none }}
receive: {{ otlp: {{ grpc: "127.0.0.1:{self.grpc}", http: off }} }}
send: {{ loki: {{ sink: {{ url: "http://127.0.0.1:{self.loki}/loki/api/v1/push" }} }} }}
""")
        return [self.system.binary, "run", "-c", config]

    def twin_command(self):
        return [self.system.binary, "--grpc", f"127.0.0.1:{self.grpc}", "--sink", f"127.0.0.1:{self.loki}", "--data",
                self.folder / "data"]

    def alloy_command(self):
        config = self.write("config.alloy", f"""\
otelcol.receiver.otlp "in" {{
  grpc {{ endpoint = "127.0.0.1:{self.grpc}" }}
  output {{ logs = [otelcol.processor.batch.b.input] }}
}}
otelcol.processor.batch "b" {{ output {{ logs = [otelcol.exporter.loki.l.input] }} }}
otelcol.exporter.loki "l" {{ forward_to = [loki.write.w.receiver] }}
loki.write "w" {{ endpoint {{ url = "http://127.0.0.1:{self.loki}/loki/api/v1/push" }} }}
""")
        return [self.system.binary, "run", "--disable-reporting", f"--server.http.listen-addr=127.0.0.1:{self.http}",
                f"--storage.path={self.folder}/data", config]

    def otelcol_command(self):
        config = self.write("otelcol.yaml", f"""\
receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: "127.0.0.1:{self.grpc}" }} }} }} }}
exporters: {{ otlphttp: {{ endpoint: "http://127.0.0.1:{self.out_http}", compression: none }} }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines: {{ logs: {{ receivers: [ otlp ], exporters: [ otlphttp ] }} }}
""")
        return [self.system.binary, "--config", config]

    def rotel_command(self):
        return [self.system.binary, "start", "--otlp-grpc-endpoint", f"127.0.0.1:{self.grpc}", "--otlp-http-endpoint",
                f"127.0.0.1:{self.http}", "--exporter", "otlp", "--otlp-exporter-protocol", "grpc",
                "--otlp-exporter-endpoint", f"http://127.0.0.1:{self.out_grpc}"]

    # ---- load, faults, verdicts

    def fault(self, **fault):
        http(self.control, "/fault", json.dumps(fault).encode())

    def report(self):
        return json.loads(http(self.control, "/report"))

    def load(self, *arguments):
        self.sender += 100
        ledger = self.folder / f"ledger-{self.sender}.json"
        log = self.folder / f"load-{self.sender}.json"
        command = [self.loadgen, "run", "--endpoint", f"grpc://127.0.0.1:{self.grpc}", "--first-sender", self.sender, "--out",
                   ledger, *arguments]
        errors = open(self.folder / "load.log", "ab")
        process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=open(log, "wb"), stderr=errors,
                                   preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}))
        return Load(process, ledger, log)

    def judge(self, load, wait):
        said = subprocess.run([self.loadgen, "judge", "--ledger", load.ledger, "--report", f"http://127.0.0.1:{self.control}",
                               "--wait", str(wait)], capture_output=True, text=True)
        if said.returncode not in (0, 3):
            raise Invalid(f"cannot judge: {said.stderr.strip()}")
        return json.loads(said.stdout)


@dataclasses.dataclass
class Load:
    process: subprocess.Popen
    ledger: pathlib.Path
    log: pathlib.Path

    def wait(self, limit):
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Invalid("the generator did not end") from None
        if code != 0:
            raise Invalid(f"the generator ended with {code}")
        return json.loads(self.log.read_text())


class Meter:
    """CPU, memory and disk of one process between two moments, and how much foreign work the machine did meanwhile."""

    def __init__(self, stage, own):
        self.stage, self.pid, self.own = stage, stage.sut.pid, own
        self.peak_reset = reset_peak(self.pid)
        self.cpu, self.bytes = cpu(self.pid), written(self.pid)
        self.busy, self.begun = machine_busy(), time.monotonic()
        self.others = self.cpu_of_others()

    def cpu_of_others(self):
        now = os.times()
        total = now.user + now.system + now.children_user + now.children_system
        for process in self.own:
            if process.poll() is None:
                total += cpu(process.pid).ns
        return total

    def read(self):
        if self.stage.sut.poll() is not None:
            raise Invalid(f"the system ended with {self.stage.sut.returncode}: {tail(self.stage.log)}")
        after, seconds = cpu(self.pid), time.monotonic() - self.begun
        used = after.ns - self.cpu.ns
        ticks = after.user - self.cpu.user + after.system - self.cpu.system
        if used < 0.9 * ticks:
            used = ticks  # threads that ended took their scheduler clocks with them
        foreign = (machine_busy() - self.busy - used - (self.cpu_of_others() - self.others)) / seconds
        if used <= 0:
            raise Invalid("the system used no CPU: not the process that did the work")
        disk = written(self.pid)
        return {"cpu_s": used, "user_s": after.user - self.cpu.user, "system_s": after.system - self.cpu.system,
                "seconds": seconds, "foreign_load": round(max(foreign, 0), 3), "peak_reset": self.peak_reset,
                "disk_bytes": None if disk is None else disk - self.bytes, **memory(self.pid)}


# ----------------------------------------------------------------------------- lanes

def gates(stage, summary, verdict, report, *, refusals_allowed=False, duplicates_allowed=0):
    """performance.md 4.2 item 9."""
    durable = stage.system.kind in ("ours", "twin")
    if summary["calls_broken"] or summary["connects_failed"]:
        raise Invalid(f"calls broke: {summary['broken_by_reason']}")
    if summary["calls_refused"] and not refusals_allowed:
        raise Invalid(f"{summary['calls_refused']} calls refused: {summary['refusals_by_code']}")
    if verdict["lost"]:
        raise Invalid(f"{verdict['lost']} of {verdict['acked']} acknowledged records lost")
    if verdict["stored_though_refused"] and durable:
        raise Invalid(f"{verdict['stored_though_refused']} records stored whose calls were refused")
    if verdict["duplicated"] > duplicates_allowed and durable:
        raise Invalid(f"{verdict['duplicated']} records twice")
    if not verdict["unique_at_sink"]:
        raise Invalid("nothing arrived")
    door = next((d for d in report["doors"].values() if d["records"]), None)
    decoded = door["decoded_bytes"] / door["records"]
    if not DECODED_BYTES_A_LINE[0] <= decoded <= DECODED_BYTES_A_LINE[1]:
        raise Invalid(f"{decoded:.0f} decoded bytes a line at the sink")
    return {"decoded_bytes_a_line": round(decoded, 1), "wire_bytes_a_line": round(door["wire_bytes"] / door["records"], 1)}


def saturation(stage, settings):
    warm = stage.load("--batch", settings.batch, "--saturate", "--connections", 4, "--duration", settings.warmup)
    warm.wait(settings.warmup + 60)
    stage.judge(warm, 10)
    http(stage.control, "/reset", b"")
    meter = Meter(stage, [stage.sink])
    load = stage.load("--batch", settings.batch, "--saturate", "--connections", 4, "--duration", settings.window)
    summary = load.wait(settings.window + 60)
    verdict = stage.judge(load, 15)
    measured = meter.read()
    sizes = gates(stage, summary, verdict, stage.report())
    records = verdict["unique_at_sink"]
    return {**measured, **sizes, "records": records, "cpu_s_per_m": measured["cpu_s"] / records * 1e6,
            "acked_per_s": summary["acked_rate"], "delivered_per_s": records / measured["seconds"],
            "ack_p99_ms": summary["acked_latency_us"]["p99"] / 1e3, "verdict": verdict}


def stall(stage, settings):
    rate, before, after = 20_000, 3, 3
    load = stage.load("--batch", 100, "--rate", rate, "--connections", 4, "--in-flight", 16, "--duration",
                      before + settings.stall + after)
    reset_peak(stage.sut.pid)
    time.sleep(before)
    stage.fault(stall=True, for_s=settings.stall)
    summary = load.wait(before + settings.stall + after + 60)
    verdict = stage.judge(load, 30)
    peak = memory(stage.sut.pid)
    sizes = gates(stage, summary, verdict, stage.report(), refusals_allowed=stage.system.kind not in ("ours", "twin"))
    if summary["late"] > 0.01 * summary["calls_acked"]:
        raise Invalid(f"offered rate not reached: {summary['late']} batches did not leave")
    return {**peak, **sizes, "acked": verdict["acked"], "lost": verdict["lost"], "duplicated": verdict["duplicated"],
            "refused_calls": summary["calls_refused"], "ack_p50_ms": summary["acked_latency_us"]["p50"] / 1e3,
            "ack_p99_ms": summary["acked_latency_us"]["p99"] / 1e3, "ack_max_ms": summary["acked_latency_us"]["max"] / 1e3}


def small_disk(stage, settings):
    seconds = settings.small
    stage.fault(stall=True)
    load = stage.load("--batch", 100, "--rate", 20_000, "--connections", 4, "--in-flight", 16, "--duration", seconds)
    reset_peak(stage.sut.pid)
    summary = load.wait(seconds + 60)
    stage.fault()
    verdict = stage.judge(load, 15)
    peak = memory(stage.sut.pid)
    gates(stage, summary, verdict, stage.report(), refusals_allowed=True)
    if not summary["calls_refused"]:
        raise Invalid("nothing was refused: the storage was not too small")
    return {**peak, "acked": verdict["acked"], "lost": verdict["lost"], "refused_calls": summary["calls_refused"],
            "refused_with_retry": summary["refused_with_retry"], "codes": summary["refusals_by_code"],
            "refused_max_ms": summary["refused_latency_us"]["max"] / 1e3,
            "stored_though_refused": verdict["stored_though_refused"]}


def kill_gate(stage, settings):
    """Durable systems earn their row by losing nothing through a kill -9 in mid-window."""
    load = stage.load("--batch", 1000, "--saturate", "--connections", 4, "--duration", 4)
    time.sleep(2)
    stage.sut.kill()
    stage.sut.wait()
    begun = time.monotonic()
    stage.start_system()
    ready = time.monotonic() - begun
    summary = load.wait(60)
    verdict = stage.judge(load, 15)
    if verdict["lost"]:
        raise Invalid(f"{verdict['lost']} acknowledged records lost through kill -9")
    return {"acked": verdict["acked"], "lost": 0, "duplicated": verdict["duplicated"], "ready_s": round(ready, 3),
            "broken_calls": summary["calls_broken"]}


# ----------------------------------------------------------------------------- rounds

class Bench:
    def __init__(self, settings, bin_dir):
        self.settings, self.bin_dir = settings, bin_dir
        self.loadgen = bin_dir / "loadgen"
        if not self.loadgen.exists():
            sys.exit(f"{self.loadgen} is missing: cargo build --release -p loadgen -p floor-twin -p gateway")
        self.systems = systems(bin_dir)
        self.calibrations = [calibrate() for _ in range(5)]
        self.rows, self.invalid = [], []

    def once(self, lane, system, round_, **stage):
        """One round of one system; discarded and repeated when the machine was not quiet."""
        for attempt in range(RETRIES_A_ROUND + 1):
            drift = calibrate() / statistics.median(self.calibrations) - 1
            with Stage(system, OUT / "stage" / f"{lane.__name__}-{system.kind}", self.loadgen, **stage) as on:
                try:
                    result = lane(on, self.settings)
                except (Invalid, OSError) as why:
                    self.invalid.append({"lane": lane.__name__, "system": system.name, "round": round_, "why": str(why)})
                    print(f"  {system.name}: no number: {why}", flush=True)
                    return None
            noise = []
            if abs(drift) > DRIFT_MAX:
                noise.append(f"calibrator drifted {drift:+.1%}")
            if result.get("foreign_load", 0) > FOREIGN_LOAD_MAX:
                noise.append(f"foreign load {result['foreign_load']:.2f}")
            if noise and attempt < RETRIES_A_ROUND and not self.settings.short:
                print(f"  {system.name}: discarded ({', '.join(noise)})", flush=True)
                continue
            row = {"lane": lane.__name__, "system": system.name, "round": round_, "noise": noise, **result}
            self.rows.append(row)
            return row
        return None

    def present(self, *kinds):
        return [s for s in self.systems if s.binary and (not kinds or s.kind in kinds)]

    def run(self):
        lanes = self.settings.lanes
        if "saturation" in lanes:
            for round_ in range(self.settings.rounds):
                for system in self.present():
                    row = self.once(saturation, system, round_)
                    if row:
                        print(f"  round {round_ + 1} {system.name}: {row['cpu_s_per_m']:.3f} CPU-s/M, peak {row['VmHWM']} MiB"
                              f" {'; '.join(row['noise'])}", flush=True)
            for system in self.present("ours"):
                self.once(kill_gate, system, 0)
        if "stall" in lanes:
            for system in self.present("ours", "alloy", "otelcol", "rotel"):
                self.once(stall, system, 0)
        if "small-disk" in lanes:
            for system in self.present("ours"):
                self.once(small_disk, system, 0, storage_max=self.settings.small_max)


# ----------------------------------------------------------------------------- report

def spread(values, digits=3):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def machine():
    model = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    holding = [m for m in mounts if str(OUT).startswith(m[1])]
    disk = max(holding, key=lambda m: len(m[1])) if holding else ["?", "?", "?"]
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "disk": f"{disk[2]} on {disk[0]}",
            "commit": commit, "python": platform.python_version(),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def of(bench, lane, system):
    return [r for r in bench.rows if r["lane"] == lane and r["system"] == system.name]


def saturation_table(bench):
    lines = ["| system | what it does | CPU-s/M | to bulkhead | user / system | peak MiB (anon) | acked/s | delivered/s | ack p99 ms |"
             " bytes a line |", "|---|---|---|---|---|---|---|---|---|---|"]
    ours = {r["round"]: r["cpu_s_per_m"] for r in bench.rows if r["lane"] == "saturation" and r["system"] == "bulkhead"}
    for system in bench.systems:
        rows = of(bench, "saturation", system)
        if not rows:
            why = "not measured" if not system.binary else "no valid round"
            lines.append(f"| {system.name} | {system.note} | {why} | | | | | | | |")
            continue
        cost = [r["cpu_s_per_m"] for r in rows]
        ratios = [r["cpu_s_per_m"] / ours[r["round"]] for r in rows if r["round"] in ours]
        mid = lambda key: statistics.median(r[key] for r in rows)  # noqa: E731
        lines.append(
            f"| {system.name} | {system.note} | {spread(cost)} | {f'{statistics.median(ratios):.2f}x' if ratios else ''} |"
            f" {mid('user_s'):.1f} / {mid('system_s'):.1f} s | {max(r['VmHWM'] for r in rows):.0f} ({mid('RssAnon'):.0f}) |"
            f" {mid('acked_per_s'):,.0f} | {mid('delivered_per_s'):,.0f} | {mid('ack_p99_ms'):.1f} |"
            f" {mid('decoded_bytes_a_line'):.0f} / {mid('wire_bytes_a_line'):.0f} |")
    return lines


def fault_tables(bench):
    s = bench.settings
    lines = []
    if "stall" in s.lanes:
        lines += ["", f"## Sink stalled for {s.stall} s at 20,000 records/s, n = 100", "",
                  "| system | peak MiB | refused calls | ack p50 / p99 / max ms | acked | lost | twice |", "|---|---|---|---|---|---|---|"]
        for system in bench.systems:
            if system.kind == "twin":
                continue
            rows = of(bench, "stall", system)
            for r in rows:
                lines.append(f"| {system.name} | {r['VmHWM']} | {r['refused_calls']} | {r['ack_p50_ms']:.1f} / {r['ack_p99_ms']:.1f} /"
                             f" {r['ack_max_ms']:.1f} | {r['acked']:,} | {r['lost']} | {r['duplicated']} |")
            if not rows:
                lines.append(f"| {system.name} | {'not measured' if not system.binary else 'no valid round'} | | | | | |")
    if "small-disk" in s.lanes:
        lines += ["", f"## `storage.max` {s.small_max}, sink stalled, 20,000 records/s, n = 100", "",
                  "| system | refused calls | with RetryInfo | slowest refusal ms | stored though refused | acked | lost | peak MiB |",
                  "|---|---|---|---|---|---|---|---|"]
        for r in [r for r in bench.rows if r["lane"] == "small_disk"]:
            lines.append(f"| {r['system']} | {r['refused_calls']} {r['codes']} | {r['refused_with_retry']} | {r['refused_max_ms']:.1f} |"
                         f" {r['stored_though_refused']} | {r['acked']:,} | {r['lost']} | {r['VmHWM']} |")
    for r in [r for r in bench.rows if r["lane"] == "kill_gate"]:
        lines += ["", f"Gate, `kill -9` in mid-window: {r['acked']:,} acknowledged, lost {r['lost']}, twice {r['duplicated']}, "
                      f"ready again after {r['ready_s']} s."]
    return lines


def markdown(bench, info):
    s = bench.settings
    lines = [f"# Benchmark of {info['date']}", "",
             f"{info['cpu']}, {info['cores']} cores, Linux {info['kernel']}, {info['disk']}; commit {info['commit']}. System on core "
             f"{SUT_CORE}, generator and sink on core {LOAD_CORE}. {s.rounds} interleaved rounds of {s.window} s, median (min-max)."]
    if s.short:
        lines += ["", "**Short mode: a smoke test of the benchmark. The numbers mean nothing.**"]
    if "saturation" in s.lanes:
        lines += ["", f"## OTLP gRPC n = {s.batch} -> synced -> Loki sink, saturation", "", *saturation_table(bench)]
    lines += fault_tables(bench)
    noisy = [r for r in bench.rows if r.get("noise")]
    if noisy:
        lines += ["", f"{len(noisy)} rounds kept although the machine was not quiet: "
                  + "; ".join(f"{r['system']} round {r['round'] + 1}: {', '.join(r['noise'])}" for r in noisy) + "."]
    if bench.invalid:
        lines += ["", "Rounds without a number:", *(f"- {i['lane']}, {i['system']}: {i['why']}" for i in bench.invalid)]
    lines += ["", "Binaries:", *(f"- {system.name}: {system.identity()}" for system in bench.systems), ""]
    return "\n".join(lines)


def settings_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes; proves the benchmark runs, measures nothing")
    parser.add_argument("--lanes", default="saturation,stall,small-disk", type=lambda t: t.split(","))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=float, default=30)
    parser.add_argument("--warmup", type=float, default=5)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--stall", type=float, default=60, help="seconds the sink stalls")
    parser.add_argument("--small", type=float, default=20, help="seconds of the small-disk lane")
    parser.add_argument("--small-max", default="16MiB", help="storage.max of the small-disk lane")
    parser.add_argument("--bin-dir", type=pathlib.Path, default=ROOT / "target" / "release")
    settings = parser.parse_args(arguments)
    if settings.short:
        settings.rounds, settings.window, settings.warmup, settings.stall, settings.small = 1, 3, 1, 5, 6
    return settings


def main():
    settings = settings_of(sys.argv[1:])
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("the benchmark needs two cores: one for the system, one for generator and sink")
    OUT.mkdir(parents=True, exist_ok=True)
    info = machine()
    bench = Bench(settings, settings.bin_dir)
    print(", ".join(f"{s.name}: {'yes' if s.binary else 'not measured'}" for s in bench.systems), flush=True)
    bench.run()
    name = f"bench-{info['date'].replace(':', '').replace('+0000', 'Z')}"
    text = markdown(bench, info)
    settings.bin_dir = str(settings.bin_dir)
    data = {"machine": info, "settings": vars(settings), "systems": {s.name: s.identity() for s in bench.systems},
            "calibrations_s": bench.calibrations, "rows": bench.rows, "invalid": bench.invalid}
    (OUT / f"{name}.json").write_text(json.dumps(data, indent=1))
    (OUT / f"{name}.md").write_text(text)
    (OUT / "latest.md").write_text(text)
    print(f"\n{text}\nwritten: target/bench/{name}.md and .json")
    ours = [s for s in bench.systems if s.kind == "ours" and s.binary]
    return 1 if any(i["system"] == "bulkhead" for i in bench.invalid) or not ours else 0


if __name__ == "__main__":
    sys.exit(main())
