"""A run: the binary, a scratch folder, rows of the table, reports as they came."""
import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOOLS = pathlib.Path(os.environ.get("TEST_TOOLS") or pathlib.Path.home() / ".cache/aquifer-tests")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}
# Latencies stay right, but closed loops on a store without latency are not a bill to bound.
UNBOUND = ("-o", "put.budget=100000")
# Bodies that stay: a store that gives pages back and takes them again would be measured instead.
ROOMY = ("--memory", "14GiB")
# No single program of a line runs longer.
CALL_SECONDS_MAX = 400


class Failed(Exception):
    """A program that did not do what it was asked; the table says so."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a row is held to: its figure, or its ratio; `gate` is what it must reach, `goal` what it should."""

    goal: float
    gate: float = None
    of: str = "ratio"
    more: bool = False

    def words(self):
        sign = "at least" if self.more else "at most"
        bounds = [f"{bound:g}" + ("x" if self.of == "ratio" else "") for bound in (self.gate, self.goal) if bound is not None]
        return f"{sign} {', then '.join(bounds)}"

    def verdict(self, figure, ratio):
        measured = figure if self.of == "figure" else ratio
        if measured is None:
            return ""
        reaches = lambda bound: bound is not None and (bound <= measured if self.more else measured <= bound)
        return "met" if reaches(self.goal) else "gate only" if reaches(self.gate) else "**no**"


@dataclasses.dataclass
class Row:
    """One row of the table; without a figure it is a remark."""

    line: str
    what: str
    figure: float = None
    unit: str = ""
    beside: str = ""
    ratio: float = None
    goal: Goal = None
    spread: str = ""
    doubtful: bool = False

    def cells(self):
        figure = "" if self.figure is None else ("~" if self.doubtful else "") + (
            f"{self.figure:.0f}" if 1000 <= abs(self.figure) else f"{self.figure:.3g}")
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        goal, verdict = ("", "") if self.goal is None else (self.goal.words(), self.goal.verdict(self.figure, self.ratio))
        return (self.line, self.what, figure, self.unit, self.beside, ratio, goal, verdict, self.spread)


