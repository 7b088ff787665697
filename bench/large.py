"""Uploads one large report, in a process of its own, so that its memory is not the gateway's."""

import http.client
import json
import sys
import time

from load import BOUNDARY, PART_END, part_head, upload_path
from reports import LARGE

PATIENCE_SECONDS = 120.0  # ten times what the slowest of them takes


def main() -> None:
    """Read {port, token, kind, build_no} as JSON from standard input; write {status, answer, seconds}."""
    asked = json.load(sys.stdin)
    make, size = LARGE[asked["kind"]]
    head = part_head("TEST-large.xml")
    length = len(head) + sum(map(len, make(size))) + len(PART_END)
    connection = http.client.HTTPConnection("127.0.0.1", asked["port"], timeout=PATIENCE_SECONDS)
    began = time.perf_counter()
    connection.putrequest("POST", upload_path(asked["build_no"]))
    connection.putheader("X-Auth-Token", asked["token"])
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    connection.send(head)
    for piece in make(size):
        connection.send(piece)
    connection.send(PART_END)
    response = connection.getresponse()
    answer = response.read().decode()
    connection.close()
    json.dump({"status": response.status, "answer": answer, "seconds": time.perf_counter() - began}, sys.stdout)


if __name__ == "__main__":
    main()
