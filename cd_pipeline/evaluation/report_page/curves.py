"""Line charts as inline SVG; colours come from the page's style, and each line has its own dashes too."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from markupsafe import Markup

WIDTH, HEIGHT = 560, 250
"""Of a chart, in its own units."""
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 34, 36
"""Space around the plot: for the labels of the y axis, nothing, the legend, and the x axis."""
STEPS = (1, 2, 5, 10)
"""Of ticks, times a power of ten."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: y values at the chart's x values, None where there is none."""

    label: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Chart:
    """A line chart.

    Attributes:
        title: what it shows, for people who do not see it too.
        x_label: of the x axis.
        x: values of the x axis, ascending.
        series: the lines.
        top: of the y axis, which begins at 0; None: the largest value.
        mark: an x value with a dotted line through it.
        mark_label: what that is.
        moves: the page moves another line over it, which begins at `mark`.
    """

    title: str
    x_label: str
    x: Sequence[float]
    series: Sequence[Series]
    top: float | None = 1.0
    mark: float | None = None
    mark_label: str = ""
    moves: bool = False

    @property
    def highest(self) -> float:
        """Upper end of the y axis."""
        values = [v for line in self.series for v in line.values if v is not None and isfinite(v)]
        return self.top if self.top is not None else max([*values, 1e-9])

    def at(self, x: float) -> float:
        """Return where an x value lies, in the chart's units."""
        low, high = self.x[0], self.x[-1]
        return LEFT + (WIDTH - LEFT - RIGHT) * ((x - low) / (high - low) if high > low else 0.5)

    def up(self, y: float) -> float:
        """Return where a y value lies; what is above the chart is cut off."""
        share = min(max(y / self.highest, 0.0), 1.0)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def svg(self) -> Markup:
        """Return the chart."""
        parts = [*self._grid(), *self._legend(), *self._lines(), *self._marks()]
        return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            WIDTH, HEIGHT, self.title, Markup("").join(parts)
        )

    def _grid(self) -> list[Markup]:
        right, foot = WIDTH - RIGHT, HEIGHT - BOTTOM
        found = [
            Markup(
                '<path class="grid" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" class="y">{:g}</text>'
            ).format(LEFT, self.up(y), right, LEFT - 6, self.up(y) + 4, y)
            for y in ticks(0, self.highest)
        ]
        found += [
            Markup('<text x="{:.1f}" y="{}" class="x">{:g}</text>').format(self.at(x), foot + 16, x)
            for x in ticks(self.x[0], self.x[-1])
        ]
        name = Markup('<text x="{}" y="{}" class="x">{}</text>')
        return [*found, name.format((LEFT + right) / 2, HEIGHT - 4, self.x_label)]

    def _legend(self) -> list[Markup]:
        room = (WIDTH - LEFT - RIGHT) / max(1, len(self.series))
        return [
            Markup('<path class="line s{}" d="M{:.1f} 14h22"/><text x="{:.1f}" y="18">{}</text>').format(
                number, LEFT + number * room, LEFT + number * room + 28, line.label
            )
            for number, line in enumerate(self.series)
        ]

    def _lines(self) -> list[Markup]:
        return [
            Markup('<path class="line s{}" d="{}"/>').format(number, self._path(line.values))
            for number, line in enumerate(self.series)
        ]

    def _path(self, values: Sequence[float | None]) -> str:
        steps, pen = [], "M"
        for x, y in zip(self.x, values, strict=True):
            if y is None or not isfinite(y):
                pen = "M"
                continue
            steps.append(f"{pen}{self.at(x):.1f} {self.up(y):.1f}")
            pen = "L"
        if len(steps) == 1:
            steps.append("h0.01")  # a round dot
        return "".join(steps)

    def _marks(self) -> list[Markup]:
        if self.mark is None:
            return []
        x, foot = self.at(self.mark), HEIGHT - BOTTOM
        end = x > WIDTH * 0.7
        lines = [Markup('<path class="mark" d="M{:.1f} {}V{}"/>').format(x, TOP, foot)]
        lines.append(
            Markup('<text x="{:.1f}" y="{}" class="note{}">{}</text>').format(
                x + (-6 if end else 6), foot - 6, " end" if end else "", self.mark_label
            )
        )
        if self.moves:
            line = '<path class="now" data-left="{}" data-width="{}" d="M{:.1f} {}V{}"/>'
            lines.append(Markup(line).format(LEFT, WIDTH - LEFT - RIGHT, x, TOP, foot))
        return lines


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers in [low, high], about `count` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in STEPS if power * factor >= rough * 0.999)
    found = [round((ceil(low / step) + number) * step, 12) for number in range(int((high - low) / step) + 2)]
    return [value for value in found if low - 1e-12 <= value <= high + 1e-12]


def table_of(chart: Chart, every: int = 1) -> tuple[list[str], list[list[str]]]:
    """Return a chart as a table, head and rows, with every so many x values."""
    head = [chart.x_label, *(line.label for line in chart.series)]
    rows = [
        [
            f"{x:g}",
            *(
                "-" if (v := line.values[at]) is None or not isfinite(v) else f"{v:.4g}"
                for line in chart.series
            ),
        ]
        for at, x in enumerate(chart.x)
        if at % every == 0
    ]
    return head, rows