class Bench:
    """Starts programs, runs `aquifer bench`, and keeps what it said."""

    def __init__(self, binary, scratch, arguments):
        self.binary, self.scratch, self.full = binary, scratch, arguments.full
        self.with_kafka, self.with_nisshi = arguments.kafka, arguments.nisshi
        self.workload = arguments.workload
        self.rows, self.reports, self.runs, self.series = [], {}, 0, {}
        self.children, self.limits, self.peers = [], None, None

    def pick(self, short, full):
        return full if self.full else short

    def row(self, line, what, figure, unit, beside="", ratio=None, goal=None, spread=""):
        self.rows.append(Row(line, what, figure, unit, beside, ratio, goal, spread))
        cells = self.rows[-1].cells()
        print("  {:<4} {:<70} {:>8} {:<11} {:<30} {:>6} {:<24} {:<9} {}".format(*cells).rstrip(), flush=True)

    def note(self, line, words):
        self.rows.append(Row(line, words))
        print(f"  {line:<4} {words}", flush=True)

    def plot(self, name, *point):
        """Keeps a point of a figure that is drawn at the end."""
        self.series.setdefault(name, []).append(point)

    def run(self, command, env=None, seconds=CALL_SECONDS_MAX, cwd=None):
        """Runs a program to its end and returns it; what it says is captured."""
        command = [str(word) for word in command]
        try:
            return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=seconds, cwd=cwd)
        except subprocess.TimeoutExpired:
            raise Failed(f"{' '.join(command)[:200]}: no end after {seconds} s") from None
        except OSError as error:
            raise Failed(f"{command[0]}: {error}") from None

    def call(self, name, *arguments, env=None):
        """Runs `aquifer bench ARGUMENTS --json` and returns its report."""
        command = [self.binary, "bench", *map(str, arguments)]
        command.insert(command.index("--") if "--" in command else len(command), "--json")
        done = self.run(command, env)
        lines = done.stdout.strip().splitlines()
        if not lines:
            raise Failed(f"{' '.join(command[1:])[:300]}: {done.stderr.strip()[-500:]}")
        report = json.loads(lines[-1])
        self.reports.setdefault(name, []).append({"command": command[1:], "report": report})
        if done.returncode != 0:
            self.note("!!", f"{name}: {(done.stderr.strip().splitlines() or ['failed'])[-1][:300]}")
        return report

    @contextlib.contextmanager
    def process(self, command, ready, env=None, seconds=60):
        """A program that runs meanwhile; waits until `ready()`."""
        self.runs += 1
        log = self.scratch / f"log-{self.runs}"
        with open(log, "w") as output:
            try:
                child = subprocess.Popen([str(word) for word in command], stdout=output, stderr=output, env={**os.environ, **(env or {})})
            except OSError as error:
                raise Failed(f"{command[0]}: {error}") from None
        self.children.append(child.pid)
        try:
            deadline = time.monotonic() + seconds
            while not ready():
                if child.poll() is not None or deadline < time.monotonic():
                    said = " ".join(log.read_text(errors="replace").split())
                    raise Failed(f"{pathlib.Path(command[0]).name} does not start: {said[-400:]}")
                time.sleep(0.01)
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(20)
            child.kill()
            child.wait()
            self.children.remove(child.pid)

    @contextlib.contextmanager
    def store(self, preset, *arguments):
        """An S3-speaking store; yields its address."""
        address = free_address()
        command = [self.binary, "bench", "store", "--listen", address, "--preset", preset, *arguments]
        with self.process(command, answers(f"http://{address}/-/counters")):
            yield address

    @contextlib.contextmanager
    def broker(self, store=None, *options, data=None):
        """`aquifer up` on a bucket, or on a folder; yields (Kafka address, process id)."""
        self.runs += 1
        kafka, http, keep = free_address(), free_address(), data
        data = data or self.scratch / f"data-{self.runs}"
        command = [self.binary, "up", "--data", data, "--kafka", kafka, "--http", http, *options]
        env = {}
        if store:
            command += ["--store", f"s3://bench/{data.name}"]
            env = environment(store)
        with self.process(command, answers(f"http://{http}/readyz"), env) as child:
            yield kafka, child.pid
        if not keep:
            shutil.rmtree(data, ignore_errors=True)

    @contextlib.contextmanager
    def cluster(self, store, zones, *options):
        """One metadata node and an agent per zone name; yields ([Kafka addresses], [process ids of agents])."""
        self.runs += 1
        data, listen = self.scratch / f"data-{self.runs}", free_address()
        bucket, env = f"s3://bench/{data.name}", environment(store)
        with contextlib.ExitStack() as stack:
            metadata = [self.binary, "metadata", "--id", 1, "--data", data, "--listen", listen, "--store", bucket]
            stack.enter_context(self.process(metadata, accepts(listen), env))
            addresses, pids = [], []
            for zone in zones:
                kafka, http = free_address(), free_address()
                agent = [self.binary, "agent", "--metadata", listen, "--store", bucket, "--kafka", kafka, "--advertise", kafka,
                         "--zone", zone, "--http", http, *options]
                child = stack.enter_context(self.process(agent, answers(f"http://{http}/readyz"), env))
                addresses.append(kafka)
                pids.append(child.pid)
            yield addresses, pids
        shutil.rmtree(data, ignore_errors=True)


class Noise:
    """The share of the machine that neither idled nor was ours, between two moments."""

    def __init__(self, bench):
        self.bench, self.begun = bench, time.monotonic()
        self.own, self.busy, self.total = self.now()

    def now(self):
        fields = [int(field) for field in open("/proc/stat").readline().split()[1:9]]
        waited, own = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
        seconds = sum(use.ru_utime + use.ru_stime for use in (waited, own))
        for pid in self.bench.children:
            with contextlib.suppress(OSError, IndexError):
                of = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
                seconds += sum(int(ticks) for ticks in of[11:15]) / os.sysconf("SC_CLK_TCK")
        return seconds, sum(fields) - fields[3] - fields[4], sum(fields)

    def share(self):
        own, busy, total = self.now()
        others = (busy - self.busy) / max(total - self.total, 1)
        others -= (own - self.own) / max((time.monotonic() - self.begun) * os.cpu_count(), 1e-3)
        return min(max(others, 0), 1)


def free_address():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def environment(store):
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{store}", "AWS_ALLOW_HTTP": "true"}


def middle(figures):
    return statistics.median(figures)


def spread(figures):
    return f"{min(figures):.3g}-{max(figures):.3g}" if 1 < len(figures) else ""


def answers(url):
    def ready():
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=1).read()
            return True
        return False
    return ready


def accepts(address):
    host, port = address.split(":")

    def ready():
        with contextlib.suppress(OSError):
            socket.create_connection((host, int(port)), 1).close()
            return True
        return False
    return ready


def counters(store):
    return json.load(urllib.request.urlopen(f"http://{store}/-/counters"))


def set_faults(store, *rules):
    """Makes requests fail or slow from now on, as `aquifer bench store` describes; none without rules."""
    body = json.dumps({"rules": rules}).encode()
    urllib.request.urlopen(urllib.request.Request(f"http://{store}/-/faults", body, method="PUT")).read()


def complain(words):
    print(f"  !!   {words}", file=sys.stderr, flush=True)
