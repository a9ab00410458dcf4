"""The baseline: the same writes as the operator's, by nothing but a session and a loop. Prints its CPU and wall seconds.

Run as a process of its own, so that its CPU is its own: `python -m tests.bench.bare_client KUBECONFIG REQUESTS.jsonl`.
Each line of the file is `{"path": ..., "body": ...}`, a server-side apply, or `{..., "patch": "merge"}`. 16 requests are in
flight, on the session library (aiohttp, uvloop, orjson, TLS) that the operator uses. The bench makes its users act with it, too.
"""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop
import yaml

IN_FLIGHT = 16
FIELD_MANAGER = "bare-client"
#: Content type and query of each kind of patch.
PATCHES = {
    "apply": ("application/apply-patch+yaml", {"fieldManager": FIELD_MANAGER, "force": "true"}),
    "merge": ("application/merge-patch+json", {"fieldManager": FIELD_MANAGER}),
}


async def send_all(kubeconfig: dict[str, Any], lines: list[bytes]) -> None:
    """Send every line's body to its path; raises on the first refusal."""
    cluster = kubeconfig["clusters"][0]["cluster"]
    token = kubeconfig["users"][0]["user"]["token"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    queue = iter(lines)

    async def work(session: aiohttp.ClientSession) -> None:
        for line in queue:
            item = orjson.loads(line)
            content_type, params = PATCHES[item.get("patch", "apply")]
            async with session.patch(
                cluster["server"] + item["path"],
                params=params,
                data=orjson.dumps(item["body"]),
                headers={"Content-Type": content_type},
                ssl=context,
            ) as answer:
                body = await answer.read()
                if answer.status >= 300:
                    raise SystemExit(f"{item['path']}: {answer.status} {body[:300]!r}")
                orjson.loads(body)

    headers = {"Authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session, asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work(session))


def main() -> None:
    """Send, then print {"cpu_s", "wall_s", "requests"}: imports and start are not counted."""
    kubeconfig = yaml.safe_load(Path(sys.argv[1]).read_text())
    lines = Path(sys.argv[2]).read_bytes().splitlines()
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    uvloop.run(send_all(kubeconfig, lines))
    wall_s, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "requests": len(lines)}))


if __name__ == "__main__":
    main()
