"""Workloads under the names that users know from the OpenMessaging Benchmark.

Producing and a reader at its tail, open loop, idempotent, acks=all; batches are as large as a
producer's linger of a few milliseconds makes them, which is written in each row.
"""
from .bench import Failed

# Name, what was changed to fit two cores, and the arguments: KiB of a batch, batches a second are
# `--rate`. OMB's "N topics" are N partitions of one topic here: the generator writes one topic.
WORKLOADS = {
    "1-topic-16-partitions-1kb": (
        "50,000 records/s, as there: 49 MiB/s",
        ["--partitions", 16, "--connections", 4, "--batch-bytes", 64 << 10, "--record-bytes", 1024, "--rate", 780]),
    "1-topic-288-partitions-1kb": (
        "51 MiB/s instead of 1 GiB/s: 1/20",
        ["--partitions", 288, "--connections", 16, "--batch-bytes", 64 << 10, "--record-bytes", 1024, "--rate", 816]),
    "1-topic-100-partitions-1kb-4p-4c-200k-backlog": (
        "20,000 records/s instead of 200,000: 1/10; a backlog of 0.5 GiB is the line catch_up",
        ["--partitions", 100, "--connections", 4, "--read-connections", 4, "--batch-bytes", 16 << 10, "--record-bytes", 1024, "--rate", 1300]),
    "10k-topic-1kb-4p-4c": (
        "10,000 partitions of one topic, a batch of 1 KiB each: 1,000 records/s instead of 100,000",
        ["--partitions", 10_000, "--connections", 4, "--read-connections", 4, "--batch-bytes", 1124, "--record-bytes", 1024, "--rate", 1000]),
    "100k-topic-1kb-4p-4c": (
        "100,000 partitions of one topic, a batch of 1 KiB each: 1,000 records/s instead of 100,000",
        ["--partitions", 100_000, "--connections", 4, "--read-connections", 4, "--batch-bytes", 1124, "--record-bytes", 1024, "--rate", 1000]),
    "1-topic-16-partitions-100b": (
        "100,000 records/s of 100 B: 10 MiB/s",
        ["--partitions", 16, "--connections", 4, "--batch-bytes", 16 << 10, "--record-bytes", 100, "--rate", 660]),
    "1-topic-16-partitions-64kb": (
        "800 records/s of 64 KiB: 50 MiB/s",
        ["--partitions", 16, "--connections", 4, "--batch-bytes", (64 << 10) + 100, "--record-bytes", 64 << 10, "--rate", 800]),
}


def workloads(bench):
    names = [bench.workload] if bench.workload else bench.pick(list(WORKLOADS)[:2], list(WORKLOADS))
    print("workloads by the names of the OpenMessaging Benchmark, store with PUT 100/195 and GET 63/78 ms")
    for name in names:
        try:
            workload(bench, name)
        except Failed as failed:
            bench.note("!!", f"{name} was not measured: {failed}")


def workload(bench, name):
    scale, arguments = WORKLOADS[name]
    with bench.store("s3-standard") as store, bench.broker(store) as (address, pid):
        report = bench.call(f"workload {name}", "produce", "--bootstrap", address, "--pid", pid, "--in-flight", 500, "--idempotent", "--tail",
                            "--warmup", bench.pick(2, 3), "--duration", bench.pick(8, 15), *arguments)
    bench.note("OMB", f"{name}: {scale}")
    due = report["rate"] * report["duration_s"]
    bench.row("OMB", "  got through", report["mib_per_s"], "MiB/s", f"of what was due: {report['requests'] / due:.0%}")
    for words, figures in (("ack", report["ack"]), ("end to end", report["read"]["end_to_end"]), ("publish delay", report["slip"])):
        bench.row("OMB", f"  {words} p50", figures["p50_ms"], "ms", f"p99 {figures['p99_ms']:.3g}, p99.9 {figures['p999_ms']:.3g}")
    bench.row("OMB", "  CPU of the broker", 1 / report["gib_per_broker_cpu_s"], "cpu-s/GiB", "written and read once")
