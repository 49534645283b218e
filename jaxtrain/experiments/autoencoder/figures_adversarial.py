"""Figures of adversarial training, from the metrics of epochs: what the critic says of real and made events, how often
it is right, and what it weighs in the loss of the model.
"""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.experiments.autoencoder.figures_findings import setting
from jaxtrain.jsonable import number
from jaxtrain.report.figures import FAINT, HUES, INK, finish_axis, set_log, set_scale
from jaxtrain.report.panels import panel_grid
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

# Panels: title, label of its axis, and the metrics in it with their names in the legend.
PANELS = {
    "logits": ("the critic's output", "logit", {"real_logit": "real", "fake_logit": "made"}),
    "accuracy": ("the critic is right", "share of events", {"critic_accuracy": ""}),
    "losses": ("losses", "", {"critic_loss": "critic", "adversarial": "model, from the critic"}),
    "weight": ("adversarial weight", "weight", {"adversarial_weight": ""}),
    "penalty": ("gradient penalty", "squared norm", {"r1": ""}),
}
SPLITS = (("train", "-"), ("val", (0, (3, 1.5))))
WON, LOST = 0.95, 0.55  # share of events the critic is right about, above which it has won, and below which it has lost
LAST = 0.2  # share of the epochs at the end that a verdict is about


def curves(run: RunData, names: dict[str, str]) -> list[tuple[str, str, str, tuple[np.ndarray, np.ndarray]]]:
  """(metric, its name in the legend, split, (position, value)) of those that are there."""
  return [(name, text, split, points) for name, text in names.items() for split, _ in SPLITS
          if (points := reading.curve(run, split, name)) is not None]


def start_of(run: RunData) -> float:
  """When the adversarial term sets in, on the time axis; 0 where it does so at once."""
  return (number(setting(run, "model.critic.start_step")) or 0.0) / reading.time_axis(run)[1]


def draw_panel(ax, run: RunData, panel: str) -> None:
  """The curves of a panel: solid in training, dashed in validation; shaded until the adversarial term sets in."""
  title, label, names = PANELS[panel]
  found, styles = curves(run, names), dict(SPLITS)
  for name, text, split, points in found:
    color = HUES[list(names).index(name)] if len(names) > 1 else HUES[2]
    said = text in [line.get_label() for line in ax.get_lines()]
    ax.plot(*points, color=color, linestyle=styles[split], label=None if said or not text else text,
            marker="o" if len(points[1]) <= 30 else "", markersize=3)
  values = np.concatenate([points[1] for *_, points in found])
  values = values[np.isfinite(values)]
  if panel == "accuracy":
    ax.axhline(0.5, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    ax.set_ylim(min(0.4, values.min() - 0.02), 1.01)
  elif panel in ("weight", "penalty") and values.min() > 0 and values.max() > 20 * values.min():
    set_log(ax, values.min(), values.max())
  else:
    set_scale(ax, [points[1] for *_, points in found])
  finish_axis(ax, run, title, label)
  start = start_of(run)
  if start > 0:
    ax.axvspan(0, start, color=FAINT, alpha=0.6, zorder=0, linewidth=0)
  if len(names) > 1:
    ax.legend(loc="best", fontsize=7)


def adversarial(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for a critic that is right about nearly all events: it has won, and its gradient no longer helps the model.
  One that is right about half of them (the dashed line) cannot tell made events from real ones, or has not learned.
  Outputs for real and made events should stay apart by little and not run away. Lines are training, and dashed ones
  validation where there is any. The term is off in the shaded part.
  """
  there = [panel for panel, (_, _, names) in PANELS.items() if curves(run, names)]
  if not there:
    return None
  figure, panels = panel_grid(len(there), 1 if narrow else 3, 4.2 if narrow else 3.0, 2.3, (0.0, 0.3))
  for ax, panel in zip(panels[:, 0], there):
    draw_panel(ax, run, panel)
  return figure


def findings(run: RunData) -> list[str]:
  """Which side has won at the end of adversarial training; [] where there is none."""
  points = next((found for split in ("val", "train") if (found := reading.curve(run, split, "critic_accuracy"))), None)
  if points is None:
    return []
  share = float(np.nanmean(points[1][-max(1, round(LAST * len(points[1]))):]))
  text = f"At the end the critic is right about {100 * share:.0f} % of events"
  if share > WON:
    return [text + ": it has won, and its gradient hardly helps the model. A larger model.critic.r1_gamma, a lower "
            "optim_critic.learning_rate or fewer model.critic.d_steps hold it back."]
  return [text + (": it does not tell made events from real ones." if share < LOST else
                  ": neither it nor the model has won.")]
