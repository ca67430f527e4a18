"""Refuses a module named `apex` that is not NVIDIA's, before Megatron sees it.

Megatron takes any importable `apex` as a sign that NVIDIA's fused kernels exist and builds other layers then. The
distribution named apex on the public package index is an unrelated web toolkit.
"""

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

_NVIDIA_FILES = ("optimizers/fused_adam.py", "multi_tensor_apply/__init__.py")


def refuse_foreign_apex() -> None:
    """Looks at the importable module named apex, without importing it.

    Raises:
        RuntimeError: the module is not NVIDIA's, or is NVIDIA's without its compiled kernels.
    """
    spec = importlib.util.find_spec("apex")
    if spec is None:
        return
    if not all((folder / name).is_file() for folder in _folders(spec)[:1] or [Path()] for name in _NVIDIA_FILES):
        raise RuntimeError(
            f"a module named apex must be NVIDIA's, but {spec.origin or _folders(spec)} is another project's; "
            "remove it (pip uninstall apex): Megatron would build other layers because of it"
        )
    if importlib.util.find_spec("amp_C") is None:
        raise RuntimeError(
            f"NVIDIA's apex must have its compiled kernels, but {spec.origin} comes without amp_C; "
            "build it with APEX_CPP_EXT=1 APEX_CUDA_EXT=1 (see docs), or remove it"
        )


def _folders(spec: ModuleSpec) -> list[Path]:
    return [Path(place) for place in spec.submodule_search_locations or ()]
