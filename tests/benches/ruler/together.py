"""Several programs at once."""
import concurrent.futures
import time


def together(bench, *calls, stagger=0.0):
    """Runs several `bench.call`s at the same time, each a tuple of its arguments; returns their reports in order."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        futures = []
        for call in calls:
            futures.append(pool.submit(bench.call, *call))
            time.sleep(stagger)
        return [future.result() for future in futures]


def at_once(calls):
    """Calls all values of a dict at the same time; returns their results by its keys."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        futures = {key: pool.submit(call) for key, call in calls.items()}
        return {key: future.result() for key, future in futures.items()}
