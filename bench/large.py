"""Upload one large report from a separate process, so that its memory is not counted."""

import http.client
import json
import sys
import time

from load import BOUNDARY, PART_END, part_head, upload_path
from reports import LARGE

TIMEOUT_SECONDS = 120.0  # ten times the slowest


def main() -> None:
    """Read {port, token, kind, build_no} as JSON from standard input; write {status, body, seconds}."""
    request = json.load(sys.stdin)
    make, size = LARGE[request["kind"]]
    head = part_head("TEST-large.xml")
    length = len(head) + sum(map(len, make(size))) + len(PART_END)
    connection = http.client.HTTPConnection("127.0.0.1", request["port"], timeout=TIMEOUT_SECONDS)
    began = time.perf_counter()
    connection.putrequest("POST", upload_path(request["build_no"]))
    connection.putheader("X-Auth-Token", request["token"])
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    connection.send(head)
    for piece in make(size):
        connection.send(piece)
    connection.send(PART_END)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    json.dump({"status": response.status, "body": body, "seconds": time.perf_counter() - began}, sys.stdout)


if __name__ == "__main__":
    main()
