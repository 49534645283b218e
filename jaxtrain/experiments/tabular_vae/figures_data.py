"""Figures of the table that a tabular VAE learned from, and of what it makes of noise, from the files of a run alone.

Histograms are in bins that `evaluate.py` counted; of many features those are shown that `pick_features` picks.
"""

import re
from typing import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import gaussian_kde

from jaxtrain.report.figures import COLORS, INK, MUTED, clip_text, new_figure
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import SPLITS, RunData

MAX_FEATURES, MAX_BARS, MAX_NAMED, MAX_TICKS = 12, 30, 12, 4
PANEL, PITCH = (1.75, 1.1), (2.25, 1.75)  # inches: a panel of a feature, distance between two across and down
BLUE, ORANGE, PALE = "#1f6fb4", "#d2580f", "#b5d2ec"
FEW_VALUES, DENSITY_POINTS = 20, 200  # a feature of fewer values has no density; points of its line
UNEVEN = 100  # ratio of the largest to the smallest above which an axis is logarithmic


def evenly(items: Sequence[int], most: int) -> list[int]:
  """Up to so many items at even ranks from the first to the last."""
  return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def evenly_ranked(r2: Sequence[float | None], most: int) -> list[int]:
  """Up to so many features: all that have an R2 in their order, or of more those at even ranks from the best R2 to the
  worst.
  """
  known = [d for d, value in enumerate(r2) if value is not None and np.isfinite(value)]
  return known if len(known) <= most else evenly(sorted(known, key=lambda d: -r2[d]), most)


def pick_features(r2: list[float | None]) -> list[int]:
  """Up to 12 features: all in their order, or of more those at even ranks from the best R2 to the worst."""
  if len(r2) <= MAX_FEATURES:
    return list(range(len(r2)))
  found = evenly_ranked(r2, MAX_FEATURES)
  return found if len(found) == MAX_FEATURES else evenly(range(len(r2)), MAX_FEATURES)


def signed_log(values) -> np.ndarray:
  """The place of a value on a logarithmic axis that holds 0 and both signs."""
  return np.sign(values) * np.log1p(np.abs(values))


def round_values(forward: Callable, low: float, high: float) -> np.ndarray:
  """Round values whose positions `forward(value)` lie in [low, high] and keep apart: 0, powers of ten, then others."""
  accepted: list[float] = []
  for step in (1, 3, 2, 5):
    for size in [0.0] * (step == 1) + [step * 10.0 ** k for k in range(-2 if high < 1 else 0, 16)]:
      for value in (size, -size):
        at = float(forward(np.float64(value)))
        if low <= at <= high and all(abs(at - float(forward(np.float64(v)))) > (high - low) / 6.5 for v in accepted):
          accepted.append(value)
  return np.array(sorted(accepted))


def set_log_ticks(axis, low: float, high: float) -> None:
  """Ticks of an axis of `signed_log` places, labelled in raw units."""
  ticks = round_values(signed_log, low, high)
  axis.set_ticks(signed_log(ticks), [f"{tick:,.12g}".replace("-", "−") for tick in ticks])


def shown_features(run: RunData) -> tuple[list[int], str]:
  """The features that have a panel, and a text that says so where they are not all."""
  scalars, names = reading.scalars(run.evals[run.split]), run.meta["features"]
  shown = pick_features([scalars.get(f"r2_raw/{name}") for name in names])
  return shown, "" if len(shown) == len(names) else f"; {len(shown)} of {len(names)} features, from best to worst R²"


def panel_columns(count: int, narrow: bool) -> int:
  """Panels of features side by side."""
  return min(2, count) if narrow else 3 if count in (5, 6, 9) else min(4, count)


def known_categories(run: RunData) -> dict[str, list[str]]:
  """Names of the categories by column, of a table that has such columns."""
  return run.meta["kinds"]["categories"] if "kinds" in run.meta else {}


