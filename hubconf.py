"""The entries of torch.hub: torch.hub.load(FOLDER, "nvidia_ssd", source="local"), where FOLDER holds this file."""

from ssdtrt.hub import nvidia_ssd, nvidia_ssd_processing_utils

dependencies = ["torch", "torchvision", "numpy", "PIL", "msgspec", "packaging"]
__all__ = ["nvidia_ssd", "nvidia_ssd_processing_utils"]
