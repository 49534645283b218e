"""Figures of the tabular VAE, from eval/<split>.json and .npz alone: reconstruction, latent space, architecture.

Those of classes are in `figures_classes.py`, those of the table and of prior samples in `figures_data.py`, those of
several runs in `figures_compare.py`; all are listed here. `FULL_FAMILIES` are drawn with `log.figures=full` or by name.

The latent map is by principal components, which need no extra package, and by UMAP where umap-learn is installed. Of
many features those at even ranks of R2 are shown, so that the worst is always among them.
"""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.experiments.tabular_vae.figures_classes import LABELLED, calibration, classes, confusion
from jaxtrain.experiments.tabular_vae.figures_classes import distances, missed, roc
from jaxtrain.experiments.tabular_vae.figures_compare import maps, r2_comparison, reconstruction_scatter
from jaxtrain.experiments.tabular_vae.figures_compare import roc_comparison, zero_shot
from jaxtrain.experiments.tabular_vae.figures_data import BLUE, dataset, distributions, generated
from jaxtrain.experiments.tabular_vae.figures_data import known_categories, panel_columns, shown_features
from jaxtrain.experiments.tabular_vae.figures_kinds import associations, categories
from jaxtrain.experiments.tabular_vae.figures_points import draw_feature, draw_map
from jaxtrain.experiments.tabular_vae.figures_worth import by_label, clusters, findings, imputation, probes, transfer
from jaxtrain.jsonable import number
from jaxtrain.report.figures import GREY, HUES, INK, MUTED, clip_text, new_figure
from jaxtrain.workdir import reading
from jaxtrain.workdir.reading import RunData, newest_event, time_axis

SIDE, PITCH = 1.72, (2.32, 2.42)  # inches: side of a reconstruction panel, distance between two across and down
LAYER_TEXT = {"posterior": "mean, log var", "latent": "latent draw", "head": "classifier"}
ACTIVE_NATS = 0.01  # mean KL above which a latent dimension is in use


