"""What members of a group feel while it changes, and what its coordinator costs: B11, B9.

`rebalance` has consumers of the Java client (tests/clients/java/Rebalance.java) on Aquifer and on
Kafka, all with the settings they come with (but for Kafka's initial delay of an empty group, which
none of this waits for). Ten members read 100 partitions that get 20 records a second each; then one
joins, one leaves, one is killed.
"""
import json
import math

from .bench import ROOT, Failed, Goal, middle, spread
from .peers import KAFKA_LIBS, install_kafka
from .together import at_once

# Name of the client's settings, in rows, and the goal of each join and leave in milliseconds.
PROTOCOLS = {
    "consumer": ("group.protocol=consumer", 1000),
    "cooperative": ("classic, cooperative-sticky", 3500),
    "eager": ("classic, range: eager", 3500),
}
EVENTS = {"nothing": "nothing happens", "join": "+1 member", "leave": "-1 member", "kill": "kill -9 of one"}
# Both protocols' where nothing is set: nobody can know sooner of who was killed.
SESSION_MS = 45_000
# Records come every 50 ms, and a pause is what is above the longest gap of a quiet second.
UNNOTICED = Goal(50, of="figure")
JVM = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]


def rebalance(bench):
    rounds, kills = bench.pick((2, 1), (4, 2))
    print(f"rebalance: 10 members, 100 partitions of 20 records/s; {rounds} of each event, {kills} of kill; folder as the bucket")
    classes = compiled(bench)
    peer = bench.peers.kafka()
    with bench.broker() as (address, _):
        sides = [("Aquifer", address)] + ([("Kafka", peer.bootstrap)] if peer else [])
        call = lambda protocol, side, *counts: lambda: events(bench, classes, protocol, side, counts)
        seen = {}
        for protocol in PROTOCOLS:
            # Both at the same time: neither needs a tenth of a core, and both have the same machine.
            seen.update(at_once({(protocol, side[0]): call(protocol, side, rounds, 0) for side in sides}))
        # Most of it is waiting for sessions to end.
        killed = at_once({(protocol, side[0]): call(protocol, side, 0, kills) for protocol in PROTOCOLS for side in sides})
        for key, by_event in killed.items():
            seen[key].update(by_event)
    for protocol in PROTOCOLS:
        for event in EVENTS:
            rows(bench, protocol, event, *(seen.get((protocol, name), {}).get(event) for name in ("Aquifer", "Kafka")))


def compiled(bench):
    """The folder of the Java program's classes."""
    install_kafka(bench)
    classes = bench.scratch / "classes"
    sources = sorted((ROOT / "tests/clients/java").glob("Rebalance*.java"))
    done = bench.run(["javac", "-cp", f"{KAFKA_LIBS}/*", "-d", classes, *sources])
    if done.returncode != 0:
        raise Failed(f"javac: {done.stderr.strip()[-300:]}")
    return classes


def events(bench, classes, protocol, side, counts):
    """What the Java program saw, by event; one that goes wrong is a note, and ends its run."""
    (name, bootstrap), (rounds, kills) = side, counts
    topic = f"rebalance-{protocol}-{'kill' if kills else 'move'}"
    arguments = ["Rebalance", bootstrap, topic, protocol, rounds, kills]
    try:
        done = bench.run([*JVM, "-cp", f"{classes}:{KAFKA_LIBS}/*", *arguments], seconds=240 + 60 * rounds + 200 * kills)
    except Failed as failed:
        bench.note("!!", f"rebalance, {protocol} on {name}: {failed}")
        return {}
    said = done.stdout.splitlines()
    lines = [json.loads(line) for line in said if line.startswith("{")]
    # What the client logs: errors.
    logged = [line for line in said if not line.startswith("{")]
    bench.reports.setdefault("rebalance", []).append(
        {"of": name, "command": [str(word) for word in arguments], "report": lines, "logged": logged})
    failed = next((line["failed_sends"] for line in lines if "failed_sends" in line), None)
    if done.returncode != 0 or failed != 0:
        bench.note("!!", f"rebalance, {protocol} on {name}: {failed} records were not written; {' '.join(done.stderr.split())[-300:]}")
    by_event = {}
    for line in lines:
        if "event" in line:
            by_event.setdefault(line["event"], []).append(line)
    return by_event


def rows(bench, protocol, event, ours, theirs):
    if not ours:
        return
    words, bound = PROTOCOLS[protocol]
    stable = lambda lines: [line["stable_ms"] for line in lines]
    after, is_control = SESSION_MS if event == "kill" else 0, event == "nothing"
    row(bench, f"{words}, {EVENTS[event]}: until stable", stable(ours), theirs and stable(theirs),
        None if is_control else Goal(after + bound, of="figure"))
    for side, name, goal in (("moved", "that moved", None), ("kept", "that stayed", UNNOTICED)):
        pauses = lambda lines: [pause for line in lines for pause in line[side]]
        # Eager members give everything up: that is what it is called by.
        goal = None if is_control or protocol == "eager" else goal
        row(bench, f"  pause of partitions {name}", pauses(ours), theirs and pauses(theirs), goal)


