from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cd_pipeline.data.task import Task
from cd_pipeline.evaluation.predict import (
    Batch,
    BatchLoader,
    iterate_logits,
    predict_probability,
    to_batch,
)
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
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
