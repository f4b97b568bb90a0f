"""The lanes, and the gates a round must pass before its number counts (performance.md 4.2, item 9)."""

import time

from reading import memory, reset_peak
from stage import Invalid, Meter, http

# Bytes a line after decompression at the sink, for 95-byte bodies: below, lines are missing; above, something else was sent.
DECODED_BYTES_A_LINE = (100, 420)


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
