import pytest

from cd_pipeline.data.settings import SplitSettings
from cd_pipeline_tests.benchmarks.cost import RATES, Cluster, Stage, known_rates, lines, stages

CLUSTER = Cluster(nodes=2, cores=10, gpus=4, memory_gb=100)
SPLIT = SplitSettings(train_share=0.8, test_share=0.2)
ONES = {**dict.fromkeys(RATES, 1.0), "photo_mb": 3.0, "validate_cpu_s": 0.5}


def test_hours_are_units_times_passes_times_seconds() -> None:
    stage = Stage("s", share=0.5, cpu_s=0.36, gpu_s=0.036, memory_kb=2, stored_kb=10, passes=4)
    assert stage.cpu_hours(10_000) == pytest.approx(2)  # 5,000 units x 4 x 0.36 s = 7,200 s
    assert stage.gpu_hours(10_000) == pytest.approx(0.2)
    assert stage.memory_gb(10_000_000) == pytest.approx(10)  # held once, whatever the passes
    assert stage.stored_gb(10_000_000) == pytest.approx(50)


def test_a_stage_that_is_spread_has_the_cores_of_all_nodes_and_others_those_of_one() -> None:
    one = Stage("s", share=1, cpu_s=3.6, memory_kb=0)
    all_of_them = Stage("s", share=1, cpu_s=3.6, memory_kb=0, spread=True)
    assert one.hours(1000, CLUSTER) == pytest.approx(0.1)  # 1 CPU hour on 10 cores
    assert all_of_them.hours(1000, CLUSTER) == pytest.approx(0.05)


def test_a_stage_of_one_thread_has_one_core() -> None:
    stage = Stage("s", share=1, cpu_s=3.6, memory_kb=0, one_thread=True)
    assert stage.hours(1000, CLUSTER) == pytest.approx(1)


def test_the_slower_of_cpus_and_gpus_tells() -> None:
    fed_too_slowly = Stage("s", share=1, cpu_s=72, gpu_s=3.6, memory_kb=0, spread=True)
    assert fed_too_slowly.hours(1000, CLUSTER) == pytest.approx(
        1
    )  # 20 CPU hours on 20 cores, 1 GPU hour on 4
    waits_for_gpus = Stage("s", share=1, cpu_s=3.6, gpu_s=36, memory_kb=0, spread=True)
    assert waits_for_gpus.hours(1000, CLUSTER) == pytest.approx(2.5)


def test_a_stage_breaks_where_it_takes_a_day_or_the_memory_of_a_machine() -> None:
    slow = Stage("s", share=1, cpu_s=0.36, memory_kb=1)
    assert slow.breaks_at(CLUSTER) == (pytest.approx(2_400_000), "hours")  # 240 CPU hours of ten cores a day
    large = Stage("s", share=1, cpu_s=0.036, memory_kb=10)
    assert large.breaks_at(CLUSTER) == (pytest.approx(10_000_000), "memory")


def test_units_follow_the_split_and_training_its_epochs() -> None:
    found = {stage.name: stage for stage in stages(ONES, CLUSTER, epochs=7, split=SPLIT)}
    assert found["`checkpoint`"].share == pytest.approx(0.64)
    assert found["`change_masks`"].share == pytest.approx(0.36)  # val and test
    assert found["`test_predictions`"].share == pytest.approx(0.2)
    assert found["`checkpoint`"].passes == 7
    assert found["`raw_photos`"].stored_gb(1_000_000) == pytest.approx(3000)


def test_each_loader_process_of_a_training_holds_its_rows_and_has_a_core() -> None:
    # two nodes of ten cores and two GPUs: two trainings a node with four loaders each
    found = {stage.name: stage for stage in stages(ONES, CLUSTER, epochs=1, split=SPLIT)}
    assert found["`checkpoint`"].memory_gb(1_000_000) == pytest.approx(0.64 * 10)  # 1 kB a train pair each
    fed_too_slowly = {**ONES, "train_cpu_s": 16.0}
    found = {stage.name: stage for stage in stages(fed_too_slowly, CLUSTER, epochs=1, split=SPLIT)}
    # 0.64 x 16 CPU hours, on 16 of the 20 cores; the GPUs are done after 0.16
    assert found["`checkpoint`"].hours(3600, CLUSTER) == pytest.approx(0.64)


def test_validation_follows_each_epoch_in_one_process() -> None:
    found = {stage.name: stage for stage in stages(ONES, CLUSTER, epochs=7, split=SPLIT)}
    validation = found["validation in `checkpoint`"]
    assert validation.share == pytest.approx(0.16)
    assert validation.hours(3600, CLUSTER) == pytest.approx(0.16 * 7 * 0.5)


def test_the_table_names_every_stage_and_orders_them_by_where_they_break() -> None:
    found = stages(ONES, CLUSTER, epochs=7, split=SPLIT)
    table = lines(found, 1000, CLUSTER)
    assert all(any(f"| {stage.name} |" in line for line in table) for stage in found)
    # 1 s a photo: a day of 4 GPUs is 345,600 s, of which each photo's pair takes 0.64 x 7
    assert "1. `checkpoint`: hours, at 77,143 photos" in table


def test_a_rate_that_nobody_measured_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RATES, "render_cpu_s", (None, "CPU s a frozen pair"))
    given = {name: 1.0 for name in RATES if name != "render_cpu_s"}
    with pytest.raises(ValueError, match=r"--set NAME=VALUE: render_cpu_s \(CPU s a frozen pair\)"):
        known_rates(given)
    assert known_rates({**given, "render_cpu_s": 2.0})["render_cpu_s"] == 2.0


@pytest.mark.parametrize("given", [{"speed": 1.0}, {**ONES, "photo_mb": -1.0}])
def test_rates_that_cannot_be_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"no such rate: speed|never negative: photo_mb"):
        known_rates(given)
