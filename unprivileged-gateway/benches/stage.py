"""A system under test between a generator and a sink of its own, pinned, in a folder of its own."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from reading import cpu, machine_busy, memory, reset_peak, written

SUT_CORE, LOAD_CORE = 0, 1


class Invalid(Exception):
    """A validity gate broke: the round has no number."""


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
