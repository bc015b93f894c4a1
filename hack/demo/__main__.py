"""``make demo``: the main job from nothing to the end, with what each step took."""

from __future__ import annotations

import sys
from typing import Any

from demo import client, stack
from demo.kubectl import Kubectl, condition, eventually
from demo.timeline import Timeline

ROWS = "/mnt/demo/fortunes.jsonl"
CHAT_ROWS = "/mnt/demo/fortunes-200.jsonl"
EMBEDDED = "/mnt/demo/out/fortunes-embedded.jsonl"
EXPLAINED = "/mnt/demo/out/fortunes-explained.jsonl"
QUERY = "advice about love and marriage"
OBJECTS = "llmservices.inference.vllm-operator.io,inferencejobs.inference.vllm-operator.io"


def say(text: str) -> None:
    """Print indented."""
    print("\n".join(f"    {line}" for line in text.rstrip().splitlines()), flush=True)


def show_plan(kubectl: Kubectl, name: str) -> None:
    """Print what the operator chose for a service, and why."""
    plan = ((kubectl.get("llmservice", name) or {}).get("status") or {}).get("plan") or {}
    say(f"{name}: {plan.get('reason')}")


def show_leases(kubectl: Kubectl, name: str) -> None:
    """Wait until a job has leases, and print them with the workers' heartbeats."""

    def leased() -> dict[str, Any] | None:
        status = (kubectl.get("inferencejob", name) or {}).get("status") or {}
        return status if (status.get("leases") or {}).get("active") or status.get("completionTime") else None

    status = eventually(leased, what=f"leases of {name}", timeout_seconds=180)
    shards = status.get("shards") or {}
    leases = status.get("leases") or {}
    say(
        f"rows {status.get('progress')}; {leases.get('active', 0)} active leases (as the agents say); "
        f"shards: {shards.get('committed', 0)} of {shards.get('total')} done"
    )
    for worker in (status.get("workers") or {}).get("items") or []:
        say(f"worker {worker['name']}: {worker.get('state')}, last heartbeat {worker.get('lastHeartbeatTime')}")


def expect_all_rows(kubectl: Kubectl, source: str, output: str, rows: int, result_key: str) -> None:
    """Compare output with input, print the counts, and end the demo if a row is missing, doubled or out of order."""
    found = client.in_pod(kubectl.command(), "check_rows", source, output, rows, result_key)
    say(f"{found['output']} rows out of {found['input']}, in order: {found['in_order']}, errors: {found['errors']}")
    if found["output"] != rows or not found["in_order"] or found["answered"] + found["errors"] != rows:
        raise RuntimeError(f"the output is not the input's rows: {found}")


def wait_asleep(kubectl: Kubectl, *names: str) -> None:
    """Wait until the services sleep and none of their pods is left."""
    for name in names:
        kubectl.wait("condition=Asleep", f"llmservice/{name}", timeout_seconds=180)
    eventually(
        lambda: not kubectl.items("pods", "app.kubernetes.io/component=engine"),
        what="the engines' pods to be gone", timeout_seconds=90,
    )  # fmt: skip


