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
