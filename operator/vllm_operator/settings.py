"""Settings of the operator, from environment variables ``VLLM_OPERATOR_*`` (set by the chart)."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from vllm_operator.planner.inventory.profiles import parse_profiles


class Settings(BaseSettings):
    """Everything that an installation may set. Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="VLLM_OPERATOR_", frozen=True)

    namespace: str = Field(default="vllm-operator-system", description="Namespace the operator runs in.")
    pod_name: str = Field(default="vllm-operator", description="Identity in the leader lease.")
    watch_namespaces: str = Field(default="", description="Comma-separated; empty: all namespaces.")
    runtime_image: str = Field(default="vllm-operator/runtime:dev", description="Default image of engine pods.")
    operator_image: str = Field(default="vllm-operator/operator:dev", description="Image of drivers and facts readers.")
    image_pull_policy: str = Field(default="IfNotPresent")
    queue_url: str = Field(default="nats://127.0.0.1:4222", description="URL for the operator and for pods it makes.")
    queue_credentials_directory: str = Field(default="", description="The operator's own credentials; empty: none.")
    agent_credentials_secret: str = Field(default="vllm-operator-queue-agent", description="In users' namespaces.")
    driver_credentials_secret: str = Field(default="vllm-operator-queue-driver", description="In users' namespaces.")
    hub_endpoint: str = Field(default="", description="Mirror of the model hub for facts readers and engines.")
    accelerator_profiles: str = Field(
        default="[]", description="JSON list of profiles of accelerator nodes (planner/inventory/profiles.py)."
    )
    cluster_domain: str = Field(default="cluster.local")
    reconcile_workers: int = Field(default=8, ge=1, le=64)
    resync_seconds: float = Field(default=600.0, gt=0)
    status_interval_seconds: float = Field(
        default=5.0, ge=0, description="Least time between two status writes of an object when only numbers changed."
    )
    drain_quiet_seconds: float = Field(
        default=8.0,
        gt=0,
        description="Time without activity after the fence before replicas go to zero: above vLLM's keep-alive of 5 s.",
    )
    http_port: int = Field(default=8080, description="Health and metrics.")
    leader_election: bool = Field(default=True)
    lease_duration_seconds: float = Field(default=15.0)
    log_level: str = Field(default="INFO")

    @field_validator("accelerator_profiles")
    @classmethod
    def _check_profiles(cls, text: str) -> str:
        parse_profiles(text)
        return text
