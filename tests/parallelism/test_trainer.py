"""Training by real ranks: the same losses under every layout, and exactly the same after every interruption."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch.multiprocessing.spawn import ProcessRaisedException

from parallelism import device

device.prepare()

from parallelism.presets import ModelShape  # noqa: E402 - prepared above

Start = Callable[..., Any]
TP2, PP2 = {"tensor_model_parallel_size": 2}, {"pipeline_model_parallel_size": 2}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "TP2": (2, TP2),
    "PP2, 8 micro batches": (2, {**PP2, "micro_batch_size": 1}),
    "DP2": (2, {}),
    "DP4": (4, {}),
    "TP2xPP2": (4, {**TP2, **PP2}),
    "TP2xDP2, sequence parallel": (4, {**TP2, "sequence_parallel": True}),
    "PP2 with 2 chunks a stage": (2, {**PP2, "virtual_pipeline_model_parallel_size": 2}),
    "PP2xDP2, recomputed": (4, {**PP2, "recompute_granularity": "full"}),
    "PP2xDP2 with 2 chunks a stage": (4, {**PP2, "virtual_pipeline_model_parallel_size": 2}),
}
TOLERANCE = 5e-6
"""Nats: fp32 sums in another order, over 8 steps."""


@pytest.fixture(scope="module")
def uninterrupted(start_training: Start, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One process, no parallelism."""
    attempt = start_training(tmp_path_factory.mktemp("one"))
    attempt.wait()
    return attempt


def furthest(losses: dict[int, float], reference: dict[int, float]) -> float:
    return max(abs(losses[step] - reference[step]) for step in losses)


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_every_layout_has_the_same_losses(name: str, start_training: Start, uninterrupted: Any, tmp_path: Path) -> None:
    world_size, sizes = LAYOUTS[name]
    attempt = start_training(tmp_path, world_size=world_size, **sizes)
    result = attempt.wait()
    losses = attempt.values()
    assert list(losses) == list(range(1, 9))
    assert furthest(losses, uninterrupted.values()) < TOLERANCE
    assert furthest(attempt.values("valid/loss"), uninterrupted.values("valid/loss")) < TOLERANCE
    assert set(result.valid) == {"protein", "text.ko"}
    assert result.valid_mean == attempt.values("valid/loss")[8]


@pytest.mark.parametrize(
    "changes",
    [{"share_embeddings_and_output_weights": True, "num_query_groups": 4}, {"add_qkv_bias": True}],
    ids=["tied tables", "biases"],
)
def test_every_kind_of_model_has_the_same_losses(
    changes: dict[str, Any], start_training: Start, small_shape: ModelShape, tmp_path: Path
) -> None:
    shape = replace(small_shape, **changes)
    one, four = (
        start_training(tmp_path / name, world_size=count, shape=shape, **sizes)
        for name, count, sizes in (("one", 1, {}), ("four", 4, {**TP2, **PP2}))
    )
    one.wait()
    four.wait()
    assert furthest(four.values(), one.values()) < TOLERANCE


def test_bf16_is_near_fp32_and_itself_under_another_layout(
    start_training: Start, uninterrupted: Any, tmp_path: Path
) -> None:
    one = start_training(tmp_path / "one", precision="bf16")
    one.wait()
    four = start_training(tmp_path / "four", world_size=4, precision="bf16", sequence_parallel=True, **TP2, **PP2)
    four.wait()
    assert furthest(four.values(), one.values()) < 2e-3
    assert furthest(one.values(), uninterrupted.values()) < 2e-2


def test_it_learns(start_training: Start, tmp_path: Path) -> None:
    """And follows "WSD": constant after the warm-up, falling over the last steps."""
    settings = {"lr": 1e-2, "lr_decay_style": "WSD", "lr_decay_iters": 40, "lr_wsd_decay_iters": 10}
    attempt = start_training(tmp_path, train_iters=40, micro_batch_size=8, **settings)
    result = attempt.wait()
    assert result.valid_mean < attempt.values()[1] - 0.5
    rates = attempt.values("train/lr")
    assert [rates[step] for step in (1, 2, 30)] == [0.5e-2, 1e-2, 1e-2]
    assert 1e-3 < rates[35] < 1e-2
    assert rates[40] == pytest.approx(1e-4)
    assert result.rates["train/tokens_per_s"] > 0
    assert result.rates["train/mfu"] == pytest.approx(result.rates["train/tflops_per_s"] / result.peak_tflops)


