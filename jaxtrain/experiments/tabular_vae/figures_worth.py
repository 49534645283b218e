"""Figures of what the embedding is worth beside the raw scaled features, from a run's files alone: clusters, probes,
imputation, other measurements, and errors by label; and what they say, in sentences.
"""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.jsonable import number
from jaxtrain.report.figures import COLORS, GREY, HUES, INK, clip_text, new_figure
from jaxtrain.report.panels import panel_grid
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData

BLUE, TEAL, RAW = COLORS["train"], HUES[2], "#7d8790"
SCORES = ("adjusted Rand index", "normalised mutual information", "purity", "silhouette")
CLASS_SCORES = ("accuracy", "balanced accuracy", "macro F1")
KINDS = {"svm": "support vectors", "knn": "25 nearest rows", "logistic": "logistic regression",
         "forest": "random forest"}
HOW = {"model": ("this model", BLUE, "o"), "mean": ("mean", GREY, "|"), "linear": ("linear", HUES[1], "D"),
       "knn": ("25 nearest rows", RAW, "s")}
MOST_SHOWN = 30


def has(run: RunData, *names: str) -> bool:
  """Whether a run has such arrays."""
  return set(names) <= run.arrays.keys()


def scalars_of(run: RunData) -> dict[str, float | None]:
  """The scalars of the part that is shown; {} where there is none."""
  return reading.scalars(run.evals[run.split]) if run.split else {}


def texts(run: RunData, *names: str) -> list[str]:
  """What parts of the assessment have written in words, under such names."""
  said = run.evals[run.split].get("scalars", {}) if run.split else {}
  return [said[name] for name in names if isinstance(said.get(name), str)]


