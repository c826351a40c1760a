"""aiokafka behind the common command line of README.md."""

import asyncio

from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
)
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, for_code

import common


async def produce(bootstrap, topic, codec, path, idempotent=False):
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        max_request_size=2_000_000,
        enable_idempotence=idempotent,
    )
    async with producer:
        sent = [
            await producer.send(
                topic, value, key, partition=0, timestamp_ms=timestamp, headers=headers)
            for key, value, headers, timestamp in common.read(path)
        ]
        for one in await asyncio.wait_for(asyncio.gather(*sent), 60):
            print(one.offset)


async def consume(bootstrap, topic, name, count):
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=name, auto_offset_reset="earliest")
    async with consumer:
        for _ in range(int(count)):
            record = await asyncio.wait_for(consumer.getone(), 60)
            common.show(record.key, record.value, record.headers, record.timestamp, record.offset)


class Listener(ConsumerRebalanceListener):
    """Passes rebalances on."""

    def __init__(self, reader):
        self.reader = reader

    def on_partitions_assigned(self, assigned):
        self.reader.assigned([one.partition for one in assigned])

    def on_partitions_revoked(self, revoked):
        self.reader.revoked([one.partition for one in revoked])


async def group(bootstrap, topic, name, stop_path):
    """Reads as a member of a group until the file `stop_path` exists, then leaves. Prints
    "assigned P,P" at each rebalance, "record P OFFSET VALUE" once a record is committed and
    "refused ERROR" when a commit is not taken."""
    reader = common.Reader(stop_path)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=name,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
    )
    await consumer.start()
    consumer.subscribe([topic], listener=Listener(reader))
    while not reader.is_stopped():
        for records in (await consumer.getmany(timeout_ms=100)).values():
            for one in records:
                reader.read(one.partition, one.offset, one.value)
        records, offsets = reader.to_commit()
        if not records:
            continue
        try:
            await consumer.commit({TopicPartition(topic, partition): offset
                                   for partition, offset in offsets.items()})
        except KafkaError as error:
            print("refused", type(error).__name__, flush=True)
        else:
            reader.committed(records)
    await consumer.stop()


async def until(wanted, ask):
    """As common.until."""
    for _ in range(50):
        answer = await ask()
        if answer == wanted:
            break
        await asyncio.sleep(0.2)
    return answer


def check(errors):
    """Fails when an answer names an error, which this client's admin leaves to its callers."""
    for code, text in errors:
        if code:
            raise for_code(code)(text)


async def admin(bootstrap, new, old, name, time_ms):
    """The admin calls of README.md."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await reader.start()
    first = TopicPartition(old, 0)

    async def create():
        topic = NewTopic(new, 3, 1, topic_configs={"retention.ms": common.KEEP_MS})
        answer = await client.create_topics([topic])
        return answer.topic_errors[0][1] or "ok"

    async def listed_topic():
        return new in await client.list_topics()

    async def partitions():
        return len((await client.describe_topics([new]))[0]["partitions"])

    async def more_partitions():
        answer = await client.create_partitions({new: NewPartitions(5)})
        check([(error[1], error[2]) for error in answer.topic_errors])
        return await until(5, partitions)

    async def retention():
        asked = ConfigResource(ConfigResourceType.TOPIC, new)
        [answer] = await client.describe_configs([asked])
        [(code, text, _, _, entries)] = answer.resources
        check([(code, text)])
        return {entry[0]: entry[1] for entry in entries}["retention.ms"]

    async def alter():
        change = {"retention.ms": common.KEEP_LONGER_MS}
        [answer] = await client.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, new, configs=change)])
        check([(one[0], one[1]) for one in answer.resources])
        return await until(common.KEEP_LONGER_MS, retention)

    async def earliest():
        return (await reader.beginning_offsets([first]))[first]

    async def offsets():
        latest = (await reader.end_offsets([first]))[first]
        later = (await reader.offsets_for_times({first: int(time_ms)}))[first].offset
        return f"{await earliest()} {latest} {later}"

    async def delete_records():
        await client.delete_records({first: RecordsToDelete(common.DELETE_BEFORE)})
        return await until(common.DELETE_BEFORE, earliest)

    async def listed():
        return name in [one[0] for one in await client.list_consumer_groups()]

    async def state():
        [answer] = await client.describe_consumer_groups([name])
        check([(answer.groups[0][0], name)])
        return answer.groups[0][2]

    async def committed():
        return (await client.list_consumer_group_offsets(name))[first].offset

    async def delete_topic():
        answer = await client.delete_topics([new])
        check([(error[1], new) for error in answer.topic_error_codes])
        return await until(False, listed_topic)

    await common.steps({
        "create-topic": create,
        "create-again": create,
        "list-topics": lambda: until(True, listed_topic),
        "describe-topic": partitions,
        "create-partitions": more_partitions,
        "describe-configs": retention,
        "alter-configs": alter,
        "list-offsets": offsets,
        "delete-records": delete_records,
        "list-groups": listed,
        "describe-group": state,
        "committed-offsets": committed,
        "delete-topic": delete_topic,
    })
    await reader.stop()
    await client.close()


if __name__ == "__main__":
    common.main({
        "produce": produce,
        "idempotent": lambda *arguments: produce(*arguments, idempotent=True),
        "consume": consume,
        "group": group,
        "admin": admin,
    })