@pytest.mark.parametrize("name", ["TP2xPP2", "DP2"])
def test_killed_ranks_continue_bit_for_bit(name: str, start_training: Start, tmp_path: Path) -> None:
    world_size, layout = LAYOUTS[name]
    schedule = {"train_iters": 9, "save_interval": 2, "eval_interval": 2}
    sizes: dict[str, Any] = {"world_size": world_size, **layout, **schedule}
    whole = start_training(tmp_path / "whole", **sizes)
    whole.wait()
    killed = start_training(tmp_path / "killed", **sizes)
    saved = tmp_path / "killed" / "checkpoints"
    _wait_for(lambda: len(killed.values()) >= 5 and len(list(saved.glob("*/step_00000004"))) == 1)
    for pid in killed.pids:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(Exception, match="SIGKILL"):
        killed.wait()
    assert len(killed.values()) < 9
    again = start_training(tmp_path / "killed", **sizes)
    result = again.wait()
    assert result.resumed_from in (4, 6, 8)
    _require_bits(killed, whole)
    _require_bits(again, whole)
    assert max(again.values()) == max(again.values("valid/loss")) == 9


@pytest.mark.parametrize("name", ["DP2", "PP2xDP2 with 2 chunks a stage"])
def test_validating_and_saving_change_no_bit(name: str, start_training: Start, tmp_path: Path) -> None:
    """With overlap, both take the hooks that gather weights out of the model, and must put them back."""
    world_size, layout = LAYOUTS[name]
    often, never = (
        start_training(tmp_path / str(every), world_size=world_size, eval_interval=every, save_interval=every, **layout)
        for every in (2, 100)
    )
    often.wait()
    never.wait()
    assert list(often.values()) == list(never.values()) == list(range(1, 9))
    assert list(often.values("valid/loss")) == list(often.values("train/save_time_s")) == [2, 4, 6, 8]
    assert list(never.values("valid/loss")) == list(never.values("train/save_time_s")) == [8]
    _require_bits(never, often)


def _require_bits(attempt: Any, whole: Any) -> None:
    for name in ("train/loss", "train/loss/protein", "train/grad_norm", "valid/loss"):
        expected = {step: value.hex() for step, value in whole.values(name).items()}
        for step, value in attempt.values(name).items():
            assert value.hex() == expected[step], f"{name} at step {step}"


@pytest.mark.parametrize(
    ("precision", "names"),
    [
        ("fp32", ["DP4", "TP2xDP2, sequence parallel", "PP2 with 2 chunks a stage"]),
        ("bf16", ["DP2", "PP2 with 2 chunks a stage"]),
    ],
)
def test_a_changed_layout_continues(precision: str, names: list[str], start_training: Start, tmp_path: Path) -> None:
    whole = start_training(tmp_path / "whole", precision=precision)
    whole.wait()
    first = start_training(
        tmp_path / "first", world_size=4, train_iters=4, precision=precision, save_interval=4, **TP2, **PP2
    )
    first.wait()
    for name in names:
        world_size, sizes = LAYOUTS[name]
        shutil.copytree(tmp_path / "first", tmp_path / name)
        attempt = start_training(tmp_path / name, world_size=world_size, precision=precision, **sizes)
        assert attempt.wait().resumed_from == 4
        allowed = 1e-6 if precision == "fp32" else 2e-3
        assert all(attempt.values()[step] == pytest.approx(whole.values()[step], rel=allowed) for step in range(5, 9))


