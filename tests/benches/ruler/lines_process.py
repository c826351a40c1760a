"""What a process costs before anybody uses it, and what more of everything costs: B9, B12, B13, B14."""
from .bench import Failed, Goal, free_address
from .peers import kafka_homes


def start(bench):
    print("cold start, folder as the bucket")
    kafka, data = free_address(), bench.scratch / "start"
    command = ["--", bench.binary, "up", "--data", data, "--kafka", kafka, "--http", free_address()]
    repeat = bench.pick(5, 20)
    first = bench.call("start-first", "start", "--kafka", kafka, "--repeat", repeat, "--idle", 0.1, "--fresh", data, *command)
    again = bench.call("start-again", "start", "--kafka", kafka, "--repeat", repeat, "--idle", bench.pick(3, 20), *command)
    for name, report in (("first start", first), ("restart", again)):
        for what, words in (("listening_ms", "listening"), ("first_ack_ms", "first durable ack")):
            figure = report[what]
            bench.row("B12", f"{name}: exec to {words}", figure["median"], "ms", goal=Goal(100, of="figure"),
                      spread=f"{figure['min']:.0f}-{figure['max']:.0f}")
    bench.row("B12", "idle CPU of one core", again["idle_cpu_percent"], "%")
    bench.row("B12", "idle resident memory, voter and agent together", again["idle_rss_mib"], "MiB",
              goal=Goal(32, of="figure"))
    if bench.with_kafka:
        try:
            address, command = kafka_homes(bench, 1)[0]
            peer = bench.call("start-kafka", "start", "--kafka", address, "--repeat", bench.pick(1, 2), "--idle", bench.pick(2, 5), "--",
                              *command)
        except Failed as error:
            return bench.note("B12", f"no Kafka beside us: {error}")
        bench.row("B12", "Kafka: exec to first ack", peer["first_ack_ms"]["median"], "ms")
        bench.row("B12", "Kafka: idle resident memory", peer["idle_rss_mib"], "MiB")


def metadata(bench):
    print("metadata: commits of 64 agents, 8 runs each")
    data = bench.scratch / "metadata"
    data.mkdir()
    most = bench.pick((256,), (1, 64, 256))
    for where, folder, goal in (("tmpfs", "/dev/shm", 20_000), ("the disk", data, 5_000)):
        for voters in bench.pick((1,), (1, 3)):
            held = bench.full and (where, voters) == ("tmpfs", 1)
            try:
                report = bench.call(f"metadata {where} {voters}", "metadata", "--data", folder, "--voters", voters, "--committers",
                                    ",".join(map(str, most)), "--seconds", bench.pick(2, 3), *(["--held", 1_000_000] if held else []))
            except Failed as failed:
                bench.note("!!", f"metadata on {where}, {voters} voters: {failed}")
                continue
            commits(bench, report, f"{where}, {voters} voter{'s' if 1 < voters else ''}", goal)
            if (where, voters) == ("tmpfs", 1):
                sizes(bench, report)


def commits(bench, report, where, goal):
    raw = report["raw_fsync"]["p50_ms"]
    loads = sorted(report["committers"].items(), key=lambda pair: int(pair[0]))
    for waiting, load in loads:
        is_most = waiting == loads[-1][0]
        bench.row("B9", f"commits on {where}, {int(waiting)} waiting", load["commits_per_s"], "commits/s",
                  goal=Goal(goal, of="figure", more=True) if is_most else None)
        p50 = load["latency"]["p50_ms"]
        bench.row("B9", f"  p50 on {where}, {int(waiting)} waiting", p50, "ms", f"2 fsync + 1 ms: {2 * raw + 1:.2g}", p50 / (2 * raw + 1),
                  Goal(1) if int(waiting) <= 64 else None)


def sizes(bench, report):
    """Bytes in the log and in memory."""
    for words, group, name, goal in (("log, a run", "log_bytes", "per_run", 24), ("log, one more batch of a run", "log_bytes", "per_batch", 16),
                                     ("memory, a run", "held", "rss_bytes_per_run", 40)):
        if name in report.get(group, {}):
            bench.row("B9", f"bytes in {words}", report[group][name], "bytes", goal=Goal(goal, of="figure"))
    if "held" in report:
        stall = report["held"]["apply_during_snapshot"]["max_ms"]
        bench.row("B9", f"longest stall of apply in a snapshot of {report['held']['runs']} runs", stall, "ms")


