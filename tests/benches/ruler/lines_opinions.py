"""Second opinions: what Kafka's own tools and librdkafka's say of us and of Kafka, in pairs.

Their CPU counts against the same two cores, and they count latency from the send, not from when it
was due. So these rows are for comparing with each other, not with those of our generator.
"""
import re

from .bench import ROOT, TOOLS, UNBOUND, Failed
from .peers import KAFKA_LIBS, install_kafka

RECORD = 1024
PRODUCED = re.compile(r"(\d+) records sent, .*?\(([\d.]+) MB/sec\), ([\d.]+) ms avg latency, ([\d.]+) ms max latency, "
                      r"(\d+) ms 50th, (\d+) ms 95th, (\d+) ms 99th")
RDKAFKA = TOOLS / "bin/rdkafka_performance"


def java(bench, main, *arguments):
    done = bench.run(["java", "-Xmx512m", "-cp", f"{KAFKA_LIBS}/*", f"org.apache.kafka.tools.{main}", *arguments], seconds=180)
    if done.returncode != 0:
        raise Failed(f"{main}: {' '.join((done.stdout + done.stderr).split())[-300:]}")
    bench.reports.setdefault(main, []).append({"command": [main, *map(str, arguments)], "output": done.stdout[-2000:]})
    return done.stdout


