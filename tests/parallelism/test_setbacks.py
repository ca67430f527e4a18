"""Losses that jump or are no number: what is judged to be one, and real ranks that stop, skip or go back and around."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.spawn import ProcessRaisedException

from parallelism import data, device

device.prepare()

import torch  # noqa: E402 - prepared above
from megatron.core import dist_checkpointing  # noqa: E402

from parallelism import launch, setbacks, step  # noqa: E402
from parallelism.presets import Experts, ModelShape  # noqa: E402
from parallelism.setbacks import Answer, History, Policy  # noqa: E402

Start = Callable[..., Any]
BATCH, SEQ_LENGTH, SPOILED_STEP = 8, 32, 9
TP2PP2: dict[str, Any] = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}
SCHEDULE: dict[str, Any] = {"train_iters": 14, "save_interval": 4, "lr": 1e-2, "mixture": {"one": 1.0}}


def judge(policy: Policy, history: History, loss: float) -> str | None:
    found = setbacks.judge(policy, history=history, figures={"loss": loss, "gradient norm": 1.0})
    return f"{found.kind}: {found.answer}" if found else None


def test_a_spike_is_measured_by_the_median_and_its_deviation() -> None:
    policy = Policy(on_spike="skip", spike_window=5, spike_factor=3)
    history = History(losses=(2.0, 2.1, 1.9, 2.2, 9.0))  # median 2.1, deviations 0.1 0 0.2 0.1 6.9: median 0.1
    assert judge(policy, history, 2.39) is None
    assert judge(policy, history, 2.41) == "spike: skip"
    assert judge(policy, replace(history, losses=history.losses[1:]), 99.0) is None  # too few to tell
    assert judge(replace(policy, on_spike="ignore"), history, 99.0) is None
    assert judge(policy, history, math.nan) == "nan: stop"


def test_more_answers_than_allowed_are_a_stop() -> None:
    skip, rewind = Policy(on_nan="skip", max_skips=2), Policy(on_nan="rewind", max_rewinds=1)
    history = setbacks.skipped(History(), step=5)
    assert judge(skip, history, math.inf) == "nan: skip"
    history = setbacks.skipped(history, step=6)
    assert judge(skip, history, math.inf) == "nan: stop"
    assert judge(skip, setbacks.counted(skip, history=history, loss=1.0), math.inf) == "nan: skip"
    assert judge(rewind, History(), math.inf) == "nan: rewind"
    assert judge(rewind, History(rewinds=((9, 8),)), math.inf) == "nan: stop"


def test_a_history_is_read_as_it_was_written() -> None:
    history = History(losses=(1.1, 0.1), skipped=(4,), in_a_row=1, rewinds=((9, 8),), left_out=8)
    assert History.read(history.write() | {"rewinds": [[9, 8]], "skipped": [4]}) == history
    assert History.read({}) == History()


@dataclass(frozen=True)
class Spoiled:
    """A stream of a simple pattern in which some windows hold tokens that occur nowhere else."""

    length: int = 5000
    windows: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.length

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        places = np.arange(start, stop)
        spoiled = np.isin(places // SEQ_LENGTH, self.windows)
        return np.where(spoiled, 100 + places * 37 % 99, places % 3)


def spoiled(first: int, last: int) -> dict[str, Any]:
    """The stream whose samples in batches `first` to `last` are spoiled."""
    order = data.order({"one": Spoiled()}, mixture={"one": 1.0}, seq_length=SEQ_LENGTH, seed=1)
    samples = range((first - 1) * BATCH, last * BATCH)
    return {"one": Spoiled(windows=tuple(order.sample(index).window for index in samples))}


def policy(answer: Answer, **limits: Any) -> dict[str, Any]:
    return {"setbacks": Policy(on_spike=answer, spike_window=6, spike_factor=1.5, **limits)}


def bits(attempt: Any, first: int = 1) -> dict[int, str]:
    return {number: loss.hex() for number, loss in attempt.values().items() if number >= first}


@pytest.mark.parametrize(("count", "layout"), [(1, {}), (2, {}), (4, TP2PP2)], ids=["1", "DP2", "TP2xPP2"])
def test_a_batch_that_spikes_is_left_out(
    count: int, layout: dict[str, Any], start_training: Start, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {**SCHEDULE, **layout, **policy("skip"), "world_size": count}
    streams = spoiled(SPOILED_STEP, SPOILED_STEP)
    whole = start_training(tmp_path / "whole", streams=streams, **settings)
    result = whole.wait()
    assert result.history.skipped == (SPOILED_STEP,)
    assert whole.values("train/skipped") == {SPOILED_STEP: 1}
    assert f"step {SPOILED_STEP} left out: the loss must be at most" in whole.notes()
    losses = whole.values()
    assert losses[SPOILED_STEP] > losses[SPOILED_STEP - 1] + 1
    assert losses[SPOILED_STEP + 1] < losses[SPOILED_STEP - 1]
    if count == 2:  # stopped just before the spike: what a loss is compared with comes from the checkpoint
        cut = tmp_path / "cut"
        start_training(cut, streams=streams, **settings | {"train_iters": SPOILED_STEP - 1}).wait()
        again = start_training(cut, streams=streams, **settings)
        assert again.wait().history.skipped == (SPOILED_STEP,)
        assert bits(again) == bits(whole, SPOILED_STEP)


def test_a_spike_that_goes_on_stops(start_training: Start, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SCHEDULE, **policy("skip", max_skips=2)}
    attempt = start_training(tmp_path, streams=spoiled(SPOILED_STEP, SPOILED_STEP + 3), **settings)
    message = r"but is \d\.\d+, after 2 batches in a row were left out \(max_skips\) at step 11; lower lr"
    with pytest.raises(ProcessRaisedException, match=message):
        attempt.wait()
    (folder,) = (tmp_path / "checkpoints").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["step_00000004", "step_00000008"]


def test_going_back_passes_over_what_led_to_the_spike(start_training: Start, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SCHEDULE, **policy("rewind"), "world_size": 2}
    streams = spoiled(SPOILED_STEP + 1, SPOILED_STEP + 1)
    whole = start_training(tmp_path / "whole", streams=streams, **settings)
    history = whole.wait().history
    assert (history.rewinds, history.left_out) == (((SPOILED_STEP + 1, 8),), 2 * BATCH)
    assert whole.values("train/rewinds") == {SPOILED_STEP + 1: 1}
    assert "back to step 8, and on without the 16 samples since" in whole.notes()
    clean = start_training(tmp_path / "clean", streams={"one": Spoiled()}, **settings)
    clean.wait()
    assert abs(whole.values()[8] - clean.values()[8]) < 0.01  # a window may end with the first token of a spoiled one
    assert abs(whole.values()[14] - clean.values()[14]) < 0.05
    cut = tmp_path / "cut"  # ends after the return, goes on from there
    start_training(cut, streams=streams, **settings | {"train_iters": 12}).wait()
    again = start_training(cut, streams=streams, **settings)
    assert again.wait().history == history
    assert bits(again) == bits(whole, 13)


def test_going_back_needs_a_checkpoint(start_training: Start, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SCHEDULE, **policy("rewind"), "save_interval": 100}
    attempt = start_training(tmp_path, streams=spoiled(SPOILED_STEP, SPOILED_STEP), **settings)
    with pytest.raises(ProcessRaisedException, match=r"a checkpoint must be there to go back to, but .* has none"):
        attempt.wait()


@pytest.fixture
def spoiled_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the gradient of step 6 be no number."""
    run, calls = step.run, [0]

    def spoil_once(chunks: Any, samples: Any, **options: Any) -> Any:
        calls[0] += not options.get("forward_only")
        losses = run(chunks, samples, **options)
        if calls[0] == 6 and not options.get("forward_only"):
            next(iter(chunks[0].parameters())).main_grad.fill_(math.nan)
        return losses

    monkeypatch.setattr(step, "run", spoil_once)