def clusters(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for blue lines above grey ones: clusters of the embedding agree better with the classes than clusters of the
  raw scaled features. Lines are 95 % intervals that resample whole groups, where five or more are held out; they say
  nothing of other clusterings of the same rows. An adjusted Rand index of 0 is chance.
  """
  if not has(run, "cluster_scores", "cluster_half", "cluster_numbers"):
    return None
  found, half, numbers = (run.arrays[f"cluster_{name}"] for name in ("scores", "half", "numbers"))
  shown = [s for s in range(len(SCORES)) if np.isfinite(found[..., s]).any()]
  if not shown:
    return None
  figure, panels = panel_grid(len(shown), 1 if narrow else 2, 4.1 if narrow else 3.9, 2.1, (0.0, 0.3))
  for ax, s in zip(panels[:, 0], shown):
    for i, (name, color) in enumerate((("embedding", BLUE), ("raw features", RAW))):
      for j, (method, style) in enumerate((("k-means", "-"), ("normal mixture", "--"))):
        where = numbers + 0.12 * (2 * i + j - 1.5)
        ax.errorbar(where, found[i, j, :, s], yerr=np.nan_to_num(half[i, j, :, s]), color=color, linestyle=style,
                    marker="o", markersize=3.5, linewidth=1.3, elinewidth=1.0, label=f"{name}, {method}")
    ax.set_title(SCORES[s], fontsize=8.5)
    ax.set_xticks(numbers)
    ax.set_xlabel("clusters")
  figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
  return figure


def probe_words(name: str) -> tuple[str, str]:
  """(what a classifier reads and is, its colour) of its name."""
  given, _, kind = name.partition("_")
  if not kind:
    return "the model's own classifier", BLUE
  return f"{'raw features' if given == 'raw' else 'embedding'}: {KINDS[kind]}", RAW if given == "raw" else TEAL


def probes(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for grey dots to the right of the coloured ones: then classifiers on the raw scaled features do as well, and
  the embedding adds nothing for telling classes apart. All were fitted on training rows and scored on held-out ones;
  lines are 95 % intervals that resample whole groups, where five or more are held out. Rows are shared, so that a
  difference may be surer than the lines say: its own interval is then in the scalars `gain_...`. Support vectors have
  10,000 training rows at most.
  """
  if not has(run, "probe_names", "probe_scores", "probe_half"):
    return None
  names, score, half = [str(x) for x in run.arrays["probe_names"]], run.arrays["probe_scores"], run.arrays["probe_half"]
  words = [probe_words(name) for name in names]
  figure, panels = panel_grid(len(CLASS_SCORES), 1 if narrow else 3, 2.6 if narrow else 2.1, 0.55 + 0.23 * len(names),
                              (1.9, 0.1), sharey=True)
  for ax, s in zip(panels[:, 0], range(len(CLASS_SCORES))):
    for row, (_, color) in enumerate(words):
      ax.errorbar(score[row, s], row, xerr=np.nan_to_num(half[row, s]), fmt="o", color=color, markersize=4.5,
                  elinewidth=1.3)
    ax.axvline(score[0, s], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.set_title(f"{CLASS_SCORES[s]} →", fontsize=8.5)
    ax.set_yticks(range(len(names)), [text for text, _ in words], fontsize=8)
    ax.set_ylim(len(names) - 0.5, -0.5)
  return figure


def imputation(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for blue dots left of the others: there this model fills a hidden feature worse than a simpler way does. Each
  line hides the features that it names and fills them from the rest. 0 is what the mean of held-out rows would give;
  lines are 95 % intervals that resample whole groups, where five or more are held out. A dot at the left edge stands
  for an R² below the axis.
  """
  if not has(run, "impute_hidden", "impute_r2", "impute_half"):
    return None
  hidden, r2, half = run.arrays["impute_hidden"][:MOST_SHOWN], run.arrays["impute_r2"], run.arrays["impute_half"]
  figure = new_figure(4.6 if narrow else 8.2, 1.1 + 0.36 * len(hidden))
  ax, low = figure.subplots(), max(min(-0.05, float(np.nanmin(r2))), -0.5)
  for j, (text, color, marker) in enumerate(HOW.values()):
    where = np.arange(len(hidden)) + 0.15 * (j - 1.5)
    across = None if text == "mean" else np.nan_to_num(half[:len(hidden), j])  # its interval is that of the rows' mean
    ax.errorbar(np.maximum(r2[:len(hidden), j], low), where, xerr=across, fmt=marker, color=color, markersize=4.5,
                elinewidth=1.1, label=text)
  ax.axvline(0, color=GREY, linewidth=1.0, zorder=1)
  ax.set_yticks(range(len(hidden)), [clip_text(name, 20 if narrow else 44) for name in hidden], fontsize=8)
  ax.set(ylim=(len(hidden) - 0.5, -0.5), xlim=(low - 0.03, 1.03), xlabel="R² of the hidden features, scaled")
  figure.legend(loc="outside upper left", ncols=2 if narrow else 4)
  return figure


def transfer(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for coloured dots to the right of grey ones: the embedding predicts a measurement better than the raw scaled
  features do. Regressions were fitted on training rows and scored on held-out ones; below 0 the mean of the held-out
  rows is better. Lines are 95 % intervals that resample whole groups, where five or more are held out.
  """
  if not has(run, "transfer_columns", "transfer_r2", "transfer_half"):
    return None
  columns, r2, half = (run.arrays[f"transfer_{name}"] for name in ("columns", "r2", "half"))
  shown = [c for c in range(len(columns)) if np.isfinite(r2[c]).any()][:MOST_SHOWN]
  if not shown:
    return None
  figure = new_figure(4.6 if narrow else 8.2, 1.2 + 0.5 * len(shown))
  ax = figure.subplots()
  for j, (name, color) in enumerate((("embedding", TEAL), ("raw features", RAW))):
    for m, (method, marker) in enumerate((("linear", "D"), ("random forest", "o"))):
      where = np.arange(len(shown)) + 0.17 * (2 * m + j - 1.5)
      ax.errorbar(r2[shown, m, j], where, xerr=np.nan_to_num(half[shown, m, j]), fmt=marker, color=color,
                  markersize=4.5, elinewidth=1.1, label=f"{name}, {method}")
  ax.axvline(0, color=GREY, linewidth=1.0, zorder=1)
  ax.set_yticks(range(len(shown)), [clip_text(columns[c], 30) for c in shown], fontsize=8)
  ax.set(ylim=(len(shown) - 0.5, -0.5), xlabel="R² of the measurement on held-out rows")
  figure.legend(loc="outside upper left", ncols=2)
  return figure


def by_label(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for dark cells: there the reconstruction is off by so many standard deviations of the feature (root mean
  squared error), which a mean over all rows hides. Labels with most rows stand first.
  """
  if not has(run, "label_errors", "label_names", "label_rows") or not len(run.arrays["label_names"]):
    return None
  names, count, features = run.arrays["label_names"], run.arrays["label_rows"], run.meta["features"][:MOST_SHOWN]
  error = run.arrays["label_errors"][:, 4, :MOST_SHOWN]  # of standardised features
  figure = new_figure(4.6 if narrow else 1.9 + max(3.2, 0.62 * len(features)), 1.7 + 0.22 * len(names))
  ax = figure.subplots()
  image = ax.imshow(error, cmap="Blues", vmin=0, vmax=max(1.0, float(np.nanmax(error))), aspect="auto")
  for i, d in np.ndindex(error.shape) if error.shape[1] <= 12 else ():
    ax.text(d, i, f"{error[i, d]:.2f}", ha="center", va="center", fontsize=6.5,
            color="white" if error[i, d] > 0.6 * image.norm.vmax else INK)
  ax.set_yticks(range(len(names)), [f"{clip_text(name, 16 if narrow else 28)} ({rows:,})"
                                    for name, rows in zip(names, count)], fontsize=7.5)
  ax.set_xticks(range(len(features)), [clip_text(name, 18) for name in features], rotation=45, ha="right", fontsize=7.5)
  ax.grid(visible=False)
  figure.colorbar(image, ax=ax, label="root mean squared error,\nstandard deviations", shrink=0.8)
  return figure


def gains(run: RunData, what: str, first: str) -> list[tuple[str, float, float, float]]:
  """(name of the other, gain, ends of its interval) of a classifier over each that it was compared with."""
  scalars, found = scalars_of(run), []
  for one, other in run.arrays.get("gain_pairs", np.zeros((0, 2), str)).tolist():
    values = [number(scalars.get(f"gain_{what}{end}/{one}-{other}")) for end in ("", "_low", "_high")]
    if one == first and None not in values:
      found.append((other, *values))
  return found


def compared(words: str, value: float, others: dict[str, float | None],
             over: list[tuple[str, float, float, float]]) -> tuple[bool, str]:
  """(whether a score is surely above all others, that in words); `others` are their scores by name."""
  name, gain, low, high = min(over, key=lambda one: one[1])
  beaten = all(one[2] > 0 for one in over)
  how = "surely above" if beaten else "surely below" if high < 0 else "not surely above"
  best = probe_words(name)[0].replace("raw features: ", "")
  score = "" if others[name] is None else f"{others[name]:.3f}; "
  return beaten, (f"its {words} of {value:.3f} is {how} that of {best}, the hardest of them ({score}difference on the "
                  f"same rows {gain:+.3f}, 95 % interval {low:+.3f} to {high:+.3f})")


def of_classifier(run: RunData) -> list[str]:
  """Whether the model's own classifier beats classifiers on the raw features, in a sentence."""
  scalars, said = scalars_of(run), []
  for what, words in (("accuracy", "accuracy"), ("balanced_accuracy", "balanced accuracy")):
    over, value = gains(run, what, "classifier"), number(scalars.get(f"probe_{what}/classifier"))
    if over and value is not None:
      others = {other: number(scalars.get(f"probe_{what}/{other}")) for other, *_ in over}
      said.append(compared(words, value, others, over))
  if not said:
    return undecided(run)
  verdict = ("The classifier beats classifiers on the raw features" if all(beaten for beaten, _ in said) else
             "The classifier beats classifiers on the raw features in part" if any(beaten for beaten, _ in said) else
             "For telling classes apart the embedding adds nothing to the raw features")
  return [f"{verdict} on held-out rows: {', and '.join(words for _, words in said)}."]


def undecided(run: RunData) -> list[str]:
  """That no interval says whether the model's classifier beats those on the raw features, in a sentence."""
  scalars = scalars_of(run)
  accuracy = lambda name: number(scalars.get(f"probe_accuracy/{name}"))
  others = [other for one, other in run.arrays.get("gain_pairs", np.zeros((0, 2), str)).tolist()
            if one == "classifier" and accuracy(other) is not None]
  if not others or accuracy("classifier") is None:
    return []
  best = max(others, key=accuracy)
  return ["Whether the classifier beats classifiers on the raw features is undecided: too few groups are held out for "
          f"an interval. Its accuracy is {accuracy('classifier'):.3f}, that of the best of them "
          f"({probe_words(best)[0].replace('raw features: ', '')}) {accuracy(best):.3f}."]


def of_embedding(run: RunData) -> list[str]:
  """Whether probes read more from the embedding than from the raw features, in a sentence."""
  found = [(kind, one[0]) for kind in KINDS if (one := gains(run, "accuracy", f"embedding_{kind}"))]
  if not found:
    return []
  text = ", ".join(f"{KINDS[kind]} {gain:+.3f} ({low:+.3f} to {high:+.3f})" for kind, (_, gain, low, high) in found)
  better = sum(low > 0 for _, (_, _, low, _) in found)
  verdict = ("are surely more accurate on the embedding than on the raw features" if better == len(found) else
             f"are surely more accurate on the embedding than on the raw features in {better} of {len(found)} cases"
             if better else "gain nothing from the embedding over the raw features")
  return [f"The same probes {verdict}. Differences of accuracy with 95 % intervals: {text}."]


def of_clusters(run: RunData) -> list[str]:
  """Whether clusters of the embedding agree better with classes than those of the raw features, in a sentence."""
  scalars = scalars_of(run)
  mean, raw, low, high = (number(scalars.get(f"cluster_ari_{name}"))
                          for name in ("mean", "mean_raw", "gain_low", "gain_high"))
  if None in (mean, raw, low, high):
    return []
  verdict = ("surely more than" if low > 0 else "surely less than" if high < 0 else "not surely more than")
  return [f"Clusters of the embedding agree with the classes (adjusted Rand index {mean:.3f}, mean over methods and "
          f"numbers of clusters) {verdict} clusters of the raw features ({raw:.3f}; 95 % interval of the difference "
          f"{low:+.3f} to {high:+.3f})."]


def of_transfer(run: RunData) -> list[str]:
  """Measurements that random forests predict surely better or worse from the embedding, in a sentence."""
  scalars, found = scalars_of(run), {"better": [], "worse": []}
  columns = [str(name) for name in run.arrays.get("transfer_columns", ())]
  for name in columns:
    low, high = (number(scalars.get(f"transfer_gain_{end}/forest/{name}")) for end in ("low", "high"))
    if low is not None and high is not None and (low > 0 or high < 0):
      found["better" if low > 0 else "worse"].append(name)
  if not columns:
    return []
  some = lambda names: f" ({', '.join(names[:5])}{' and more' if len(names) > 5 else ''})" if names else ""
  return [f"Of {len(columns)} other measurement{'s' * (len(columns) > 1)}, random forests predict "
          f"{len(found['better'])} surely better{some(found['better'])} and {len(found['worse'])} surely worse"
          f"{some(found['worse'])} from the embedding than from the raw features."]


def of_imputation(run: RunData) -> list[str]:
  """How well hidden features come back beside simpler ways, in a sentence."""
  return texts(run, "impute_summary")


def of_density(run: RunData) -> list[str]:
  """That held-out rows are less probable than under one normal distribution, in a sentence."""
  own, normal, half = (number(scalars_of(run).get(f"{name}_nll_nats{end}"))
                       for name, end in (("iw", ""), ("gaussian", ""), ("iw", "_ci95")))
  if None in (own, normal) or own - (half or 0.0) <= normal or run.split == "train":
    return []
  return [f"By the bound on its density the model is worse than one Normal distribution ({own:.4g} and {normal:.4g} "
          "nats a row): do not trust sampled rows."]


def not_compared(run: RunData) -> list[str]:
  """That nothing but the most frequent class stands beside the accuracy, and what to do, in a sentence."""
  asked = run.config.get("eval", {}).get("parts", ())
  if run.split == "train" or "probes" in asked or not has(run, "class_count") or "accuracy" not in scalars_of(run):
    return []
  return ["The accuracy is compared with the most frequent class alone. The command that trained the run compares it "
          "with classifiers on the raw features, with --mode=eval --init_from=RUN --workdir=NEW "
          "--config.eval.parts=probes."]


def missing(run: RunData) -> list[str]:
  """Which parts were left out, and why."""
  return texts(run, "parts_reason", "probe_reason", "impute_reason", "transfer_reason")


def findings(run: RunData) -> list[str]:
  """What the parts of the assessment say, in sentences."""
  return [*of_classifier(run), *of_embedding(run), *of_clusters(run), *of_transfer(run),
          *of_imputation(run), *of_density(run), *not_compared(run), *missing(run)]
