"""Figures of a table with kinds of columns: categories of sampled rows, and how columns go together, from files."""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.experiments.tabular_vae.figures_data import BLUE, ORANGE, PALE, known_categories
from jaxtrain.report.figures import MUTED, clip_text, new_figure
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

MAX_COLUMNS, MAX_NAMES = 9, 12


def categories(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a category that is sampled too often or never. A column whose accuracy is that of its most frequent
  category is not carried by the latent space.
  """
  known = known_categories(run)
  if not known or not {"category_share_real", "category_share_made"} <= run.arrays.keys():
    return None
  scalars, ends = reading.scalars(run.evals[run.split]), np.cumsum([len(names) for names in known.values()])
  columns = min(len(known), 2 if narrow else 3)
  shown = list(zip(known, ends))[:MAX_COLUMNS]
  rows = -(-len(shown) // columns)
  figure = new_figure(4.6 if narrow else 3.0 * max(columns, 2), 2.5 * rows + 0.3)
  axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
  for ax, (name, end) in zip(axes, shown):
    names = known[name]
    real, made = (run.arrays[f"category_share_{part}"][end - len(names):end] for part in ("real", "made"))
    order = np.argsort(-real, kind="stable")[:MAX_NAMES]
    ax.bar(np.arange(len(order)), 100 * real[order], 0.8, color=PALE, label=f"data: {run.split}")
    ax.plot(np.arange(len(order)), 100 * made[order], "_", color=ORANGE, markersize=12, markeredgewidth=2,
            label="sampled rows")
    ax.set_xticks(range(len(order)), [clip_text(names[k], 10) for k in order], rotation=90, fontsize=7)
    accuracy, most = (scalars.get(f"{word}_of/{name}") for word in ("accuracy", "majority"))
    right = f"\nright {accuracy:.0%}, most frequent {most:.0%}" if accuracy is not None and most is not None else ""
    ax.set_title(f"{clip_text(name, 24)}{right}", fontsize=8)
    ax.grid(axis="x", visible=False)
    ax.set_ylim(0, None)
  for ax in axes[len(shown):]:
    ax.axis("off")
  axes[0].set_ylabel("% of cells")
  axes[0].legend(fontsize=7, loc="upper right")
  return figure


def associations(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for pairs of columns below the line: what goes together in the data does so less in sampled rows. Grey points
  are a second sample of real rows, and show how far luck alone goes.
  """
  pairs, made, real, other = (run.arrays.get(f"association_{part}") for part in ("pair", "made", "real", "other"))
  if pairs is None or not len(pairs):
    return None
  figure = new_figure(4.6, 4.6)
  ax = figure.subplots()
  ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
  ax.plot(real, other, ".", color=MUTED, alpha=0.6, label="other real rows (training part)")
  ax.plot(real, made, ".", color=BLUE, markersize=7, label="sampled rows")
  names = run.meta["features"]
  for k in np.argsort(-np.abs(np.nan_to_num(made - real)))[:3]:
    text = " and ".join(clip_text(names[d], 14) for d in pairs[k])
    ax.annotate(text, (real[k], made[k]), (5, -3), textcoords="offset points", fontsize=7)
  ax.set(xlabel=f"association of two columns, {run.split}", ylabel="the same in other rows", xlim=(0, 1), ylim=(0, 1),
         aspect="equal")
  ax.legend(fontsize=7, loc="upper left")
  return figure
