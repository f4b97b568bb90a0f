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
import json
import os
import pathlib
import statistics
import sys

from lanes import kill_gate, saturation, small_disk, stall
from reading import calibrate
from report import OUT, ROOT, machine, markdown
from stage import SUT_CORE, Invalid, Stage, systems

# performance.md 4.2 item 8: a window is discarded above these.
DRIFT_MAX = 0.05
FOREIGN_LOAD_MAX = 0.3
RETRIES_A_ROUND = 2


class Bench:
    def __init__(self, settings, bin_dir):
        self.settings, self.bin_dir = settings, bin_dir
        self.loadgen = bin_dir / "loadgen"
        if not self.loadgen.exists():
            sys.exit(f"{self.loadgen} is missing: cargo build --release -p loadgen -p floor-twin -p gateway")
        self.systems = systems(bin_dir)
        self.calibrations = [calibrate(SUT_CORE) for _ in range(5)]
        self.rows, self.invalid = [], []

    def once(self, lane, system, round_, **stage):
        """One round of one system; discarded and repeated when the machine was not quiet."""
        for attempt in range(RETRIES_A_ROUND + 1):
            drift = calibrate(SUT_CORE) / statistics.median(self.calibrations) - 1
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


def settings_of(arguments):
    # `make bench ROUNDS=1 SECONDS_A_LANE=5` reaches this script through the environment.
    seconds = os.environ.get("SECONDS_A_LANE")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes; proves the benchmark runs, measures nothing")
    parser.add_argument("--lanes", default="saturation,stall,small-disk", type=lambda t: t.split(","))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS", 5)))
    parser.add_argument("--window", type=float, default=float(seconds or 30))
    parser.add_argument("--warmup", type=float, default=5)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--stall", type=float, default=float(seconds or 60), help="seconds the sink stalls")
    parser.add_argument("--small", type=float, default=float(seconds or 20), help="seconds of the small-disk lane")
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
