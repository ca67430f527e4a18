"""The seam between CPU and GPU, and what must not be installed beside Megatron."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from parallelism import device
from parallelism._apex import refuse_foreign_apex

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this is about machines without a GPU")


@without_gpu
def test_the_cpu_answers_while_it_stands_in_and_no_longer() -> None:
    device.prepare()
    before = {name: getattr(torch.cuda, name) for name in device._CUDA_ANSWERS}
    with device.stand_in():
        assert torch.zeros(2, device=torch.cuda.current_device()).device.type == "cpu"
        assert torch.zeros(2, device="cuda", pin_memory=True).device.type == "cpu"
        assert torch.zeros(2).cuda().to("cuda").to(torch.device("cuda", 0)).device.type == "cpu"
        assert torch.zeros(2).bfloat16().type() == "torch.cuda.BFloat16Tensor"
        assert torch.zeros(2).type(torch.float64).dtype == torch.float64
        torch.cuda.current_stream().wait_stream(torch.cuda.Stream())
        torch.cuda.Event().record()
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda.synchronize()
        torch.cuda.manual_seed(5)
        drawn = torch.rand(1)
        torch.cuda.set_rng_state(torch.Generator().manual_seed(5).get_state())
        assert torch.equal(torch.rand(1), drawn)
    assert {name: getattr(torch.cuda, name) for name in before} == before
    assert torch.zeros(2).type() == "torch.FloatTensor"


@without_gpu
def test_cpu_ranks_talk_through_gloo() -> None:
    assert device.backend() == "gloo"
    assert device.current() == torch.device("cpu")
    assert device.name().startswith("CPU")


@without_gpu
def test_preparing_leaves_the_compiler_as_it_was() -> None:
    """In a fresh process: here Megatron may be imported already."""
    code = (
        "import torch; kept = torch.compile; from parallelism import device; device.prepare(); device.prepare(); "
        "from megatron.core.fusions.fused_bias_swiglu import bias_swiglu; import sys; "
        "assert torch.compile is kept; assert type(bias_swiglu).__name__ == 'function'"
    )
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=False, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_another_projects_apex_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex" / "__init__.py").write_text('raise SystemExit("it must not even be imported")\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        RuntimeError, match=r"a module named apex must be NVIDIA's, but .* remove it .pip uninstall apex"
    ):
        refuse_foreign_apex()


def test_a_single_file_named_apex_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apex.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="a module named apex must be NVIDIA's, but"):
        refuse_foreign_apex()


def test_nvidias_apex_without_its_kernels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("__init__.py", "optimizers/fused_adam.py", "multi_tensor_apply/__init__.py"):
        (tmp_path / "apex" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "apex" / name).touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match=r"must have its compiled kernels, but .* without amp_C; build it with APEX"):
        refuse_foreign_apex()
    (tmp_path / "amp_C.py").touch()
    refuse_foreign_apex()


def test_no_apex_is_fine() -> None:
    refuse_foreign_apex()
