"""The assessment: scalars, arrays and the figure that follow from the values of tasks; no network."""

import numpy as np
import pytest

import drawn
from jaxtrain.experiments.causal_discovery import baselines, comparison, evaluate, figures, metrics, training
from jaxtrain.report import pictures
from jaxtrain.workdir.reading import RunData

META = {"graphs": ["er", "sf"], "mechanisms": ["linear", "mlp"], "edge_probs": {"3": 0.2}}
TASKS, NUM_PAIRS = 60, 6


def methods_of(seed=0):
  """{method: {metric: [T]}}: the model is better than random, and `correlation` is better than the model by 0.1."""
  random = np.random.default_rng(seed)
  hard = 0.1 * random.normal(size=TASKS)
  model = {name: 0.5 + hard + 0.01 * random.normal(size=TASKS) for name in (*metrics.DESCRIBED, "loss")}
  model["auroc"][:5] = np.nan  # tasks without edges
  model |= {"graph_kind": np.arange(TASKS) % 2, "mechanism_kind": np.arange(TASKS) % 3 - 1,
            "num_nodes": np.full(TASKS, 3)}
  step = dict.fromkeys(baselines.NAMES, -0.2) | {"correlation": 0.1}
  direction = lambda name: 1 if metrics.DESCRIBED[name].direction == "higher" else -1
  return {"model": model} | {method: {name: 0.5 + hard + by * direction(name) for name in metrics.DESCRIBED}
                             for method, by in step.items()}


def assessed():
  """(scalars, arrays) of made tasks with calibrated probabilities."""
  random = np.random.default_rng(1)
  probs = random.random((TASKS, 3, 3))
  examples = [(p, (random.random((3, 3)) < p).astype(float), 3) for p in probs]
  return evaluate.summary(methods_of(), examples, META)


def test_scalars_are_means_of_what_is_defined_with_intervals_by_family_and_beside_baselines():
  scalars, arrays = assessed()
  model = methods_of()["model"]
  assert scalars["rows"] == TASKS and scalars["auroc"] == pytest.approx(np.nanmean(model["auroc"]))
  assert {f"{name}{end}" for name in metrics.DESCRIBED for end in ("", "_ci95")} <= set(scalars)
  assert scalars["e_edge_f1/sf"] == pytest.approx(model["e_edge_f1"][1::2].mean())
  assert scalars["auroc_gain/baseline_correlation"] == pytest.approx(-0.1, abs=0.01)
  assert scalars["auroc_gain/baseline_random"] == pytest.approx(0.2, abs=0.01)
  assert scalars["auroc_gain_ci95/baseline_random"] < 0.01 < scalars["auroc_ci95/baseline_random"]
  assert scalars["random_edge_nll_nats"] == pytest.approx(scalars["edge_nll_nats/baseline_random"])
  assert scalars["ece_pooled"] < 0.1  # 360 pairs of calibrated probabilities: 0.04 is expected
  assert arrays["task_auroc"].shape == (TASKS,) and arrays["compared_mean"].shape == (8, len(comparison.COMPARED))
  assert list(arrays["compared_methods"]) == ["model", *baselines.NAMES]
  described = lambda name: name in training.METRICS or any(name.endswith(end) for end in ("_gain", "_edge_nll_nats"))
  assert all(described(name.split("/")[0].replace("_ci95", "")) for name in scalars)


def test_the_figure_says_what_beats_the_model():
  scalars, arrays = assessed()
  run = RunData("", {}, {}, {}, [], [], [], {"test": {"scalars": scalars}}, "test", arrays, {}, [])
  family = figures.FAMILIES["baselines"]
  figure = family(run)
  assert figure.get_size_inches()[0] <= drawn.PAGE and family(run, narrow=True).get_size_inches()[0] <= drawn.PHONE
  panel = figure.axes[0]
  dots = {round(line.get_ydata()[0]): line.get_color() for line in panel.lines if line.get_marker() == "o"}
  order = list(arrays["compared_methods"])
  assert len(dots) == 8 and len(set(dots.values())) == 3
  assert dots[order.index("correlation")] != dots[order.index("random")] == dots[order.index("empty")]
  assert "partial correlation" in drawn.texts(figure) and "AUROC" in drawn.texts(figure)
  assert family(run._replace(arrays={})) is None and figures.FINDINGS["baselines"](run._replace(arrays={})) == []
  said = figures.FINDINGS["baselines"](run)
  assert len(said) == 2 and all("is below that of correlation on" in text for text in said), said
  undecided = {"compared_gain_high": 1 + 0 * arrays["compared_gain"]}
  said = figures.FINDINGS["baselines"](run._replace(arrays=arrays | undecided))
  assert len(said) == 2 and all("is not surely above that of correlation on" in text for text in said), said
  by_family = figures.FAMILIES["families"](run)
  assert "mlp" in drawn.texts(by_family) and "correlation" not in drawn.texts(by_family)


def test_the_page_of_a_run_draws_each_family_of_figures_that_it_has_arrays_for():
  scalars, arrays = assessed()
  run = RunData("", {}, {}, {}, [], [], [], {"test": {"scalars": scalars}}, "test", arrays, {}, [])
  found = {name: figure for name, family in figures.FAMILIES.items() if (figure := family(run)) is not None}
  assert set(found) == {"graphs", "baselines", "families", "reliability"}
  for name, figure in found.items():
    assert figure.get_size_inches()[0] <= drawn.PAGE and pictures.png(figure).startswith(b"\x89PNG"), name
    assert pictures.caption_of(figures.FAMILIES[name], figure).startswith("Look for "), name
  panels = [ax for ax in found["graphs"].axes if ax.collections and ax.images]
  assert len(panels) == figures.SHOWN
  for k, ax in enumerate(panels):  # rings mark the true edges: effects to the right, causes downwards
    cause, effect = np.nonzero(arrays["example_truth"][k])
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), np.stack([effect, cause], axis=1))
    np.testing.assert_array_equal(ax.images[0].get_array(), arrays["example_probs"][k])
  upper, lower = found["reliability"].axes
  assert sum(bar.get_height() for bar in lower.patches) == TASKS * NUM_PAIRS
  assert f"{TASKS * NUM_PAIRS} pairs of test" in upper.get_title()
