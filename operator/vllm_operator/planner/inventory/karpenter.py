"""Pools that Karpenter would make nodes for: its NodePools against the GPU machines of their cloud.

``karpenter.sh/v1`` NodePool: https://karpenter.sh/docs/concepts/nodepools. A NodePool with requirements that this table
of machines cannot judge (zones, capacity type) is taken as open to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from vllm_operator.planner.device import Device
from vllm_operator.planner.inventory.clouds import AWS_PREFIXES, AZURE_GPU_NAME_LABEL, INSTANCE_TYPE_LABEL
from vllm_operator.planner.inventory.instance_types import INSTANCE_TYPES, InstanceType
from vllm_operator.planner.inventory.nodes import lasting_taints
from vllm_operator.planner.inventory.pool import GpuPool, LabelRequirement, Taint
from vllm_operator.planner.inventory.products import product_named
from vllm_operator.planner.inventory.reading import whole_number
from vllm_operator.planner.inventory.usable import usable_bytes
from vllm_operator_api.quantities import BYTES_PER_GIB

_CLOUD_BY_CLASS_GROUP: Final = {"karpenter.k8s.aws": "aws", "eks.amazonaws.com": "aws", "karpenter.azure.com": "azure"}
_PREFIX_BY_CLASS_GROUP: Final = {
    "karpenter.k8s.aws": AWS_PREFIXES[0],
    "eks.amazonaws.com": AWS_PREFIXES[1],
    "karpenter.azure.com": "karpenter.azure.com/sku-",
}
_RESOURCE_BY_VENDOR: Final = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "habana": "habana.ai/gaudi"}
_ALLOCATABLE_SHARE: Final = 0.9
"""Of a machine's CPU and memory: Karpenter expects 7.5 % of memory to be missing, and the kubelet keeps some."""


def pools_to_come(node_pools: Iterable[Mapping[str, Any]]) -> tuple[GpuPool, ...]:
    """Pools of zero nodes, one for each product and number of GPUs that a NodePool allows. Never raises."""
    found: dict[tuple[Any, ...], list[InstanceType]] = {}
    for node_pool in node_pools:
        spec = _mapping(node_pool.get("spec"))
        template = _mapping(_mapping(spec.get("template")).get("spec"))
        group = str(_mapping(template.get("nodeClassRef")).get("group", ""))
        if group not in _CLOUD_BY_CLASS_GROUP or _mapping(node_pool.get("metadata")).get("deletionTimestamp"):
            continue
        requirements = [each for each in template.get("requirements") or () if isinstance(each, dict)]
        taints = _taints(template)
        limits = _mapping(spec.get("limits"))
        for instance in INSTANCE_TYPES.values():
            if instance.cloud != _CLOUD_BY_CLASS_GROUP[group]:
                continue
            labels = _labels(instance, _PREFIX_BY_CLASS_GROUP[group])
            if all(_allows(each, labels) for each in requirements) and _within(limits, instance):
                found.setdefault((group, instance.product, instance.gpus, taints), []).append(instance)
    return tuple(_pool(group, instances, taints) for (group, _, _, taints), instances in found.items())


def _pool(group: str, instances: list[InstanceType], taints: tuple[Taint, ...]) -> GpuPool:
    first = instances[0]
    product = product_named(first.product)
    assert product is not None, first.product
    return GpuPool(
        resource_name=_RESOURCE_BY_VENDOR[product.vendor],
        product=product.name,
        device=Device(vendor=product.vendor, compute_capability=product.compute_capability),
        usable_bytes=usable_bytes(product.name),
        gpus_per_node=first.gpus,
        nodes=0,
        link=product.link,
        requirements=(_requirement(group, instances),),
        taints=taints,
        cpu_millis_per_node=int(min(instance.cpus for instance in instances) * 1000 * _ALLOCATABLE_SHARE),
        memory_bytes_per_node=int(
            min(instance.memory_gib for instance in instances) * BYTES_PER_GIB * _ALLOCATABLE_SHARE
        ),
    )


