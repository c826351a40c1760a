"""What librdkafka makes of a broker's answers: one question, one JSON value.

ask.py COMMAND BOOTSTRAP ARGUMENT, as steps of tests/differential say it.
"""

import json
import sys

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
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

TIMEOUT = 20


def outcome(future, shown=lambda value: "ok"):
    """What a future gives, or the name of its error."""
    try:
        return shown(future.result(TIMEOUT))
    except KafkaException as error:
        return {"error": error.args[0].name(), "text": error.args[0].str()}


def by_name(futures, shown=lambda value: "ok"):
    return {str(key): outcome(future, shown) for key, future in futures.items()}


def create(admin, asked):
    topics = [
        NewTopic(one["name"], one.get("partitions", -1), config=one.get("config", {}))
        for one in asked["topics"]
    ]
    return by_name(admin.create_topics(topics, validate_only=asked.get("validate", False)))


def grow(admin, asked):
    return by_name(admin.create_partitions([NewPartitions(n, c) for n, c in asked.items()]))


def delete(admin, asked):
    return by_name(admin.delete_topics(asked["topics"]))


def topics(admin, asked):
    found = admin.list_topics(asked.get("topic"), timeout=TIMEOUT).topics
    return {
        name: {
            "partitions": sorted(topic.partitions),
            "error": topic.error.name() if topic.error else None,
            "leaders": sorted({p.leader >= 0 for p in topic.partitions.values()}),
        }
        for name, topic in found.items()
        if not name.startswith("__")
    }


def resource(asked, **more):
    kind = ConfigResource.Type[asked.get("type", "TOPIC")]
    return ConfigResource(kind, asked["name"], **more)


def configs(admin, asked):
    def shown(found):
        names = asked.get("names", found)
        return {name: [found[name].value, found[name].source] for name in names if name in found}

    futures = admin.describe_configs([resource(asked)])
    return [outcome(future, shown) for future in futures.values()]


def alter(admin, asked):
    changes = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType[operation])
        for name, operation, value in asked["changes"]
    ]
    futures = admin.incremental_alter_configs([resource(asked, incremental_configs=changes)])
    return [outcome(future) for future in futures.values()]


def offsets(admin, asked):
    specs = {
        "earliest": OffsetSpec.earliest(),
        "latest": OffsetSpec.latest(),
        "newest": OffsetSpec.max_timestamp(),
    }
    spec = specs.get(asked["at"]) or OffsetSpec.for_timestamp(asked["at"])
    futures = admin.list_offsets({TopicPartition(asked["topic"], asked.get("partition", 0)): spec})
    return [outcome(future, lambda got: [got.offset, got.timestamp]) for future in futures.values()]


def purge(admin, asked):
    up_to = TopicPartition(asked["topic"], asked.get("partition", 0), asked["before"])
    futures = admin.delete_records([up_to])
    return [outcome(future, lambda got: got.low_watermark) for future in futures.values()]


def groups(admin, asked):
    listed = admin.list_consumer_groups().result(TIMEOUT)
    return sorted([one.group_id, one.is_simple_consumer_group] for one in listed.valid)


def committed(admin, asked):
    request = ConsumerGroupTopicPartitions(asked["group"])
    futures = admin.list_consumer_group_offsets([request])

    def shown(found):
        return sorted([p.topic, p.partition, p.offset] for p in found.topic_partitions)

    return [outcome(future, shown) for future in futures.values()]


def forget(admin, asked):
    return by_name(admin.delete_consumer_groups(asked["groups"]))


def produce(bootstrap, asked):
    producer = Producer({"bootstrap.servers": bootstrap, **asked.get("settings", {})})
    told = []
    for key, value in asked["records"]:
        producer.produce(
            asked["topic"],
            key=key,
            value=value,
            partition=asked.get("partition", 0),
            timestamp=asked.get("timestamp", 0),
            on_delivery=lambda error, message: told.append(
                error.name() if error else message.offset()
            ),
        )
    producer.flush(TIMEOUT)
    return told


def consume(bootstrap, asked):
    settings = {"auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": asked["group"], **settings}
    )
    consumer.assign([TopicPartition(asked["topic"], 0, asked.get("from", 0))])
    messages = consumer.consume(asked["count"], TIMEOUT)
    if asked.get("commit"):
        consumer.commit(asynchronous=False, message=messages[-1])
    consumer.close()
    text = lambda raw: None if raw is None else raw.decode()
    return [[m.offset(), text(m.key()), text(m.value()), m.timestamp()[0]] for m in messages]


def main():
    command, bootstrap, argument = sys.argv[1:]
    asked = json.loads(argument)
    if command in ("produce", "consume"):
        answer = globals()[command](bootstrap, asked)
    else:
        answer = globals()[command](AdminClient({"bootstrap.servers": bootstrap}), asked)
    print(json.dumps({"answer": answer}))


main()
