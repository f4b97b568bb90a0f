"""Rows to Markdown: medians with their spread, and what has no number says why."""

import datetime
import os
import pathlib
import platform
import statistics
import subprocess

from stage import LOAD_CORE, SUT_CORE

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "target" / "bench"


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
