"""Pictures as PNG: an empty figure, its bytes, and volumes in three planes beside what changes in them.

The same figure gives the same bytes: nothing of the program or the time is written into them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from braing3n_core.generate import BRIGHTEST

PLANES = ("sagittal", "coronal", "axial")                    # what is seen across the axes of a volume in RAS
_FLATTEST = 1e-3                                             # change that still has full colour where hardly anything changes
Titled = Sequence[tuple[str, Tensor]]


def blank(width: float, height: float, dpi: int) -> Figure:
    """An empty figure, sides in inches."""
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The figure's bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def planes(scans: Titled, changes: Titled) -> bytes:
    """PNG: a column for each (D, H, W) volume, its middle in three planes; all `changes` in the colours of the first."""
    scale = max(float(changes[0][1].abs().quantile(0.999)), _FLATTEST)
    columns = [*((title, volume, (0.0, BRIGHTEST, "gray")) for title, volume in scans),
               *((title, volume, (-scale, scale, "RdBu_r")) for title, volume in changes)]  # fmt: skip
    figure = blank(2.4 * len(columns), 7.4, 120)
    for row, plane in enumerate(PLANES):
        for column, (title, volume, (low, high, colours)) in enumerate(columns):
            axes = figure.add_subplot(3, len(columns), len(columns) * row + column + 1)
            cut = volume.select(row, volume.shape[row] // 2).T.numpy()
            axes.imshow(cut, origin="lower", cmap=colours, vmin=low, vmax=high)
            axes.set(xticks=[], yticks=[], ylabel=plane if column == 0 else None, title=title if row == 0 else None)
    return png(figure)
