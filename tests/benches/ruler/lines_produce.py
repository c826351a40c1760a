"""What a produced and a fetched byte cost: B1, B2, B15, and the limits they are held to."""
from .bench import ROOMY, UNBOUND, Goal, counters, middle, spread
from .together import together


def limits(bench):
    print("limits of this machine")
    report = bench.call("limits", "limits", "--only", "relay,send,rtt,crc,fsync", "--data", bench.scratch,
                        "--seconds", bench.pick(0.3, 0.8), "--repeat", bench.pick(2, 3))
    for limit in ("relay", "send"):
        for size, figure in report[limit].items():
            if bench.full or size in ("1KiB", "64KiB", "512KiB") or (limit, size) == ("send", "1MiB"):
                cost = figure["gib_per_cpu_s"]
                bench.row("-", f"limit: {limit} {size}", cost["median"], "GiB/cpu-s", spread=f"{cost['min']:.2f}-{cost['max']:.2f}")
    bench.row("-", "limit: 64 B round trip p50", report["rtt_64_bytes"]["p50_us"], "us")
    bench.row("-", "limit: fdatasync 4 KiB p50", report["fsync"]["4KiB"]["p50_ms"], "ms")
    bench.limits = report


def relay(bench, size):
    return "relay limit", bench.limits["relay"][size]["gib_per_cpu_s"]["median"]


def send_limit(bench):
    return "send limit at 1 MiB", bench.limits["send"]["1MiB"]["gib_per_cpu_s"]["median"]


# Name, batch bytes, batches per request, in flight, relay limit's size, goal beside Kafka.
# Without latency five requests in flight make small objects: what a flush costs shows. More make
# full ones, as a store with latency does.
SHAPES = (
    ("1 KiB requests", 1100, 1, 250, "1KiB", None),
    ("64 KiB requests", 64 << 10, 1, 5, "64KiB", Goal(3, more=True)),
    ("64 KiB requests", 64 << 10, 1, 50, "64KiB", Goal(3, more=True)),
    ("512 KiB requests", 512 << 10, 1, 5, "512KiB", Goal(2, more=True)),
    ("requests of 64 x 1 KiB batches", 1100, 64, 5, "64KiB", Goal(3, more=True)),
)
SHORT_SHAPES = (SHAPES[0], SHAPES[1])


def arguments_of(size, batches, in_flight, duration):
    return ["--batch-bytes", size, "--record-bytes", min(size, 1000), "--batches-per-request", batches, "--partitions", max(8, batches),
            "--in-flight", in_flight, "--idempotent", "--warmup", 1, "--duration", duration]


def produce(bench):
    beside_kafka(bench, bench.peers.kafka(), bench.pick(SHORT_SHAPES, SHAPES), bench.pick(1, 3))


def produce_rf3(bench):
    print("against three Kafka brokers on this machine, RF 3, min.insync.replicas 2: CPU of all three")
    beside_kafka(bench, bench.peers.kafka_rf3(), SHORT_SHAPES, bench.pick(1, 2))


def beside_kafka(bench, peer, shapes, pairs_wanted):
    print("produce CPU: 8 partitions, 4 connections, idempotent, store without latency")
    for what, size, batches, in_flight, limit_size, goal in shapes:
        shape = arguments_of(size, batches, in_flight, bench.pick(3, 4))
        pairs = []
        for _ in range(pairs_wanted):
            with bench.store("zero", *ROOMY) as store, bench.broker(store, *UNBOUND) as (address, pid):
                ours = bench.call(f"produce {what} {in_flight}", "produce", "--bootstrap", address, "--pid", pid, *shape)
            theirs = peer and bench.call(f"{peer.name} produce {what} {in_flight}", "produce", *peer.arguments(), *shape,
                                         "--replication-factor", peer.replicas, "--await-leaders")
            pairs.append((ours, theirs))
        name = f"produce, {what}, {in_flight} in flight"
        limit_goal = Goal(0.6, 0.4, more=True) if size != 1100 else None
        # The goal is beside one broker.
        goals = (limit_goal, goal if peer and peer.replicas == 1 else None)
        compare(bench, "B1", name, pairs, relay(bench, limit_size), goals, peer)
        bench.plot("cpu", f"produce {what.replace(' requests', '')}, {in_flight} in flight", cost(pairs, 0), cost(pairs, 1),
                   1 / relay(bench, limit_size)[1], peer.name if peer else "")
        if what == "1 KiB requests":
            us = [pair[0]["broker_cpu_us_per_request"] for pair in pairs]
            kafka = [pair[1]["broker_cpu_us_per_request"] for pair in pairs if at_work(pair[1])]
            bench.row("B1", "  CPU of one of these requests", middle(us), "us", f"{peer.name} {middle(kafka):.1f}" if kafka else "",
                      middle(us) / middle(kafka) if kafka else None, Goal(12, of="figure"), spread(us))


def cost(pairs, side):
    """CPU-seconds per GiB of one side of the pairs, None without it."""
    figures = [1 / pair[side]["gib_per_broker_cpu_s"] for pair in pairs if at_work(pair[side])]
    return middle(figures) if figures else None


