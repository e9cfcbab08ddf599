import torch

from engram.kernels import gpu
from engramctl.sweep import kernels


def test_a_gpu_without_kernels_is_told(monkeypatch):
    monkeypatch.setattr("engram.training.machine.resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(gpu, "missing", lambda: "something")
    assert kernels.compiling("cuda").result() == ("training without kernels for the GPU, many times more slowly: something",)
    monkeypatch.setattr(gpu, "missing", lambda: None)
    assert kernels.compiling("cuda").result() == ()
