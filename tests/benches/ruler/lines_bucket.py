"""What the bucket is asked for and what it gives back: B6, B7, B8, B17."""
import shutil
import threading
import time

from .bench import Goal, counters, environment, set_faults
from .together import together

# $ per request in us-east-1, as S3 Standard's price list has it.
PRICE = {"PUT": 5e-6, "LIST": 5e-6, "GET": 4e-7}


def difference(before, after):
    return {kind: after[kind] - before[kind] for kind in ("PUT", "GET", "LIST")}


def requests(bench):
    print("requests to the bucket, store with PUT 100/195 ms, default settings (F = 100 ms)")
    points = [(rate, 8) for rate in bench.pick((100,), (10, 100, 200))] + bench.pick([], [(100, 10_000)])
    first = {}
    for mib_per_s, partitions in points:
        name = f"{mib_per_s} MiB/s" + (f", {partitions} partitions" if partitions != 8 else "")
        with bench.store("s3-standard") as store, bench.broker(store) as (address, pid):
            load = ["produce", "--bootstrap", address, "--connections", 8, "--in-flight", 100, "--partitions", partitions, "--warmup", 0]
            before = counters(store)
            report = bench.call(f"requests {name}", *load, "--rate", mib_per_s * 16, "--duration", bench.pick(8, 20), "--pid", pid)
            asked = difference(before, counters(store))
        if not carried(bench, report, name):
            continue
        gib = report["requests"] * (64 << 10) / (1 << 30)
        puts, ideal = asked["PUT"] / gib, max(10 * 1024 / mib_per_s, 128)
        bench.row("B6", f"PUTs per GiB at {name}", puts, "PUT/GiB", f"1/F or 8 MiB: {ideal:.0f}", puts / ideal, Goal(1.05))
        if mib_per_s in first:
            bench.row("B6", "  the same beside 8 partitions", puts, "PUT/GiB", f"{first[mib_per_s]:.0f}", puts / first[mib_per_s], Goal(1.05))
        first.setdefault(mib_per_s, puts)
        bench.plot("puts", f"{name}", puts, ideal)
        bench.row("B6", f"LISTs at {name}", asked["LIST"], "requests", goal=Goal(0, of="figure"))
        bench.row("B6", f"ack p99 at {name}", report["ack"]["p99_ms"], "ms")


def carried(bench, report, name):
    """Whether the load got through; a row says so when it did not."""
    due = report["rate"] * report["duration_s"]
    late = report["slip"]["p99_ms"]
    if report["requests"] < 0.97 * due or 500 < late:
        bench.note("!!", f"{name} is more than this machine carries: {report['requests'] / max(due, 1):.0%} got through, p99 {late:.0f} ms late")
        return False
    return True


def cost(bench):
    print("what three agents in three zones cost in requests, a reading group in each zone, F = 100 ms")
    for mib_per_s in bench.pick((35,), (140, 70, 35)):
        seconds = bench.pick(6, 20)
        with bench.store("s3-standard") as store, bench.cluster(store, "abc") as (agents, pids):
            load = ["--bootstrap", ",".join(agents), "--pin", "--topic", "cost", "--partitions", 24, "--connections", 6, "--in-flight", 100]
            bench.call("cost topic", "produce", *load, "--rate", 60, "--warmup", 0, "--duration", 1)
            before = counters(store)
            reads = [("cost read", "fetch", "--bootstrap", agent, "--pin", "--topic", "cost", "--from", "latest", "--duration", seconds + 1.5)
                     for agent in agents]
            *reads, report = together(bench, *reads, ("cost", "produce", *load, "--pid", ",".join(map(str, pids)), "--rate", mib_per_s * 16,
                                                      "--warmup", 0, "--duration", seconds), stagger=0.1)
            asked = difference(before, counters(store))
        name = f"{mib_per_s} MiB/s over 3 agents"
        if not carried(bench, report, name):
            continue
        gib = report["requests"] * (64 << 10) / (1 << 30)
        dollars = sum(asked[kind] * price for kind, price in PRICE.items()) / gib
        ideal = max(30, mib_per_s / 8) / mib_per_s * 1024
        bench.row("B6", f"PUTs per GiB at {name}", asked["PUT"] / gib, "PUT/GiB", f"3/F or 8 MiB: {ideal:.0f}", asked["PUT"] / gib / ideal,
                  Goal(1.05))
        bench.plot("puts", name, asked["PUT"] / gib, ideal)
        bench.row("B6", f"GETs per object and zone at {name}", asked["GET"] / max(asked["PUT"], 1) / 2, "GET/object",
                  "2 zones did not write it", goal=Goal(1.05, of="figure"))
        bench.row("B6", f"read back meanwhile, {name}", sum(read["mib_per_s"] for read in reads), "MiB/s")
        goal = Goal(0.0020, of="figure") if mib_per_s == 140 else None
        bench.row("B6", f"requests at {name}, nothing merged", dollars * 1000, "m$/GiB", "WarpStream 3.4, goal 2.0 at 140 MiB/s",
                  dollars / 0.0020, Goal(1) if goal else None)
        return


