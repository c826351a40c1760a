"""kafka-python behind the common command line of README.md."""

import sys

from kafka import (
    ConsumerRebalanceListener,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import BrokerResponseError, KafkaError

import common


def produce(bootstrap, topic, codec, path):
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        max_request_size=2_000_000,
    )
    sent = [
        producer.send(topic, value, key, headers, partition=0, timestamp_ms=timestamp)
        for key, value, headers, timestamp in common.read(path)
    ]
    producer.flush(60)
    for one in sent:
        print(one.get(60).offset)
    producer.close()


def consume(bootstrap, topic, name, count):
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=name,
        auto_offset_reset="earliest",
        consumer_timeout_ms=60_000,
    )
    seen = 0
    for record in consumer:
        common.show(record.key, record.value, record.headers, record.timestamp, record.offset)
        seen += 1
        if seen == int(count):
            break
    consumer.close()
    if seen < int(count):
        sys.exit(f"nothing for 60 s after {seen} of {count} records")


class Listener(ConsumerRebalanceListener):
    """Passes rebalances on."""

    def __init__(self, reader):
        self.reader = reader

    def on_partitions_assigned(self, assigned):
        self.reader.assigned([one.partition for one in assigned])

    def on_partitions_revoked(self, revoked):
        self.reader.revoked([one.partition for one in revoked])


def group(bootstrap, topic, name, stop_path, protocol="classic"):
    """Reads as a member of a group until the file `stop_path` exists, then leaves. Prints
    "assigned P,P" at each rebalance, "record P OFFSET VALUE" once a record is committed and
    "refused ERROR" when a commit is not taken."""
    assignors = {"classic": RangePartitionAssignor, "cooperative": CooperativeStickyAssignor}
    reader = common.Reader(stop_path)
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=name,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        partition_assignment_strategy=(assignors[protocol],),
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
        reconnect_backoff_max_ms=500,
    )
    consumer.subscribe([topic], listener=Listener(reader))
    while not reader.is_stopped():
        for records in consumer.poll(timeout_ms=100).values():
            for one in records:
                reader.read(one.partition, one.offset, one.value)
        records, offsets = reader.to_commit()
        if not records:
            continue
        try:
            consumer.commit({TopicPartition(topic, partition): OffsetAndMetadata(offset, "", -1)
                             for partition, offset in offsets.items()})
        except KafkaError as error:
            print("refused", type(error).__name__, flush=True)
        else:
            reader.committed(records)
    consumer.close()


def admin(bootstrap, new, old, name, time_ms):
    """The admin calls of README.md."""
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    first = TopicPartition(old, 0)

    def create():
        client.create_topics({new: {
            "num_partitions": 3,
            "replication_factor": 1,
            "configs": {"retention.ms": common.KEEP_MS},
        }})
        return "ok"

    def create_again():
        try:
            return create()
        except BrokerResponseError as error:
            return error.errno

    def partitions():
        return len(client.describe_topics([new])[0]["partitions"])

    def more_partitions():
        client.create_partitions({new: 5})
        return common.until(5, partitions)

    def retention():
        asked = ConfigResource(ConfigResourceType.TOPIC, new)
        return client.describe_configs([asked])["topic"][new]["retention.ms"]["value"]

    def alter():
        change = {"retention.ms": common.KEEP_LONGER_MS}
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, new, change)])
        return common.until(common.KEEP_LONGER_MS, retention)

    def offset(spec):
        return client.list_partition_offsets({first: spec})[first].offset

    def delete_records():
        client.delete_records({first: common.DELETE_BEFORE})
        return common.until(common.DELETE_BEFORE, lambda: offset(OffsetSpec.EARLIEST))

    def listed():
        return name in [one["group_id"] for one in client.list_groups()]

    def delete_group():
        client.delete_groups([name])
        return common.until(False, listed)

    def delete_topic():
        client.delete_topics([new])
        return common.until(False, lambda: new in client.list_topics())

    return common.steps({
        "create-topic": create,
        "create-again": create_again,
        "list-topics": lambda: common.until(True, lambda: new in client.list_topics()),
        "describe-topic": partitions,
        "create-partitions": more_partitions,
        "describe-configs": retention,
        "alter-configs": alter,
        "list-offsets": lambda: " ".join(str(offset(spec)) for spec in [
            OffsetSpec.EARLIEST, OffsetSpec.LATEST, int(time_ms)]),
        "delete-records": delete_records,
        "list-groups": listed,
        "describe-group": lambda: client.describe_groups([name])[name]["group_state"],
        "committed-offsets": lambda: client.list_group_offsets([name])[name][first].offset,
        "delete-group": delete_group,
        "delete-topic": delete_topic,
    })


if __name__ == "__main__":
    # Idempotence is this client's default.
    common.main({
        "produce": produce,
        "idempotent": produce,
        "consume": consume,
        "group": group,
        "admin": admin,
    })
