import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.siamese_unet import SiameseUNet
from cd_pipeline_tests.models.measuring import parameters, photos, settled, without_gradient

pytestmark = pytest.mark.usefixtures("one_torch_thread")

VARIANTS = list(itertools.product(("concat", "difference"), ("batch", "group")))


def conv(inputs: int, outputs: int) -> int:
    """Weights of a 3x3 convolution without bias, scale and shift of its norm."""
    return 9 * inputs * outputs + 2 * outputs


def by_hand(width: int, parts: int) -> int:
    w = [width, 2 * width, 4 * width, 8 * width]
    encoder = sum(conv(i, o) + conv(o, o) for i, o in [(3, w[0]), (w[0], w[1]), (w[1], w[2]), (w[2], w[3])])
    fused = conv(parts * w[3], w[3])
    ups = sum(4 * i * o + o + conv(o + parts * o, o) + conv(o, o) for i, o in itertools.pairwise(w[::-1]))
    return encoder + fused + ups + w[0] + 1


class Described(nn.Module):
    """The concat network written from its description alone, one layer after the other, each photo encoded
    alone; its tensors are in the order of ours."""

    def __init__(self) -> None:
        super().__init__()
        plan = [3, 32, 32, 64, 64, 128, 128, 256, 256]
        self.encoder = nn.ModuleList(self.unit(i, o) for i, o in itertools.pairwise(plan))
        self.deepest = self.unit(768, 256)
        self.decoder = nn.ModuleList(
            nn.ModuleList([nn.ConvTranspose2d(2 * w, w, 2, stride=2), self.unit(4 * w, w), self.unit(w, w)])
            for w in (128, 64, 32)
        )
        self.head = nn.Conv2d(32, 1, 1)

    @staticmethod
    def unit(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    def encode(self, x: Tensor) -> list[Tensor]:
        maps = []
        for number, unit in enumerate(self.encoder):
            x = unit(x)
            if number % 2:
                maps.append(x)
                x = F.max_pool2d(x, 2, ceil_mode=True)
        return maps

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        maps = zip(self.encode(before), self.encode(after), strict=True)
        *skips, deepest = [torch.cat([a, b, torch.abs(a - b)], 1) for a, b in maps]
        x = self.deepest(deepest)
        for (up, first, second), skip in zip(self.decoder, skips[::-1], strict=True):
            height, width = skip.shape[2:]
            x = second(first(torch.cat([up(x)[..., :height, :width], skip], 1)))
        return self.head(x)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(3)
    return settled(SiameseUNet(), 4)


def test_the_network_has_4084065_parameters() -> None:
    assert parameters(SiameseUNet()) == by_hand(32, 3) == 4_084_065


def test_the_difference_alone_and_other_widths_have_the_parameters_of_the_hand_computation() -> None:
    assert parameters(SiameseUNet(fusion="difference")) == by_hand(32, 1)
    assert parameters(SiameseUNet(width=16)) == by_hand(16, 3)
    assert parameters(SiameseUNet(width=8, norm="group")) == by_hand(8, 3)


@pytest.mark.parametrize(("height", "width"), [(64, 48), (37, 50)])
def test_it_answers_as_the_network_of_the_description(trained: nn.Module, height: int, width: int) -> None:
    reference, state = Described().eval(), trained.state_dict()
    reference.load_state_dict(dict(zip(reference.state_dict(), state.values(), strict=True)))
    before, after = photos(height, width)
    with torch.no_grad():
        ours, theirs = trained(before, after), reference(before, after)
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 15), (8, 31), (37, 50), (64, 64)])
@pytest.mark.parametrize("fusion", ["concat", "difference"])
def test_the_output_has_the_size_of_the_input(fusion: str, height: int, width: int) -> None:
    with torch.no_grad():
        logits = SiameseUNet(width=8, fusion=fusion).eval()(*photos(height, width))
    assert logits.shape == (2, 1, height, width)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_exchanging_the_photos_gives_the_same_logits_where_only_the_difference_is_kept(norm: str) -> None:
    torch.manual_seed(3)
    before, after = photos(40, 48)
    logits = {}
    for fusion in ("concat", "difference"):
        net = settled(SiameseUNet(width=8, fusion=fusion, norm=norm), 4)
        with torch.no_grad():
            logits[fusion] = net(before, after), net(after, before)
    forward, backward = logits["difference"]
    assert forward.std() > 1e-3
    torch.testing.assert_close(forward, backward, rtol=0, atol=1e-6)
    forward, backward = logits["concat"]
    assert (forward - backward).abs().max() > 1e-2


def test_equal_photos_give_the_same_logits_whatever_they_show_where_only_the_difference_is_kept() -> None:
    torch.manual_seed(3)
    net = settled(SiameseUNet(width=8, fusion="difference"), 4)
    first, second = photos(32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(first, first), net(second, second), rtol=0, atol=0)


@pytest.mark.parametrize(("fusion", "norm"), VARIANTS)
def test_every_parameter_gets_a_gradient(fusion: str, norm: str) -> None:
    torch.manual_seed(0)
    assert without_gradient(SiameseUNet(width=8, fusion=fusion, norm=norm)) == []


def test_group_norm_takes_the_place_of_every_batch_norm() -> None:
    batch, group = SiameseUNet(width=16), SiameseUNet(width=16, norm="group")
    norms = [module for module in group.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == sum(isinstance(module, nn.BatchNorm2d) for module in batch.modules()) == 15
    assert {norm.num_groups for norm in norms} == {8}
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in group.modules())
    assert not list(group.buffers())


def test_with_group_norm_a_pair_is_judged_alone_even_in_training() -> None:
    net = SiameseUNet(width=8, norm="group").train()
    before, after = photos(32, 32, 3)
    with torch.no_grad():
        together, alone = net(before, after), net(before[1:2], after[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_a_pair_is_judged_alone_whatever_else_is_in_the_batch(trained: nn.Module) -> None:
    before, after = photos(64, 64, 3)
    with torch.no_grad():
        together, alone = trained(before, after), trained(before[1:2], after[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_in_training_both_photos_share_the_batch_statistics() -> None:
    net = SiameseUNet(width=8).train()
    before, after = photos(32, 32)
    after = after * 0.3
    first, norm, _ = net.encoder.levels[0][0]
    with torch.no_grad():
        net(before, after)
        expected = 0.1 * first(torch.cat([before, after])).mean(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_mean, expected)
    assert norm.num_batches_tracked == 1
