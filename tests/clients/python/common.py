"""What the Python programs share: records as lines of JSON, and steps whose failure is printed."""

import base64
import inspect
import json
import sys
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
