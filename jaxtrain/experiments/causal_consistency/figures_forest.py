"""A forest of estimates: a line for each, with its interval, beside the truth where it is known."""

from jaxtrain.experiments.causal_consistency.figures_findings import finite, with_ends
from jaxtrain.report.figures import HUES, INK, MUTED

BLUE, GREY = HUES[0], "#c3c9cf"


def names_of(scalars: dict, end: str, labels: dict[str, str]) -> list[str]:
  """The estimates that are there, in the order of their labels."""
  return [name for name in labels if finite(scalars, f"{name}{end}") is not None]


def forest(ax, scalars: dict, end: str, labels: dict[str, str], muted: tuple[str, ...], text_size: float,
           intervals: dict[str, float]) -> None:
  """Draws a dot, intervals and a number for each estimate, and a line at the truth where it is known.

  Args:
    ax: of the panel.
    scalars: of an assessment.
    end: what follows the names of this contrast's scalars.
    labels: scalar -> what stands beside its line.
    muted: those in grey, which are no effects or not what the figure is of.
    text_size: points of the numbers.
    intervals: part of a name, such as "" or "_plain" -> width of its line, the first drawn first.
  """
  names = names_of(scalars, end, labels)
  for at, name in enumerate(names):
    color = MUTED if name in muted else BLUE
    for part, width in intervals.items():
      low, high = (finite(scalars, f"{name}{part}_{side}{end}") for side in ("low", "high"))
      if low is not None and high is not None:
        ax.plot([low, high], [at, at], color=color, linewidth=width, solid_capstyle="butt")
    value = finite(scalars, f"{name}{end}")
    ax.plot(value, at, "o", color=color, markersize=5)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}  # a line at the truth stays behind the number
    ax.annotate(with_ends(scalars, name, end), (value, at), (0, 5), textcoords="offset points", ha="center",
                fontsize=text_size, color=INK, bbox=box)
  truth = finite(scalars, f"ate_truth{end}")
  if truth is not None:
    ax.axvline(truth, color=HUES[2], linewidth=1.3, zorder=1)
  ax.axvline(0, color=GREY, linewidth=1, zorder=0)
  ax.set_yticks(range(len(names)), [labels[name] for name in names], color=INK)
  known = "" if truth is None else f" (green: truth {truth:.3g})"
  ax.set(ylim=(len(names) - 0.5, -0.7), xlabel=f"effect in units of the outcome{known}")
  ax.grid(axis="y", visible=False)
