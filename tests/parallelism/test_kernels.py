"""Which code runs: what is named is what a model is built of."""

import sys
from typing import Any

import pytest

from parallelism import device, kernels
from parallelism.kernels import Kernel

device.prepare()


from parallelism import groups, launch, learner  # noqa: E402
from parallelism.layout import Layout  # noqa: E402
from parallelism.learner import Recipe  # noqa: E402
from parallelism.presets import ModelShape  # noqa: E402


def used(*packages: str) -> dict[str, str]:
    return {kernel.operation: kernel.used for kernel in kernels.paths(lambda package: package in packages)}


def test_the_first_fused_adam_that_is_there_is_named() -> None:
    assert used()["optimizer"] == "torch AdamW"
    assert used("apex")["optimizer"] == "apex FusedAdam"
    assert used("apex", "transformer_engine")["optimizer"] == "TransformerEngine FusedAdam"
    assert set(used()) == {"optimizer", "norm, rotation, SwiGLU", "attention", "experts"}
    assert str(kernels.paths(lambda _: False)[0]) == (
        "optimizer: torch AdamW (neither transformer_engine nor apex is importable)"
    )


def test_looking_imports_nothing() -> None:
    assert not kernels.importable("no_such_package")
    assert kernels.importable("torch")
    assert all(isinstance(kernel, Kernel) for kernel in kernels.paths())
    assert not set(kernels.PACKAGES) & set(sys.modules)


@pytest.mark.filterwarnings(r"ignore:::(megatron|torch|parallelism.device)")
def test_what_is_named_is_what_is_built(small_shape: ModelShape, small_recipe: dict[str, Any]) -> None:
    layout = Layout(world_size=1, global_batch_size=2, seq_length=16)
    recipe = Recipe(shape=small_shape, seq_length=16, global_batch_size=2, **small_recipe)
    with device.stand_in(), launch.joined(launch.place({})), groups.made(layout):
        # No name holds the model: what a failed test keeps of it keeps threads that a later fork lacks.
        optimizer = type(learner.build(recipe, layout=layout).optimizer.optimizer).__name__
    named = {kernel.operation: kernel.used for kernel in kernels.paths()}
    assert named["optimizer"].split()[-1] == optimizer