@pytest.mark.parametrize("answer", ["skip", "rewind"])
def test_a_gradient_that_is_no_number_changes_no_weight(
    answer: Answer, start_training: Start, tmp_path: Path, spoiled_gradient: None
) -> None:
    settings = {"setbacks": Policy(on_nan=answer), "save_interval": 4, "world_size": 2}
    attempt = start_training(tmp_path, **settings)
    history = attempt.wait().history
    assert (history.skipped, history.rewinds) == (((6,), ()) if answer == "skip" else ((), ((6, 4),)))
    assert "step 6" in attempt.notes()
    assert "the gradient norm must be finite, but is nan" in attempt.notes()
    assert all(math.isfinite(loss) for loss in attempt.values().values())


@pytest.mark.filterwarnings("ignore::UserWarning")  # between Megatron and torch, as they load
def test_a_step_that_is_left_out_leaves_every_tensor_as_it_was(
    start_training: Start, small_shape: ModelShape, tmp_path: Path, spoiled_gradient: None
) -> None:
    """Weights, moments, and the biases of routers, which the pass that makes gradients has changed already."""
    shape = replace(
        small_shape,
        experts=Experts(
            num_moe_experts=4, moe_router_topk=2, moe_ffn_hidden_size=32, moe_shared_expert_intermediate_size=32
        ),
    )
    settings: dict[str, Any] = {"setbacks": Policy(on_nan="skip"), "train_iters": 7, "save_interval": 1}
    start_training(tmp_path, shape=shape, keep_checkpoints=9, **settings).wait()
    (folder,) = (tmp_path / "checkpoints").iterdir()
    with launch.joined(launch.place({})):
        before, left_out, after = (tensors(folder / f"step_0000000{number}") for number in (5, 6, 7))
    assert any("expert_bias" in name for name in before)
    assert all(torch.equal(tensor, left_out[name]) for name, tensor in before.items())
    changed = [name for name, tensor in after.items() if not torch.equal(tensor, left_out[name])]
    assert any("expert_bias" in name for name in changed)
    assert any("exp_avg" in name for name in changed)


def tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Returns the whole tensors of a checkpoint by name."""
    loaded = dist_checkpointing.load_plain_tensors(str(checkpoint))
    return {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
