"""Time a server's answers by tritonclient: `time_tritonclient.py URL TARGET`. Needs only that package.

For each line of standard input, a door (`REST` or `gRPC`) and seconds, it asks about one row of the model
`net` for that long, and prints as JSON the calls a second, p50 and p95 in ms, its own CPU in ms a call, and
how many calls it made.
"""

import json
import statistics
import sys
import time

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http


def asker(api, client):
    """Return what asks once; the row is made into a message each time, as a caller's would be."""
    row = np.full((1, 256), 0.5, np.float32)

    def ask():
        given = api.InferInput("x", [1, 256], "FP32")
        given.set_data_from_numpy(row)
        return client.infer("net", [given], outputs=[api.InferRequestedOutput("best")]).as_numpy("best")

    return ask


def main(url, target):
    """Answer each line."""
    asks = {
        "REST": asker(over_http, over_http.InferenceServerClient(url.removeprefix("http://"))),
        "gRPC": asker(over_grpc, over_grpc.InferenceServerClient(target)),
    }
    for line in sys.stdin:
        door, seconds = line.split()
        asks[door]()
        times, used = [], time.process_time()
        end = time.perf_counter() + float(seconds)
        while (began := time.perf_counter()) < end:
            asks[door]()
            times.append(time.perf_counter() - began)
        cuts = statistics.quantiles(times, n=20)
        figures = {
            "rate": len(times) / float(seconds),
            "p50": cuts[9] * 1e3,
            "p95": cuts[18] * 1e3,
            "client CPU": (time.process_time() - used) / len(times) * 1e3,
            "calls": len(times),
        }
        print(json.dumps(figures), flush=True)


main(*sys.argv[1:])