def at_work(report):
    """Whether a report is one of a broker that got anywhere: starved of CPU, its housekeeping is all that is measured."""
    return bool(report and report.get("gib_per_broker_cpu_s") and 1 <= report["mib_per_s"] and not report.get("errors"))


def compare(bench, line, name, pairs, limit, goals, peer):
    """Rows of GiB per CPU-second: against a limit, and against the peer pair by pair."""
    per_cpu = "gib_per_broker_cpu_s"
    ours = [pair[0][per_cpu] for pair in pairs]
    words, figure = limit
    bench.row(line, name, middle(ours), "GiB/cpu-s", f"{words} {figure:.2f}", middle(ours) / figure, goals[0], spread(ours))
    both = [(pair[0][per_cpu], pair[1][per_cpu]) for pair in pairs if at_work(pair[1])]
    for report in (pair[1] for pair in pairs if pair[1] and not at_work(pair[1])):
        errors = ", ".join(f"{count} {error}" for error, count in report.get("errors", {}).items()) or "no errors"
        bench.note("!!", f"{peer.name}, {name}: {report['mib_per_s']:.2g} MiB/s, {errors}: too little to compare with")
    if both:
        ratios, theirs = [a / b for a, b in both], middle([b for _, b in both])
        bench.row(line, f"  the same beside {peer.name}", middle(ours), "GiB/cpu-s", f"{peer.name} {theirs:.3g}", middle(ratios), goals[1],
                  spread(ratios))


def fetch(bench):
    print("fetch CPU: 96 MiB just written")
    peer = bench.peers.kafka()
    fill = ["--topic", "fetch", "--rate", 300, "--warmup", 0, "--duration", 96 * 16 / 300]
    shapes = ((10, 50 << 20, Goal(0.8, more=True)), (40, 50 << 20, Goal(0.8, more=True)), (10, 96 << 10, Goal(1.5, more=True)))
    with bench.store("zero") as store, bench.broker(store, *UNBOUND) as (address, pid):
        for bootstrap in [address] + ([peer.bootstrap] if peer else []):
            bench.call("fetch-fill", "produce", "--bootstrap", bootstrap, *fill)
        before = counters(store)
        for groups, most, goal in bench.pick(shapes[:1], shapes):
            shape = ["--topic", "fetch", "--groups", groups, "--until-end", "--max-bytes", most]
            pairs = []
            for _ in range(bench.pick(2, 3)):
                ours = bench.call(f"fetch {groups} {most}", "fetch", "--bootstrap", address, "--pid", pid, *shape)
                theirs = peer and bench.call(f"{peer.name} fetch {groups} {most}", "fetch", *peer.arguments(), *shape)
                pairs.append((ours, theirs))
            size = "50 MiB" if 1 << 20 < most else "96 KiB"
            limit_goal = Goal(0.9, 0.6, more=True) if 1 << 20 < most else None
            compare(bench, "B2", f"fetch, {groups} groups, answers up to {size}", pairs, send_limit(bench), (limit_goal, goal), peer)
            bench.plot("cpu", f"fetch, answers up to {size}, {groups} groups", cost(pairs, 0), cost(pairs, 1), 1 / send_limit(bench)[1],
                       peer.name if peer else "")
        bench.row("B2", "GETs for all of these groups", counters(store)["GET"] - before["GET"], "requests", goal=Goal(0, of="figure"))


def fan_out(bench):
    groups = bench.pick(6, 33)
    print(f"fan-out: 2 MiB/s in, {3 * groups} groups over agents in 3 zones (the goal's is 1 to 100)")
    seconds = bench.pick(5, 12)
    topic = ["--topic", "fan-out", "--partitions", 8]
    with bench.store("zero") as store, bench.cluster(store, "abc") as (agents, pids):
        bench.call("fan-out topic", "produce", "--bootstrap", agents[0], "--pin", *topic, "--rate", 32, "--warmup", 0, "--duration", 1)
        before = counters(store)
        reads = [("fan-out", "fetch", "--bootstrap", agent, "--pin", "--pid", pid, "--topic", "fan-out", "--from", "latest",
                  "--groups", groups, "--warmup", 1, "--duration", seconds) for agent, pid in zip(agents, pids)]
        load = ("fan-out load", "produce", "--bootstrap", agents[0], "--pin", *topic, "--rate", 32, "--warmup", 1, "--duration", seconds + 1)
        *reports, _ = together(bench, *reads, load)
        after = counters(store)
    rates = [report["mib_per_s"] for report in reports]
    per_cpu = middle([report["gib_per_broker_cpu_s"] for report in reports])
    words, limit = send_limit(bench)
    bench.row("B15", f"read by {3 * groups} groups together", sum(rates), "MiB/s")
    bench.row("B15", "  of one agent", per_cpu, "GiB/cpu-s", f"{words} {limit:.2f}", per_cpu / limit)
    puts = after["PUT"] - before["PUT"]
    gets = after["GET"] - before["GET"]
    bench.row("B15", "  GETs per object, 3 zones", gets / max(puts, 1), "GET/object", "2 zones did not write it", gets / max(puts, 1) / 2,
              Goal(1.05))
