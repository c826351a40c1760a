"""confluent-kafka (librdkafka) behind the common command line of README.md."""

import base64
import json
import os
import sys
import time

from confluent_kafka import Consumer, KafkaError, Producer


def decode(text):
    return None if text is None else base64.b64decode(text)


def encode(data):
    return None if data is None else base64.b64encode(data).decode()


def produce(bootstrap, topic, codec, path):
    producer = Producer({
        "bootstrap.servers": bootstrap,
        "compression.type": codec,
        "message.max.bytes": 2_000_000,
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

    with open(path, encoding="utf-8") as lines:
        for index, line in enumerate(lines):
            record = json.loads(line)
            producer.produce(
                topic,
                key=decode(record["key"]),
                value=decode(record["value"]),
                headers=[(name, decode(value)) for name, value in record["headers"]],
                timestamp=record["timestamp"],
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
        print(json.dumps({
            "key": encode(message.key()),
            "value": encode(message.value()),
            "headers": [[name, encode(value)] for name, value in message.headers() or []],
            "timestamp": message.timestamp()[1],
            "offset": message.offset(),
        }))
        seen += 1
    consumer.close()


def group(bootstrap, topic, name, stop_path):
    """Reads as a member of a group until the file `stop_path` exists, then leaves. Prints
    "assigned P,P" at each rebalance and "record P OFFSET VALUE" once a record is committed."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": name,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "partition.assignment.strategy": "range",
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 500,
        "reconnect.backoff.max.ms": 500,
    })

    def assigned(_, partitions):
        print("assigned", ",".join(str(one.partition) for one in partitions), flush=True)

    consumer.subscribe([topic], on_assign=assigned)
    while not os.path.exists(stop_path):
        message = consumer.poll(0.1)
        if message is None:
            continue
        if message.error():
            print(message.error(), file=sys.stderr)
            continue
        consumer.commit(message=message, asynchronous=False)
        print("record", message.partition(), message.offset(), message.value().decode(), flush=True)
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


if __name__ == "__main__":
    command, bootstrap, topic, third, fourth = sys.argv[1:]
    if command == "stream":
        stream(bootstrap, topic, int(third), fourth)
    elif command == "group":
        group(bootstrap, topic, third, fourth)
    elif command == "produce":
        produce(bootstrap, topic, third, fourth)
    else:
        consume(bootstrap, topic, third, int(fourth))
