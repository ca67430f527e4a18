"""Each repair of Megatron is still needed: without it, what it repairs fails."""

import contextlib
import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from parallelism import device, launch

device.prepare()

from megatron.core import parallel_state  # noqa: E402 - prepared above
from megatron.core.dist_checkpointing.strategies import filesystem_async  # noqa: E402
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding  # noqa: E402
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer  # noqa: E402

from parallelism import _patches, checkpoint, groups, learner, step  # noqa: E402
from parallelism.data import Sample  # noqa: E402
from parallelism.layout import Layout  # noqa: E402
from parallelism.learner import Learner, Recipe  # noqa: E402
from parallelism.presets import ModelShape  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings(
        r"ignore:::(megatron|torch|parallelism.device)"
    ),  # between the engines, as in a training
    pytest.mark.skipif(torch.cuda.is_available(), reason="with apex or TransformerEngine there is no torch AdamW"),
]

LAYOUT = Layout(world_size=1, global_batch_size=2, seq_length=16)


class Zeros:
    """A stream of one token."""

    def __len__(self) -> int:
        return 1000

    def tokens(self, start: int, stop: int) -> Any:
        return torch.zeros(stop - start, dtype=torch.int64).numpy()


@pytest.fixture
def alone() -> Iterator[None]:
    with device.stand_in(), launch.joined(launch.place({})), groups.made(LAYOUT):
        yield


@pytest.fixture
def fresh(alone: None, recipe: Recipe) -> Learner:
    return learner.build(recipe, layout=LAYOUT)


@pytest.fixture
def saved(fresh: Learner, tmp_path: Path) -> checkpoint.Checkpoint:
    """A checkpoint after three steps."""
    steps(fresh, 3)
    return learner.save(fresh, folder=tmp_path, step=3, facts={})


@pytest.fixture
def recipe(small_shape: ModelShape, small_recipe: dict[str, Any]) -> Recipe:
    return Recipe(shape=small_shape, seq_length=16, global_batch_size=2, **small_recipe)


def steps(learning: Learner, count: int) -> None:
    for _ in range(count):
        learner.clear_gradients(learning)
        step.run(learning.chunks, [Sample(stream=0, window=0)] * 2, streams=[Zeros()], layout=LAYOUT)
        learner.update(learning, norm=learner.gradient_norm(learning))


def inner(learning: Learner) -> torch.optim.Optimizer:
    found: torch.optim.Optimizer = learning.optimizer.optimizer
    return found


def test_without_repair_1_nothing_can_be_saved_before_the_first_step(fresh: Learner, tmp_path: Path) -> None:
    learner.save(fresh, folder=tmp_path, step=0, facts={})
    inner(fresh).state.clear()
    with pytest.raises(AssertionError, match=r"^$"):  # len(steps) == 1
        learner.save(fresh, folder=tmp_path, step=1, facts={})
    _patches.allocate_adam_state(inner(fresh))
    learner.save(fresh, folder=tmp_path, step=2, facts={})


def test_without_repair_2_nothing_can_be_loaded(
    fresh: Learner, saved: checkpoint.Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "loadable_adam_state", lambda _: contextlib.nullcontext())
    with pytest.raises(KeyError, match="step"):
        learner.restore(fresh, found=saved)


def test_without_repair_3_parameters_share_a_step(fresh: Learner, saved: checkpoint.Checkpoint) -> None:
    with _patches.loadable_adam_state(inner(fresh)):
        learner.restore(fresh, found=saved)
        shared = {id(state["step"]) for state in inner(fresh).state.values()}
    assert len(shared) > 1  # restore has its own repair
    states = [state["step"] for state in inner(fresh).state.values()]
    assert len({step.data_ptr() for step in states}) == len(states)
    loaded = fresh.optimizer.state_dict()
    fresh.optimizer.load_state_dict(loaded)
    again = [state["step"] for state in inner(fresh).state.values()]
    assert len({step.data_ptr() for step in again}) == 1, "Megatron no longer shares the step: drop repair 3"


