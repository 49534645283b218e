"""Figures of what comes back: spectra of features, residuals in GeV and radians, types that are confused, images.

Spectra and residuals are weighted by the events' weights. Momenta are in the columns E, pT (GeV), eta, phi (radians).
"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxtrain.report.figures import GREY, HUES, INK, MUTED, clip_text, new_figure
from jaxtrain.report.panels import panel_grid
from jaxtrain.statistics import wilson
from jaxtrain.workdir.reading import RunData

BLUE, ORANGE, TARGET = HUES[0], HUES[1], "#9aa3ab"
NUM_BINS = 40
TAIL = 0.995  # quantile at which a falling spectrum is cut; what lies beyond is in the last bin
FEW = 10.0  # effective events below which a bin has no ratio
MAX_TYPES, MAX_PAIRS = 16, 16
GAP = 2  # pixels between images


class Quantity(NamedTuple):
  """A measured quantity: its name with unit, values that went in and came back [n], weights, and its kind."""
  name: str
  target: np.ndarray
  recon: np.ndarray
  weight: np.ndarray
  kind: str  # falling | plain | angle


def wrapped(angle: np.ndarray) -> np.ndarray:
  """Angles in radians at their place from -pi to below pi."""
  return (angle + np.pi) % (2 * np.pi) - np.pi


def quantities(run: RunData) -> list[Quantity]:
  """Those of objects and of the event that the arrays hold, rows that are not finite left out."""
  arrays, found = run.arrays, []
  if {"slots_true", "slots_recon"} <= arrays.keys():
    weight = arrays["slots_weight"] if "slots_weight" in arrays else np.ones(len(arrays["slots_true"]))
    kinds = ("falling", "falling", "plain", "angle")
    found += [Quantity(name, arrays["slots_true"][:, d], arrays["slots_recon"][:, d], weight, kind)
              for d, (name, kind) in enumerate(zip(("E in GeV", "pT in GeV", "eta", "phi in radians"), kinds))]
  if {"met_true", "met_recon"} <= arrays.keys():
    weight = arrays["event_weight"] if "event_weight" in arrays else np.ones(len(arrays["met_true"]))
    found += [Quantity(name, arrays["met_true"][:, d], arrays["met_recon"][:, d], weight, kind)
              for d, (name, kind) in enumerate(zip(("missing ET in GeV", "phi of missing ET in radians"),
                                                   ("falling", "angle")))]
  keep = lambda one: np.isfinite(one.target) & np.isfinite(one.recon)
  sound = [(one, keep(one)) for one in found]
  return [one._replace(target=one.target[at], recon=one.recon[at], weight=one.weight[at])
          for one, at in sound if at.sum() > 1]


def edges_of(one: Quantity) -> np.ndarray:
  """Edges of the bins of a spectrum."""
  if one.kind == "angle":
    return np.linspace(-np.pi, np.pi, NUM_BINS // 2 + 1)
  low, high = np.quantile(one.target, (1 - TAIL, TAIL))
  low = min(0.0, low) if one.kind == "falling" else low
  return np.linspace(low, high if high > low else low + 1.0, NUM_BINS + 1)


def spectrum(values: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Sums of weights and of their squares by bin; values beyond the ends are in the end bins."""
  inside = np.clip(values, edges[0], np.nextafter(edges[-1], edges[0]))
  return np.histogram(inside, edges, weights=weight)[0], np.histogram(inside, edges, weights=np.square(weight))[0]