def producer_performance(bench, bootstrap, topic, count, per_second):
    """MB/s and latencies of ProducerPerformance; the last line of its output is of the whole run."""
    said = java(bench, "ProducerPerformance", "--topic", topic, "--num-records", count, "--record-size", RECORD, "--throughput", per_second,
                "--bootstrap-server", bootstrap, "--command-property", "acks=all", "linger.ms=5", "batch.size=65536",
                "buffer.memory=134217728")
    last = PRODUCED.findall(said)
    if not last:
        raise Failed(f"ProducerPerformance said {said[-300:]!r}")
    _, rate, _, most, p50, p95, p99 = last[-1]
    return {"MB/s": float(rate), "p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(most)}


def consumer_performance(bench, bootstrap, topic, count):
    """MB/s of ConsumerPerformance without the time of joining the group."""
    said = java(bench, "ConsumerPerformance", "--bootstrap-server", bootstrap, "--topic", topic, "--num-records", count, "--timeout", 30000)
    lines = [line.split(", ") for line in said.splitlines() if "," in line]
    head, figures = lines[0], lines[-1]
    named = dict(zip((name.strip() for name in head), figures))
    return {"MB/s": float(named["fetch.MB.sec"])}


def end_to_end_latency(bench, bootstrap, topic, count):
    """p50 and p99 of EndToEndLatency: one record at a time, sent, acknowledged and polled."""
    said = java(bench, "EndToEndLatency", bootstrap, topic, count, "all", RECORD)
    match = re.search(r"Percentiles: 50th = ([\d.]+), 99th = ([\d.]+)", said)
    if not match:
        raise Failed(f"EndToEndLatency said {said[-300:]!r}")
    return {"p50": float(match[1]), "p99": float(match[2])}


def rdkafka_produce(bench, bootstrap, topic, count):
    """MB/s and latencies of librdkafka's own generator, from a record's place in its queue to the ack."""
    if not RDKAFKA.exists():
        done = bench.run([ROOT / "tests/benches/rdkafka/install"], seconds=600)
        if done.returncode != 0:
            raise Failed(f"rdkafka_performance cannot be built: {' '.join(done.stderr.split())[-300:]}")
    latencies = bench.scratch / "rdkafka-latencies"
    done = bench.run([RDKAFKA, "-P", "-t", topic, "-b", bootstrap, "-s", RECORD, "-c", count, "-a", "-1", "-l", "-A", latencies, "-i", 60000,
                      "-X", "linger.ms=5", "-X", "batch.num.messages=10000", "-X", "queue.buffering.max.messages=200000"], seconds=180)
    bench.reports.setdefault("rdkafka_performance", []).append({"output": done.stdout[-2000:]})
    rate = re.findall(r"([\d.]+) MB/s", done.stdout)
    if done.returncode != 0 or not rate:
        raise Failed(f"rdkafka_performance: {' '.join((done.stdout + done.stderr).split())[-300:]}")
    # A line of microseconds for each record.
    seen = sorted(int(line) for line in latencies.read_text().split())
    latencies.unlink()
    at = lambda share: round(seen[int(share * (len(seen) - 1))] / 1000, 1)
    return {"MB/s": float(rate[-1]), "p50": at(0.5), "p99": at(0.99)}


def pair(bench, what, unit, measure, sides):
    """A row of one tool's opinion, ours beside Kafka's; a tool that fails is a row that says so."""
    figures = {}
    for name, bootstrap in sides:
        try:
            figures[name] = measure(bootstrap)
        except Failed as failed:
            bench.note("!!", f"{what} on {name}: {failed}")
    ours, theirs = figures.get("Aquifer"), figures.get("Kafka")
    if ours:
        beside = f"Kafka {theirs[unit]:.3g}" if theirs else ""
        ratio = ours[unit] / theirs[unit] if theirs and theirs[unit] else None
        bench.row("2nd", what, ours[unit], "MB/s" if unit == "MB/s" else f"ms {unit}", beside, ratio, spread=details(ours, theirs, unit))


def details(ours, theirs, unit):
    of = lambda figures: " ".join(f"{name} {value:g}" for name, value in figures.items() if name != unit)
    both = f"{of(ours)} ms" if of(ours) else ""
    return f"{both}; Kafka {of(theirs)}" if both and theirs else both


def opinions(bench):
    print("second opinions: the tools of Kafka and of librdkafka, clients on the same cores; store without latency")
    install_kafka(bench)
    peer = bench.peers.kafka()
    count = bench.pick(200_000, 500_000)
    with bench.store("zero", "--memory", "14GiB") as store, bench.broker(store, *UNBOUND, "--num-partitions", 8) as (address, _):
        sides = [("Aquifer", address)] + ([("Kafka", peer.bootstrap)] if peer else [])
        for _, bootstrap in sides:
            for topic in ("perf", "perf-rate", "perf-rd"):
                bench.call("opinions topic", "produce", "--bootstrap", bootstrap, "--topic", topic, "--partitions", 8, "--rate", 20,
                           "--batch-bytes", 2048, "--warmup", 0, "--duration", 0.2)
            bench.call("opinions topic", "produce", "--bootstrap", bootstrap, "--topic", "perf-e2e", "--partitions", 1, "--rate", 20,
                       "--batch-bytes", 2048, "--warmup", 0, "--duration", 0.2)
        # The whole run of each: the first answer of a peer may be slow, and it counts.
        pair(bench, "ProducerPerformance, 1 KiB records, flat out", "MB/s",
             lambda bootstrap: producer_performance(bench, bootstrap, "perf", count, -1), sides)
        pair(bench, "ProducerPerformance, 1 KiB records, 20,000 a second", "p99",
             lambda bootstrap: producer_performance(bench, bootstrap, "perf-rate", bench.pick(80_000, 200_000), 20_000), sides)
        pair(bench, "ConsumerPerformance, what the first wrote", "MB/s",
             lambda bootstrap: consumer_performance(bench, bootstrap, "perf", count), sides)
        pair(bench, "EndToEndLatency, one 1 KiB record at a time", "p50",
             lambda bootstrap: end_to_end_latency(bench, bootstrap, "perf-e2e", bench.pick(500, 2000)), sides)
        pair(bench, "rdkafka_performance, 1 KiB records, flat out", "MB/s",
             lambda bootstrap: rdkafka_produce(bench, bootstrap, "perf-rd", count), sides)


def nisshi(bench):
    """The other broker over S3 from the registry: B1, B12 and its requests, on the same kind of store."""
    from .bench import ROOMY, Goal, counters, environment, free_address, middle
    from .peers import nisshi_command
    print("nisshi beside us: produce of 64 KiB requests, 4 connections of 5 in flight, store without latency")
    # It is not asked for idempotence: what it costs there is not known to be comparable.
    shape = ["--partitions", 8, "--connections", 4, "--in-flight", 5, "--warmup", 1, "--duration", bench.pick(4, 8)]
    pairs, puts = [], []
    for _ in range(bench.pick(1, 3)):
        with bench.store("zero", *ROOMY) as store, bench.broker(store, *UNBOUND) as (address, pid):
            before = counters(store)["PUT"]
            ours = bench.call("nisshi: ours", "produce", "--bootstrap", address, "--pid", pid, *shape)
            ours_puts = counters(store)["PUT"] - before
        with bench.store("zero", *ROOMY) as store, bench.peers.nisshi(store) as peer:
            before = counters(store)["PUT"]
            theirs = bench.call("nisshi", "produce", *peer.arguments(), *shape)
            theirs_puts = counters(store)["PUT"] - before
        pairs.append((ours, theirs))
        puts.append((per_gib(ours, ours_puts), per_gib(theirs, theirs_puts)))
    per_cpu = "gib_per_broker_cpu_s"
    ours, theirs = (middle([pair[side][per_cpu] for pair in pairs]) for side in (0, 1))
    bench.row("B1", "produce, 64 KiB requests, 5 in flight, beside nisshi", ours, "GiB/cpu-s", f"nisshi {theirs:.3g}",
              middle([pair[0][per_cpu] / pair[1][per_cpu] for pair in pairs]), Goal(5, more=True))
    ours, theirs = (middle([pair[side] for pair in puts]) for side in (0, 1))
    bench.row("B6", "PUTs per GiB in this load, no bound on ours", ours, "PUT/GiB", f"nisshi {theirs:.0f}", ours / theirs)
    with bench.store("zero") as store:
        address = free_address()
        report = bench.call("start-nisshi", "start", "--kafka", address, "--repeat", bench.pick(2, 5), "--idle", 2, "--",
                            *nisshi_command(bench, address), env=environment(store))
    bench.row("B12", "nisshi on the same store: exec to first ack", report["first_ack_ms"]["median"], "ms")
    bench.row("B12", "nisshi: idle resident memory", report["idle_rss_mib"], "MiB")


def per_gib(report, puts):
    gib = report["mib_per_s"] * (report["duration_s"] + 1) / 1024
    return puts / max(gib, 1e-9)
