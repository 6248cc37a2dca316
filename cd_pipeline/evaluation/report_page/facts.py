"""What the page shows, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cd_pipeline.evaluation.report_page.cards import Card
from cd_pipeline.evaluation.report_page.curves import Chart, Series
from cd_pipeline.evaluation.report_page.figures import headline_figures
from cd_pipeline.evaluation.report_page.runs import Run
from cd_pipeline.evaluation.report_page.sweep_table import SweepTable

Row = Mapping[str, Any]
SHOWN_RUNS = 20


@dataclass(frozen=True)
class TestSet:
    """A test set, as measured.

    Attributes:
        metrics: content of `metrics.json`.
        cards: of its examples, or of some.
        examples: how many it has.
        names: of the classes, with their colours as red, green and blue; empty: there is one.
        sweep: of one class.
        cleaned: what is done to masks after the threshold, in words; "": nothing.
    """

    __test__ = False  # not for pytest

    metrics: Row
    cards: Sequence[Card]
    examples: int
    names: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    sweep: SweepTable | None = None
    cleaned: str = ""

    @property
    def pairs(self) -> bool:
        """Whether an example is a pair of pictures."""
        return "pairs" in self.metrics

    @property
    def what(self) -> str:
        """What an example is called, of several."""
        return "pairs" if self.pairs else "images"


@dataclass(frozen=True)
class Training:
    """How training went: a row an epoch, as in `history.parquet`, and the epoch that was best on val."""

    history: Sequence[Row]
    best_epoch: int

    def charts(self) -> list[Chart]:
        """Return losses and scores over the epochs; without a row there is none."""
        if not self.history:
            return []
        several = self.history[0].get("threshold") is None
        overlap, score = ("mean Dice", "mIoU") if several else ("F1", "IoU")
        panels = {
            "Loss": {"train_loss": "train", "val_loss": "val"},
            "Scores": {"val_f1": f"val {overlap}", "val_iou": f"val {score}", "train_iou": f"train {score}"},
        }
        if several:
            panels["Pixel accuracy"] = {"train_pixel_accuracy": "train", "val_pixel_accuracy": "val"}
        return [self._chart(title, lines) for title, lines in panels.items()]

    def _chart(self, title: str, lines: Mapping[str, str]) -> Chart:
        epochs = [float(row["epoch"]) for row in self.history]
        return Chart(
            title=f"{title} over {len(epochs)} epochs; epoch {self.best_epoch} was kept",
            x_label="epoch",
            x=epochs,
            series=[
                Series(label, [row[name] for row in self.history])
                for name, label in lines.items()
                if name in self.history[0]
            ],
            top=None if title == "Loss" else 1.0,
            mark=float(self.best_epoch),
            mark_label=f"best epoch {self.best_epoch}",
        )


@dataclass(frozen=True)
class LeftOut:
    """Inputs that were not used.

    Attributes:
        files: with the reason.
        lines: of label files that were dropped, with what is wrong.
        whole: the table that holds all of them.
    """

    files: Sequence[tuple[str, str]] = ()
    lines: Sequence[tuple[str, str]] = ()
    whole: str = "split.parquet"


@dataclass(frozen=True)
class Lineage:
    """Where the figures come from.

    Attributes:
        identities: names and values: versions and hashes of all that went in.
        packages: their versions, when the checkpoint was trained.
        counts: a row a split: how many inputs were used, and how many rows the manifest has.
        settings: of the recipe.
    """

    identities: Sequence[tuple[str, str]]
    packages: Mapping[str, str]
    counts: Sequence[Row]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Beside:
    """Figures from an asset that the report does not wait for; `missing` says why there are none."""

    figures: Row | None = None
    missing: str = ""


@dataclass(frozen=True)
class ReportFacts:
    """All that the page shows.

    Attributes:
        recipe: its name.
        sample: the data was drawn.
        run: the headline figures.
        earlier: runs before it, oldest first.
        test: the test set.
        training: how the checkpoint was trained.
        left_out: inputs that were not used.
        lineage: where all this comes from.
        package: how closely the delivered forms agree, as in `agreement.json`.
        real_pairs: photos really taken at two times, a row a set under `sets`; None: the recipe has none.
    """

    recipe: str
    sample: bool
    run: Run
    earlier: Sequence[Run]
    test: TestSet
    training: Training
    left_out: LeftOut
    lineage: Lineage
    package: Beside
    real_pairs: Beside | None = None

    @property
    def previous(self) -> Run | None:
        """The run that this one is compared with."""
        return self.earlier[-1] if self.earlier else None

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before the figures, a sentence each."""
        metrics, found = self.test.metrics, []
        if self.sample:
            found.append(
                "This is drawn sample data: the figures say that the pipeline runs, not what it is worth."
            )
        oracle = metrics.get("differencing_oracle_f1")
        if oracle is not None and oracle >= metrics["f1"]:
            found.append(
                f"Plain differencing, at its best on this set, is as good or better: F1 {oracle:.3f}. "
                "Where pairs differ by their changes alone, that is no surprise; look at unlike pairs."
            )
        if self.previous and self.previous.data_version != self.run.data_version:
            found.append("The previous run had another manifest, so the two may be of different test sets.")
        return found


def run_of(metrics: Row, data_version: str) -> Run:
    """Return the headline figures of a test set as a run."""
    return Run(
        checkpoint_version=str(metrics["checkpoint_version"]),
        threshold=metrics["threshold"],
        data_version=data_version,
        figures=headline_figures(metrics),
    )
