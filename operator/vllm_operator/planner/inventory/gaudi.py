"""Intel Gaudi (resource ``habana.ai/gaudi``): no label states the memory, so the generation decides.

The device plugin sets no labels. Node feature discovery labels the PCI device (vendor 1da3), and the instance type or
a profile says it elsewhere. https://docs.habana.ai/en/latest/Installation_Guide/Additional_Installation/Kubernetes_Installation
"""

from __future__ import annotations

import re
from typing import Final

from vllm_operator.planner.inventory.reading import Described, Labels, Refusal, required

_PCI_LABEL: Final = re.compile(r"^feature\.node\.kubernetes\.io/pci-(?:1200_)?1da3_([0-9a-f]{4})\.present$")
_PRODUCT_BY_DEVICE_ID: Final = {"1000": "Gaudi", "1001": "Gaudi", "1010": "Gaudi", "1020": "Gaudi2", "1060": "Gaudi3"}
"""PCI device ids, from https://pci-ids.ucw.cz/read/PC/1da3 and the Linux driver ``accel/habanalabs``."""
_PRODUCT_LABEL: Final = "habana.ai/product.name"


def describe(labels: Labels, resource_name: str, gpus: int) -> Described | Refusal | None:
    """The accelerator behind the resource, of which the node offers ``gpus``."""
    if labels.get(_PRODUCT_LABEL):
        return Described(product=labels[_PRODUCT_LABEL], requirements=required(labels, _PRODUCT_LABEL))
    found = sorted(
        (product, key)
        for key, value in labels.items()
        if value == "true"
        and (match := _PCI_LABEL.match(key)) is not None
        and (product := _PRODUCT_BY_DEVICE_ID.get(match[1])) is not None
    )
    if not found:
        return None
    if len({product for product, _ in found}) > 1:
        return Refusal(f"offers {gpus} {resource_name} of different kinds: {', '.join(name for name, _ in found)}")
    product, key = found[0]
    return Described(product=product, requirements=required(labels, key))
