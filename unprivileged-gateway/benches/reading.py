"""What /proc says about a process and the machine: CPU, memory, disk, and how busy everybody else is."""

import dataclasses
import os
import pathlib
import time
import zlib

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


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


def calibrate(core):
    """Seconds for a fixed amount of checksum and copy work on one core."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    block = bytes(range(256)) * 4096
    begun = time.thread_time()
    for _ in range(150):
        zlib.crc32(block)
        bytearray(block)
    took = time.thread_time() - begun
    os.sched_setaffinity(0, own)
    return took
