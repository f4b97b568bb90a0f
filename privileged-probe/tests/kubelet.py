#!/usr/bin/env python3
"""A kubelet and its runtime, as far as log files go: a state machine with sequence numbers.

    kubelet.py ROOT SECONDS SEED [rotate_bytes]

Writes below ROOT the folders and files that a node has below /var/log/pods: records `<time> <stream> <P|F> <content>`, long lines cut
into pieces of 16 KiB, both outputs interleaved, rotations by rename (sometimes two at once), compression of all but the newest rotated
file (only of what is old), container restarts, pods that come and go. Every line says who wrote it and which number it has:

    <pod> <container> <restart> <stream> <number> <filler>|<length of filler>

At the end it prints one JSON object: {"<pod>/<container>/<restart>/<stream>": <lines written>}. A line may be cut by the end of its
container; then it is not counted. It knows nothing of who reads.
"""
import datetime
import json
import os
import random
import shutil
import sys
import time
import uuid

PIECE = 16 * 1024
KEPT = 4
# A reader that is there has this long before what it did not read is removed; half of it before it is packed.
READ_WITHIN_S = 6.0


class Container:
    def __init__(self, pod, name, rng, rotate):
        self.pod, self.name, self.rng, self.rotate = pod, name, rng, rotate
        self.restart = 0
        self.folder = os.path.join(pod.folder, name)
        self.counts = {}
        self.open_lines = {}
        self.rotated = []
        os.makedirs(self.folder)
        self.file = self.open()

    def open(self):
        return open(os.path.join(self.folder, f"{self.restart}.log"), "ab", buffering=0)

    def record(self, stream, tag, content):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f") + "%03dZ" % self.rng.randrange(1000)
        self.file.write(f"{now} {stream} {tag} ".encode() + content + b"\n")

    def note(self, text):
        """A line without a number, on an output that is not in the middle of one."""
        free = [stream for stream in ("stdout", "stderr") if stream not in self.open_lines]
        if free:
            self.record(self.rng.choice(free), "F", text)

    def step(self):
        stream = self.rng.choice(["stdout", "stdout", "stderr"])
        rest = self.open_lines.get(stream)
        if rest is None:
            number = self.counts.get(stream, 0)
            size = self.rng.choice([0, 10, 80, 80, 80, 300, 5000, 40_000, 100_000])
            filler = (f"{number:08d}-" * (size // 9 + 1))[:size]
            rest = f"{self.pod.name} {self.name} {self.restart} {stream} {number} {filler}|{size}".encode()
        piece, rest = rest[:PIECE], rest[PIECE:]
        self.record(stream, "P" if rest else "F", piece)
        if rest:
            self.open_lines[stream] = rest
        else:
            self.open_lines.pop(stream, None)
            self.counts[stream] = self.counts.get(stream, 0) + 1
        if self.file.tell() >= self.rotate:
            self.turn_over()
            if self.rng.random() < 0.3:
                # Twice before anybody can have looked.
                self.note(b"between two rotations")
                self.turn_over()

    def turn_over(self):
        path = os.path.join(self.folder, f"{self.restart}.log")
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S.%f")
        old = f"{path}.{stamp}"
        os.rename(path, old)
        if self.rng.random() < 0.2:
            # The runtime has not reopened its file yet.
            self.note(b"written to the renamed file")
        self.file.close()
        self.file = self.open()
        self.rotated.append((time.monotonic(), old))
        self.tidy()

    def tidy(self):
        now = time.monotonic()
        for i, (at, path) in enumerate(self.rotated[:-1]):
            if not path.endswith(".gz") and now - at > READ_WITHIN_S / 2:
                with open(path + ".tmp", "wb") as out:
                    out.write(b"packed")
                os.rename(path + ".tmp", path + ".gz")
                os.unlink(path)
                self.rotated[i] = (at, path + ".gz")
        while len(self.rotated) > KEPT and now - self.rotated[0][0] > READ_WITHIN_S:
            os.unlink(self.rotated.pop(0)[1])

    def result(self, into):
        for stream, count in self.counts.items():
            into[f"{self.pod.name}/{self.name}/{self.restart}/{stream}"] = count

    def start_again(self, into):
        self.result(into)
        self.file.close()
        self.restart += 1
        self.counts, self.open_lines, self.rotated = {}, {}, []
        self.file = self.open()


class Pod:
    def __init__(self, root, number, rng, rotate):
        self.name = f"pod-{number}"
        uid = uuid.UUID(int=rng.getrandbits(128), version=4)
        self.folder = os.path.join(root, f"ns{number % 3}_{self.name}_{uid}")
        self.containers = [Container(self, name, rng, rotate) for name in ("web", "sidecar")[: rng.choice([1, 2])]]
        self.ended = None

    def remove(self, into):
        for container in self.containers:
            container.result(into)
            container.file.close()
        shutil.rmtree(self.folder)


def main():
    root, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    rotate = int(sys.argv[4]) if len(sys.argv) > 4 else 400_000
    rng = random.Random(seed)
    result, number = {}, 0
    pods = []
    for _ in range(6):
        pods.append(Pod(root, number, rng, rotate))
        number += 1
    end = time.monotonic() + seconds
    last_event = time.monotonic()
    while time.monotonic() < end:
        alive = [pod for pod in pods if pod.ended is None]
        for _ in range(4):
            container = rng.choice(rng.choice(alive).containers)
            for _ in range(rng.choice([1, 1, 3, 20])):
                container.step()
        if time.monotonic() - last_event > 0.7:
            last_event = time.monotonic()
            what = rng.random()
            pod = rng.choice(alive)
            if what < 0.5:
                rng.choice(pod.containers).start_again(result)
            elif len(alive) > 2:
                pod.ended = time.monotonic()
                pods.append(Pod(root, number, rng, rotate))
                number += 1
        for pod in [p for p in pods if p.ended is not None and time.monotonic() - p.ended > READ_WITHIN_S / 3]:
            pod.remove(result)
            pods.remove(pod)
        time.sleep(0.02)
    for pod in pods:
        for container in pod.containers:
            container.result(result)
            container.file.close()
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
