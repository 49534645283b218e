"""Figures of generated events beside real ones: spectra with their ratio, the peak of the W boson in the masses of
pairs of jets, events in the plane of eta and phi; and what the comparison says in words.

Values in the arrays have equal weight. Momenta are in the columns E, pT (GeV), eta, phi (radians).
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxtrain.experiments.autoencoder.figures_events import MAX_ETA, NUM_EVENTS, draw_event, event_legend
from jaxtrain.experiments.autoencoder.figures_findings import finite, scalars_of
from jaxtrain.experiments.autoencoder.figures_recon import FEW, Quantity, edges_of, label_spectra, spectrum
from jaxtrain.report.figures import GREY, HUES, INK, MUTED, new_figure
from jaxtrain.report.page import with_interval
from jaxtrain.report.panels import panel_grid
from jaxtrain.workdir.reading import RunData

BLUE, ORANGE = HUES[:2]
# Names of arrays: what stands above a panel, and the kind of its bins.
SHOWN = {"pt": ("pT in GeV", "falling"), "e": ("E in GeV", "falling"), "eta": ("eta", "plain"),
         "phi": ("phi in radians", "angle"), "multiplicity": ("objects", "count"), "ht": ("HT in GeV", "falling"),
         "met": ("missing ET in GeV", "falling"), "m_jj": ("m_jj in GeV", "falling"),
         "m_bjj": ("m_bjj in GeV", "falling")}
REACH = 0.5  # of a ratio around 1
NEAR, FAR = 2.0, 4.0  # floors up to which an observable is said to be near, and above which to be far
BLIND = 0.55  # AUC below which a classifier is said to see hardly anything
MAX_FAR = 4


def pairs_of(run: RunData) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """(real, generated) finite values of each observable that both sides have."""
  found = {}
  for name in SHOWN:
    if {f"real_{name}", f"generated_{name}"} <= run.arrays.keys():
      both = [np.asarray(run.arrays[f"{side}_{name}"], float) for side in ("real", "generated")]
      both = tuple(values[np.isfinite(values)] for values in both)
      if min(map(len, both)):
        found[name] = both
  return found


def bins_of(name: str, real: np.ndarray, made: np.ndarray) -> np.ndarray:
  """Edges of the bins of an observable, by real values; those of numbers of objects lie between whole numbers."""
  if SHOWN[name][1] == "count":
    both = np.concatenate([real, made])
    return np.arange(np.floor(both.min()) - 0.5, np.ceil(both.max()) + 1)
  return edges_of(Quantity(name, real, made, np.ones(len(real)), SHOWN[name][1]))


def draw_pair(top, bottom, name: str, real: np.ndarray, made: np.ndarray, floors: str) -> None:
  """Real and generated shares in one panel, and below it their ratio with both statistical uncertainties."""
  edges = bins_of(name, real, made)
  middle = (edges[1:] + edges[:-1]) / 2
  counts = [spectrum(values, np.ones(len(values)), edges)[0] for values in (real, made)]
  share_real, share = (count / count.sum() for count in counts)
  top.stairs(share_real, edges, fill=True, color=GREY, label="real")
  top.stairs(share, edges, color=BLUE, linewidth=1.5, label="generated")
  if SHOWN[name][1] == "falling":
    top.set_yscale("log")
    top.set_ylim(0.3 * np.min(share_real[share_real > 0]), 3 * max(share_real.max(), share.max()))
  top.set_title(SHOWN[name][0] + floors, fontsize=8.5)
  enough = counts[0] > FEW
  band = 1 / np.sqrt(np.where(enough, counts[0], np.nan))
  bottom.stairs(1 + band, edges, baseline=1 - band, fill=True, color=GREY)
  bottom.axhline(1, color=MUTED, linewidth=0.8)
  ratio = np.where(enough, share / np.where(enough, share_real, 1), np.nan)
  inside = np.abs(ratio - 1) <= REACH
  bottom.errorbar(middle[inside], ratio[inside], yerr=(ratio / np.sqrt(np.maximum(counts[1], 1)))[inside], fmt=".",
                  color=BLUE, markersize=4, elinewidth=0.8)
  for marker, at in (("^", ratio > 1 + REACH), ("v", ratio < 1 - REACH)):
    bottom.plot(middle[at], np.clip(ratio[at], 1.04 - REACH, 0.96 + REACH), marker, color=BLUE, markersize=4)
  bottom.set(ylim=(1 - REACH, 1 + REACH), yticks=(1 - REACH, 1, 1 + REACH))
  bottom.tick_params(labelsize=7)
  top.tick_params(labelbottom=False)
  for ax in (top, bottom):
    ax.set_xlim(edges[0], edges[-1])
  bottom.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=SHOWN[name][1] == "count"))


def generated(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a ratio that leaves the grey band: there generated events are too many or too few. Under each spectrum
  stands generated over real; the band is the statistical uncertainty of the real events, bars are that of the generated
  ones, and arrows are ratios beyond the axis. Floors are the Wasserstein distance over that of real events against
  other real events. m_jj is of all pairs of light jets, m_bjj of all b-jets with two light jets. The end bins hold what
  is beyond.
  """
  shown = pairs_of(run)
  if not shown:
    return None
  across, scalars = 1 if narrow else 3, scalars_of(run)
  figure, panels = panel_grid(len(shown), across, 4.4 if narrow else 3.05, 2.3, (0.0, 0.5), (3, 1.2))
  for (top, bottom), (name, both) in zip(panels, shown.items()):
    floors = finite(scalars, f"w1_{name}_floors")
    draw_pair(top, bottom, name, *both, "" if floors is None else f": {floors:.1f} floors")
  label_spectra(figure, panels, across, "share")
  return figure


