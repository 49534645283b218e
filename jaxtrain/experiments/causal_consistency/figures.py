"""Figures of the effect of a treatment, from eval/<split>.json and .npz alone: estimates, overlap, balance, effects of
rows. Those of outcomes and imputed treatments are in `figures_model.py`; all are listed here.

Panels stand one below the other, so that a phone shows them whole. Classes and outcomes beyond the first have scalars
named `<name>/<class>` and `<name>/<outcome>`.
"""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.experiments.causal_consistency import figures_estimators
from jaxtrain.experiments.causal_consistency.figures_findings import (
    BALANCED, WEAK_F, WIDTH, agrees, contrasts, findings, finite, scalars_of)
from jaxtrain.experiments.causal_consistency.figures_forest import BLUE, GREY, forest
from jaxtrain.experiments.causal_consistency.figures_model import calibration, responsibilities, sigma
from jaxtrain.report.figures import HUES, INK, MUTED, clip_text, new_figure
from jaxtrain.workdir.reading import RunData

ESTIMATORS = {"ate_unadjusted": "difference of group means\n(unadjusted)", "ate": "the model's means\n(plug-in)",
              "ate_aipw_model": "the model's means and\npropensity (AIPW)",
              "ate_aipw": "regressions without the\nmodel (cross-fitted AIPW)", "ate_2sls": "instrument (2SLS)"}
MAX_CONTRASTS, MAX_COVARIATES, MAX_ARMS = 6, 25, 4


def effects(run: RunData) -> Figure | None:
  """Average effects by estimator, with 95 % intervals."""
  scalars = scalars_of(run)
  panels = [one for one in contrasts(run) if finite(scalars, f"ate{one[0]}") is not None]
  if not panels:
    return None
  shown = panels[:MAX_CONTRASTS]
  figure = new_figure(WIDTH, 0.3 + 2.5 * len(shown))
  for ax, (end, title) in zip(np.ravel(figure.subplots(len(shown), 1)), shown):
    forest(ax, scalars, end, ESTIMATORS, ("ate_unadjusted",), 7.5, {"": 2.0})
    ax.margins(x=0.16)
    ax.set_title(title)
  rest = len(panels) - len(shown)
  figure.set_label(effects_caption(scalars, shown[0], "effect_draws" in run.arrays)
                   + f" {rest} further effects are not drawn." * bool(rest))
  return figure


def effects_caption(scalars: dict, contrast: tuple[str, str], is_posterior: bool) -> str:
  """Which effect, how sure, and what would change it; `is_posterior`: its interval is that of a Bayesian model."""
  end, title = contrast
  value, low, high = (finite(scalars, f"{name}{end}") for name in ("ate", "ate_low", "ate_high"))
  text = f"The model's average effect of {title} is {value:.3g}"
  if low is not None and high is not None:
    text += f" (95 % posterior interval {low:.3g} to {high:.3g})" if is_posterior else (
        f" (95 % interval {low:.3g} to {high:.3g}, which leaves out the error of the model itself)")
  text += "."
  plain, agree = finite(scalars, f"ate_unadjusted{end}"), agrees(scalars, end)
  if plain is not None:
    text += f" Group means differ by {plain:.3g}; what is beyond the effect comes from covariates."
  if agree is not None:
    text += " The estimate without the model agrees." if agree else (
        " The interval of the estimate without the model does not hold the model's effect: trust none of the estimates "
        "until you know why.")
  if (strength := finite(scalars, f"e_value{end}")) is not None:
    limit = finite(scalars, f"e_value_limit{end}")
    text += (f" A hidden confounder would explain the effect away if it were tied to treatment and outcome by risk "
             f"ratios of {strength:.2f} each" + (f" ({limit:.2f} for the end of the interval)" if limit else "") + ".")
  if (f := finite(scalars, "first_stage_f")) is not None:
    text += f" The instrument's first-stage F is {f:,.3g}" + (
        ": weak, do not trust its interval." if f < WEAK_F else ".")
  return text


def overlap(run: RunData) -> Figure | None:
  """Propensities by group."""
  counts, names = run.arrays.get("propensity_counts"), run.meta.get("class_names")
  if counts is None or not names or not counts.sum():
    return None
  C = len(counts)
  panels = [1] if C == 2 else list(range(C))[:MAX_ARMS]
  edges = np.linspace(0, 1, counts.shape[-1] + 1)
  figure = new_figure(WIDTH, 0.7 + 2.1 * len(panels))
  for ax, a in zip(np.ravel(figure.subplots(len(panels), 1)), panels):
    for b in range(C)[:MAX_ARMS]:
      total = counts[a, b].sum()
      if total > 0:
        ax.stairs(100 * counts[a, b] / total, edges, color=HUES[b], fill=True, alpha=0.35)
        ax.stairs(100 * counts[a, b] / total, edges, color=HUES[b], linewidth=1.4,
                  label=f"{clip_text(names[b], 20)} ({total:,.0f})")
    ax.set(xlim=(0, 1), xlabel=f"probability of {clip_text(names[a], 30)} given the covariates", ylabel="% of group")
  figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
  scalars = scalars_of(run)
  text = ("Look for groups whose bars do not overlap: where only one group is, its effect is a guess of the model. "
          "Rows without a recorded treatment count by their probabilities.")
  if (outside := finite(scalars, "overlap_outside")) is not None:
    text += f" {100 * outside:.1f} % of rows have a class with a probability below 0.05."
  if (size := finite(scalars, "ess_min")) is not None:
    text += f" After weighting, the smallest group counts like {size:,.0f} rows."
  figure.set_label(text + f" {C - MAX_ARMS} further classes are not drawn." * (C > MAX_ARMS))
  return figure


