"""What the demo and the end-to-end tests do inside the cluster: requests through a Service, from a pod.

The functions here run this very file's ``main`` in the pod ``client`` (standard library only).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from_pod = __name__ == "__main__"


def post(url: str, body: dict[str, Any], timeout: float = 120.0) -> dict[str, Any]:
    """POST JSON; an HTTP error comes back as ``{"status": …, "error": …}``."""
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            parsed: dict[str, Any] = json.loads(answer.read())
            return parsed
    except urllib.error.HTTPError as error:
        return {"status": error.code, "error": error.read().decode(errors="replace")}


def nearest(service_url: str, model: str, vectors: Path, query: str, count: int) -> list[dict[str, Any]]:
    """The rows of an answered embedding job that are nearest to ``query``, best first."""
    wanted = post(f"{service_url}/v1/embeddings", {"model": model, "input": query})["data"][0]["embedding"]
    scored = []
    with vectors.open() as lines:
        for line in lines:
            row = json.loads(line)
            if row["embedding"] is None:
                continue
            score = sum(a * b for a, b in zip(wanted, row["embedding"], strict=True))
            norm = math.sqrt(sum(a * a for a in wanted)) * math.sqrt(sum(b * b for b in row["embedding"]))
            scored.append({"score": round(score / norm, 3), "id": row["id"], "text": row["text"]})
    return sorted(scored, key=lambda row: -row["score"])[:count]


def check_rows(source: Path, output: Path, limit: int, result_key: str) -> dict[str, Any]:
    """Compare a job's output with its input: every row once, in order, with an answer or an error."""
    with source.open("rb") as lines:
        wanted = [json.loads(line) for line in lines if line.strip()][:limit]
    with output.open("rb") as lines:
        rows = [json.loads(line) for line in lines]
    return {
        "input": len(wanted),
        "output": len(rows),
        "in_order": [row["id"] for row in rows] == [row["id"] for row in wanted],
        "answered": sum(row.get(result_key) is not None for row in rows),
        "errors": sum(f"{result_key}_error" in row for row in rows),
    }


def in_pod(kubectl: list[str], call: str, *args: Any, timeout: float = 180.0) -> Any:
    """Run a function of this file in the pod ``client`` and return what it returns.

    Raises:
        RuntimeError: it raised; the message has the pod's traceback.
    """
    source = Path(__file__).read_text()
    done = subprocess.run(
        [*kubectl, "exec", "-i", "client", "--", "python3", "-", call, json.dumps(args)],
        input=source, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{call} in pod client: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def _main() -> None:
    call, args = sys.argv[1], json.loads(sys.argv[2])
    if call == "post":
        result: Any = post(*args)
    elif call == "nearest":
        url, model, vectors, query, count = args
        result = nearest(url, model, Path(vectors), query, count)
    elif call == "check_rows":
        source, output, limit, result_key = args
        result = check_rows(Path(source), Path(output), limit, result_key)
    else:
        raise SystemExit(f"unknown call {call!r}")
    print(json.dumps(result))


if from_pod:
    _main()