def test_the_step_counts_on_after_loading(fresh: Learner, saved: checkpoint.Checkpoint) -> None:
    learner.restore(fresh, found=saved)
    steps(fresh, 2)
    assert {float(state["step"]) for state in inner(fresh).state.values()} == {5.0}


def test_the_repair_of_loading_is_undone() -> None:
    before = getattr(DistributedOptimizer, _patches._SETTER)
    with _patches.loadable_adam_state(torch.optim.AdamW([torch.zeros(1)])):
        assert getattr(DistributedOptimizer, _patches._SETTER) is not before
    assert getattr(DistributedOptimizer, _patches._SETTER) is before


def test_other_optimizers_are_left_alone() -> None:
    other = torch.optim.SGD([torch.zeros(1)])
    _patches.allocate_adam_state(other)
    assert not other.state


@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_the_state_that_is_made_is_the_one_that_the_first_step_of_one_pass_makes(place: str) -> None:
    """On a GPU the step must be there too: the kernel reads it. "meta" stands for a device that is not the CPU."""
    weight = torch.nn.Parameter(torch.zeros(2, device=place))
    optimizer = torch.optim.AdamW([weight])
    _patches.allocate_adam_state(optimizer)
    made = optimizer.state[weight]
    found = {name: (tensor.dtype, tensor.device.type, tensor.shape) for name, tensor in made.items()}
    assert found == {
        "step": (torch.float32, place, ()),
        "exp_avg": (torch.float32, place, (2,)),
        "exp_avg_sq": (torch.float32, place, (2,)),
    }


def test_saving_starts_no_process_which_megatron_alone_does(
    fresh: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner.save(fresh, folder=tmp_path, step=0, facts={})
    assert getattr(filesystem_async, _patches._RESULTS) is None
    assert multiprocessing.active_children() == []

    class ManagerAsked(Exception):  # noqa: N818 - it is what should happen
        """Megatron wanted a manager process."""

    def ask(method: str) -> Any:
        raise ManagerAsked(method)

    monkeypatch.setattr(filesystem_async.mp, "get_context", ask)
    with pytest.raises(ManagerAsked, match="spawn"):
        filesystem_async.get_write_results_queue()
    learner.save(fresh, folder=tmp_path, step=1, facts={})


def test_megatron_leaves_groups_behind_and_joining_ends_their_threads(recipe: Recipe) -> None:
    with device.stand_in(), launch.joined(launch.place({})):
        with groups.made(LAYOUT):
            steps(learner.build(recipe, layout=LAYOUT), 1)
        assert getattr(parallel_state, _patches._LEFT) is not None
        assert RotaryEmbedding.forward.cache_info().currsize
        assert _gloo_threads()
    assert not _gloo_threads()


def _gloo_threads() -> list[str]:
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]


def test_saving_without_psutil_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    message = "psutil must be installed, but it is not, and saving would hang; install psutil"
    with pytest.raises(RuntimeError, match=message), _patches.saved_without_manager():
        pass


@pytest.mark.parametrize("repaired", [True, False])
def test_padded_buckets_are_saved_right_which_megatron_alone_does_not(
    repaired: bool,
    start_training: Callable[..., Any],
    small_shape: ModelShape,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tied tables have a bucket of their own, and with one layer a chunk the bucket before it is padded."""
    if not repaired:
        monkeypatch.setattr(learner, "joined_with_padding", lambda *_: contextlib.nullcontext())
    shape = replace(small_shape, share_embeddings_and_output_weights=True, add_qkv_bias=True)
    whole = start_training(tmp_path / "whole", shape=shape, train_iters=6)
    whole.wait()
    sizes = {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2}
    start_training(tmp_path / "two", shape=shape, world_size=2, train_iters=4, **sizes).wait()
    one = start_training(tmp_path / "two", shape=shape, train_iters=6)
    assert one.wait().resumed_from == 4
    furthest = max(abs(one.values()[step] - whole.values()[step]) for step in (5, 6))
    assert furthest < 5e-6 if repaired else furthest > 1e-2