def draw_peak(top, bottom, edges: np.ndarray, bins: np.ndarray, head: str) -> None:
  """Shares in % of pairs, mixed events and fit [3, n] in one panel, and what is above mixed events in the one below."""
  counts, background, fit = 100 * bins / bins[0].sum()
  middle, error = (edges[1:] + edges[:-1]) / 2, 100 * np.sqrt(np.maximum(bins[0], 1)) / bins[0].sum()
  has_fit = np.isfinite(fit).all()
  for ax, less in ((top, np.zeros(len(counts))), (bottom, background if has_fit else counts)):
    if ax is top or has_fit:
      ax.errorbar(middle, counts - less, yerr=error, fmt=".", color=INK, markersize=4, elinewidth=0.9, label="pairs")
    if has_fit:
      ax.stairs(fit - less, edges, baseline=background - less, fill=True, color=ORANGE, alpha=0.25, linewidth=0)
      ax.stairs(background - less, edges, baseline=None, color=BLUE, linewidth=1.3, label="mixed events")
      ax.stairs(fit - less, edges, baseline=None, color=ORANGE, linewidth=1.6, label="with a peak")
  top.set_ylim(0, max(1.15 * (counts + error).max(), top.get_ylim()[1]))
  top.set_title(head, fontsize=8.5)
  top.tick_params(labelbottom=False)
  bottom.set(xlabel="mass of a pair in GeV")
  for ax in (top, bottom):
    ax.set_xlim(edges[0], edges[-1])


