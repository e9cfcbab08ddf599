"""The machine that a measurement was made on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What times depend on besides the code."""

    cpu: str
    cores: int
    """Physical cores."""
    cpus: int
    """Logical CPUs that the process may use."""
    threads: int
    """Threads that PyTorch computes with."""
    device: str
    gpu: str | None
    pytorch: str
    """Version."""
    kernels: str
    """Fingerprint of the compiled kernels, or none."""
    precision: str
    """bf16 or fp32."""