def row(bench, what, ours, theirs, goal):
    """A row of p99 with its distribution; the ratio is that of the medians, where both have one."""
    if not ours:
        return
    ratio = at(ours, 0.5) / at(theirs, 0.5) if theirs and 0 < at(theirs, 0.5) else None
    bench.row("B11", what, at(ours, 0.99), "ms p99", f"Kafka {quantiles(theirs)}" if theirs else "", ratio, goal,
              f"{quantiles(ours)} of {len(ours)}")


def quantiles(figures):
    return " / ".join(f"{figure:.0f}" for figure in (at(figures, 0.5), at(figures, 0.99), max(figures)))


def at(figures, share):
    """The nearest rank."""
    return sorted(figures)[max(math.ceil(share * len(figures)) - 1, 0)]


def groups(bench):
    members = bench.pick(1000, 10_000)
    print(f"groups: {members} members in groups of ten, simulated, and their coordinator; three voters in one process where there are three")
    for protocol in ("classic", "consumer"):
        with_members(bench, protocol, members)
    for where, folder, voters in offset_places(bench):
        offsets(bench, where, folder, voters)


def coordinator(bench, what, *arguments, folder="/dev/shm", voters=1):
    return bench.call(f"coordinator {what}", "metadata", "--coordinator", what, "--data", folder, "--voters", voters, *arguments)


def with_members(bench, protocol, members):
    """Heartbeats by themselves and over gRPC, and what members cost that have nothing to do."""
    shape = ["--protocol", protocol, "--members", members]
    pure = [coordinator(bench, "pure", *shape, "--seconds", 1)["pure"] for _ in range(bench.pick(1, 3))]
    asked = coordinator(bench, "heartbeats,rest", *shape, "--committers", 64, "--seconds", bench.pick(3, 15))
    load, rest = asked["heartbeats"]["00064"], asked["rest"]
    per_core = [one["heartbeats_per_core_s"] for one in pure]
    bench.row("B9", f"heartbeats, {protocol}: the pure machine answers", middle(per_core), "/core-s", spread=spread(per_core))
    bench.row("B9", "  over gRPC, 64 waiting: by the leader's own CPU", load["per_node_core_s"], "/core-s",
              f"got {load['per_s']:.0f} /s", spread=f"p50 {load['latency']['p50_ms']:.2g} p99 {load['latency']['p99_ms']:.2g} ms")
    bench.row("B9", f"  {rest['members']} members at rest, their heartbeats as they are due", rest["nodes_cpu_percent"], "% of a core",
              f"without members {rest['idle_cpu_percent']:.2g}", spread=f"{rest['per_s']:.0f} /s, p99 {rest['latency']['p99_ms']:.2g} ms")
    for words, name in (("resident", "rss_bytes_per_member"), ("in a snapshot", "snapshot_bytes_per_member")):
        figures = [one[name] for one in pure]
        bench.row("B9", f"  a member {words}, with a tenth of its group", middle(figures), "bytes", spread=spread(figures))
    if "rebalance" in pure[0]:
        steps = [one["rebalance"] for one in pure]
        size = f"{steps[0]['members']} members, {steps[0]['partitions']} partitions"
        for words, name in (("one joins", "join_ms"), ("one has left", "leave_ms")):
            medians = [step[name]["median"] for step in steps]
            bench.row("B9", f"  assigning {size}: {words}", middle(medians), "ms of apply",
                      spread=f"{min(step[name]['min'] for step in steps):.3g}-{max(step[name]['max'] for step in steps):.3g}")


def offset_places(bench):
    data = bench.scratch / "offsets"
    data.mkdir()
    tmpfs = [("tmpfs", "/dev/shm", voters) for voters in bench.pick((1,), (1, 3))]
    return tmpfs + bench.pick([], [("the disk", data, 1), ("the disk", data, 3)])


def offsets(bench, where, folder, voters):
    counts = bench.pick((10,), (1, 10, 100))
    report = coordinator(bench, "offsets", "--committers", 64, "--offsets-per-commit", ",".join(map(str, counts)), "--seconds", bench.pick(2, 4),
                         folder=folder, voters=voters)
    for count in counts:
        load = report["offsets"]["00064"][f"{count:05}"]
        bench.row("B9", f"offset commits on {where}, {voters} voter{'s' if 1 < voters else ''}, 64 waiting, {count} partitions each",
                  load["commits_per_s"], "commits/s", f"{load['commits_per_node_core_s']:.0f} /core-s of all nodes",
                  spread=f"p50 {load['latency']['p50_ms']:.2g} p99 {load['latency']['p99_ms']:.2g} ms, {load['entry_bytes_per_commit']:.0f} B of log")