def catch_up(bench):
    print("catch-up: a backlog read by a broker that has nothing in memory, GET 63/78 ms, 85 MB/s per connection")
    data = bench.scratch / "backlog"
    with bench.store("s3-standard") as store:
        raw = bench.call("raw get", "limits", "--only", "get", "--store", "s3://bench/raw", "--seconds", bench.pick(3, 8), "--repeat", 1,
                         env=environment(store))["get"]["4MiB_x4"]["mib_per_s"]
        for partitions in bench.pick((8,), (1, 8)):
            topic = ["--topic", f"backlog-{partitions}"]
            mib = bench.pick(512, 1024 if partitions == 1 else 2048)
            with bench.broker(store, data=data) as (address, _):
                fill(bench, address, topic, mib, partitions)
            with bench.broker(store, data=data) as (address, pid):
                before = counters(store)
                report = bench.call(f"catch-up {partitions}", "fetch", "--bootstrap", address, *topic, "--until-end", "--pid", pid,
                                    "--partition-max-bytes", 8 << 20)
                gets = counters(store)["GET"] - before["GET"]
            rate = report["mib_per_s"]
            bench.row("B7", f"catch-up, {partitions} partitions, before merging", rate, "MiB/s", f"4 raw GETs of 4 MiB: {raw:.0f}",
                      rate / raw, Goal(0.8, 0.6, more=True))
            bench.row("B7", f"  GETs per GiB, {partitions} partitions", gets * 1024 / mib, "GET/GiB", goal=Goal(140, of="figure"))
            bench.row("B7", f"  CPU, {partitions} partitions", report["gib_per_broker_cpu_s"], "GiB/cpu-s",
                      goal=Goal(1.2, of="figure", more=True))
    shutil.rmtree(data, ignore_errors=True)


def fill(bench, address, topic, mib, partitions=8):
    bench.call("backlog", "produce", "--bootstrap", address, *topic, "--partitions", partitions, "--rate", 2400, "--in-flight", 200,
               "--warmup", 0, "--duration", mib / 150)


def isolation(bench):
    print("isolation: 200 requests/s with a tail reader, without and with readers of a backlog flat out")
    data, mib, seconds = bench.scratch / "isolation", bench.pick(512, 2048), bench.pick(8, 20)
    with bench.store("s3-standard") as store:
        with bench.broker(store, data=data) as (address, _):
            fill(bench, address, ["--topic", "backlog"], mib)
        with bench.broker(store, data=data) as (address, pid):
            load = ["produce", "--bootstrap", address, "--rate", 200, "--batch-bytes", 16 << 10, "--in-flight", 50, "--idempotent", "--tail",
                    "--warmup", 2, "--duration", seconds, "--pid", pid]
            alone = bench.call("isolation alone", *load)
            reader = ["fetch", "--bootstrap", address, "--topic", "backlog", "--from", "earliest", "--partition-max-bytes", 8 << 20]
            done = threading.Event()
            mib_read = []

            def read():
                # Again and again, past any end of the backlog.
                while not done.is_set():
                    mib_read.append(bench.call("isolation reader", *reader, "--duration", 2)["mib"])

            thread = threading.Thread(target=read)
            begun = time.monotonic()
            thread.start()
            try:
                beside = bench.call("isolation beside", *load)
            finally:
                done.set()
                thread.join()
            rate = sum(mib_read) / (time.monotonic() - begun)
    shutil.rmtree(data, ignore_errors=True)
    for what, of in (("ack", lambda report: report["ack"]), ("end to end", lambda report: report["read"]["end_to_end"])):
        before, after = of(alone)["p99_ms"], of(beside)["p99_ms"]
        bench.row("B8", f"{what} p99 beside a catch-up at {rate:.0f} MiB/s", after, "ms", f"alone {before:.0f} ms", after / before, Goal(1.10))