def feature_panels(run: RunData, series: list[tuple[str, str, str]], text: str, narrow: bool,
                   with_density: bool = False) -> Figure:
  """A panel of histograms for each feature; a series is (name of its array, colour, label), the first one filled.
  `with_density` adds a kernel density of the sample that the run has kept.
  """
  shown, chosen = shown_features(run)
  meta, edges, categories = run.meta, run.arrays["hist_edges"], known_categories(run)
  columns, text = panel_columns(len(shown), narrow), f"{text}{chosen}".replace("; ", ";\n" if narrow else "; ")
  head, foot = 0.15 + 0.18 * (len(series) + with_density if narrow else 1), 0.1 + 0.15 * (text.count("\n") + 1)
  width, height = 0.4 + PITCH[0] * max(columns, 2), head + PITCH[1] * -(-len(shown) // columns) + foot
  figure = new_figure(width, height, layout=None)  # places are known; to find them takes longer than to draw
  for k, d in enumerate(shown):
    left, top = 0.55 + PITCH[0] * (k % columns), head + 0.25 + PITCH[1] * (k // columns)
    ax = figure.add_axes((left / width, 1 - (top + PANEL[1]) / height, PANEL[0] / width, PANEL[1] / height))
    logarithmic = meta["scaler"]["transforms"][d].endswith("log1p")
    counts = [run.arrays[name][d] for name, _, _ in series]
    draw_histograms(ax, edges[d], counts, series, logarithmic)
    known = categories.get(meta["features"][d], ())
    if with_density and "sample_x" in run.arrays and not known:
      draw_density(ax, run.arrays["sample_x"][:, d], edges[d], logarithmic)
    if known:  # bins are of codes
      few = np.unique(np.linspace(0, len(known) - 1, MAX_TICKS).round().astype(int)).tolist()
      ax.set_xticks(few, [clip_text(known[k], 7) for k in few], fontsize=6)
    ax.set_title(clip_text(meta["features"][d], 20 if logarithmic else 26) + (" (log)" if logarithmic else ""),
                 fontsize=8)
    if k % columns == 0:
      ax.set_ylabel("% of rows")
      ax.yaxis.set_label_coords(-0.33 / PANEL[0], 0.5)
  figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(0, 1), borderaxespad=0.2,
                ncols=1 if narrow else 3)
  figure.text(0.01, 0.05 / height, text, fontsize=8, color=MUTED)
  return figure


def draw_histograms(ax, edges: np.ndarray, counts: list[np.ndarray], series, logarithmic: bool) -> None:
  """Shares of the rows in each bin, over the bins that the data fill; what lies outside those is given in percent."""
  place = signed_log(edges) if logarithmic else edges
  data = [c for c, (name, _, _) in zip(counts, series) if name != "hist_generated"]
  filled = np.flatnonzero(sum(c[1:-1] for c in data))
  first, last = (filled[0], filled[-1] + 1) if len(filled) else (0, len(edges) - 1)
  for j, (count, (_, color, label)) in enumerate(zip(counts, series)):
    share = 100 * count[1:-1][first:last] / max(count.sum(), 1)
    style = {"fill": True, "color": PALE if len(series) > 1 else BLUE} if j == 0 else {"color": color, "linewidth": 1.2}
    ax.stairs(share, place[first:last + 1], label=label, **style)
  outside = [100 * (1 - c[1:-1][first:last].sum() / max(c.sum(), 1)) for c in counts]
  if max(outside) >= 0.05:
    ax.set_xlabel("outside " + " | ".join(f"{value:.1f} %" for value in outside), loc="right", fontsize=6.5, labelpad=1)
  low, high = place[first], place[last]
  ax.set(xlim=(low - 0.02 * (high - low), high + 0.02 * (high - low)), ylim=(0, None))
  ax.tick_params(labelsize=7)
  ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
  set_log_ticks(ax.xaxis, low, high) if logarithmic else ax.xaxis.set_major_locator(MaxNLocator(nbins=5))


def generated(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for an outline that misses a peak or a tail of the data: the prior does not reach it. Of a table of numbers
  these are means of the decoder without its noise, somewhat narrower than the data even where all is well.
  """
  if not {"hist_edges", "hist_generated", f"hist_{run.split}"} <= run.arrays.keys():
    return None
  rows, drawn = (run.arrays[name].sum(axis=1).max() for name in (f"hist_{run.split}", "hist_generated"))
  series = [(f"hist_{run.split}", BLUE, f"data: {run.split}, {rows:,} rows"),
            ("hist_generated", ORANGE, f"{drawn:,} sampled rows" if "kinds" in run.meta else
             f"decoder means of {drawn:,} prior samples")]
  return feature_panels(run, series, "raw units; outside: share of data | samples beyond the bins", narrow)


def distributions(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for parts whose outlines differ: what was trained on is then not what is measured on. Long tails and single
  high bins tell which transform a feature needs. The thin line is a kernel density of a sample (Gaussian kernels,
  Scott's rule).
  """
  parts = [part for part in SPLITS[::-1] if f"hist_{part}" in run.arrays]
  if not parts or "hist_edges" not in run.arrays:
    return None
  rows = {part: run.arrays[f"hist_{part}"].sum(axis=1).max() for part in parts}
  series = [(f"hist_{part}", COLORS[part], f"{part}, {rows[part]:,} rows") for part in parts]
  return feature_panels(run, series, f"raw units; outside: share of {' | '.join(parts)} beyond the bins", narrow, True)


def draw_density(ax, values: np.ndarray, edges: np.ndarray, logarithmic: bool) -> None:
  """A kernel density of values [n] in percent of rows a bin, over bins with such edges; none of a few values alone."""
  place = signed_log if logarithmic else (lambda v: np.asarray(v, float))
  points, ends = place(values[np.isfinite(values)]), place(edges[[0, -1]])
  if len(np.unique(points)) < FEW_VALUES or not np.isfinite(ends).all():
    return
  grid = np.linspace(*ends, DENSITY_POINTS)
  share = 100 * gaussian_kde(points)(grid) * (ends[1] - ends[0]) / (len(edges) - 1)
  ax.plot(grid, share, color=INK, linewidth=0.8, label=f"kernel density of {len(points):,} rows")


def dataset(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a few groups or classes that hold most of the rows: scores over rows are then scores of those."""
  rows = {part: n for part, n in run.meta.get("rows", {}).items() if n}
  groups, count = run.meta.get("rows_per_group"), run.arrays.get("class_count_all")
  panels = []
  if len(rows) > 1:
    panels.append(lambda ax: draw_parts(ax, rows, run.meta.get("groups")))
  if groups:
    total = sum(rows.values())
    panels.append(lambda ax: draw_ranks(ax, groups["rows"], "group", total))
    prefixes = by_prefix(groups, total)
    if prefixes:
      word = "expedition" if "lithology" in str(run.meta["table"].get("source")) else "first part of group name"
      panels.append(lambda ax: draw_bars(ax, prefixes, word, sorted(prefixes)))
      ones = by_prefix(groups | {"rows": [1] * len(groups["rows"])}, len(groups["rows"]))
      panels.append(lambda ax: draw_bars(ax, ones, word, sorted(ones), "groups"))
  if count is not None and count.sum():
    named = {run.meta["class_names"][k]: int(count[k]) for k in np.argsort(-count, kind="stable") if count[k]}
    few = len(named) <= MAX_NAMED
    panels.append(lambda ax: draw_bars(ax, named, "class", list(named)) if few else
                  draw_ranks(ax, list(named.values()), "class", int(count.sum())))
  if not panels:
    return None
  places = [[k, k] if k + 1 == len(panels) else [k, k + 1] for k in range(0, len(panels), 2)]
  places = [[k] for k in range(len(panels))] if narrow else places
  figure = new_figure(4.6 if narrow else 9 if panels[1:] else 6, 2.7 * len(places))
  for ax, panel in zip(figure.subplot_mosaic(places).values(), panels):
    panel(ax)
    ax.grid(axis="x", visible=False)
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:,.12g}")
  return figure


def by_prefix(groups: dict, total: int) -> dict[str, int]:
  """Rows by what stands before the first hyphen of a group's name; {} where that sums up little, or groups lack."""
  found: dict[str, int] = {}
  for name, rows in zip(groups["names"], groups["rows"]):
    match = re.match(r"([^-]+)-.", name)
    if not match:
      return {}
    found[match[1]] = found.get(match[1], 0) + rows
  whole = sum(groups["rows"]) == total
  return found if whole and 2 <= len(found) <= min(MAX_BARS, len(groups["names"]) // 2) else {}


def draw_parts(ax, rows: dict[str, int], groups: dict[str, int] | None) -> None:
  """Rows of each part, and its groups."""
  for k, (part, n) in enumerate(rows.items()):
    more = f"\n{groups[part]:,} groups" if groups and part in groups else ""
    ax.bar(k, n, 0.6, color=COLORS.get(part, BLUE))
    ax.annotate(f"{n:,} rows{more}", (k, n), (0, 3), textcoords="offset points", ha="center", fontsize=7.5, color=INK)
  ax.set_xticks(range(len(rows)), rows, color=INK)
  ax.set(title=f"{sum(rows.values()):,} rows in {len(rows)} parts", ylabel="rows", ylim=(0, 1.25 * max(rows.values())))


def draw_ranks(ax, rows: list[int], word: str, total: int) -> None:
  """Rows of each group or class, the largest first, and the number of those that hold half of all rows."""
  half = int(np.searchsorted(np.cumsum(rows), total / 2)) + 1
  rest = total - sum(rows)
  uneven = max(rows) > UNEVEN * min(rows)
  if len(rows) <= MAX_BARS:
    ax.bar(range(1, len(rows) + 1), rows, 0.8, color=BLUE)
  else:
    ax.stairs(rows, np.arange(len(rows) + 1) + 0.5, baseline=0.7 if uneven else 0, fill=True, color=BLUE)
  plural = word + ("es" if word.endswith("s") else "s")
  more = f"the {len(rows)} largest {plural}, others hold {rest:,} rows" if rest else f"{len(rows):,} {plural}"
  ax.set(title=f"{more}; half of {total:,} rows in {half}", xlabel=f"rank of {word}", xlim=(0.5, len(rows) + 0.5),
         ylabel="rows, logarithmic" if uneven else "rows", yscale="log" if uneven else "linear")
  ax.set_ylim(0.7 if uneven else 0, max(rows) * (1.5 if uneven else 1.05))
  ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def draw_bars(ax, rows: dict[str, int], word: str, order: list[str], what: str = "rows") -> None:
  """Rows, or what else is counted, by name in this order."""
  ax.bar(range(len(rows)), [rows[name] for name in order], 0.8, color=BLUE)
  ax.set_xticks(range(len(rows)), [clip_text(name, 10) for name in order], rotation=90, fontsize=7)
  ax.set(title=f"{sum(rows.values()):,} {what} by {word} ({len(rows)})", ylabel=what, xlim=(-0.7, len(rows) - 0.3))
