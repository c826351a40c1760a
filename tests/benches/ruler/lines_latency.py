"""How long an ack and a delivery take beside what they must take: B3, B4, B5, and a store that throttles."""
from .bench import Goal, counters, environment, set_faults

STANDARD = {"preset": "s3-standard", "put": (100, 195), "get": (63, 78)}
EXPRESS = {"preset": "s3-express", "put": (8, 25), "get": (6, 15)}
LOAD = ["--batch-bytes", 16 << 10, "--in-flight", 50, "--idempotent", "--tail"]
ACK = {"p50": Goal(1.10), "p99": Goal(1.25)}
QUANTILES = ("p50", "p90", "p99", "p999")


def raw_put(bench, store, name="raw put"):
    report = bench.call(name, "limits", "--only", "put", "--store", "s3://bench/raw", "--seconds", bench.pick(3, 12), "--repeat", 1,
                        env=environment(store))
    return report["put"]["4KiB_x4"]


def floor_of(bench, name, rate, flush, shape, budget=10, reader_gets=False, tail=()):
    arguments = ["--flush-ms", flush, "--put-p50", shape["put"][0], "--put-p99", shape["put"][1], "--self-clocked", "--rate", rate,
                 "--bytes", 16 << 10, "--connections", 4, "--put-budget", budget, *tail]
    if reader_gets:
        arguments += ["--get-p50", shape["get"][0], "--get-p99", shape["get"][1]]
    return bench.call(f"floor {name}", "floor", *arguments)


def produce_at(bench, name, bootstrap, pids, rate, *more, seconds=None):
    # A 99th percentile needs some hundreds of requests.
    seconds = seconds or bench.pick(8, 40 if rate < 50 else 20)
    return bench.call(name, "produce", "--bootstrap", bootstrap, "--pid", pids, "--rate", rate, *LOAD, "--warmup", bench.pick(2, 3),
                      "--duration", seconds, *more)


def ack_rows(bench, name, report, floor, label, quantiles=("p50", "p99")):
    for quantile in quantiles:
        figure, modelled = report["ack"][f"{quantile}_ms"], floor["ack"][f"{quantile}_ms"]
        bench.row("B3", f"ack {quantile}, {name}", figure, "ms", f"floor {modelled:.0f} ms", figure / modelled, ACK.get(quantile))
    for quantile in QUANTILES:
        bench.plot("ack", label, quantile, report["ack"][f"{quantile}_ms"], floor["ack"][f"{quantile}_ms"])


def same_agent_rows(bench, name, report, floor):
    bench.row("B4", f"read after ack p99, same agent, {name}", report["read_after_ack"]["p99_ms"], "ms", goal=Goal(3, of="figure"))
    figure, modelled = report["read"]["end_to_end"]["p99_ms"], floor["e2e"]["p99_ms"]
    bench.row("B4", f"end to end p99, same agent, {name}", figure, "ms", f"floor {modelled:.0f} ms", figure / modelled, Goal(1.2))


def latency(bench):
    points = bench.pick([(200, 100, ())], [(20, 100, ()), (200, 100, ()), (200, 250, ()), (200, 100, ("--tail", "0.01:5"))])
    raw = None
    for rate, flush, tail in points:
        slow = ", 1% of PUTs five times slower" if tail else ""
        name = f"{rate} requests/s, F={flush}{slow}"
        print(f"ack latency: store with PUT 100/195 ms, {name}")
        with bench.store(STANDARD["preset"], *tail) as store:
            if not raw or tail:
                raw = raw_put(bench, store, f"raw put{slow}")
                for quantile in ("p50", "p99"):
                    bench.row("B3", f"raw PUT of 4 KiB {quantile}{slow}", raw[f"{quantile}_ms"], "ms")
            with bench.broker(store, "-o", f"flush.interval.ms={flush}") as (address, pid):
                # Ten PUTs a second: slow ones by the half dozen need a minute.
                report = produce_at(bench, f"latency {name}", address, pid, rate, seconds=60 if tail else None)
        floor = floor_of(bench, name, rate, flush, STANDARD, tail=tail)
        label = f"{rate}/s, F={flush}" + (", 1% slow" if tail else "")
        # One PUT in a hundred is slow, so the 99th percentile is chance and the 99.9th is not.
        ack_rows(bench, name, report, floor, label, ("p50", "p999") if tail else ("p50", "p99"))
        same_agent_rows(bench, name, report, floor)
    if bench.full:
        unloaded(bench, raw)


