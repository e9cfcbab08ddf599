"""The process group of a trial on several devices of this machine alone: nothing of it listens where others could reach it.

PyTorch's usual meeting point is a server that listens on all interfaces and serves whoever asks. On one machine a file will do.
"""

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ray.train.torch import TorchConfig
from ray.train.torch import config as ray_torch

_LOOPBACK = "127.0.0.1"


def torch_config(backend: str) -> TorchConfig:
    """How the processes of a trial find each other: by loopback in a private Ray, as Ray does it on a cluster."""
    import ray

    return _LoopbackConfig(backend=backend) if ray.util.get_node_ip_address() == _LOOPBACK else TorchConfig(backend=backend)


@dataclass
class _LoopbackConfig(TorchConfig):
    @property
    def backend_cls(self) -> type[Any]:
        return _LoopbackBackend


class _LoopbackBackend(ray_torch._TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        import ray
        from ray._private import worker

        worker_group.execute(_use_loopback)
        worker_group.execute(ray_torch._set_torch_distributed_env_vars)
        # The session's folder is inside one that only its owner may enter, and goes with the session.
        node: Any = worker._global_node
        meeting = Path(node.get_session_dir_path()) / f"group-{uuid.uuid4().hex}"
        count = len(worker_group)
        ready = [
            worker_group.execute_single_async(
                rank,
                ray_torch._setup_torch_process_group,
                backend=backend_config.backend,
                world_rank=rank,
                world_size=count,
                init_method=meeting.as_uri(),
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(count)
        ]
        ray.get(ready)


def _use_loopback() -> None:
    """Have gloo and NCCL talk through the loopback interface, whatever the user has set for other programs."""
    addresses = psutil.net_if_addrs()
    name = next(name for name, of in addresses.items() if any(one.address == _LOOPBACK for one in of))
    os.environ |= {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}
