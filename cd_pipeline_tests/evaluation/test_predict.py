from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cd_pipeline.data.samples import Sample
from cd_pipeline.data.task import Task
from cd_pipeline.evaluation import predict
from cd_pipeline.evaluation.predict import (
    Batch,
    BatchLoader,
    iterate_logits,
    predict_probability,
    to_batch,
)
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.synthesis.device_nuisance import UndisturbedPair, undisturbed
from cd_pipeline.synthesis.nuisance import draw_nuisance
from cd_pipeline.synthesis.settings import NuisanceSettings
from cd_pipeline_tests.tiny_pairs import TinyPairs

pytestmark = pytest.mark.usefixtures("one_torch_thread")

RUNTIME = Runtime()


@pytest.fixture(scope="module")
def model() -> TinyChangeUNet:
    """A network whose batch statistics would change if it were run in training mode."""
    torch.manual_seed(0)
    return TinyChangeUNet().train()


def order(batches: Iterator[Batch], pairs: TinyPairs) -> list[int]:
    """Return which pair each item of the batches is."""
    known = {np.asarray(a.after).tobytes(): i for i, a in enumerate(pairs.arrays)}
    images = [
        (after * 255).round().byte().permute(1, 2, 0).contiguous()
        for batch in batches
        for after in batch.pictures[1]
    ]
    return [known[image.numpy().tobytes()] for image in images]


def tensors(batch: Batch) -> list[Tensor]:
    return [*batch.pictures, batch.truth, batch.valid]


def plain_probability(model: TinyChangeUNet, pairs: TinyPairs, index: int) -> Tensor:
    """Run one pair through a plain forward pass in evaluation mode."""
    before, after = (torch.from_numpy(a.copy()) for a in pairs.arrays[index].pictures)
    model.eval()
    with torch.no_grad():
        logits = model(before.permute(2, 0, 1)[None] / 255, after.permute(2, 0, 1)[None] / 255)
    return torch.sigmoid(logits)[0, 0]


def test_a_sample_is_split_into_two_photos_in_unit_range_and_a_truth() -> None:
    samples = torch.zeros(1, 8, 2, 2, dtype=torch.uint8)
    samples[0, :, 0, 0] = torch.tensor([255, 51, 0, 102, 204, 255, 255, 255])
    samples[0, 6, 1, 1] = 1  # any value above 0 is change
    samples[0, 7, 0, 1] = 255
    batch = to_batch(samples, Task(), RUNTIME)
    torch.testing.assert_close(batch.pictures[0][0, :, 0, 0], torch.tensor([1.0, 0.2, 0.0]))
    torch.testing.assert_close(batch.pictures[1][0, :, 0, 0], torch.tensor([0.4, 0.8, 1.0]))
    assert batch.truth.tolist() == [[[[1.0, 0.0], [0.0, 1.0]]]]
    assert batch.valid.tolist() == [[[[1.0, 1.0], [0.0, 0.0]]]]
    assert {part.dtype for part in (*batch.pictures, batch.truth, batch.valid)} == {torch.float32}


def test_an_item_of_one_image_and_several_classes_keeps_their_indices() -> None:
    samples = torch.zeros(3, 5, 2, 2, dtype=torch.uint8)
    samples[:, 3] = torch.tensor([[0, 1], [7, 21]])
    samples[:, 4] = torch.tensor([[255, 255], [0, 255]])
    samples[1, :3, 0, 1] = torch.tensor([255, 0, 51])
    batch = to_batch(samples, Task(pictures=1, classes=22), RUNTIME)
    (image,) = batch.pictures
    assert image.shape == (3, 3, 2, 2)
    torch.testing.assert_close(image[1, :, 0, 1], torch.tensor([1.0, 0.0, 0.2]))
    assert batch.truth.dtype == torch.int64
    assert batch.truth[2].tolist() == [[[0, 1], [7, 21]]]
    assert batch.valid[2].tolist() == [[[1, 1], [0, 1]]]