def balance(run: RunData) -> Figure | None:
  """Standardised mean differences of covariates before and after weighting."""
  before, after, names = run.arrays.get("smd_before"), run.arrays.get("smd_after"), run.meta.get("covariates")
  if before is None or after is None or not names or not np.isfinite(before).any():
    return None
  before, after = (np.nan_to_num(np.abs(table)).max(axis=0) for table in (before, after))
  order = np.argsort(-np.maximum(before, after), kind="stable")
  shown, where = order[:MAX_COVARIATES], np.arange(min(len(order), MAX_COVARIATES))
  figure = new_figure(WIDTH, 1.2 + 0.24 * len(shown))
  ax = figure.subplots()
  ends = np.minimum(before, after)[shown], np.maximum(before, after)[shown]
  ax.hlines(where, *ends, color=GREY, linewidth=2, zorder=2)
  ax.plot(before[shown], where, "o", color=MUTED, markersize=5, label="before weighting")
  ax.plot(after[shown], where, "D", color=BLUE, markersize=4.5, label="after")
  ax.axvline(BALANCED, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
  ax.set_yticks(where, [clip_text(names[d], 28) for d in shown], color=INK)
  ax.set(ylim=(len(shown) - 0.4, -0.6), xlim=(0, 1.08 * max(before.max(), after.max(), 2 * BALANCED)),
         xlabel="difference of means, in standard deviations")
  ax.grid(axis="y", visible=False)
  figure.legend(loc="outside upper left", ncols=2)
  left = int((after > BALANCED).sum())
  text = ("Look for diamonds right of the dashed line: those covariates still differ between the groups after "
          "weighting with the model's propensity. ")
  text += f"{left} of {len(after)} do." if left else "None does."
  rest = len(order) - len(shown)
  figure.set_label(text + " Of several classes the largest difference from the control is shown." * (
      len(run.arrays["smd_before"]) > 1) + f" {rest} with smaller differences are not drawn." * bool(rest))
  return figure


def cate(run: RunData) -> Figure | None:
  """The effect of each row, against the truth where it is known."""
  found, true, names = (run.arrays.get("sample_cate"), run.arrays.get("sample_cate_true"),
                        run.meta.get("class_names"))
  if found is None or not names or not np.isfinite(found).any():
    return None
  shown = found.shape[1] if found.shape[1] <= MAX_ARMS else MAX_ARMS
  varies = true is not None and bool(np.ptp(true, axis=0).max() > 1e-9 * np.abs(true).max())
  figure = new_figure(WIDTH, 0.5 + (3.6 if varies else 2.2) * shown)
  for j, ax in enumerate(np.ravel(figure.subplots(shown, 1))):
    ax.set_title(clip_text(f"{names[j + 1]} against {names[0]}", 50))
    if varies:
      draw_against_truth(ax, found[:, j], true[:, j])
    else:
      draw_distribution(ax, found[:, j], None if true is None else float(true[0, j]))
  scalars = scalars_of(run)
  if true is not None and not varies:
    text = ("The true effect is the same for every row (green line): all spread of the estimated one is error.")
  elif true is None:
    text = ("How much the estimated effect differs between rows. A wide spread says that some gain more than others, "
            "as far as the covariates tell; a single spike is a model of one effect for all.")
  else:
    text = ("Look for points off the dashed line of equality. A flat cloud is an effect that differs between rows "
            "where the model sees none.")
  if (error := finite(scalars, "cate_rmse")) is not None:
    text += f" The error of a row's effect is {error:.3g} (root mean squared)."
  figure.set_label(text)
  return figure


def draw_distribution(ax, found: np.ndarray, true: float | None) -> None:
  """A histogram of the effects of rows, one bar where they are all equal, and a line at the truth where it is known."""
  found = found[np.isfinite(found)]
  low, high = found.min(), found.max()
  pad = max(1e-6 * abs(low + high), 1e-12)
  edges = np.linspace(low, high, 31) if high - low > pad else np.array([low - 0.5, low + 0.5])
  ax.stairs(np.histogram(found, edges)[0], edges, color=BLUE, fill=True, alpha=0.7)
  ax.axvline(found.mean(), color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"mean {found.mean():.3g}")
  if true is not None:
    ax.axvline(true, color=HUES[2], linewidth=1.3, label=f"truth {true:.3g}")
  ax.set(xlabel="estimated effect of a row, in units of the outcome", ylabel="rows")
  ax.legend(loc="upper right")


def draw_against_truth(ax, found: np.ndarray, true: np.ndarray) -> None:
  """Estimated against true effects on equal axes."""
  both = np.concatenate([found, true])
  low, high = np.nanquantile(both, 0.002), np.nanquantile(both, 0.998)
  pad = 0.06 * (high - low) or 0.5
  ax.scatter(true, found, s=7, color=BLUE, alpha=0.4, linewidths=0)
  ax.plot([low - pad, high + pad], [low - pad, high + pad], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
  ax.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal", xlabel="true effect of a row",
         ylabel="estimated")


FAMILIES = {"effects": effects, "estimators": figures_estimators.estimators, "overlap": overlap, "balance": balance,
            "cate": cate, "calibration": calibration, "sigma": sigma, "responsibilities": responsibilities}
FINDINGS = {"findings": findings, "estimators": figures_estimators.findings}
