"""What the device does at best: large matrix products, and copies of memory."""

import torch

from engram.benchmarks.gpu.environment import Environment, Tell
from engram.benchmarks.machine import this_machine
from engram.benchmarks.timing import calls

_WIDTH, _COPIED = 8192, 1 << 30


def measure_peak(environment: Environment, tell: Tell) -> None:
    """FLOP/s of a square product in the precision of training; bytes per second that a copy reads and writes."""
    setup, device = environment.setup("10m"), environment.device
    machine = this_machine(setup.train, device)
    tell(gpu=machine.gpu, cpu=machine.cpu, pytorch=machine.pytorch, precision=machine.precision)
    width, copied = (512, 1 << 24) if environment.rehearsal else (_WIDTH, _COPIED)
    dtype = torch.bfloat16 if machine.precision == "bf16" else torch.float32
    a, b = (torch.randn(width, width, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    turn = calls(lambda: [torch.mm(a, b, out=out) for _ in range(10)], device)
    turn(0.2)
    tell(product_flops_per_s=10 * 2 * width**3 / min(turn(environment.seconds / 4) for _ in range(3)))
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    turn = calls(lambda: [target.copy_(source) for _ in range(10)], device)
    turn(0.2)
    tell(copied_bytes_per_s=10 * 2 * copied / min(turn(environment.seconds / 4) for _ in range(3)))