def generated_peak(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a peak at the same place and of the same height as in real events: the W boson, whose jets a model has to
  place in relation to each other. All pairs of light jets of an event count, none is chosen. Mixed events are pairs
  whose jets come from different events; below stands what pairs have above them.
  """
  sides = [side for side in ("generated", "real") if f"{side}_m_jj_bins" in run.arrays]
  sides = [side for side in sides if np.nansum(run.arrays[f"{side}_m_jj_bins"][0]) > 0]
  if not sides or "m_jj_edges" not in run.arrays:
    return None
  scalars, edges = scalars_of(run), np.asarray(run.arrays["m_jj_edges"], float)
  figure = new_figure(4.4, 0.6 + 3.4 * len(sides)) if narrow else new_figure(4.3 * len(sides), 3.9)
  if narrow:
    grid = figure.subplots(2 * len(sides), 1, height_ratios=[2, 1] * len(sides)).reshape(len(sides), 2).T
    for row in grid:
      row[0].sharey(row[-1])
  else:
    grid = figure.subplots(2, len(sides), height_ratios=[2, 1], squeeze=False, sharey="row")
  for column, side in enumerate(sides):
    suffix = "_truth" if side == "real" else ""
    found = peak_words(scalars, suffix)
    draw_peak(*grid[:, column], edges, np.asarray(run.arrays[f"{side}_m_jj_bins"], float),
              f"{side}: {found or 'no peak was fitted'}")
    grid[0, column].set_ylabel("% of pairs" if column == 0 or narrow else "")
    grid[1, column].set_ylabel("above mixed" if column == 0 or narrow else "")
  handles = {label: handle for ax in grid[0] for handle, label in zip(*ax.get_legend_handles_labels())}
  figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3)
  return figure


def peak_words(scalars: dict, suffix: str) -> str:
  """`81.0 ± 0.4 GeV, 12.4 ± 0.6 % of pairs`; empty where no peak is known."""
  mean, share = finite(scalars, f"m_jj_peak{suffix}_gev"), finite(scalars, f"m_jj_window_share{suffix}")
  if mean is None or share is None:
    return ""
  halves = finite(scalars, f"m_jj_peak{suffix}_gev_ci95"), finite(scalars, f"m_jj_window_share{suffix}_ci95")
  of_share = with_interval(100 * share, None if halves[1] is None else 100 * halves[1])
  return f"{with_interval(mean, halves[0])} GeV, {of_share} % of pairs"


def generated_events(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for what no real event has: objects on top of each other, jets on one side alone without missing energy, many
  leptons. Generated events stand beside real ones, which have nothing to do with each other. The area of a mark is its
  transverse momentum. The arrow is missing transverse energy: it lies at its azimuth, and its length, from the left
  edge, is its size.
  """
  names = ("shown_ids", "shown_momenta", "shown_met")
  sides = [side for side in ("generated", "real") if {f"{side}_{name}" for name in names} <= run.arrays.keys()]
  if "generated" not in sides:
    return None
  parts = {side: [np.asarray(run.arrays[f"{side}_{name}"]) for name in names] for side in sides}
  num = min(2 if narrow else NUM_EVENTS, *(len(part[0]) for part in parts.values()))
  if not num:
    return None
  seen = np.concatenate([momenta[:num, :, 2][ids[:num] > 0] for ids, momenta, _ in parts.values()])
  seen = np.abs(np.nan_to_num(seen))
  reach = float(np.clip(np.ceil(2 * seen.max(initial=2.0) + 0.6) / 2, 2.5, MAX_ETA))
  across = len(sides)
  figure = new_figure(4.4, 0.8 + 2.25 * num * across) if narrow else new_figure(4.3 * across, 0.9 + 2.35 * num)
  axes = figure.subplots(num * across, 1, squeeze=False).reshape(num, across) if narrow else figure.subplots(
      num, across, sharex=True, sharey=True, squeeze=False)
  for (k, column), ax in np.ndenumerate(axes):
    ids, momenta, met = parts[sides[column]]
    draw_event(ax, momenta[k], ids[k], met[k], reach, f"{sides[column]}: ")
    ax.set_ylabel("phi" if column == 0 or narrow else "")
    ax.set_xlabel("eta" if k == num - 1 or narrow else "")
  kinds = np.unique(np.concatenate([part[0][:num].ravel() for part in parts.values()]))
  event_legend(figure, axes[0, 0], run, kinds, True, narrow)
  return figure


def findings(run: RunData) -> list[str]:
  """How near generated events come to real ones, in words; [] where none were compared."""
  scalars = scalars_of(run)
  return [*told_apart(scalars), *floors_words(scalars), *peak_verdict(scalars)]


def told_apart(scalars: dict) -> list[str]:
  """Whether a classifier tells generated from real events."""
  auc = finite(scalars, "two_sample_auc")
  if auc is None:
    return []
  half = finite(scalars, "two_sample_auc_ci95")
  how = ("cannot tell generated events from real ones" if auc - (half or 0) <= 0.5 else
         "hardly tells generated events from real ones" if auc < BLIND else "tells generated events from real ones")
  return [f"A classifier {how}: AUC {with_interval(auc, half)}, 0.5 is chance."]


def floors_words(scalars: dict) -> list[str]:
  """Which observables are as near as real events are to each other, and which are far."""
  found = {name: value for name in SHOWN if (value := finite(scalars, f"w1_{name}_floors")) is not None}
  if not found:
    return []
  said = lambda names: ", ".join(f"{SHOWN[name][0].partition(' in ')[0]} ({found[name]:.1f})" for name in names)
  near = sorted((name for name in found if found[name] <= NEAR), key=found.get)
  far = sorted((name for name in found if found[name] > FAR), key=found.get, reverse=True)[:MAX_FAR]
  text = "Wasserstein distances in floors, where 1 is real events against other real events: "
  text += f"{len(near)} of {len(found)} observables are at {NEAR:g} or less"
  return [text + (f"; farthest are {said(far)}." if far else f", and none is above {FAR:g}.")]


def peak_verdict(scalars: dict) -> list[str]:
  """Whether pairs of generated light jets have the W boson."""
  made, real = (peak_words(scalars, suffix) for suffix in ("", "_truth"))
  if not made or not real:
    return []
  share, half = (finite(scalars, f"m_jj_window_share{name}") for name in ("", "_ci95"))
  text = f"The peak of the W boson in pairs of generated light jets: {made}; of real ones: {real}."
  absent = half is not None and share <= half
  return [text + " The generated share is compatible with no peak." * absent]