def unloaded(bench, raw):
    with bench.store(STANDARD["preset"]) as store, bench.broker(store) as (address, pid):
        report = produce_at(bench, "latency unloaded", address, pid, 2)
    bound = 1.15 * raw["p50_ms"] + 3
    figure = report["ack"]["p50_ms"]
    bench.row("B3", "ack p50, unloaded: 2 requests/s", figure, "ms", f"1.15 raw PUT + 3: {bound:.0f} ms", figure / bound, Goal(1))


def elsewhere(bench):
    """The consumer on another agent, in the same zone and in another: agents share nothing but the bucket and metadata."""
    rate = 200
    print("end to end over three agents: the producer's, one in its zone, one in another zone")
    with bench.store(STANDARD["preset"]) as store, bench.cluster(store, "aab") as (agents, pids):
        floor = floor_of(bench, "elsewhere", rate, 100, STANDARD, reader_gets=True)
        for where, reader in bench.pick((("another zone", 2),), (("another agent of the zone", 1), ("another zone", 2))):
            before = counters(store)
            report = produce_at(bench, f"end to end, {where}", agents[0], ",".join(map(str, pids)), rate, "--pin", "--read-bootstrap",
                                agents[reader])
            after = counters(store)
            figure = report["read_after_ack"]["p50_ms"]
            bench.row("B4", f"read after ack p50, {where}", figure, "ms", f"raw GET {STANDARD['get'][0]} ms",
                      goal=Goal(STANDARD["get"][0] + 8, of="figure"))
            figure, modelled = report["read"]["end_to_end"]["p99_ms"], floor["e2e"]["p99_ms"]
            bench.row("B4", f"end to end p99, {where}", figure, "ms", f"floor {modelled:.0f} ms", figure / modelled, Goal(1.2))
            puts, gets = after["PUT"] - before["PUT"], after["GET"] - before["GET"]
            bench.row("B4", f"GETs per object, {where}", gets / max(puts, 1), "GET/object", goal=Goal(1.05, of="figure"))


def express(bench):
    print("S3 Express: PUT 8/25 ms, F=10, put.budget=100; one bucket, not a quorum of three")
    with bench.store(EXPRESS["preset"]) as store:
        with bench.broker(store, "-o", "flush.interval.ms=10", "-o", "put.budget=100") as (address, pid):
            report = produce_at(bench, "express", address, pid, 200)
    floor = floor_of(bench, "express", 200, 10, EXPRESS, budget=100)
    for quantile, goal in (("p50", 22), ("p99", 38)):
        figure, modelled = report["ack"][f"{quantile}_ms"], floor["ack"][f"{quantile}_ms"]
        bench.row("B5", f"ack {quantile}, idempotent, 200 requests/s, one Express bucket", figure, "ms", f"floor {modelled:.0f} ms",
                  figure / modelled, Goal(goal, of="figure"))
    for quantile in QUANTILES:
        bench.plot("ack", "Express, F=10", quantile, report["ack"][f"{quantile}_ms"], floor["ack"][f"{quantile}_ms"])
    bench.row("B5", "end to end p99, same agent", report["read"]["end_to_end"]["p99_ms"], "ms", goal=Goal(50, of="figure"))


def throttled(bench):
    print("a store that throttles: 5% of requests answered 503, 200 requests/s, PUT 100/195 ms")
    with bench.store(STANDARD["preset"]) as store, bench.broker(store) as (address, pid):
        set_faults(store, {"method": "*", "action": "status:503", "fraction": 0.05})
        before = counters(store)
        report = produce_at(bench, "throttled", address, pid, 200)
        after = counters(store)
    floor = floor_of(bench, "throttled", 200, 100, STANDARD)
    for quantile in ("p50", "p99"):
        figure, modelled = report["ack"][f"{quantile}_ms"], floor["ack"][f"{quantile}_ms"]
        bench.row("B3", f"ack {quantile}, 5% of requests to the store answered 503", figure, "ms", f"floor without: {modelled:.0f} ms",
                  figure / modelled)
    errors = sum(report["errors"].values())
    names = ", ".join(f"{name} {count}" for name, count in report["errors"].items())
    bench.row("B3", "  refused batches meanwhile", errors, "batches", names, goal=Goal(0, of="figure"))
    bench.row("B3", "  requests that the store refused", after["faults"] - before["faults"], "requests")
