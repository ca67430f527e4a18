"""How much tracking costs a stage, and how fast the shipper delivers: `python benchmarks/tracking.py`.

Prints the table of docs/benchmarks/tracking.md: appending to a journal beside MLflow's own client called once a point,
and delivering the journal to SQLite directly and to a server, in points a second.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median, quantiles

from mlflow import MlflowClient

from jobs._journal import Journal
from jobs._shipper import Shipper, default_uri

METRICS = ("train/loss", "train/grad_norm", "train/lr", "train/tokens_per_s", "train/step_time_s")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000, help="training steps, of five metrics each")
    parser.add_argument("--single", type=int, default=300, help="points that MLflow's client logs one by one")
    parser.add_argument("--port", type=int, default=5055)
    options = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, options.steps)
        deliver(root, "SQLite", default_uri(root), options.single)
        server = serve(root / "server", options.port)
        try:
            deliver(root, "server", f"http://127.0.0.1:{options.port}", options.single)
        finally:
            server.kill()
            server.wait()


def write(root: Path, steps: int) -> None:
    """Writes the journal of `steps` training steps and prints what each append took."""
    journal = Journal(root / "bench" / "pretrain" / "journal.jsonl")
    journal.start(experiment="medscale/pretrain", name="bench@here", identity="bench", params={}, tags={})
    took_us = []
    for step in range(1, steps + 1):
        began = time.perf_counter_ns()
        journal.metrics(step, dict.fromkeys(METRICS, 1 / step))
        took_us.append((time.perf_counter_ns() - began) / 1000)
    journal.end("FINISHED")
    size = journal.path.stat().st_size
    print(f"append, {len(METRICS)} metrics: {percentiles(took_us)} µs, {size / steps:.0f} bytes a step")


def deliver(root: Path, name: str, uri: str, single: int) -> None:
    """Prints the rate of MLflow's client called once a point, and of the shipper, to one destination."""
    client = MlflowClient(tracking_uri=uri)  # makes the tables of a new database
    run = client.create_run("0").info.run_id
    took_us = []
    for step in range(single):
        began = time.perf_counter_ns()
        client.log_metric(run, "train/loss", 1.0, step=step)
        took_us.append((time.perf_counter_ns() - began) / 1000)
    one_by_one = single / (sum(took_us) / 1e6)
    print(f"{name}: client, one by one: {percentiles(took_us)} µs, {one_by_one:,.0f} points/s")
    shipper = Shipper(root, tracking_uri=uri)
    began_s = time.perf_counter()
    if not shipper.ship(deadline_s=600):
        sys.exit(f"{uri}: must take all points, but did not; see above")
    rate = len(METRICS) * steps_of(root) / (time.perf_counter() - began_s)
    print(f"{name}: shipper: {rate:,.0f} points/s, {rate / one_by_one:.0f} times as fast")


def steps_of(root: Path) -> int:
    """Returns how many steps the journal holds."""
    return (root / "bench" / "pretrain" / "journal.jsonl").read_bytes().count(b'"kind":"metrics"')


def percentiles(values: list[float]) -> str:
    """Returns the median, the 99th percentile and the greatest value, as text."""
    return f"p50 {median(values):,.0f}, p99 {quantiles(values, n=100)[98]:,.0f}, max {max(values):,.0f}"


def serve(root: Path, port: int) -> subprocess.Popen[bytes]:
    """Starts the dashboard as a server and prints how long it took and how much memory it has."""
    began = time.perf_counter()
    server = subprocess.Popen([sys.executable, "-m", "jobs", "dashboard", "--results", str(root), "--port", str(port)])
    while True:
        time.sleep(0.2)
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except OSError:
            continue
        break
    status = Path(f"/proc/{server.pid}/status").read_text()
    memory = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
    print(f"dashboard: up in {time.perf_counter() - began:.1f} s, {int(memory) / 1000:,.0f} MB")
    return server


if __name__ == "__main__":
    main()
