"""Brokers that are measured beside us: Apache Kafka, one replica or three, and nisshi."""
import contextlib
import dataclasses
import shutil

from .bench import ROOT, TOOLS, Failed, accepts, environment, free_address

CLUSTER_ID = "AquiferBench0000000001"
KAFKA_LIBS = TOOLS / "kafka/libs"

KAFKA_PROPERTIES = """process.roles=broker,controller
node.id={node}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
log.segment.bytes=67108864
log.retention.bytes=67108864
log.retention.check.interval.ms=2000
file.delete.delay.ms=1000
"""


@dataclasses.dataclass(frozen=True)
class Peer:
    """A broker or several, warmed, with the processes whose CPU time is theirs."""

    name: str
    bootstrap: str
    pids: str
    replicas: int = 1

    def arguments(self):
        return ["--bootstrap", self.bootstrap, "--pid", self.pids]


class Peers:
    """Starts each peer once, when it is first asked for; one that does not start is a row that says so."""

    def __init__(self, bench):
        self.bench, self.stack, self.running = bench, contextlib.ExitStack(), {}

    def kafka(self):
        return self.get("kafka", lambda: self.start_kafka(1)) if self.bench.with_kafka else None

    def kafka_rf3(self):
        return self.get("kafka-rf3", lambda: self.start_kafka(3)) if self.bench.with_kafka else None

    def get(self, name, start):
        if name not in self.running:
            try:
                self.running[name] = start()
            except (Failed, OSError) as error:
                self.bench.note("!!", f"no {name} beside us: {error}")
                self.running[name] = None
        return self.running[name]

    def close(self):
        """Ends those that run; one that did not start is not tried again."""
        self.stack.close()
        self.running = {name: peer for name, peer in self.running.items() if peer is None}

    def start_kafka(self, nodes):
        bench = self.bench
        homes = kafka_homes(bench, nodes)
        name = "Kafka" if nodes == 1 else f"Kafka RF {nodes}"
        everyone = [accepts(address) for address, _ in homes]
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, homes[0][1][-1].parents[1], ignore_errors=True)
            # None of them listens before most of them run.
            children = [stack.enter_context(bench.process(command, lambda: True)) for _, command in homes[:-1]]
            children.append(stack.enter_context(bench.process(homes[-1][1], lambda: all(ready() for ready in everyone), seconds=120)))
            pids = ",".join(str(child.pid) for child in children)
            peer = Peer(name, ",".join(address for address, _ in homes), pids, nodes)
            self.warm(peer)
            self.stack.push(stack.pop_all())
        return peer

    def warm(self, peer):
        """The JIT compiles and pages are touched meanwhile; a first run would be twice as dear."""
        call, pick = self.bench.call, self.bench.pick
        topic = ["--bootstrap", peer.bootstrap, "--topic", "warm-up"]
        load = ["produce", *topic, "--warmup", 0, "--replication-factor", peer.replicas]
        call(f"{peer.name} warm-up", *load, "--duration", pick(4, 12) * (1 if peer.replicas == 1 else 2))
        call(f"{peer.name} warm-up", *load, "--batch-bytes", 1100, "--record-bytes", 1000, "--duration", pick(2, 4))
        call(f"{peer.name} warm-up", "fetch", *topic, "--duration", pick(1, 3))

    @contextlib.contextmanager
    def nisshi(self, store):
        """nisshi on a store of ours; yields a peer."""
        address = free_address()
        with self.bench.process(nisshi_command(self.bench, address), accepts(address), environment(store)) as child:
            yield Peer("nisshi", address, str(child.pid))


def kafka_java(libs=KAFKA_LIBS):
    return ["java", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-cp", f"{libs}/*"]


def install_kafka(bench):
    """Kafka's jars, by package name through Maven, once."""
    if not list(KAFKA_LIBS.glob("kafka_2.13-*.jar")):
        done = bench.run(["mvn", "-q", "-f", ROOT / "tests/benches/kafka/pom.xml", "dependency:copy-dependencies",
                          "-DincludeScope=runtime", f"-DoutputDirectory={KAFKA_LIBS}"])
        if done.returncode != 0:
            raise Failed(f"mvn: {done.stdout.strip()[-300:]}")


def kafka_homes(bench, nodes):
    """Formats brokers that are their own controllers; returns [(address, command line)]."""
    install_kafka(bench)
    bench.runs += 1
    folder = bench.scratch / f"kafka-{bench.runs}"
    places = [(node, free_address(), free_address()) for node in range(1, nodes + 1)]
    voters = ",".join(f"{node}@{controller}" for node, _, controller in places)
    homes = []
    for node, address, controller in places:
        home = folder / str(node)
        home.mkdir(parents=True)
        properties = home / "server.properties"
        text = KAFKA_PROPERTIES.format(node=node, port=address.split(":")[1], controller=controller.split(":")[1], data=home / "data",
                                       replicas=nodes, in_sync=min(nodes, 2))
        alone = f"controller.quorum.bootstrap.servers={controller}\n"
        properties.write_text(text + (alone if nodes == 1 else f"controller.quorum.voters={voters}\n"))
        format_it = [*kafka_java(), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", properties]
        done = bench.run(format_it + (["--standalone"] if nodes == 1 else []))
        if done.returncode != 0:
            raise Failed(f"Kafka's StorageTool: {(done.stdout + done.stderr).strip()[-400:]}")
        homes.append((address, [*kafka_java(), "kafka.Kafka", properties]))
    return homes


def nisshi_command(bench, address):
    """nisshi listening there, on a bucket of the store that its environment names; installed when it is not there."""
    binary = TOOLS / "nisshi/bin/nisshi"
    if not binary.exists():
        print("  installing nisshi from the cargo registry: half an hour, once", flush=True)
        done = bench.run([ROOT / "tests/benches/nisshi/install"], seconds=7200)
        if done.returncode != 0:
            raise Failed(f"nisshi cannot be built: {' '.join(done.stderr.split())[-400:]}")
    url = f"tcp://{address}"
    return [binary, "broker", "--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "s3://nisshi/", "--silent"]
