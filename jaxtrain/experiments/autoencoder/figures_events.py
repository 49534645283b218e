"""Figures of whole events: four of them in the plane of eta and phi, what they cost in bits, and how well the error of
an event tells corrupted copies from the events themselves.
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxtrain.experiments.autoencoder.figures_compare import plain_log
from jaxtrain.experiments.autoencoder.figures_findings import finite, scalars_of
from jaxtrain.experiments.autoencoder.figures_recon import type_names, wrapped
from jaxtrain.report.figures import COLORS, GREY, HUES, INK, MUTED, clip_text, new_figure
from jaxtrain.report.page import with_interval
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

NUM_EVENTS = 4
# Marker and colour of the types jet, b-jet, e+, e-, mu-, mu+, photon: charges have the same marker, filled and hollow.
MARKS = {1: ("o", "#1f6fb4"), 2: ("o", "#d2580f"), 3: ("^", "#0b8a62"), 4: ("^", "#0b8a62"), 5: ("D", "#6b4fb3"),
         6: ("D", "#6b4fb3"), 7: ("*", "#e3ac00")}
HOLLOW = (4, 5)  # of negative charge
OTHER = ("s", "#667079")  # types of the user's own
AREA = 2.2  # square points of a disc for each GeV of pT
LEAST_AREA, MOST_AREA = 14, 1500
MET_SCALE = 80.0  # GeV of missing transverse energy for each unit of eta of its arrow
MAX_ETA = 5.0
ROOM = 1.25  # of the axis of phi beyond its ends, so that no disc is cut
MAX_CORRUPTIONS, MAX_PROCESSES = 6, 8
SIGNAL = 1  # label of the process that is looked for


def mark(ax, kind: int, eta, phi, area, label: str | None = None) -> None:
  """Objects of a type at places in eta and phi, with discs of these areas."""
  marker, color = MARKS[kind] if kind in MARKS else OTHER
  face = "none" if kind in HOLLOW else color
  ax.scatter(eta, phi, s=area, marker=marker, facecolors=face, edgecolors=color, linewidths=1.3,
             alpha=0.75 if kind in (1, 2) else 0.95, label=label)


def areas(pt: np.ndarray) -> np.ndarray:
  """Areas of discs, in square points, for transverse momenta in GeV."""
  return np.clip(AREA * np.nan_to_num(pt), LEAST_AREA, MOST_AREA)


def draw_event(ax, momenta: np.ndarray, ids: np.ndarray, met: np.ndarray | None, reach: float, head: str) -> None:
  """An event [T, 4] in the plane of eta and phi; missing transverse energy is an arrow at its azimuth."""
  real = (ids > 0) & np.isfinite(momenta).all(axis=1)
  for k in np.argsort(-momenta[:, 1]):
    if real[k]:
      mark(ax, int(ids[k]), np.clip(momenta[k, 2], -reach, reach), wrapped(momenta[k, 3]), areas(momenta[k, 1]))
  text = f"{head}{real.sum()} objects, sum of pT {momenta[real, 1].sum():,.0f} GeV"
  if met is not None and np.isfinite(met).all():
    length, at = np.clip(met[0] / MET_SCALE, 0.15, 2 * reach), wrapped(met[1])
    ax.axhline(at, color=HUES[3], linewidth=0.7, linestyle=(0, (1, 2)), zorder=0)
    ax.annotate("", (-reach + length, at), (-reach, at), annotation_clip=False,
                arrowprops={"arrowstyle": "-|>", "color": HUES[3], "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0})
    text += f", MET {met[0]:,.0f} GeV"
  ax.set_title(text, fontsize=7.5, fontweight="normal")
  for edge in (-np.pi, np.pi):
    ax.axhline(edge, color=GREY, linewidth=0.9, zorder=0)
  ax.set(xlim=(-reach, reach), ylim=(-ROOM * np.pi, ROOM * np.pi))
  ax.set_yticks((-np.pi, 0, np.pi), ("-π", "0", "π"))


def event_display(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for objects that move, change their type or vanish: each event stands beside its reconstruction. The area of a
  mark is its transverse momentum. The arrow is missing transverse energy: it lies at its azimuth, and its length, from
  the left edge, is its size. The events are the first of the held-out part.
  """
  names = ("shown_true", "shown_recon", "shown_ids", "shown_ids_recon")
  if not set(names) <= run.arrays.keys() or not len(run.arrays["shown_true"]):
    return None
  true, recon, ids, ids_recon = (np.asarray(run.arrays[name]) for name in names)
  mets = [np.asarray(run.arrays[name]) if name in run.arrays else None for name in ("shown_met", "shown_met_recon")]
  num = min(2 if narrow else NUM_EVENTS, len(true))
  seen = np.abs(np.nan_to_num(true[:num, :, 2][ids[:num] > 0]))
  reach = float(np.clip(np.ceil(2 * seen.max(initial=2.0) + 0.6) / 2, 2.5, MAX_ETA))
  figure = new_figure(4.4, 0.8 + 4.5 * num) if narrow else new_figure(8.6, 0.9 + 2.35 * num)
  axes = figure.subplots(2 * num, 1) if narrow else figure.subplots(num, 2, sharex=True, sharey=True).ravel()
  for k in range(num):
    for half, (momenta, kinds, met) in enumerate(((true, ids, mets[0]), (recon, ids_recon, mets[1]))):
      ax = axes[2 * k + half]
      head = f"{'reconstruction' if half else 'event'}: "
      draw_event(ax, momenta[k], kinds[k], None if met is None else met[k], reach, head)
      ax.set_ylabel(f"event {k + 1}, phi" if half == 0 or narrow else "")
      ax.set_xlabel("eta" if k == num - 1 or narrow else "")
  event_legend(figure, axes[0], run, np.union1d(ids[:num], ids_recon[:num]), mets[0] is not None, narrow)
  return figure


