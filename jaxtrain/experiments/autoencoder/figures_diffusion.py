"""Figures of diffusion: which noise a model is trained at and with what weight, its loss against the noise, and how
events come out of noise.

Noise levels are logarithms of the ratio of signal to noise (natural): below 0 there is more noise than signal.
"""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.experiments.autoencoder.figures_events import MAX_ETA, areas, mark
from jaxtrain.experiments.autoencoder.figures_recon import wrapped
from jaxtrain.report.figures import FAINT, GREY, HUES, INK, MUTED, new_figure
from jaxtrain.report.panels import panel_grid
from jaxtrain.workdir.reading import RunData

BLUE, ORANGE = HUES[:2]
MAX_STATES, MAX_EVENTS = 5, 3  # of a trajectory that are shown
JET = 1  # the type that an object has where none is known
WIDE, TALL = 1.15, 1.2  # of the axes of eta and phi beyond their ends, so that no mark is cut


def draw_levels(ax, level: np.ndarray, values: np.ndarray, label: str) -> None:
  """Values [M] against the levels, with a logarithmic axis where they span much."""
  ax.plot(level, values, "o-", color=BLUE, markersize=3)
  if values.min() > 0 and values.max() > 20 * values.min():
    ax.set_yscale("log")
  else:
    ax.set_ylim(min(0.0, values.min()), 1.12 * values.max() or 1)
  ax.set(title=label + " (log)" * (ax.get_yscale() == "log"), xlabel="log of signal to noise")
  ax.axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)))


def diffusion(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for noise levels at which the loss is still high and which are seldom trained: a sampler passes all of them.
  The first panel has the schedule: what share of training is at more noise than a level. The others have the weight of
  a level in the loss, the weighted loss, and the error of the denoised event in units of its variance, each against the
  level. At the left there is noise alone, where no error can be small; the dashed line is as much noise as signal.
  Dots are means over objects, of the same events with the same noise at each level.
  """
  arrays = run.arrays
  if not {"level_log_snr", "level_loss"} <= arrays.keys():
    return None
  names = {"level_weight": "weight in the loss", "level_loss": "weighted loss", "level_error": "denoising error"}
  columns = {name: np.asarray(arrays[name], float) for name in ("level_log_snr", *names) if name in arrays}
  fits = np.isfinite(np.stack(list(columns.values()))).all(axis=0)
  if not fits.any():
    return None
  order = np.argsort(columns["level_log_snr"][fits], kind="stable")
  columns = {name: values[fits][order] for name, values in columns.items()}
  level = columns.pop("level_log_snr")
  figure, panels = panel_grid(1 + len(columns), 1 if narrow else 4, 4.2 if narrow else 2.3, 2.4, (0.0, 0.3))
  axes = panels[:, 0]
  share = (np.arange(len(level)) + 0.5) / len(level)
  axes[0].fill_between(level, share, color=GREY, alpha=0.6, linewidth=0)
  axes[0].plot(level, share, color=ORANGE)
  axes[0].axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
  axes[0].set(title="schedule", xlabel="log of signal to noise", ylabel="share of training below", ylim=(0, 1))
  for ax, (name, values) in zip(axes[1:], columns.items()):
    draw_levels(ax, level, values, names[name])
  return figure


def draw_state(ax, momenta: np.ndarray, ids: np.ndarray, reach: float) -> None:
  """Objects of a state [T, 4] in the plane of eta and phi; those beyond the axis stand at its edge."""
  there = (ids > 0) & np.isfinite(momenta).all(axis=1)
  for k in np.argsort(-momenta[:, 1]):
    if there[k]:
      mark(ax, int(ids[k]), np.clip(momenta[k, 2], -reach, reach), wrapped(momenta[k, 3]),
           areas(np.abs(momenta[k, 1])) / 2)
  for edge in (-np.pi, np.pi):
    ax.axhline(edge, color=FAINT, linewidth=0.9, zorder=0)
  ax.set(xlim=(-WIDE * reach, WIDE * reach), ylim=(-TALL * np.pi, TALL * np.pi))
  ax.set_yticks((-np.pi, 0, np.pi), ("-π", "0", "π"))


def denoising(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for the step from which an event keeps its shape: steps before it place objects, later ones refine them. Each
  row is an event on its way from noise, at the left, to a generated event, at the right. The area of a mark is its
  transverse momentum; marks at an edge in eta are beyond it. Their sum is written above.
  """
  if "trajectory" not in run.arrays or not run.arrays["trajectory"].size:
    return None
  path = np.asarray(run.arrays["trajectory"], float)  # [J, N, T, 4]
  ids = np.asarray(run.arrays["trajectory_ids"]) if "trajectory_ids" in run.arrays else (
      JET * (np.nan_to_num(path[-1]) != 0).any(axis=2))
  states = np.unique(np.linspace(0, len(path) - 1, min(MAX_STATES, len(path))).round().astype(int))
  num = min(1 if narrow else MAX_EVENTS, path.shape[1])
  down, across = (len(states), num) if narrow else (num, len(states))
  figure = new_figure(4.2, 0.4 + 1.9 * down) if narrow else new_figure(1.8 * across, 0.4 + 2.0 * down)
  axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
  axes = axes.T if narrow else axes
  last = np.abs(np.nan_to_num(path[-1, :num, :, 2]))[ids[:num] > 0]
  reach = float(np.clip(np.ceil(2 * last.max(initial=2.0)) / 2 + 0.5, 2.5, MAX_ETA))
  for (event, column), ax in np.ndenumerate(axes):
    state = path[states[column], event]
    draw_state(ax, state, ids[event], reach)
    total = np.nansum(np.where(ids[event] > 0, state[:, 1], 0))
    head = "noise" if states[column] == 0 else "event" if states[column] == len(path) - 1 else (
        f"state {states[column] + 1} of {len(path)}")
    ax.set_title(f"{head}, {np.clip(total, -99_999, 99_999):,.0f} GeV", fontsize=7.5, fontweight="normal", color=INK)
    ax.set_xlabel("eta" if (column == len(states) - 1 if narrow else event == num - 1) else "")
    ax.set_ylabel("phi" if narrow or column == 0 else "")
  return figure
