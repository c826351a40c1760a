"""The page that a run leaves: what was run, on what, the table, the plots, and what falls short."""
import json
import math
import os
import platform
import subprocess
import time

from . import plot
from .bench import ROOT

SHORT = ROOT / "tests/benches/SHORT.md"
COLUMNS = ("line", "what", "figure", "unit", "beside", "ratio", "goal", "met", "spread")


def write(bench, path, command, took):
    """Writes the page, plots in `plots/` beside it, and every report as JSON."""
    folder = path.parent / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [name for name, draw in PLOTS.items() if draw_one(bench, folder / f"{name}.svg", draw)]
    path.write_text(page(bench, command, took, drawn))
    results = ROOT / "target/benches/results.json"
    rows = [dict(zip(COLUMNS, row.cells())) for row in bench.rows]
    results.write_text(json.dumps({"rows": rows, "lines": took, "reports": bench.reports}, indent=1))
    return results


def page(bench, command, took, drawn):
    total = sum(line["seconds"] for line in took.values())
    lines = ["# What was measured", "", f"`{command}`, {time.strftime('%Y-%m-%d')}, commit {commit()}, {total / 60:.0f} minutes; {machine()}.", ""]
    lines += ["The load generator, the store and the brokers share the cores: figures per CPU-second are the broker's own, rates per wall "
              "second are what is left. Every ratio is taken within this run. Figures beside a peer are medians of alternated pairs (A B A B) "
              f"with the spread of the pairs, for produce {bench.pick(1, 3)} and for fetch {bench.pick(2, 3)} of them; Kafka was warmed for "
              f"{bench.pick(7, 19)} seconds before. A goal is what we hold ourselves to; where there are two, the first is a gate.", ""]
    lines += doubts(took)
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row.cells()) + " |" for row in bench.rows]
    lines += ["", "## How long each line took", "", "| line | seconds | of | share of the machine that others took |", "|---|---|---|---|"]
    lines += [f"| {name} | {line['seconds']:.0f} | {line['budget']} | {line['others']:.0%} |" for name, line in took.items()]
    for name in drawn:
        lines += ["", f"![{name}](plots/{name}.svg)"]
    lines += ["", "## What falls short, and why", "", SHORT.read_text().strip() if SHORT.exists() else "Not written yet."]
    return "\n".join(lines) + "\n"


def doubts(took):
    noisy = [f"{name} ({line['others']:.0%})" for name, line in took.items() if line["noisy"]]
    if not noisy:
        return []
    return ["**The machine was not quiet.** Figures with a `~` come from lines during which others took more than a tenth of it: "
            + ", ".join(noisy) + ".", ""]


def commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} cores ({model}), {memory} GiB, Linux {platform.release().split('-')[0]}"


def draw_one(bench, path, draw):
    svg = draw(bench.series)
    if svg:
        path.write_text(svg)
    return bool(svg)


def draw_ack(series):
    points = [point for point in series.get("ack", []) if point[1] in ("p50", "p99")]
    groups = [(f"{label}: {quantile}", (ours, floor)) for label, quantile, ours, floor in points]
    return groups and plot.bars("Acknowledgement latency beside the floor, ms",
                                "Open loop, from when a request was due; PUT 100/195 ms (Express 8/25 ms)", ("Aquifer", "modelled floor"), groups)


def draw_cpu(series, is_small):
    points = [point for point in series.get("cpu", []) if ("1 KiB" in point[0]) == is_small and point[4] in ("Kafka", "")]
    groups = [(label, figures) for label, *figures, _ in points]
    return groups and plot.bars("CPU of the broker, seconds per GiB", "Less is better; the limit moves the bytes through sockets and no more",
                                ("Aquifer", "Kafka, RF 1", "limit"), groups)


def draw_batches(series):
    points = series.get("batches", [])
    names = [name for name in ("Aquifer", "Kafka") if any(point[0] == name for point in points)]
    curves = [[(count, cost) for of, count, cost in points if of == name] for name in names]
    return names and plot.lines("What splitting a request costs", "64 KiB of each request, cut into more batches of more partitions", names, curves,
                                "batches per request", "cpu-s per GiB", math.log2)


def draw_puts(series):
    groups = [(label, figures) for label, *figures in series.get("puts", [])]
    return groups and plot.bars("PUTs per GiB", "The least there can be: one per flush interval and agent, or full objects",
                                ("Aquifer", "the least"), groups)


def draw_overload(series):
    points = series.get("overload", [])
    ack = [(at, p99 / 1000 if p99 is not None else None) for at, p99, _ in points]
    return points and plot.lines("Overload: twice the load on a store that is ten times slower, and after",
                                 "ack p99 of what was due in each half second", ("ack p99",), [ack], "seconds", "seconds")


PLOTS = {"ack": draw_ack, "cpu": lambda series: draw_cpu(series, False), "cpu-small": lambda series: draw_cpu(series, True),
         "batches": draw_batches, "puts": draw_puts, "overload": draw_overload}
