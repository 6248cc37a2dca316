import pytest
import torch

from cd_pipeline.models.build import NETWORKS, build_model
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.training.distributed import has_batch_norm, with_shared_statistics
from cd_pipeline_tests.models.measuring import photos

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_shared_statistics_change_neither_the_result_nor_the_names_of_a_network(name: str) -> None:
    torch.manual_seed(1)
    settings = ModelSettings.model_validate({"name": name})
    network = build_model(settings).eval()
    pictures = photos(32, 32)[: settings.pictures]
    names = list(network.state_dict())
    with torch.no_grad():
        expected = network(*pictures)
        shared = with_shared_statistics(network).eval()
        assert torch.equal(shared(*pictures), expected)
    assert list(shared.state_dict()) == names
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in shared.modules())


def test_a_network_with_group_norm_is_told_apart() -> None:
    assert has_batch_norm(build_model(ModelSettings(name="siamese_unet", width=8)))
    assert not has_batch_norm(build_model(ModelSettings(name="siamese_unet", width=8, norm="group")))