def draw_spectrum(top, bottom, one: Quantity) -> None:
  """Target and reconstruction in one panel, and below it their ratio with the target's statistical uncertainty."""
  edges = edges_of(one)
  recon = wrapped(one.recon) if one.kind == "angle" else one.recon
  (target, squares), (found, _) = (spectrum(values, one.weight, edges) for values in (one.target, recon))
  top.stairs(target, edges, fill=True, color=GREY, label="target")
  top.stairs(found, edges, color=BLUE, linewidth=1.5, label="reconstruction")
  if one.kind == "falling" and target.max() > 0:
    top.set_yscale("log")
    top.set_ylim(0.3 * np.min(target[target > 0]), 3 * max(target.max(), found.max()))
  top.set_title(one.name)
  enough = np.square(target) > FEW * np.maximum(squares, 1e-300)
  share = np.sqrt(squares) / np.where(enough, target, np.nan)
  middle = (edges[1:] + edges[:-1]) / 2
  bottom.stairs(1 + share, edges, baseline=1 - share, fill=True, color=GREY)
  bottom.axhline(1, color=MUTED, linewidth=0.8)
  ratio = found / np.where(enough, target, np.nan)
  for marker, at in ((".", np.abs(ratio - 1) <= 0.5), ("^", ratio > 1.5), ("v", ratio < 0.5)):
    bottom.plot(middle[at], np.clip(ratio[at], 0.54, 1.46), marker, color=BLUE, markersize=4)
  bottom.set(ylim=(0.5, 1.5), yticks=(0.5, 1, 1.5))
  bottom.tick_params(labelsize=7)
  top.tick_params(labelbottom=False)
  for ax in (top, bottom):
    ax.set_xlim(edges[0], edges[-1])
  bottom.xaxis.set_major_locator(MaxNLocator(nbins=5))


