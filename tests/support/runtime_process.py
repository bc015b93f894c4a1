"""The real ``vllm-runtime`` (supervisor and agent) with the fake engine, as processes on this host."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from vllm_operator_api.runtime import AgentConfig, EngineExit, QueueConfig, RuntimeConfig

_Result = TypeVar("_Result")
ROOT = Path(__file__).parents[2]
ENGINE_OPTIONS_FILE = ROOT / "operator/vllm_operator/planner/data/vllm-0.32.0.json"
FAKE_ENGINE = ROOT / "tests/support/fake_engine.py"
PYTHON_PATH = os.pathsep.join(str(ROOT / name) for name in ("crds", "operator", "runtime", "hack", "."))


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], _Result], what: str, timeout_seconds: float = 15.0) -> _Result:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_seconds} s")
        time.sleep(0.02)


class RuntimeProcess:
    """One runtime. ``start()`` returns at once; ``stop()`` kills all of its processes."""

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "worker-0",
        agent: AgentConfig | None = None,
        engine_args: Sequence[str] = ("--model=tiny", "--max-model-len=64"),
        engine_env: Mapping[str, str] | None = None,
        shutdown_grace_seconds: int = 5,
        engine_command: Sequence[str] = (sys.executable, str(FAKE_ENGINE)),
        nodes: int = 1,
        container_env: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.engine_port = free_port()
        self.supervisor_port = free_port()
        self.config = RuntimeConfig(
            engine_args=list(engine_args),
            engine_env=dict(engine_env or {}),
            shutdown_grace_seconds=shutdown_grace_seconds,
            agent=agent,
            nodes=nodes,
        )
        self._container_env = dict(container_env or {})
        self._engine_command = list(engine_command)
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, psutil.Process] = {}

    def start(self) -> RuntimeProcess:
        """Start the supervisor."""
        image = self.directory / "image.json"
        image.write_text(json.dumps({"device": "cpu", "vllmVersion": "0.32.0", "passEnv": ["PATH", "PYTHONPATH"]}))
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": PYTHON_PATH,
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory),
            "VLLM_RUNTIME_CONFIG": self.config.model_dump_json(),
            "VLLM_RUNTIME_IMAGE_FILE": str(image),
            "VLLM_RUNTIME_ENGINE_OPTIONS_FILE": str(ENGINE_OPTIONS_FILE),
            "VLLM_RUNTIME_TERMINATION_MESSAGE_FILE": str(self.directory / "termination.json"),
            "VLLM_RUNTIME_ENGINE_COMMAND": json.dumps(self._engine_command),
            "VLLM_RUNTIME_ENGINE_HOST": "127.0.0.1",
            "VLLM_RUNTIME_ENGINE_PORT": str(self.engine_port),
            "VLLM_RUNTIME_SUPERVISOR_PORT": str(self.supervisor_port),
            "POD_NAME": self.name,
            "POD_UID": f"uid-{self.name}",
            "NODE_NAME": "node-1",
            **self._container_env,
        }
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vllm_runtime"], env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor."""
        assert self._process is not None, "not started"
        return self._process

    def log(self) -> str:
        """What all its processes have written."""
        return (self.directory / "log").read_text()

    def children(self, marker: str) -> list[psutil.Process]:
        """Direct children whose command line has ``marker`` (``vllm_runtime.agent``, ``fake_engine``)."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if any(marker in part for part in child.cmdline()):
                        found.append(child)
                        self._seen[child.pid] = child
        return found

    @property
    def agent(self) -> psutil.Process:
        """The agent's process."""
        return wait_for(lambda: self.children("vllm_runtime.agent"), "agent process")[0]

    @property
    def engine(self) -> psutil.Process:
        """The engine's process."""
        return wait_for(lambda: self.children("fake_engine"), "engine process")[0]

    def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        """Status and body of a GET to the engine (or another port); 0 when it cannot be reached."""
        return self._call(urllib.request.Request(f"http://127.0.0.1:{port or self.engine_port}{path}"))

    def post(self, path: str, body: object, timeout_seconds: float = 30.0) -> tuple[int, str]:
        """Status and body of a POST to the engine; 0 when it cannot be reached."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.engine_port}{path}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        return self._call(request, timeout_seconds)

    @staticmethod
    def _call(request: urllib.request.Request, timeout_seconds: float = 10.0) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_ready(self) -> RuntimeProcess:
        """Return when the engine answers ``/health``."""

        def ready() -> bool:
            assert self.process.poll() is None, f"the runtime ended: {self.log()}"
            return self.get("/health")[0] == 200

        wait_for(ready, "engine ready")
        return self

    def terminate(self) -> None:
        """SIGTERM, as the kubelet sends it."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_seconds: float = 20.0) -> int:
        """The exit code."""
        return self.process.wait(timeout_seconds)

    def termination(self) -> EngineExit | None:
        """The termination message, if there is one."""
        path = self.directory / "termination.json"
        return EngineExit.model_validate_json(path.read_bytes()) if path.exists() else None

    def kill_all(self) -> None:
        """SIGKILL every process at once, as when a node goes away."""
        processes = list(self._seen.values())
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(self.process.pid)
            processes += [supervisor, *supervisor.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """Kill what is left of it."""
        if self._process is not None:
            self.kill_all()


def agent_config(url: str, queue_id: str, **overrides: object) -> AgentConfig:
    """An agent for tests: short leases, frequent heartbeats, no credentials."""
    settings: dict[str, object] = {
        "queue": QueueConfig(url=url, queue_id=queue_id, credentials_directory=""),
        "slots": 2,
        "max_rows_in_flight": 8,
        "lease_seconds": 2,
        "heartbeat_seconds": 0.5,
    }
    return AgentConfig.model_validate(settings | overrides)
