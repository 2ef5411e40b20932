"""Where to train: lightning-fabric on a device by name, asked for only when a training starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stablenet.devices import find_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def fabric_on(device: str, count: int = 1) -> Fabric:
    """Fabric on so many devices: "auto" takes the best there is, else cpu, cuda, or one GPU by its number, as cuda:1.

    Raises
    ------
    ValueError : the extra `train` is missing, or the device is.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise ValueError(f"training needs the extra `train` ({error}): pip install 'stablenet[train]'") from None
    if device == "auto":
        return Fabric(accelerator="auto", devices=count)
    found = find_device(device)
    if found.index is not None and count > 1:
        raise ValueError(f"--device {device} is one device, and --devices asks for {count}: give --device {found.type}")
    return Fabric(accelerator=found.type, devices=count if found.index is None else [found.index])