def undisturbed_pairs(count: int) -> UndisturbedPair:
    """Stack pairs that come without their nuisance."""
    pairs = []
    for number, arrays in enumerate(TinyPairs(count).arrays):
        rng = np.random.default_rng(number)
        before, after = (draw_nuisance(rng, NuisanceSettings()) for _ in range(2))
        moved = replace(before, corners=(2.0, 1.0) * 4)
        pairs.append(undisturbed(Sample.of_pair(*arrays.pictures, arrays.mask), moved, after))
    stacked: UndisturbedPair = torch.utils.data.default_collate(pairs)
    return stacked


class Transfers(TorchDispatchMode):
    """Notes each copy from the CPU to the device: its type, its bytes, and whether somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[torch.dtype, int, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu" != result.device.type:
            waits = not kwargs.get("non_blocking", False)
            self.made.append((result.dtype, result.numel() * result.element_size(), waits))
        return result


def test_a_batch_travels_to_the_device_as_bytes_and_nobody_waits_for_it() -> None:
    # the device meta has no values: reading one, as a GPU would be waited for, is an error
    items = torch.zeros(4, 8, 32, 32, dtype=torch.uint8)
    with Transfers() as transfers:
        batch = to_batch(items, Task(), Runtime(device="meta"))
    assert transfers.made == [(torch.uint8, 4 * 8 * 32 * 32, False)]
    assert {tensor.device.type for tensor in tensors(batch)} == {"meta"}


def test_pairs_whose_nuisance_the_device_applies_travel_as_bytes_and_nobody_waits_for_them() -> None:
    pairs = undisturbed_pairs(5)
    to_batch(pairs, Task(), Runtime(device="meta"))  # the noise travels once
    with Transfers() as transfers:
        batch = to_batch(pairs, Task(), Runtime(device="meta"))
    assert {tensor.device.type for tensor in tensors(batch)} == {"meta"}
    assert batch.pictures[0].shape == (5, 3, 64, 64)
    assert not any(waits for _, _, waits in transfers.made)
    pictures = [size for kind, size, _ in transfers.made if kind == torch.uint8]
    assert sum(pictures) == 5 * (2 * 3 + 1) * 64 * 64


@pytest.mark.parametrize(
    ("device", "pinned"), [("cuda", True), ("cuda:1", True), ("cpu", False), ("mps", False)]
)
def test_batches_for_a_gpu_are_loaded_into_pinned_memory(
    device: str, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(predict, "DataLoader", lambda *_, **options: asked.append(options["pin_memory"]))
    BatchLoader(TinyPairs(2), Runtime(device=device, workers=0), 2)
    assert asked == [pinned]


def test_the_network_is_given_pairs_with_their_nuisance_in_its_memory_format() -> None:
    pairs = undisturbed_pairs(3)
    batch = to_batch(pairs, Task(), RUNTIME)
    whole = to_batch(torch.zeros(3, 8, 64, 64, dtype=torch.uint8), Task(), RUNTIME)
    assert [tensor.stride() for tensor in tensors(batch)] == [tensor.stride() for tensor in tensors(whole)]
    assert {tensor.dtype for tensor in tensors(batch)} == {torch.float32}
    clean = pairs.pictures[:, 0].permute(0, 3, 1, 2) / 255
    assert (batch.pictures[0] - clean).abs().mean() > 0.01
    assert torch.equal(batch.truth[:, 0], (pairs.mask > 0).float())
    assert not batch.valid[:, :, :, :2].any()  # what the shift uncovered
    assert batch.valid[:, :, 5:-5, 5:-5].all()


def test_batches_follow_the_order_of_the_set_and_the_last_may_be_short() -> None:
    pairs = TinyPairs(7, 32)
    batches = list(BatchLoader(pairs, RUNTIME, 3).epoch())
    assert [len(batch.truth) for batch in batches] == [3, 3, 1]
    assert order(iter(batches), pairs) == list(range(7))


def test_the_shuffled_order_depends_on_seed_and_epoch_alone() -> None:
    pairs = TinyPairs(12, 16)
    orders = {}
    for seed in (1, 2):
        for epoch in (0, 1):
            torch.manual_seed(seed + 7 * epoch)
            first = order(BatchLoader(pairs, RUNTIME, 4, shuffle_seed=seed).epoch(epoch), pairs)
            torch.rand(9)
            assert order(BatchLoader(pairs, RUNTIME, 5, shuffle_seed=seed).epoch(epoch), pairs) == first
            assert sorted(first) == list(range(12))
            orders[seed, epoch] = tuple(first)
    assert len(set(orders.values())) == 4


@pytest.mark.slow
def test_a_loader_process_gives_the_same_batches() -> None:
    pairs = TinyPairs(5, 16)
    loader = BatchLoader(pairs, Runtime(workers=1), 2, shuffle_seed=1)
    for epoch in (3, 4):  # the process stays for the next epoch
        here = list(BatchLoader(pairs, RUNTIME, 2, shuffle_seed=1).epoch(epoch))
        there = list(loader.epoch(epoch))
        assert len(here) == len(there) == len(loader) == 3
        for ours, theirs in zip(here, there, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(tensors(ours), tensors(theirs), strict=True))


@pytest.mark.parametrize("channels_last", [True, False])
def test_logits_are_those_of_each_pair_run_alone(model: TinyChangeUNet, channels_last: bool) -> None:
    pairs = TinyPairs(5)
    runtime = Runtime(channels_last=channels_last)
    batches = list(iterate_logits(model.train(), pairs, runtime, 2))
    assert [len(logits) for logits, _ in batches] == [2, 2, 1]
    for index, logits in enumerate(torch.cat([logits for logits, _ in batches])):
        expected = plain_probability(model, pairs, index)
        np.testing.assert_allclose(logits[0].sigmoid(), expected, atol=1e-5)
    truths = torch.cat([batch.truth for _, batch in batches])[:, 0]
    for truth, pair in zip(truths, pairs.arrays, strict=True):
        np.testing.assert_array_equal(truth > 0, pair.mask > 0)


def test_predicting_one_pair_agrees_with_a_plain_forward_pass(model: TinyChangeUNet) -> None:
    pairs = TinyPairs(1)
    before, after = pairs.arrays[0].pictures
    probability = predict_probability(model.train(), before, after, runtime=RUNTIME)
    assert (probability.shape, probability.dtype) == ((64, 64), np.float32)
    np.testing.assert_allclose(probability, plain_probability(model, pairs, 0), atol=1e-5)
    assert not np.allclose(probability, predict_probability(model, after, before, runtime=RUNTIME), atol=1e-4)


def test_predicting_leaves_the_network_as_it_was(model: TinyChangeUNet) -> None:
    earlier = {name: value.clone() for name, value in model.state_dict().items()}
    list(iterate_logits(model.train(), TinyPairs(3), RUNTIME, 2))
    assert all(torch.equal(value, earlier[name]) for name, value in model.state_dict().items())


def test_logits_come_in_float32_whatever_the_precision(model: TinyChangeUNet) -> None:
    pairs = TinyPairs(2)
    full = torch.cat([logits for logits, _ in iterate_logits(model, pairs, RUNTIME, 2)])
    half = torch.cat([logits for logits, _ in iterate_logits(model, pairs, Runtime(precision="bfloat16"), 2)])
    assert full.shape == (2, 1, 64, 64)
    assert full.dtype == half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)


class Channels(nn.Module):
    """A network of three classes: the logit of each is 6 times a colour channel."""

    def forward(self, image: Tensor) -> Tensor:
        return 6 * image


def test_probabilities_of_several_classes_are_a_softmax() -> None:
    image = TinyPairs(1).arrays[0].after
    found = predict_probability(Channels(), image, runtime=RUNTIME)
    powers = np.exp(6 * image.astype(np.float64) / 255).transpose(2, 0, 1)
    assert (found.shape, found.dtype) == ((3, 64, 64), np.float32)
    np.testing.assert_allclose(found, powers / powers.sum(0), atol=1e-6)
