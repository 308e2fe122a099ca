"""What scripts/bench and scripts/bench-scale share: how the generator is run, and on which machine."""

import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DAEMON = Path(os.environ.get("SESHAT_BIN") or ROOT / "seshat").resolve()
GENERATOR = Path(os.environ.get("BENCH_LOAD") or ROOT / "build/release/bench_load").resolve()
OUTPUT = ROOT / "build/bench"


def generate(peer, settings, operation, *more):
    """One run of the load generator against a peer; its figures."""
    command = [GENERATOR, "--peer", peer.protocol, "--addr", f"127.0.0.1:{peer.port}", "--op", operation]
    command += ["--pids", ",".join(map(str, peer.pids())), "--keys", str(settings.keys)]
    command += ["--value-size", str(settings.value_size), *map(str, more)]
    timeout = 120 + settings.warm_up + settings.seconds
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise RuntimeError(f"{peer.title}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def sync_us():
    """The median of 100 times appending 4 KiB to a file and fdatasync, where the data will be."""
    file = OUTPUT / "sync-probe"
    times = []
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for _ in range(100):
        began = time.monotonic()
        os.write(descriptor, bytes(4096))
        os.fdatasync(descriptor)
        times.append((time.monotonic() - began) * 1e6)
    os.close(descriptor)
    file.unlink()
    return statistics.median(times)


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0] if models else platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "fdatasync_us": round(sync_us()),
        "load_average_before": round(os.getloadavg()[0], 2),
    }