def demo() -> None:
    """Run all steps.

    Raises:
        Exception: the first step that fails ends the demo.
    """
    timeline = Timeline()
    images = stack.ImageBuild()
    with timeline.step("Kubernetes cluster on this machine (the images are built meanwhile)"):
        stack.cluster_up()
    with timeline.step("Images: operator, runtime with vLLM for CPU, queue, demo data"):
        images.load()
    paths = stack.tools()
    kubectl = Kubectl(str(paths.kubectl), paths.kubeconfig)
    with timeline.step("helm install vllm-operator"):
        stack.install_chart(paths)
        say(kubectl("get", "pods", "-n", stack.RELEASE_NAMESPACE))
    # A demo may be run again on the same cluster: what an earlier run made goes first.
    kubectl("delete", OBJECTS, "--all", "--wait=true")
    with timeline.step("A volume with two models and 2,000 rows of text"):
        kubectl("delete", "job/seed-demo", "--ignore-not-found")
        stack.seed_volume(kubectl)
        kubectl("exec", "client", "--", "rm", "-rf", "/mnt/demo/out")
    with timeline.step("Two LLMServices: a tiny chat model and all-MiniLM-L6-v2"):
        kubectl.apply((stack.EXAMPLES / "services.yaml").read_text())
        kubectl.wait("condition=Ready", "llmservice/tiny", "llmservice/minilm", timeout_seconds=300)
        say("(the node pretends to have eight NVIDIA L4, so that pods request GPUs; the engines run on the CPU)")
        show_plan(kubectl, "tiny")
        show_plan(kubectl, "minilm")
    with timeline.step("A chat through the Service"):
        url = "http://tiny.default.svc.cluster.local:8000"
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 12}
        answer = client.in_pod(kubectl.command(), "post", f"{url}/v1/chat/completions", body)
        say("(the tiny model has random weights: what it writes means nothing, how it is served is real)")
        say(f"answer ({answer['usage']['completion_tokens']} tokens): {answer['choices'][0]['message']['content']!r}")
    with timeline.step("InferenceJob: embeddings of 2,000 rows, from and to the volume"):
        kubectl.apply((stack.EXAMPLES / "embed-fortunes.yaml").read_text())
        show_leases(kubectl, "embed-fortunes")
        kubectl.wait("condition=Complete", "inferencejob/embed-fortunes", timeout_seconds=600)
        expect_all_rows(kubectl, ROWS, EMBEDDED, 2000, "embedding")
    with timeline.step(f"The three rows nearest to {QUERY!r}"):
        url = "http://minilm.default.svc.cluster.local:8000"
        for row in client.in_pod(kubectl.command(), "nearest", url, "minilm", EMBEDDED, QUERY, 3):
            say(f"{row['score']:.3f}  {' '.join(row['text'].split())[:110]}")
    with timeline.step("InferenceJob: 200 chat rows"):
        kubectl.apply((stack.EXAMPLES / "chat-fortunes.yaml").read_text())
        kubectl.wait("condition=Complete", "inferencejob/chat-fortunes", timeout_seconds=300)
        expect_all_rows(kubectl, CHAT_ROWS, EXPLAINED, 200, "explanation")
    with timeline.step("Both services asleep at zero after 20 s without work"):
        wait_asleep(kubectl, "tiny", "minilm")
        say(kubectl("get", OBJECTS))
    with timeline.step("A further job wakes one of them"):
        kubectl.apply((stack.EXAMPLES / "wake.yaml").read_text())
        kubectl.wait("condition=Complete", "inferencejob/wake", timeout_seconds=300)
        kubectl.wait("condition=Ready", "llmservice/minilm", timeout_seconds=60)
        say(kubectl("get", "llm,ij"))
    print(f"\n{timeline.summary()}\n")
    say("The cluster is up; look around with")
    say(f"  export KUBECONFIG={paths.kubeconfig}; alias kubectl={paths.kubectl}")
    say("`make demo-down` removes it.")


def main() -> int:
    """Run the demo; a failure is told in a line and shown with what the cluster says about it."""
    try:
        demo()
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the end of a command: every failure is told
        print(f"\ndemo: {error}", file=sys.stderr)
        diagnose()
        return 1
    return 0


def diagnose() -> None:
    """Print the objects and the conditions that are not as they should be."""
    try:
        paths = stack.tools()
        kubectl = Kubectl(str(paths.kubectl), paths.kubeconfig)
        print(kubectl("get", f"{OBJECTS},pods", "-A"), file=sys.stderr)
        for entry in kubectl.json("get", OBJECTS, "-A")["items"]:
            for name in ("Accepted", "Planned", "Ready", "Degraded", "InputReady", "WorkersReady", "Failed"):
                found = condition(entry, name)
                if found:
                    text = f"{found['status']} {found['reason']}: {found['message']}"
                    print(f"{entry['kind']} {entry['metadata']['name']} {name}={text}", file=sys.stderr)
    except Exception as error:  # noqa: BLE001 - diagnosis of a failure must not hide it
        print(f"demo: no more to tell: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
