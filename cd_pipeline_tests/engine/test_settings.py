import pytest
from pydantic import ValidationError

from cd_pipeline.engine.settings import EngineSettings
from cd_pipeline.recipe import RecipeSettings


def refusal(compute: dict[str, object]) -> str:
    with pytest.raises(ValidationError) as caught:
        RecipeSettings.model_validate({"compute": compute})
    (error,) = caught.value.errors()
    assert error["loc"][0] == "compute"
    return str(error["msg"])


def test_a_recipe_runs_on_this_machine_unless_it_says_otherwise() -> None:
    assert RecipeSettings().compute == EngineSettings(engine="local")


def test_ray_is_refused_with_the_remedy_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cd_pipeline.engine.settings.find_spec", {"ray": None}.__getitem__)
    message = refusal({"engine": "ray"})
    assert "pip install -c constraints.txt -e '.[ray]', or set engine to local" in message


@pytest.mark.parametrize("setting", [{"address": "auto"}, {"workers": 2}])
def test_settings_of_a_cluster_are_refused_without_engine_ray(setting: dict[str, object]) -> None:
    assert "address and workers are for engine ray; leave them out" in refusal(setting)


@pytest.mark.parametrize("setting", [{"engine": "spark"}, {"engine": "ray", "workers": 0}, {"nodes": 3}])
def test_what_no_engine_knows_is_refused(setting: dict[str, object]) -> None:
    assert refusal(setting)
