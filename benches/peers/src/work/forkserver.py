"""Workers that leave at once, by the fork server of multiprocessing: reads how many, and says how many ns they took."""

import multiprocessing
import sys
import time


def nothing():
    pass


def worker():
    process = context.Process(target=nothing)
    process.start()
    process.join()


if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    worker()
    for line in sys.stdin:
        start = time.perf_counter_ns()
        for _ in range(int(line)):
            worker()
        print(time.perf_counter_ns() - start, flush=True)
