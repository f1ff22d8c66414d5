"""The door of a comparison: the changes between two results, with their words and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kornia_lightning_probe.reporting.notebook import comparison_html
from kornia_lightning_probe.reporting.text.comparison import comparison_text
from kornia_lightning_probe.reporting.text.verdict import comparison_verdict
from kornia_lightning_probe.results.comparing.comparison import ComparisonNumbers, ComparisonRow
from kornia_lightning_probe.results.lookup import SENSITIVITY
from kornia_lightning_probe.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Comparison(ComparisonNumbers):
    """The changes from a first result to a second, as `ProbeResult.compare` gives them: second minus first.

    Errors cover the sampling of images, not the augmentations' draw nor the trainings' seeds. Where nothing has
    changed, about one cell in twenty is beyond two standard errors by chance.
    """

    def __str__(self) -> str:
        """The verdict, and where to read on."""
        return "\n".join(filter(None, [repr(self), self.verdict(), "read on in .summary(), .plot() and .rows"]))

    def __repr__(self) -> str:
        size = f"{counted(len(self.view_rows), 'cell')} of {counted(len(self.metrics), 'metric')}"
        return f"{type(self).__name__}({self.title}: {size})"

    def _repr_html_(self) -> str:
        return comparison_html(self, repr(self))

    def verdict(self) -> str:
        """What has changed, in a sentence a line, as `ProbeResult.verdict` says it."""
        return comparison_verdict(self)

    def summary(self, metric: str | None = None) -> str:
        """A text table of layers x augmentations for a terminal of 100 columns; `*` marks what is beyond error.

        Args:
            metric: The metric's name; None takes sensitivity, or else the first, and gives a line to each other.

        Raises:
            ValueError: If the metric wasn't compared.
        """
        return comparison_text(self, metric)

    def plot(self, metric: str = SENSITIVITY) -> Figure:
        """Draw the changes over layers and augmentations; what is within sampling error is pale and hatched.

        Raises:
            ValueError: If the metric wasn't compared.
            ImportError: If matplotlib isn't installed.
        """
        from kornia_lightning_probe.reporting.figures.comparison import plot_comparison

        return plot_comparison(self, metric=metric)

    def to_pandas(self, *, views: bool = False) -> DataFrame:
        """The rows as a pandas DataFrame, one column for each field of `ComparisonRow`.

        Args:
            views: Take the rows of single views in place of the means over levels.

        Raises:
            ImportError: If pandas isn't installed.
        """
        return data_frame(self.view_rows if views else self.rows, ComparisonRow._fields)


def data_frame(rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> DataFrame:
    """Tidy rows as a pandas DataFrame.

    Raises:
        ImportError: If pandas isn't installed.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ImportError("to_pandas needs pandas: pip install pandas (the extra [dataframe])") from error
    return DataFrame(list(rows), columns=list(columns))