def recon(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a ratio that leaves the grey band: that part of a spectrum does not come back. Under each spectrum stands
  reconstruction over target; the band is the statistical uncertainty of the target, and arrows are ratios beyond the
  axis. The end bins hold what is beyond.
  """
  shown = quantities(run)
  if not shown:
    return None
  across = 1 if narrow else 2
  figure, panels = panel_grid(len(shown), across, 4.4 if narrow else 4.1, 2.5, (0.0, 0.5), (3, 1.1))
  for (top, bottom), one in zip(panels, shown):
    draw_spectrum(top, bottom, one)
  label_spectra(figure, panels, across, "weighted entries")
  return figure


def label_spectra(figure: Figure, panels: np.ndarray, across: int, label: str) -> None:
  """Names the axes of spectra over ratios at the left, and what is drawn above all of them."""
  for top, bottom in panels[::across]:
    top.set_ylabel(label)
    bottom.set_ylabel("ratio")
  figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)


def weighted_quantiles(values: np.ndarray, weight: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
  """Values below which so much of the weight lies."""
  order = np.argsort(values)
  below = np.cumsum(weight[order]) - weight[order] / 2
  return np.interp(np.asarray(shares) * weight.sum(), below, values[order])


def draw_residuals(ax, one: Quantity) -> None:
  """Residuals of a quantity with their median and the half width that holds 68 %."""
  gap = wrapped(one.recon - one.target) if one.kind == "angle" else one.recon - one.target
  low, middle, high = weighted_quantiles(gap, one.weight, (0.16, 0.5, 0.84))
  reach = max(4 * (high - low) / 2, 1e-6)
  edges = np.linspace(middle - reach, middle + reach, 61)
  ax.stairs(spectrum(gap, one.weight, edges)[0], edges, fill=True, color=BLUE, alpha=0.75)
  ax.axvline(0, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
  unit = one.name.partition(" in ")[2].replace("radians", "rad")
  shape = f"median {middle:.2g} {unit}\n68 % within {(high - low) / 2:.2g} {unit}".replace(" \n", "\n").rstrip()
  ax.annotate(shape, (0.98, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=7.5, color=INK)
  ax.set(title=one.name.partition(" in ")[0], xlabel=f"reconstruction less target{f', {unit}' * bool(unit)}")
  ax.set_yticks([])
  ax.margins(y=0.3)


def residuals(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a median away from 0, which is a bias, and for wide cores. Residuals are reconstruction less target in the
  units of measurement; angles are taken the short way round. The end bins hold what lies beyond.
  """
  shown = quantities(run)
  if not shown:
    return None
  figure, panels = panel_grid(len(shown), 1 if narrow else 3, 4.2 if narrow else 3.0, 2.2, (0.0, 0.3))
  for ax, one in zip(panels[:, 0], shown):
    draw_residuals(ax, one)
  return figure


def type_names(run: RunData, num_types: int) -> list[str]:
  """Names of the types of objects, by number where the run has none."""
  names = run.meta["type_names"] if "type_names" in run.meta else []
  return [str(names[k]) if k < len(names) else f"type {k}" for k in range(num_types)]


def confusion(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for cells off the diagonal: types that come back as another, or in the column `absent` as no object at all.
  Beside it, the share of each type that is right, with 95 % intervals, and how far off its pT is in the median. Types
  of which there is no object have no row.
  """
  if "confusion" not in run.arrays or not run.arrays["confusion"].sum():
    return None
  table = np.asarray(run.arrays["confusion"], float)
  there = [k for k in np.flatnonzero(table.sum(axis=1)) if k][:MAX_TYPES]
  if not there:
    return None
  found = [k for k in np.flatnonzero(table[there].sum(axis=0)) if k and k not in there][:MAX_TYPES]
  columns = [*there, *found, *[0] * bool(table[there, 0].any())]
  known, hits, rows = type_names(run, len(table)), table[there, there], table[there].sum(axis=1)
  names, back = [known[k] for k in there], [known[k] if k else "absent" for k in columns]
  K, table = len(there), table[np.ix_(there, columns)]
  tall = 1.5 + 0.36 * K
  figure = new_figure(4.4, 2 * tall) if narrow else new_figure(8.6, tall)
  left, right = figure.subplots(**({"nrows": 2} if narrow else {"ncols": 2, "width_ratios": (1.25, 1)}))
  share = table / np.maximum(rows, 1)[:, None]
  left.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
  for i, j in np.ndindex(table.shape):
    if table[i, j]:
      text = f"{100 * share[i, j]:.0f}" if share[i, j] >= 0.01 else "<1"
      left.text(j, i, text, ha="center", va="center", fontsize=7.5, color="white" if share[i, j] > 0.5 else INK)
  left.set_xticks(range(len(back)), [clip_text(name, 12) for name in back], rotation=45, ha="right",
                  rotation_mode="anchor")
  left.set_yticks(range(K), [f"{clip_text(name, 12)} ({count:,.0f})" for name, count in zip(names, rows)])
  left.set(xlabel="type that comes back", ylabel="type (objects)",
           title="all objects come back absent" if table[:, -1].sum() == rows.sum() and not columns[-1] else
           "% of the type")
  left.grid(visible=False)
  draw_types(right, run, there, hits, rows)
  right.set_yticks(range(K), [clip_text(name, 12) if narrow else "" for name in names])
  return figure


def draw_types(ax, run: RunData, types: list[int], hits: np.ndarray, rows: np.ndarray) -> None:
  """Share of each type that is right with its interval, and as text the median relative error of pT."""
  middle, low, high = wilson(hits, rows)
  where = np.arange(len(types))
  ax.errorbar(100 * middle, where, xerr=100 * np.stack([middle - low, high - middle]), fmt="o", color=BLUE,
              markersize=4.5, elinewidth=1.3)
  arrays = run.arrays
  known = {"slots_true", "slots_recon", "slots_type"} <= arrays.keys()
  for y, k in enumerate(types) if known else ():
    own = arrays["slots_type"] == k
    if own.any():
      gap = np.median(np.abs(arrays["slots_recon"][own, 1] - arrays["slots_true"][own, 1]))
      ax.annotate(f"{gap:.2g}", (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, color=INK)
  ax.set(ylim=(len(types) - 0.5, -0.5), xlabel="% of the type that is right", xlim=(min(100 * low.min(), 60) - 2, 101))
  ax.set_title("right, and median |pT error| in GeV (at the right)" if known else "right", fontsize=8.5)
  ax.grid(axis="y", visible=False)


def images(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for strokes that are lost or smeared. Each image stands above its reconstruction."""
  if not {"shown_images", "shown_images_recon"} <= run.arrays.keys():
    return None
  both = [run.arrays[name][:MAX_PAIRS] for name in ("shown_images", "shown_images_recon")]
  pairs = np.stack([values.reshape(values.shape[:3]) for values in both], axis=1)  # of one channel, or without
  if not len(pairs):
    return None
  across, (N, _, H, W) = min(4 if narrow else 8, len(pairs)), pairs.shape
  down = -(-N // across)
  canvas = np.zeros((2 * down, across, H + GAP, W + GAP))
  for k, pair in enumerate(pairs):
    row, column = divmod(k, across)
    canvas[2 * row:2 * row + 2, column, :H, :W] = pair
  sheet = canvas.swapaxes(1, 2).reshape(2 * down * (H + GAP), across * (W + GAP))[:-GAP, :-GAP]
  figure = new_figure(1.05 * across, 2.1 * down)
  ax = figure.subplots()
  ax.imshow(sheet, cmap="Greys", vmin=0, vmax=1)
  ax.axis("off")
  return figure
