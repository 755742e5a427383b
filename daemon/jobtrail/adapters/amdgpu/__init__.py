"""AMD GPUs through the kernel's own files (amdgpu in sysfs); no program and no library of the vendor is used."""

from jobtrail.adapters.amdgpu.source import AmdGpuSource

__all__ = ["AmdGpuSource"]
