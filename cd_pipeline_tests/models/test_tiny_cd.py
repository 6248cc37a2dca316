import logging
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from cd_pipeline.models.build import start_model
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.models.tiny_cd import Mixing, TinyCD, UpMask
from cd_pipeline_tests.models.measuring import parameters, photos, settled, without_gradient

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(3)
    return settled(TinyCD(), 4)


def test_the_network_has_285128_parameters() -> None:
    encoder = timm.create_model("efficientnet_b4", features_only=True, out_indices=(0, 1, 2))
    del encoder.blocks[3:]
    # a 3x3 kernel for each of the two photos' channels, bias, and the one slope of a PReLU
    mixings = sum(2 * 9 * c + c + 1 for c in (3, 24, 32, 56))
    mlps = [(3, 10, 5, 1), (24, 12, 6, 1), (32, 16, 8, 1), (32, 16, 8, 1)]
    layers = sum(a * b + b + b * c + c + c * d + d for a, b, c, d in mlps)
    slopes = 3 * 3 + 2  # the classifier ends in logits
    ups = sum(9 * c + c + 1 + c * to + to + 1 for c, to in [(56, 64), (64, 64), (64, 32)])
    expected = parameters(encoder) + mixings + layers + slopes + ups
    assert parameters(TinyCD()) == expected == 285_128


def test_the_encoder_ends_with_its_third_level() -> None:
    encoder = TinyCD().encoder
    assert encoder.channels == (24, 32, 56)
    assert [tuple(f.shape[2:]) for f in encoder(photos(64, 96)[0])] == [(32, 48), (16, 24), (8, 12)]
    assert len(encoder.backbone.blocks) == 3


@pytest.mark.parametrize(("height", "width"), [(16, 16), (48, 80), (64, 16), (37, 50)])
def test_the_output_has_the_size_of_the_input(trained: nn.Module, height: int, width: int) -> None:
    with torch.no_grad():
        logits = trained(*photos(height, width))
    assert logits.shape == (2, 1, height, width)
    assert torch.isfinite(logits).all()


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    assert without_gradient(TinyCD()) == []


def test_a_pair_is_judged_alone_whatever_else_is_in_the_batch(trained: nn.Module) -> None:
    before, after = photos(64, 64, 3)
    with torch.no_grad():
        together, alone = trained(before, after), trained(before[1:2], after[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-4)


def test_mixing_joins_each_channel_with_the_same_channel_of_the_other_photo() -> None:
    torch.manual_seed(0)
    mixing, (before, after) = Mixing(3), photos(12, 14)
    with torch.no_grad():
        found = mixing(before, after)
        for channel in range(3):
            kernels = mixing.conv.weight[channel]  # 2x3x3: of before, of after
            terms = [
                F.conv2d(photo[:, channel, None], kernel[None, None], padding=1)
                for photo, kernel in zip((before, after), kernels, strict=True)
            ]
            mixed = terms[0] + terms[1] + mixing.conv.bias[channel]
            mixed = torch.where(mixed > 0, mixed, 0.25 * mixed)
            mean, variance = mixed.mean((2, 3), True), mixed.var((2, 3), correction=0, keepdim=True)
            expected = (mixed - mean) / (variance + 1e-5).sqrt()
            torch.testing.assert_close(found[:, channel, None], expected, rtol=0, atol=1e-4)


def test_features_count_only_where_the_mask_lets_them() -> None:
    torch.manual_seed(0)
    step = UpMask(4, 6).eval()
    first, second = torch.rand(2, 1, 4, 10, 10)
    mask = torch.ones(1, 1, 20, 20)
    with torch.no_grad():
        assert (step(first, mask) - step(second, mask)).abs().max() > 0.1
        assert step(first, mask).shape == (1, 6, 20, 20)
        torch.testing.assert_close(step(first, 0 * mask), step(second, 0 * mask), rtol=0, atol=0)


def test_each_step_up_is_multiplied_by_the_mask_of_its_size(trained: nn.Module) -> None:
    seen: list[tuple[int, ...]] = []
    hooks = [
        up.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[1].shape))) for up in trained.ups
    ]
    with torch.no_grad():
        trained(*photos(64, 48, 1))
    for hook in hooks:
        hook.remove()
    assert seen == [(1, 1, 16, 12), (1, 1, 32, 24), (1, 1, 64, 48)]


def test_the_encoder_sees_the_photos_as_it_was_pretrained_on_them(trained: nn.Module) -> None:
    seen: list[Tensor] = []
    hook = trained.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    before, after = photos(32, 32)
    with torch.no_grad():
        trained(before, after)
    hook.remove()
    (batch,) = seen
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        both = torch.cat([before, after])[:, channel]
        torch.testing.assert_close(batch[:, channel], (both - mean) / std, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_cached_weights_of_the_whole_network_become_the_encoder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    state = timm.create_model("efficientnet_b4", pretrained=False).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    asked = []

    def cache(repository: str, file: str) -> str:
        asked.append(repository)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cache)
    model, is_pretrained = start_model(
        ModelSettings(name="tiny_cd"), seed=5, logger=logging.getLogger("test")
    )
    assert is_pretrained
    assert asked == ["timm/efficientnet_b4.ra2_in1k"]
    encoder = model.encoder.backbone.state_dict()
    assert len(encoder) > 100
    assert all(torch.equal(value, state[name]) for name, value in encoder.items())


def test_the_state_dict_holds_what_is_learned_and_nothing_of_the_deleted_blocks() -> None:
    state = TinyCD().state_dict()
    assert not {"mean", "std"} & set(state)
    assert not any(name.startswith("encoder.backbone.blocks.3") for name in state)
