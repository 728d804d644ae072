"""The picture of a profile: a bar for each fused group, as long as its time, as dark as its share of the ceiling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deburr.picture import matplotlib_for, write_figure
from deburr.profile import Profile, Row


def draw(profile: Profile, path: Path) -> None:
    """Write a .png, .svg or .pdf.

    :raises DeburrError: E902 without matplotlib, E901 for another kind of file, E109 where it cannot be written.
    """
    matplotlib_for("picture", path)
    write_figure(lambda: _figure(profile), path)


def _figure(profile: Profile) -> Any:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    rows = [row for row in profile.rows if row.us > 0]
    figure = Figure(figsize=(10, 1.2 + 0.22 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    colour = colormaps["viridis_r"]
    colours = [colour(row.of_ceiling) if row.of_ceiling is not None else "#c8c8c8" for row in rows]
    axes.barh(range(len(rows)), [row.us for row in rows], color=colours)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=7)
    for position, row in enumerate(rows):
        text = f" {row.us:.0f} us" + (f", {row.of_ceiling:.0%}" if row.of_ceiling is not None else "")
        axes.text(row.us, position, text, va="center", fontsize=7)
    axes.set(xlabel="microseconds", xlim=(0, 1.18 * max((row.us for row in rows), default=1.0)), ylim=(len(rows) - 0.5, -0.5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{Path(profile.bundle).name}: {profile.total_us:.0f} us, {profile.threads} threads", fontsize=10)
    bar = ScalarMappable(Normalize(0, 1), colour)
    figure.colorbar(bar, ax=axes, label="share of the machine's ceiling", shrink=min(1.0, 12 / max(len(rows), 1)))
    return figure


def _label(row: Row) -> str:
    name = row.layer if len(row.layer) <= 32 else "…" + row.layer[-31:]
    return f"{name}  {row.shape}".strip() if row.shape else f"{name}  {row.operator}".strip()
