"""confluent-kafka (librdkafka) behind the common command line of README.md."""

import os
import sys
import time

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

import common


def produce(bootstrap, topic, codec, path, idempotent=False):
    producer = Producer({
        "bootstrap.servers": bootstrap,
        "compression.type": codec,
        "message.max.bytes": 2_000_000,
        "enable.idempotence": idempotent,
    })
    offsets = {}
    failures = []

    def delivered(index):
        def on_delivery(error, message):
            if error is not None:
                failures.append(f"record {index}: {error}")
            else:
                offsets[index] = message.offset()
        return on_delivery

    for index, (key, value, headers, timestamp) in enumerate(common.read(path)):
        producer.produce(
            topic,
            key=key,
            value=value,
            headers=headers,
            timestamp=timestamp,
            partition=0,
            on_delivery=delivered(index),
        )
        producer.poll(0)
    left = producer.flush(60)
    if left or failures:
        sys.exit(f"{left} not delivered; {failures[:5]}")
    for index in range(len(offsets)):
        print(offsets[index])


def consume(bootstrap, topic, group, count):
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
    })
    consumer.subscribe([topic])
    seen = 0
    while seen < count:
        message = consumer.poll(60)
        if message is None:
            sys.exit(f"nothing for 60 s after {seen} of {count} records")
        if message.error():
            if message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            sys.exit(str(message.error()))
        common.show(message.key(), message.value(), message.headers(), message.timestamp()[1],
                    message.offset())
        seen += 1
    consumer.close()


def group(bootstrap, topic, name, stop_path, protocol="classic"):
    """Reads as a member of a group until the file `stop_path` exists, then leaves. Prints
    "assigned P,P" at each rebalance, "record P OFFSET VALUE" once a record is committed and
    "refused ERROR" when a commit is not taken."""
    # In the new protocol these are the broker's to say.
    timing = {
        "partition.assignment.strategy":
            "cooperative-sticky" if protocol == "cooperative" else "range",
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 500,
    }
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": name,
        "group.protocol": "consumer" if protocol == "consumer" else "classic",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "reconnect.backoff.max.ms": 500,
        # New topics are looked for this often where the client looks for them itself.
        "topic.metadata.refresh.interval.ms": 1000,
    } | ({} if protocol == "consumer" else timing))
    reader = common.Reader(stop_path)

    def assigned(_, partitions):
        reader.assigned([one.partition for one in partitions])

    def revoked(_, partitions):
        reader.revoked([one.partition for one in partitions])

    # A name that begins with ^ is an expression.
    consumer.subscribe([topic], on_assign=assigned, on_revoke=revoked, on_lost=revoked)
    topics = {}
    while not reader.is_stopped():
        message = consumer.poll(0.1)
        if message is not None and message.error():
            print(message.error(), file=sys.stderr)
        elif message is not None:
            topics[message.partition()] = message.topic()
            reader.read(message.partition(), message.offset(), message.value())
        records, offsets = reader.to_commit()
        if not records:
            continue
        try:
            answers = consumer.commit(asynchronous=False, offsets=[
                TopicPartition(topics[partition], partition, offset)
                for partition, offset in offsets.items()])
            for refused in [one.error for one in answers if one.error]:
                raise KafkaException(refused)
        except KafkaException as error:
            print("refused", error.args[0].name(), flush=True)
        else:
            reader.committed(records)
    consumer.close()


def stream(bootstrap, topic, rate, stop_path):
    """Sends numbered values until the file `stop_path` exists; prints "value offset" of each
    acknowledged one. Idempotent, so a retry must never show up as a second record."""
    producer = Producer({
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "message.timeout.ms": 300_000,
        "linger.ms": 5,
        "reconnect.backoff.max.ms": 200,
        "retry.backoff.ms": 20,
    })
    acked = []
    failed = []

    def on_delivery(error, message):
        value = message.value().decode()
        if error is None:
            acked.append(f"{value} {message.offset()}")
        else:
            failed.append(f"{value}: {error}")

    number = 0
    while not os.path.exists(stop_path):
        producer.produce(topic, value=str(number).encode(), partition=0, on_delivery=on_delivery)
        number += 1
        producer.poll(0)
        time.sleep(1 / rate)
    left = producer.flush(120)
    print("\n".join(acked))
    if left or failed:
        sys.exit(f"{left} not delivered; {failed[:5]}")


def admin(bootstrap, new, old, name, time_ms):
    """The admin calls of README.md."""
    client = AdminClient({"bootstrap.servers": bootstrap})
    first = TopicPartition(old, 0)
    resource = ConfigResource(ConfigResource.Type.TOPIC, new)

    def create():
        topic = NewTopic(new, 3, 1, config={"retention.ms": common.KEEP_MS})
        client.create_topics([topic])[new].result()
        return "ok"

    def create_again():
        try:
            return create()
        except KafkaException as error:
            return error.args[0].code()

    def partitions():
        topic = client.list_topics(new, timeout=10).topics[new]
        return len(topic.partitions)

    def more_partitions():
        client.create_partitions([NewPartitions(new, 5)])[new].result()
        return common.until(5, partitions)

    def retention():
        return client.describe_configs([resource])[resource].result()["retention.ms"].value

    def alter():
        entry = ConfigEntry("retention.ms", common.KEEP_LONGER_MS,
                            incremental_operation=AlterConfigOpType.SET)
        change = ConfigResource(ConfigResource.Type.TOPIC, new, incremental_configs=[entry])
        client.incremental_alter_configs([change])[change].result()
        return common.until(common.KEEP_LONGER_MS, retention)

    def offset(spec):
        return client.list_offsets({first: spec})[first].result().offset

    def offsets():
        return " ".join(str(offset(spec)) for spec in [
            OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec.for_timestamp(int(time_ms))])

    def delete_records():
        before = TopicPartition(old, 0, common.DELETE_BEFORE)
        client.delete_records([before])[before].result()
        return common.until(common.DELETE_BEFORE, lambda: offset(OffsetSpec.earliest()))

    def listed():
        return name in [one.group_id for one in client.list_consumer_groups().result().valid]

    def committed():
        asked = ConsumerGroupTopicPartitions(name, [first])
        return client.list_consumer_group_offsets([asked])[name].result().topic_partitions[0].offset

    def delete_group():
        client.delete_consumer_groups([name])[name].result()
        return common.until(False, listed)

    def delete_topic():
        client.delete_topics([new])[new].result()
        return common.until(False, lambda: new in client.list_topics(timeout=10).topics)

    return common.steps({
        "create-topic": create,
        "create-again": create_again,
        "list-topics": lambda: common.until(
            True, lambda: new in client.list_topics(timeout=10).topics),
        "describe-topic": partitions,
        "create-partitions": more_partitions,
        "describe-configs": retention,
        "alter-configs": alter,
        "list-offsets": offsets,
        "delete-records": delete_records,
        "list-groups": listed,
        "describe-group": lambda:
            client.describe_consumer_groups([name])[name].result().state.name.title(),
        "committed-offsets": committed,
        "delete-group": delete_group,
        "delete-topic": delete_topic,
    })


if __name__ == "__main__":
    common.main({
        "produce": produce,
        "idempotent": lambda *arguments: produce(*arguments, idempotent=True),
        "consume": lambda bootstrap, topic, name, count: consume(bootstrap, topic, name, int(count)),
        "group": group,
        "stream": lambda bootstrap, topic, rate, stop: stream(bootstrap, topic, int(rate), stop),
        "admin": admin,
    })