def overload(bench):
    """A slow store under twice the load, as a course of time: what got through, what it held, when it was over."""
    rate, slow_s, calm_s = 320, bench.pick(8, 15), bench.pick(5, 6)
    print(f"overload: {rate / 16:.0f} MiB/s, then twice that and PUTs ten times slower for {slow_s} s, then as before")
    after_s = bench.pick(12, 30)
    load = ["--batch-bytes", 64 << 10, "--connections", 8, "--in-flight", 200, "--warmup", 0, "--reconnect"]
    with bench.store("s3-standard") as store, bench.broker(store) as (address, pid):
        bench.call("overload topic", "produce", "--bootstrap", address, "--topic", "overload", "--rate", 16, "--warmup", 0, "--duration", 1)

        def incident():
            time.sleep(calm_s + 0.5)
            set_faults(store, {"method": "PUT", "action": "slow:10"})
            time.sleep(slow_s)
            set_faults(store)

        change = threading.Thread(target=incident)
        change.start()
        steady = ("overload", "produce", "--bootstrap", address, "--topic", "overload", "--rate", rate, *load, "--timeline", 0.5, "--pid", pid,
                  "--duration", calm_s + slow_s + after_s)
        more = ("overload twice", "produce", "--bootstrap", address, "--topic", "overload", "--rate", rate, *load, "--duration", slow_s)
        report, second = together(bench, steady, more, stagger=calm_s + 0.5)
        change.join()
    course = report["timeline"]
    within = lambda begin, end: [step for step in course if begin <= step["at_s"] < end]
    mean = lambda steps: sum(step["mib_per_s"] for step in steps) / max(len(steps), 1)
    calm = within(1, calm_s)
    normal = max((step.get("p99_ms", 0) for step in calm), default=0)
    during = mean(within(calm_s + 2, calm_s + slow_s)) + second["mib_per_s"]
    bench.row("B17", "got through before", mean(calm), "MiB/s")
    bench.row("B17", "got through meanwhile, of twice the load", during, "MiB/s", f"offered {rate / 8:.0f}", during / mean(calm),
              Goal(0.9, more=True))
    over = [step["at_s"] for step in within(calm_s + slow_s, 1e9) if 1.25 * normal < step.get("p99_ms", 1e9)]
    back = (max(over) + 0.5 - calm_s - slow_s) if over else 0
    # What was offered and not yet appended when the store was itself again, in seconds of the load; one slow PUT takes two.
    backlog = slow_s * max(rate / 8 - during, 0) / (rate / 16)
    bench.row("B17", "until ack p99 is as before again", back, "s", f"p99 before {normal:.0f} ms", goal=Goal(max(2 * backlog, 2), of="figure"))
    used = report["processes"][0]
    bench.row("B17", "resident memory at most", used["rss_peak_mib"], "MiB")
    lost = report["lost_connections"] + second["lost_connections"]
    refused = sum(report["errors"].values()) + sum(second["errors"].values())
    bench.row("B17", "refused batches and lost connections", refused + lost, "", goal=Goal(0, of="figure"))
    for step in course:
        bench.plot("overload", step["at_s"], step.get("p99_ms"), step["mib_per_s"])