def memory(bench):
    print("memory of the idle, folder as the bucket")
    with bench.broker() as (address, pid):
        report = bench.call("connections", "idle", "--bootstrap", address, "--pid", pid, "--connections", bench.pick(2000, 10000))
        bench.row("B13", f"{report['connections']} idle connections", report["kib_per_connection"], "KiB each", goal=Goal(12, of="figure"))
    topics = bench.pick(10, 100)
    with bench.broker() as (address, pid):
        report = bench.call("partitions", "idle", "--bootstrap", address, "--pid", pid, "--topics", topics)
        bench.row("B13", f"{report['partitions']} idle partitions, voter and agent together", report["kib_per_partition"], "KiB each",
                  goal=Goal(1, of="figure"))
        bench.row("B14", f"creating them, {topics} topics of 1000", report["create_s"] * 1e4 / report["partitions"] * 1000, "ms per 10k",
                  goal=Goal(100, of="figure"))


CPU, P99 = Goal(1.15), Goal(1.2)
CONSTANT = ["--in-flight", 50, "--idempotent", "--rate", 320, "--warmup", 2]


def at_constant_rate(bench, what, name, arguments, peer=None):
    """20 MiB/s on a broker of ours with a store of its own, or on a peer."""
    shape = [*CONSTANT, "--duration", bench.pick(6, 10), *arguments]
    if peer:
        return bench.call(f"{peer.name} {what} {name}", "produce", *peer.arguments(), *shape)
    with bench.store("s3-standard") as store, bench.broker(store) as (address, pid):
        return bench.call(f"scaling {what} {name}", "produce", "--bootstrap", address, "--pid", pid, *shape)


def curve(bench, what, points, cpu_goal, peer=None):
    """Rows of CPU and ack p99 beside those of the first point; returns [(name, CPU-seconds per GiB)]."""
    first, costs, whose = None, [], f", {peer.name}" if peer else ""
    for name, arguments in points:
        report = at_constant_rate(bench, what, name, arguments, peer)
        if not report["requests"] or not report.get("gib_per_broker_cpu_s"):
            bench.note("!!", f"{name} {what}{whose}: nothing got through")
            continue
        is_first, first = first is None, first or report
        cost, p99 = 1 / report["gib_per_broker_cpu_s"], report["ack"]["p99_ms"]
        bench.row("B14", f"{name} {what}{whose}", cost, "cpu-s/GiB", "the first", cost * first["gib_per_broker_cpu_s"],
                  None if is_first or peer else cpu_goal(name))
        bench.row("B14", f"  ack p99, {name} {what}{whose}", p99, "ms", "the first", p99 / first["ack"]["p99_ms"],
                  None if is_first or peer else P99)
        costs.append((name, cost))
    return costs


def scaling(bench):
    print("scaling: 20 MiB/s, PUT 100/195 ms, default settings")
    curve(bench, "partitions", [(count, ["--partitions", count]) for count in bench.pick((16, 1000), (16, 1000, 10_000, 100_000))],
          lambda _: CPU)
    curve(bench, "connections", [(count, ["--connections", count]) for count in bench.pick((4, 100), (4, 100, 1000))], lambda _: CPU)


def batches(bench):
    print("splitting: 20 MiB/s, 64 KiB of each request in more and more batches, PUT 100/195 ms, beside Kafka")

    def arguments(count):
        share = (64 << 10) // count
        return ["--batches-per-request", count, "--partitions", max(8, count), "--batch-bytes", max(share, 160),
                "--record-bytes", min(share - 100, 1000)]

    points = [(count, arguments(count)) for count in bench.pick((1, 64), (1, 16, 64, 400))]
    # The goal is for 64 of them.
    ours = curve(bench, "batches in a request", points, lambda count: Goal(1.6) if count <= 64 else None)
    peer = bench.peers.kafka()
    theirs = curve(bench, "batches in a request", points, None, peer) if peer else []
    for name, costs in (("Aquifer", ours), ("Kafka", theirs)):
        for count, cost in costs:
            bench.plot("batches", name, count, cost)
