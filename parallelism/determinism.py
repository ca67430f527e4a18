"""Deterministic kernels: the same bits from the same state on the same machines, at some cost in speed on GPUs."""

import os
from collections.abc import Mapping

import torch

ENVIRONMENT: Mapping[str, str] = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS adds in a fixed order only with workspaces of a fixed size
    "NCCL_ALGO": "Ring",  # otherwise NCCL may choose another algorithm, and so another order, from call to call
}


def demand() -> dict[str, str]:
    """Switches this process to deterministic kernels, and returns what was set; call it before a GPU is used.

    A kernel that has no deterministic form raises torch's RuntimeError, which names it.
    """
    os.environ.update(ENVIRONMENT)
    torch.use_deterministic_algorithms(True)
    # Filling memory costs time, and none is read before it is written.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 - torch types it not
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return {"torch.use_deterministic_algorithms": "true", "torch.backends.cudnn.deterministic": "true", **ENVIRONMENT}