def reconstruction(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for points off the dashed line of equality: a flat cloud is a feature that the latent space does not carry, a
  bend is a range that it gets wrong.
  """
  if not {"sample_x", "sample_x_mean"} <= run.arrays.keys():
    return None
  x, x_mean, scalars = run.arrays["sample_x"], run.arrays["sample_x_mean"], reading.scalars(run.evals[run.split])
  names = run.meta["features"]
  r2, scaled = ([scalars.get(f"r2_{unit}/{name}") for name in names] for unit in ("raw", "scaled"))
  shown, chosen = shown_features(run)
  shown = [d for d in shown if names[d] not in known_categories(run)]
  if not shown:
    return None
  columns = panel_columns(len(shown), narrow)
  rows = -(-len(shown) // columns)
  width, height = 0.5 + PITCH[0] * max(columns, 2), 0.25 + PITCH[1] * rows + 0.3 * narrow
  figure = new_figure(width, height, layout=None)
  for k, d in enumerate(shown):
    left, top = 0.75 + PITCH[0] * (k % columns), 0.45 + PITCH[1] * (k // columns)
    ax = figure.add_axes((left / width, 1 - (top + SIDE) / height, SIDE / width, SIDE / height))
    draw_feature(ax, x[:, d], x_mean[:, d], run.meta["scaler"]["transforms"][d].endswith("log1p"))
    ax.set_title(clip_text(names[d], 27), fontsize=8, pad=17)
    ax.annotate(r2_text(r2[d], scaled[d]), (0, 1), (0, 5), "axes fraction", "offset points", fontsize=8)
  text = f"measured: {len(x):,} of {run.split}'s {scalars['rows']:,} rows, R² over all{chosen}"
  if any(run.meta["scaler"]["transforms"][d].endswith("log1p") for d in shown):
    text += "; axes of log1p features are logarithmic"
  text = text.replace("; ", ";\n") if narrow else text
  figure.text(0.75 / width, 0.08 / height, text, fontsize=8.5, color=MUTED)
  figure.text(0.1 / width, 0.5, "reconstructed", fontsize=8.5, color=MUTED, rotation=90, va="center")
  return figure


def r2_text(raw: float | None, scaled: float | None) -> str:
  """R2 in raw units, and in standardised units where a transform makes them differ."""
  if raw is None or not np.isfinite(raw):
    return "hardly varies here, no R²"
  more = scaled is not None and abs(scaled - raw) > 5e-4
  return (f"R² {raw:.3f}" + (f"   (scaled {scaled:.3f})" if more else "")).replace("-", "−")


def latent(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for dimensions without a bar: their posterior has collapsed to the prior, and they carry nothing."""
  points, kl_nats = run.arrays.get("sample_components"), run.arrays.get("kl_nats_per_dim")
  if points is None or kl_nats is None:
    return None
  figure = new_figure(*((4.6, 8.4) if narrow else (9, 4.4)))
  ratios = {"height_ratios": (1.75, 1)} if narrow else {"width_ratios": (1.75, 1)}
  left, right = figure.subplots(*((2, 1) if narrow else (1, 2)), **ratios)
  share, rows = run.arrays["component_share"], reading.scalars(run.evals[run.split])["rows"]
  title = "principal components" if narrow else "posterior means, principal components"
  left.set_title(f"{title} ({run.split}, {len(points):,} of {rows:,} rows)", fontsize=8.5)
  left.set_xlabel(f"PC 1 ({share[0]:.0%} of variance)")
  if points.shape[1] < 2:
    left.hist(points[:, 0], bins=50, color=BLUE)
  else:
    left.set_ylabel(f"PC 2 ({share[1]:.0%})")
    draw_map(left, run, points, narrow)
  order = np.argsort(-kl_nats)
  active = kl_nats[order] > ACTIVE_NATS
  right.bar(range(len(order)), kl_nats[order], color=np.where(active, BLUE, GREY), width=0.8)
  right.set_xticks(range(len(order)), order, fontsize=8 if len(order) <= 16 else 5.5) if len(order) <= 40 else None
  right.set(xlabel="latent dimension" if len(order) <= 40 else "rank of latent dimension",
            ylabel=f"KL (nats), mean of {rows:,} rows")
  right.set_title(f"{active.sum()} of {len(order)} active (> {ACTIVE_NATS:g} nats)", fontsize=8.5)
  right.grid(axis="x", visible=False)
  first = "classes that keep apart" if run.meta["class_names"] else "groups of rows that keep apart"
  figure.set_label(f"Look for {first} in the map, and for dimensions without a bar: their posterior has collapsed to "
                   "the prior, and they carry nothing.")
  return figure


def umap(run: RunData, narrow: bool = False) -> Figure | None:
  """Look for classes that form islands of their own. Only who is near whom means something here: distances between
  islands, their sizes and their order do not.
  """
  points = run.arrays.get("sample_umap")
  if points is None:
    return None
  figure = new_figure(*((4.6, 5.6) if narrow else (7.4, 4.8)))
  ax = figure.subplots()
  rows = reading.scalars(run.evals[run.split])["rows"]
  ax.set_title(f"posterior means, UMAP ({run.split}, {len(points):,} of {rows:,} rows)", fontsize=8.5)
  ax.set(xlabel="UMAP 1", ylabel="UMAP 2", aspect="equal", adjustable="datalim")
  draw_map(ax, run, points, narrow)
  return figure


def architecture(run: RunData) -> Figure | None:
  """Look for a layer that holds most of the parameters, and for a latent space wider than the features: it compresses
  nothing. Heights go with the logarithm of the width.
  """
  layers = network(run)
  if not layers:
    return None
  columns = max(column for column, _, _, _ in layers.values()) + 1
  figure = new_figure(max(6.0, 0.5 + 0.95 * columns), 4.5 if "classes" in layers else 2.6, layout=None)
  ax = figure.add_axes((0.01, 0.01, 0.98, 0.98))
  center = {False: 0.0, True: -3.4}
  widest = np.log1p(max(max(widths) for _, widths, _, _ in layers.values()))
  for name, (column, widths, parameters, source) in layers.items():
    y, tall = center[name in ("head", "classes")], 0.35 + 0.75 * np.log1p(max(widths)) / widest
    if source:
      x0, y0 = layers[source][0], center[source in ("head", "classes")]
      ax.annotate("", (column - 0.31, y), (x0 + 0.31, y0), arrowprops={"arrowstyle": "->", "color": MUTED, "lw": 0.9})
    ax.fill([column - 0.28, column + 0.28, column + 0.28, column - 0.28], [y - tall, y - tall, y + tall, y + tall],
            color=layer_color(name))
    text = f"{widths[0]:,}" if len(widths) == 1 else f"{len(widths)}\nlayers\nup to\n{max(widths):,}"
    ax.text(column, y, text, ha="center", va="center", color="white", fontsize=9.5 if len(widths) == 1 else 7,
            fontweight="bold")
    ax.text(column, y + 1.22, LAYER_TEXT.get(name, name.split(" ")[0]), ha="center", fontsize=8, color=INK)
    ax.text(column, y - 1.42, f"{parameters:,}" if parameters else "", ha="center", fontsize=7.5, color=MUTED)
  model, total = run.config["model"], sum(parameters for _, _, parameters, _ in layers.values())
  norm = "Linear, ReLU, BatchNorm" if model["batch_norm"] else "Linear, ReLU"
  ax.text(-0.4, 2.0, f"{total:,} parameters (below each layer); hidden layers: {norm}", fontsize=8.5, color=MUTED)
  ax.set(xlim=(-0.5, columns - 0.5), ylim=(-5.1 if "classes" in layers else -1.7, 2.4))
  ax.axis("off")
  return figure


def layer_color(name: str) -> str:
  """The colour of a layer's box."""
  if name in ("head", "classes"):
    return HUES[2]
  return {"input": LABELLED, "output": LABELLED, "posterior": HUES[1], "latent": HUES[1]}.get(name, BLUE)


def network(run: RunData) -> dict[str, tuple[int, tuple[int, ...], int, str]]:
  """Layers by name: column in the diagram, widths, parameters, and the layer before; {} where the config has none.

  Of more than three hidden layers those between the first and the last are one entry with many widths.
  """
  meta, model = run.meta, run.config.get("model", {})
  if not {"hidden_dims", "latent_dim", "batch_norm", "head_dim", "kind"} <= model.keys() or not meta.get("features"):
    return {}
  if "kinds" in meta or model.get("noise") == "learned":  # its widths follow from embeddings and likelihoods
    return {}
  D, L, hidden = len(meta["features"]), model["latent_dim"], tuple(model["hidden_dims"])
  layers = {"input": (0, (D,), 0, "")}
  def add(name, widths, source, normed=False):
    fan_in = (layers[source][1][-1], *widths)
    parameters = sum((i + 1 + 2 * normed) * o for i, o in zip(fan_in, widths))
    layers[name] = (layers[source][0] + 1, widths, parameters, source)
    return name
  def add_stack(name, widths, last):
    parts = [(width,) for width in widths] if len(widths) <= 3 else [widths[:1], widths[1:-1], widths[-1:]]
    for k, part in enumerate(parts):
      last = add(f"{name} {k}", part, last, model["batch_norm"])
    return last
  add("posterior", (2 * L,), add_stack("encoder", hidden, "input"))
  layers["latent"] = (layers["posterior"][0] + 1, (L,), 0, "posterior")  # mean and log-variance give a draw
  add("output", (D,), add_stack("decoder", hidden[::-1], "latent"))
  if model["kind"] == "semisup" and meta.get("class_names"):
    add("classes", (len(meta["class_names"]),), add("head", (model["head_dim"],), "latent"))
  return layers


def annealing(run: RunData) -> list[str]:
  """That a run ended before its KL schedule did, in a sentence."""
  schedule, (unit, per_unit) = run.config.get("loss", {}).get("kl_schedule", {}), time_axis(run)
  epochs, ran = number(schedule.get("num_epochs")), max((row["step"] for row in run.rows), default=0) / per_unit
  rises = schedule.get("shape", "constant") != "constant" and epochs is not None and unit == "epoch"
  if not rises or epochs <= ran or not newest_event(run, "on_train_end"):
    return []
  return [f"The schedule of the KL weight ({epochs:g} epochs) is longer than the run ({ran:.4g}): beta did not "
          "reach its end."]


FAMILIES = {"reconstruction": reconstruction, "latent": latent, "confusion": confusion,
            "classes": classes, "roc": roc, "calibration": calibration, "generated": generated,
            "categories": categories, "associations": associations, "clusters": clusters,
            "probes": probes, "imputation": imputation,
            "transfer": transfer}
FINDINGS = {"held_out": findings, "missed": missed, "annealing": annealing}
FULL_FAMILIES = {"distributions": distributions, "dataset": dataset, "distances": distances, "umap": umap,
                 "architecture": architecture, "by_label": by_label}
COMPARISONS = {"roc_comparison": roc_comparison, "r2_comparison": r2_comparison, "zero_shot": zero_shot, "maps": maps,
               "reconstruction_scatter": reconstruction_scatter}
