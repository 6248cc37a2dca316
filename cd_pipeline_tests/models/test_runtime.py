import copy
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from cd_pipeline.models.runtime import Runtime, resolve_runtime, usable_cores

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_accelerator")
def test_without_an_accelerator_everything_runs_in_float32_on_all_usable_cores() -> None:
    runtime = resolve_runtime()
    assert (runtime.device, runtime.precision) == ("cpu", "float32")
    assert runtime.loader_processes(draws=False) == 0
    assert runtime.threads == usable_cores()


def test_a_cuda_card_gets_float16_and_metrics_are_still_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    runtime = resolve_runtime()
    assert (runtime.device, runtime.precision) == ("cuda", "float16")
    assert runtime.uses_grad_scaler
    assert (runtime.exact().device, runtime.exact().precision) == ("cuda", "float32")


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "tpu", ""])
@pytest.mark.usefixtures("no_accelerator")
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device: str) -> None:
    with pytest.raises(ValueError, match=r"compute\.device.*use auto or one of: cpu"):
        resolve_runtime(device=device)


@pytest.mark.parametrize("precision", ["fp16", "float64", ""])
def test_an_unknown_precision_is_refused_with_the_known_ones(precision: str) -> None:
    with pytest.raises(ValueError, match=r"compute\.precision.*auto, float32, float16, bfloat16"):
        resolve_runtime(device="cpu", precision=precision)


def test_what_is_set_is_kept() -> None:
    runtime = resolve_runtime(device="cpu", precision="bfloat16", threads=3, workers=2)
    assert (runtime.device, runtime.precision, runtime.threads, runtime.workers) == ("cpu", "bfloat16", 3, 2)


def test_the_usable_cores_are_those_of_this_process() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_prepare_sets_threads_and_asks_for_determinism() -> None:
    Runtime(threads=2).prepare()
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("channels_last", [True, False])
def test_networks_and_batches_share_one_memory_format(channels_last: bool) -> None:
    runtime = Runtime(channels_last=channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    conv = runtime.place(nn.Conv2d(3, 4, 3))
    batch = runtime.place_batch(torch.rand(2, 3, 8, 8))
    assert batch.is_contiguous(memory_format=memory_format)
    assert conv.weight.is_contiguous(memory_format=memory_format)  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_networks_run_in_the_precision_asked_for(precision: str, dtype: torch.dtype) -> None:
    runtime = Runtime(precision=precision)
    with runtime.autocast():
        assert nn.Conv2d(3, 4, 1)(torch.rand(1, 3, 8, 8)).dtype == dtype
    assert runtime.uses_grad_scaler == (precision == "float16")


def test_the_description_names_device_precision_and_threads() -> None:
    assert Runtime(threads=2, workers=1).description == "cpu, float32, 2 threads"


def test_networks_are_compiled_for_training_only_where_that_is_asked_for() -> None:
    asked = resolve_runtime(device="cpu", threads=2, compile=True)
    assert (asked.compile, resolve_runtime(device="cpu").compile) == (True, False)
    assert asked.description == "cpu, float32, 2 threads, compiled"
    assert not asked.exact().compile
    net = asked.place_for_training(nn.Conv2d(3, 4, 3))
    assert net._compiled_call_impl is not None
    assert list(net.state_dict()) == ["weight", "bias"]
    assert copy.deepcopy(net)._compiled_call_impl is None
    assert asked.place(nn.Conv2d(3, 4, 3))._compiled_call_impl is None
    assert Runtime().place_for_training(nn.Conv2d(3, 4, 3))._compiled_call_impl is None


@pytest.mark.usefixtures("no_accelerator")
def test_compiling_without_a_compiler_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ValueError, match=r"compute\.compile .*no C\+\+ compiler no-such-compiler; install one"
    ):
        resolve_runtime(compile=True)
    assert not resolve_runtime().compile


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("draws", [True, False])
def test_loader_processes_that_are_set_are_kept(workers: int, draws: bool) -> None:
    for device in ("cpu", "cuda:1"):
        assert Runtime(device=device, workers=workers).loader_processes(draws=draws) == workers


@pytest.mark.parametrize(("own", "processes"), [(1, 1), (6, 5), (64, 8)])
def test_a_gpu_of_a_cluster_gets_a_loader_process_for_each_core_of_its_own_but_one(
    own: int, processes: int
) -> None:
    runtime = Runtime(device="cuda", processes=64, cores=own)
    assert runtime.loader_processes(draws=True) == processes
    assert runtime.loader_processes(draws=False) == 0
    assert replace(runtime, device="cpu").loader_processes(draws=True) == (1 if own > 2 else 0)


@pytest.mark.parametrize(
    ("device", "cores", "processes"),
    [
        ("cpu", 1, 0),
        ("cpu", 2, 0),
        ("cpu", 3, 1),
        ("cpu", 16, 1),
        ("cuda", 1, 1),
        ("cuda", 2, 1),
        ("cuda:1", 4, 3),
        ("mps", 16, 8),
    ],
)
def test_pairs_drawn_anew_get_processes_by_device_and_cores_and_kept_ones_none(
    monkeypatch: pytest.MonkeyPatch, device: str, cores: int, processes: int
) -> None:
    monkeypatch.setattr("cd_pipeline.models.runtime.usable_cores", lambda: cores)
    assert Runtime(device=device).loader_processes(draws=True) == processes
    assert Runtime(device=device).loader_processes(draws=False) == 0
