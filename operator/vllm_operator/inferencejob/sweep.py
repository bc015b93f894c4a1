"""What custom resources that are gone left in the queue."""

from __future__ import annotations

from vllm_operator.kube.client import KubeClient
from vllm_operator.kube.kinds import INFERENCE_JOB, LLM_SERVICE
from vllm_operator.queue.view import QueueAdmin

_ENDED = frozenset({"Succeeded", "PartiallySucceeded", "Failed"})


async def sweep_queue(client: KubeClient, admin: QueueAdmin) -> int:
    """Remove streams and consumers whose owner is gone, by fresh lists of all owners; returns how many.

    A service that is being deleted still counts as there, a job that has ended does not.

    Raises:
        KubeError: the lists could not be read; nothing was removed.
        QueueUnavailableError: no connection to the queue.
    """
    services = await client.list(LLM_SERVICE)
    jobs = await client.list(INFERENCE_JOB)
    live_jobs = frozenset(
        str(job["metadata"]["uid"]) for job in jobs.items if (job.get("status") or {}).get("phase") not in _ENDED
    )
    return await admin.sweep(frozenset(str(service["metadata"]["uid"]) for service in services.items), live_jobs)
