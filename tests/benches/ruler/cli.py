"""Measures Aquifer beside this machine's limits, a modelled floor and Apache Kafka, in one run.

    tests/benches/run                   the headline rows, in about two minutes
    tests/benches/run --full            every line, longer windows and more pairs: below half an hour
    tests/benches/run --only B3,scaling lines by name or by number, with short windows unless --full
    tests/benches/run --only rebalance  groups that change, beside Kafka: 5 minutes, with --full 10
    tests/benches/run --workload 1-topic-16-partitions-1kb

Prints a table, and writes it to target/benches/results.md with plots beside it, or to --results FILE:
the page of the repository is made with `--full --results tests/benches/RESULTS.md`. It takes what falls
short from tests/benches/SHORT.md, which is kept by hand. Prints what each line took, and writes
every report, with its command, to target/benches/results.json. Kafka's jars come by package name
through Maven, nisshi and librdkafka from the cargo registry. Only Python's standard library and this
repository's binary are used, and a JDK for what has Java clients.
"""
import argparse
import dataclasses
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback

from . import lines_bucket, lines_groups, lines_latency, lines_opinions, lines_process, lines_produce, lines_workloads, report
from .bench import ROOT, Bench, Failed, Noise
from .peers import Peers

# Others' share of the machine above which a line's figures are marked.
NOISY = 0.10


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the suite: its numbers, its budgets of seconds in short and full mode."""

    measure: object
    numbers: str
    short: int
    full: int
    headline: bool = False
    beside: bool = False
    on_request: bool = False


LINES = {
    "produce": Line(lines_produce.produce, "B1", 40, 200, headline=True, beside=True),
    "fetch": Line(lines_produce.fetch, "B2", 20, 60, headline=True, beside=True),
    "opinions": Line(lines_opinions.opinions, "2nd", 70, 110, beside=True),
    "rf3": Line(lines_produce.produce_rf3, "B1", 60, 105, beside=True),
    "batches": Line(lines_process.batches, "B14", 40, 115, beside=True),
    "start": Line(lines_process.start, "B12", 20, 45, headline=True),
    "latency": Line(lines_latency.latency, "B3 B4", 20, 210, headline=True),
    "requests": Line(lines_bucket.requests, "B6", 15, 95, headline=True),
    "elsewhere": Line(lines_latency.elsewhere, "B4", 20, 55),
    "express": Line(lines_latency.express, "B5", 15, 25),
    "throttled": Line(lines_latency.throttled, "B3", 15, 25),
    "cost": Line(lines_bucket.cost, "B6", 20, 75),
    "catch_up": Line(lines_bucket.catch_up, "B7", 40, 130),
    "isolation": Line(lines_bucket.isolation, "B8", 40, 75),
    "metadata": Line(lines_process.metadata, "B9", 30, 50),
    "groups": Line(lines_groups.groups, "B9", 40, 150),
    "memory": Line(lines_process.memory, "B13 B14", 20, 45),
    "scaling": Line(lines_process.scaling, "B14", 40, 110),
    "fan_out": Line(lines_produce.fan_out, "B15", 20, 20),
    "overload": Line(lines_bucket.overload, "B17", 40, 65),
    "workloads": Line(lines_workloads.workloads, "OMB", 40, 150),
    "rebalance": Line(lines_groups.rebalance, "B11", 300, 600, beside=True, on_request=True),
    "nisshi": Line(lines_opinions.nisshi, "B1 B6 B12", 60, 90, on_request=True),
}


def chosen(arguments):
    """The names of the lines to measure, in the order of the suite."""
    if arguments.workload:
        return ["workloads"]
    if arguments.only:
        words = set(arguments.only.split(","))
        known = {word for name, line in LINES.items() for word in (name, *line.numbers.split())}
        if words - known:
            raise SystemExit(f"no such line: {', '.join(sorted(words - known))}; there are {', '.join(LINES)} and their numbers")
        return [name for name, line in LINES.items() if name in words or words & set(line.numbers.split()) and not line.on_request]
    wanted = lambda line: line.headline or arguments.full and not line.on_request
    return [name for name, line in LINES.items() if wanted(line) or name == "nisshi" and arguments.nisshi]


def measure(bench, name, line, budget):
    """One line; what goes wrong in it is a row."""
    noise, begun, first = Noise(bench), time.monotonic(), len(bench.rows)
    try:
        line.measure(bench)
    except Failed as failed:
        bench.note("!!", f"{name} was not measured: {failed}")
    except Exception as error:  # A report without a field that is read here, say: the other lines go on.
        traceback.print_exc()
        bench.note("!!", f"{name} was not measured: {type(error).__name__}: {error}")
    seconds, others = time.monotonic() - begun, noise.share()
    for row in bench.rows[first:]:
        row.doubtful = NOISY < others
    words = f"  {name}: {seconds:.0f} s of {budget}"
    print(words + (f"; ~ others took {others:.0%} of the machine" if NOISY < others else ""), flush=True)
    return {"seconds": seconds, "budget": budget, "others": others, "noisy": NOISY < others}


def run(bench, names):
    """All lines, peers ended before those that are measured alone; returns what each took."""
    took = {"limits": measure(bench, "limits", Line(lines_produce.limits, "-", 10, 40), bench.pick(10, 40))}
    if bench.limits is None:
        raise SystemExit("the limits of this machine cannot be measured: nothing else means anything")
    bench.peers = Peers(bench)
    try:
        for name in names:
            line = LINES[name]
            if not line.beside:
                bench.peers.close()
            took[name] = measure(bench, name, line, bench.pick(line.short, line.full))
    except KeyboardInterrupt:  # What was measured is worth its page.
        bench.note("!!", f"ended by hand during {name}: what would follow was not measured")
    finally:
        bench.peers.close()
    return took


def main():
    parser = argparse.ArgumentParser(prog="tests/benches/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every line, longer windows, more pairs")
    parser.add_argument("--only", help="lines to measure: " + ", ".join(f"{name} ({line.numbers})" for name, line in LINES.items()))
    parser.add_argument("--workload", choices=list(lines_workloads.WORKLOADS), help="one workload of the OpenMessaging Benchmark")
    parser.add_argument("--no-kafka", dest="kafka", action="store_false", help="without Apache Kafka")
    parser.add_argument("--nisshi", action="store_true", help="nisshi too: half an hour to install, once")
    parser.add_argument("--binary", help="the aquifer binary [built by cargo]")
    parser.add_argument("--results", help="where the table is written", default=str(ROOT / "target/benches/results.md"))
    arguments = parser.parse_args()
    names = chosen(arguments)
    if not arguments.binary:
        subprocess.run(["cargo", "build", "--release", "-p", "aquifer-agent"], cwd=ROOT, check=True)
    binary = arguments.binary or str(ROOT / "target/release/aquifer")
    scratch = ROOT / "target/benches"
    scratch.mkdir(parents=True, exist_ok=True)
    shown = [word for word in sys.argv[1:] if not word.startswith(("--binary", "--results")) and word not in (arguments.binary, arguments.results)]
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        bench = Bench(binary, pathlib.Path(folder), arguments)
        took = run(bench, names)
    results = report.write(bench, pathlib.Path(arguments.results), " ".join(["tests/benches/run", *shown]), took)
    print(f"{sum(line['seconds'] for line in took.values()):.0f} s in all; the table: {arguments.results}; every report: {results}")