def event_legend(figure: Figure, ax, run: RunData, ids: np.ndarray, has_met: bool, narrow: bool) -> None:
  """A legend of the types that are there and of the scale of areas."""
  kinds = [int(k) for k in ids if k > 0]
  names = type_names(run, max(kinds, default=0) + 1)
  for k in kinds:
    mark(ax, k, [], [], 45, clip_text(names[k], 12))
  for pt in (20, 100):
    ax.scatter([], [], s=areas(np.array(pt)), marker="o", facecolors="none", edgecolors=MUTED, label=f"{pt} GeV")
  if has_met:
    ax.plot([], [], color=HUES[3], linewidth=1.8, label="missing ET")
  figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=4 if narrow else 6, columnspacing=1.2)


def bits(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for events whose error is large at the same cost: they are unlike those of training. One panel has what an
  event costs, by process where that is known, the other its error against its cost. A comb in the first is no fault:
  it has a tooth for each number of objects, each of which costs about as much.
  """
  arrays = run.arrays
  if "event_bits" not in arrays or not np.isfinite(arrays["event_bits"]).any():
    return None
  cost = np.asarray(arrays["event_bits"], float)
  weight = np.asarray(arrays["event_weight"], float) if "event_weight" in arrays else np.ones(len(cost))
  error = np.asarray(arrays["event_error"], float) if "event_error" in arrays else None
  label = arrays["event_label"] if "event_label" in arrays else np.zeros(len(cost), int)
  panels = 1 if error is None else 2
  figure = new_figure(4.4, 0.7 + 2.8 * panels) if narrow else new_figure(4.2 * panels, 3.4)
  axes = np.ravel(figure.subplots(**{"nrows" if narrow else "ncols": panels}))
  low, high = np.nanquantile(cost, (0.002, 0.998))
  edges = np.linspace(low, high if high > low else low + 1, 26)
  names = run.meta["class_names"] if "class_names" in run.meta else []
  for hue, k in zip(HUES, np.unique(label)[:MAX_PROCESSES]):
    own = label == k
    share = np.histogram(np.clip(cost[own], edges[0], edges[-1]), edges, weights=weight[own])[0]
    name = names[k] if 0 <= k < len(names) else f"process {k}"
    axes[0].stairs(share / max(share.sum(), 1e-300), edges, color=hue, linewidth=1.4,
                   label=f"{clip_text(name, 14)}, mean {np.average(cost[own], weights=weight[own] + 1e-300):,.0f}")
  axes[0].set(title="bits of an event", xlabel="bits", ylabel="share of the process's events")
  figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2 if narrow else 4)
  if error is not None:
    fits = np.isfinite(cost) & (error > 0)
    if fits.any():
      axes[1].hexbin(cost[fits], error[fits], C=weight[fits], reduce_C_function=np.sum, gridsize=32, bins="log",
                     yscale="log", cmap="Blues", mincnt=0, linewidths=0.1)
    axes[1].set(title="error against bits (log)", xlabel="bits of an event", ylabel="error of the event")
  return figure


def roc(normal: np.ndarray, other: np.ndarray, weight: np.ndarray, other_weight: np.ndarray
        ) -> tuple[np.ndarray, np.ndarray, float]:
  """(false positive rates, true positive rates, area) of scores that should be higher in `other`; ties are halves."""
  scores = np.concatenate([normal, other])
  order = np.argsort(-scores, kind="stable")
  last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
  sums = [np.cumsum(np.concatenate(part)[order])[last] for part in (
      (weight, np.zeros(len(other))), (np.zeros(len(normal)), other_weight))]
  fpr, tpr = (np.append(0, part / part[-1]) for part in sums)
  return fpr, tpr, float(np.trapezoid(tpr, fpr))


def rivals(run: RunData) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
  """(scores of sound events, of the others, weights of both) by name: corrupted copies, and the signal against the
  other processes.
  """
  score = np.asarray(run.arrays["event_error"], float)
  weight = np.asarray(run.arrays["event_weight"], float) if "event_weight" in run.arrays else np.ones(len(score))
  found = {}
  for name, values in run.arrays.items():
    if name.startswith("anomaly_") and len(values) == len(score):
      both = np.isfinite(score) & np.isfinite(values)
      found[name.removeprefix("anomaly_")] = (score[both], np.asarray(values, float)[both], weight[both], weight[both])
  label = run.arrays["event_label"] if "event_label" in run.arrays else np.zeros(len(score), int)
  signal, rest = ((label == SIGNAL) & np.isfinite(score), (label > SIGNAL) & np.isfinite(score))
  if signal.any() and rest.any():
    found["tttt"] = (score[rest], score[signal], weight[rest], weight[signal])
  return dict(list(found.items())[:MAX_CORRUPTIONS])


def anomaly(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for curves far above the diagonal: such corruptions are seen in the error of an event. Left, errors of sound
  events (grey) and of their corrupted copies; right, which share of copies is found at which share of false alarms.
  """
  if "event_error" not in run.arrays:
    return None
  found = {name: one for name, one in rivals(run).items() if len(one[0]) and len(one[1])}
  if not found:
    return None
  figure = new_figure(4.4, 7.0) if narrow else new_figure(8.6, 3.6)
  left, right = figure.subplots(**{"nrows" if narrow else "ncols": 2})
  corrupted = [one for name, one in found.items() if name != "tttt"] or list(found.values())
  values = np.concatenate([part for one in corrupted for part in one[:2]])
  values = values[values > 0]
  low, high = np.quantile(values, (0.001, 0.999)) if len(values) else (0.1, 1.0)
  edges = np.geomspace(low, max(high, 1.01 * low), 51)
  inside = lambda scores: np.clip(scores, edges[0], edges[-1])
  density = lambda scores, weight: np.histogram(inside(scores), edges, weights=weight)[0] / weight.sum()
  left.stairs(density(corrupted[0][0], corrupted[0][2]), edges, fill=True, color=GREY)
  scalars = scalars_of(run)
  for hue, (name, (normal, other, weight, other_weight)) in zip(HUES, found.items()):
    fpr, tpr, area = roc(normal, other, weight, other_weight)
    told = finite(scalars, f"auroc_{name}")
    shown = with_interval(area if told is None else told, finite(scalars, f"auroc_{name}_ci95"))
    words = "tttt against other processes" if name == "tttt" else name.replace("_", " ")
    left.stairs(density(other, other_weight), edges, color=hue, linewidth=1.3)
    right.plot(fpr, tpr, color=hue, label=f"{clip_text(words, 30)}, AUROC {shown}")
  right.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
  plain_log(left.xaxis)
  left.set(title="error of an event", xlabel="masked squared error", ylabel="share of events")
  right.set(xlim=(0, 1), ylim=(0, 1.01), title="found against false alarms", ylabel="share of copies that are found",
            xlabel="share of sound events (false alarms)")
  figure.legend(*right.get_legend_handles_labels(), loc="outside upper left", ncols=1 if narrow else 2)
  return figure


def latency(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for epochs that take longer than others: something else ran on the machine, or the program was compiled
  again.
  """
  rows = [row for row in run.rows if row["split"] == "train"]
  unit, per_unit = reading.time_axis(run)
  panels = {"epoch_time_s": (f"seconds per {'epoch' if unit == 'epoch' else 'report'}", "s"),
            "throughput": ("rows per second", "rows/s")}
  series = {name: [(row["step"] / per_unit, row[name]) for row in rows if row.get(name) is not None] for name in panels}
  series = {name: np.array(points).T for name, points in series.items() if points}
  if not series:
    return None
  figure = new_figure(4.2, 0.4 + 2.3 * len(series)) if narrow else new_figure(3.6 * len(series), 2.6)
  axes = np.ravel(figure.subplots(**{"nrows" if narrow else "ncols": len(series)}))
  for ax, (name, (x, y)) in zip(axes, series.items()):
    middle = float(np.median(y))
    ax.plot(x, y, color=COLORS["train"], marker="o" if len(x) <= 30 else "", markersize=3)
    ax.axhline(middle, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    ax.set(title=f"{panels[name][0]}, median {middle:,.3g}" if middle < 1000 else
           f"{panels[name][0]}, median {middle:,.0f}", xlabel=unit, ylabel=panels[name][1],
           ylim=(0, 1.15 * float(np.nanmax(y)) or 1))
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:,.6g}")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
  return figure