def _requirement(group: str, instances: list[InstanceType]) -> LabelRequirement:
    """By the GPU's name; by machine where the name stands for several products, as ``a100`` does."""
    first = instances[0]
    alike = {
        each.product for each in INSTANCE_TYPES.values() if (each.cloud, each.gpu_name) == (first.cloud, first.gpu_name)
    }
    if first.gpu_name and len(alike) == 1:
        prefix = _PREFIX_BY_CLASS_GROUP[group]
        key = AZURE_GPU_NAME_LABEL if first.cloud == "azure" else f"{prefix}instance-gpu-name"
        return LabelRequirement(key=key, values=(first.gpu_name,))
    return LabelRequirement(key=INSTANCE_TYPE_LABEL, values=tuple(sorted({each.name for each in instances})))


def _labels(instance: InstanceType, prefix: str) -> dict[str, str]:
    """Well-known labels of a machine of this type, as far as the table has them."""
    product = product_named(instance.product)
    labels = {INSTANCE_TYPE_LABEL: instance.name, "kubernetes.io/os": "linux"}
    if instance.cloud == "azure":
        labels |= {
            f"{prefix}name": instance.name,
            f"{prefix}family": "N",
            f"{prefix}cpu": str(instance.cpus),
            f"{prefix}memory": str(instance.memory_gib * 1024),
        }
        gpu = prefix
    else:
        family, _, size = instance.name.partition(".")
        labels |= {
            "kubernetes.io/arch": "amd64",
            f"{prefix}instance-category": _category(family),
            f"{prefix}instance-family": family,
            f"{prefix}instance-generation": _generation(family),
            f"{prefix}instance-size": size,
            f"{prefix}instance-cpu": str(instance.cpus),
            f"{prefix}instance-memory": str(instance.memory_gib * 1024),
        }
        gpu = f"{prefix}instance-"
    if instance.gpu_name and product is not None:
        labels |= {
            f"{gpu}gpu-name": instance.gpu_name,
            f"{gpu}gpu-count": str(instance.gpus),
            f"{gpu}gpu-manufacturer": product.vendor,
            f"{gpu}gpu-memory": str(product.label_mib),
        }
    return labels


def _category(family: str) -> str:
    """``p`` of ``p5en``, ``gr`` of ``gr6``: the letters before the first digit."""
    return family[: next((index for index, letter in enumerate(family) if letter.isdigit()), len(family))]


def _generation(family: str) -> str:
    """``5`` of ``p5en``."""
    rest = family[len(_category(family)) :]
    return rest[: next((index for index, letter in enumerate(rest) if not letter.isdigit()), len(rest))]


def _allows(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a machine with these labels meets a requirement.

    A key that the table does not have is no obstacle, unless it is about GPUs.
    """
    key, operator = str(requirement.get("key", "")), requirement.get("operator")
    values = [str(value) for value in requirement.get("values") or ()]
    label = labels.get(key)
    if label is None:
        return "gpu" not in key or operator in ("NotIn", "DoesNotExist")
    if operator in ("Gt", "Lt", "Gte", "Lte"):
        number, bound = whole_number(label), whole_number(values[0]) if values else None
        if number is None or bound is None:
            return False
        return {"Gt": number > bound, "Lt": number < bound, "Gte": number >= bound, "Lte": number <= bound}[operator]
    if operator == "In":
        return label in values
    if operator == "NotIn":
        return label not in values
    return operator != "DoesNotExist"


def _within(limits: Mapping[str, Any], instance: InstanceType) -> bool:
    product = product_named(instance.product)
    limit = whole_number(limits.get(_RESOURCE_BY_VENDOR[product.vendor])) if product is not None else None
    return limit is None or limit >= instance.gpus


def _taints(template: Mapping[str, Any]) -> tuple[Taint, ...]:
    taints = [each for each in template.get("taints") or () if isinstance(each, dict)]
    return lasting_taints({"spec": {"taints": taints}})


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
