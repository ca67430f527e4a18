"""Which code will run the heavy operations in this environment; looks for packages, and imports none."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

PACKAGES = ("transformer_engine", "apex")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What runs an operation, and why that."""

    operation: str
    used: str
    why: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.used} ({self.why})"


def importable(package: str) -> bool:
    """Says whether `package` could be imported here, without importing it."""
    return importlib.util.find_spec(package) is not None


def paths(is_importable: Callable[[str], bool] = importable) -> tuple[Kernel, ...]:
    """Returns what runs the optimizer, the norms, attention and the experts.

    Megatron takes the first fused Adam that is there. The others are medscale's own choice (model.py, attention.py),
    whatever is importable: torch's RMSNorm and attention are single kernels on a GPU.
    """
    here = [package for package in PACKAGES if is_importable(package)]
    found = f"{' and '.join(here)} importable" if here else f"neither {' nor '.join(PACKAGES)} is importable"
    adam = {"transformer_engine": "TransformerEngine FusedAdam", "apex": "apex FusedAdam"}
    return (
        Kernel(operation="optimizer", used=adam[here[0]] if here else "torch AdamW", why=found),
        Kernel(
            operation="norm, rotation, SwiGLU",
            used="torch's and Megatron's compiled ones; few passes on a CPU",
            why="exact under sequence parallel, with or without apex",
        ),
        Kernel(operation="attention", used="torch's flash and FlexAttention; tiles on a CPU", why="by device and mask"),
        Kernel(operation="experts", used="one torch matmul an expert", why="no grouped GEMM is used"),
    )
