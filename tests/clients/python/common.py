"""What the Python programs share: records as lines of JSON, and steps whose failure is printed."""

import base64
import inspect
import json
import os
import sys
import threading
import time

# What `admin` does, as README.md says.
KEEP_MS = "315360000000"
KEEP_LONGER_MS = "946080000000"
DELETE_BEFORE = 50


def decode(text):
    return None if text is None else base64.b64decode(text)


def encode(data):
    return None if data is None else base64.b64encode(data).decode()


def read(path):
    """The records of a file: (key, value, headers, timestamp)."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            headers = [(name, decode(value)) for name, value in record["headers"]]
            yield decode(record["key"]), decode(record["value"]), headers, record["timestamp"]


def show(key, value, headers, timestamp, offset):
    """Prints a record that was read."""
    print(json.dumps({
        "key": encode(key),
        "value": encode(value),
        "headers": [[name, encode(value)] for name, value in headers or []],
        "timestamp": timestamp,
        "offset": offset,
    }))


class Reader:
    """A member of a group: what it holds, and what it read and has not committed. Clients may tell
    of a rebalance on a thread of their own."""

    def __init__(self, stop_path):
        self.stop_path = stop_path
        self.lock = threading.Lock()
        self.held = set()
        self.pending = []

    def assigned(self, partitions):
        """Partitions came."""
        with self.lock:
            self.held.update(partitions)
            self._tell()

    def revoked(self, partitions):
        """Partitions went: whoever holds them next reads what was not committed again."""
        with self.lock:
            self.held.difference_update(partitions)
            self.pending = [one for one in self.pending if one[0] not in partitions]
            self._tell()

    def _tell(self):
        print("assigned", ",".join(str(one) for one in sorted(self.held)), flush=True)

    def read(self, partition, offset, value):
        """A record was read."""
        with self.lock:
            self.pending.append((partition, offset, value.decode()))

    def to_commit(self):
        """What to commit now: records, and the next offset of each partition. While the file
        STOP.hold exists it is held back."""
        held_back = f"{self.stop_path}.hold"
        if self.pending and os.path.exists(held_back):
            print("holding", len(self.pending), flush=True)
        while self.pending and os.path.exists(held_back):
            time.sleep(0.02)
        with self.lock:
            records = list(self.pending)
        return records, {partition: offset + 1 for partition, offset, _ in records}

    def committed(self, records):
        """They are committed."""
        with self.lock:
            self.pending = [one for one in self.pending if one not in records]
        for partition, offset, value in records:
            print("record", partition, offset, value, flush=True)

    def is_stopped(self):
        """Whether it is to leave."""
        return os.path.exists(self.stop_path)


async def steps(table):
    """Runs each step; prints its name and what came of it, an exception too."""
    for name, step in table.items():
        try:
            result = step()
            if inspect.isawaitable(result):
                result = await result
        except Exception as error:  # noqa: BLE001 - whatever it is, the next step is tried.
            result = f"failed: {type(error).__name__}: {error}".replace("\n", " ")
        print(name, str(result).lower() if isinstance(result, bool) else result, flush=True)


def until(wanted, ask):
    """Asks until the answer is the wanted one, for 10 s; returns the last answer."""
    for _ in range(50):
        answer = ask()
        if answer == wanted:
            break
        time.sleep(0.2)
    return answer


def main(programs):
    """Runs the program that the command line names."""
    result = programs[sys.argv[1]](*sys.argv[2:])
    if inspect.isawaitable(result):
        import asyncio

        async def wait():
            await result

        asyncio.run(wait())
