"""What the Python clients share, whose libraries do not reconnect: `CLIENT.py URL` listens at URL and goes on after
the last id where a stream breaks, and prints what the library reports, a JSON object a line, until standard input
ends."""

import json
import os
import sys
import threading
import time


def leave_at_end():
    sys.stdin.read()
    os._exit(0)


def run(listen, cut):
    """Calls `listen(url, headers)`, which yields (id, type, data) and raises one of `cut` where the stream breaks."""
    threading.Thread(target=leave_at_end, daemon=True).start()
    headers = {}
    while True:
        try:
            for id, type, data in listen(sys.argv[1], headers):
                print(json.dumps({"id": id or "", "type": type, "data": data}), flush=True)
                if id:
                    headers["Last-Event-ID"] = id
        except cut as why:
            print(repr(why), file=sys.stderr)
        time.sleep(0.1)