@pytest.mark.parametrize("name", ["DP2", "PP2xDP2 with 2 chunks a stage"])
def test_data_parallel_weights_are_current_when_saved(name: str, start_training: Start, tmp_path: Path) -> None:
    """With overlap, each rank's weights are stale until the next forward pass; a save between must not keep them."""
    whole = start_training(tmp_path / "whole", precision="bf16", train_iters=6)
    whole.wait()
    world_size, layout = LAYOUTS[name]
    start_training(tmp_path / "many", world_size=world_size, precision="bf16", train_iters=4, **layout).wait()
    one = start_training(tmp_path / "many", precision="bf16", train_iters=6)
    assert one.wait().resumed_from == 4
    assert furthest(one.values(), whole.values()) < 2e-3


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_to_one_rank_stops_all_and_saves(
    number: signal.Signals, start_training: Start, tmp_path: Path
) -> None:
    attempt = start_training(tmp_path, world_size=2, train_iters=2000)
    _wait_for(lambda: len(attempt.values()) >= 3)
    os.kill(attempt.pids[1], number)
    result = attempt.wait()
    assert result.stopped
    assert result.step == max(attempt.values()) < 2000
    assert result.valid == {}
    again = start_training(tmp_path, world_size=2, train_iters=result.step + 2)
    assert again.wait().resumed_from == result.step


def test_a_disk_that_takes_no_checkpoint_is_told_as_that(start_training: Start, tmp_path: Path) -> None:
    attempt = start_training(tmp_path, world_size=2, train_iters=2000, save_interval=10)
    for pid in attempt.pids:  # no file grows beyond this: what a full disk does, for these processes
        psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (40_000, 40_000))
    with pytest.raises(
        Exception, match=r"must take the checkpoint of step 10, but not every rank could write its part"
    ):
        attempt.wait()
    (folder,) = (tmp_path / "checkpoints").iterdir()
    assert [path.name for path in folder.iterdir() if path.name.startswith("step")] == []


def test_a_step_that_was_saved_but_perhaps_not_validated_is_validated_on_resume(
    start_training: Start, tmp_path: Path
) -> None:
    schedule = {"save_interval": 4, "eval_interval": 4, "lr_decay_iters": 20}
    first = start_training(tmp_path, train_iters=4, **schedule)
    first.wait()
    again = start_training(tmp_path, train_iters=10, **schedule)
    assert again.wait().resumed_from == 4
    assert set(again.values("valid/loss")) == {4, 8, 10}
    assert again.values("valid/loss")[4] == first.values("valid/loss")[4]


@pytest.fixture(scope="module")
def two_checkpoints(start_training: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    start_training(folder, save_interval=4).wait()
    return folder


def test_an_unfinished_save_is_removed_and_old_checkpoints_too(
    start_training: Start, tmp_path: Path, two_checkpoints: Path
) -> None:
    shutil.copytree(two_checkpoints, tmp_path / "run")
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    (folder / "tmp-12-0123456789ab").mkdir()
    (folder / "tmp-12-0123456789ab" / "__0_0.distcp").write_bytes(b"half")
    start_training(tmp_path / "run", save_interval=2, train_iters=14).wait()
    assert sorted(path.name for path in folder.iterdir()) == ["step_00000010", "step_00000012", "step_00000014"]


def test_another_recipe_starts_afresh(start_training: Start, tmp_path: Path) -> None:
    start_training(tmp_path, train_iters=2).wait()
    assert start_training(tmp_path, train_iters=4).wait().resumed_from == 2
    assert start_training(tmp_path, train_iters=4, seed=2).wait().resumed_from == 0
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(start_training: Start, tmp_path: Path) -> None:
    attempt = start_training(tmp_path, world_size=2, lr=1e30, min_lr=1e30, lr_warmup_iters=0, save_interval=1, **PP2)
    message = r"the (loss|gradient norm) must be finite, but is (nan|inf) at step \d; lower lr or raise lr_warmup_iters"
    with pytest.raises(ProcessRaisedException, match=message):
        attempt.wait()
    (folder,) = (tmp_path / "checkpoints").iterdir()
    assert len(attempt.values()) == len(list(folder.iterdir())) < 8


def test_loading_that_would_run_code_is_refused(
    start_training: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_training(tmp_path, train_iters=1).wait()
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ProcessRaisedException, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD must not be set, but is"):
        start_training(tmp_path, train_iters=2).wait()


def _wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not done():
        assert time.monotonic() < until, "waited 120 s"
        time.sleep(0.02)
