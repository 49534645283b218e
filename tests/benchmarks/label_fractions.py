"""What unlabelled rows are worth: the semi-supervised VAE against classifiers of the labelled rows, by their share.

  python tests/benchmarks/label_fractions.py --folder=runs/labels --json=labels.json
  python tests/benchmarks/label_fractions.py --folder=runs/labels --draw=curve.png

The synthetic lithology table with the settings of `geology` but for --epochs and --learning_rate, in 5 folds of
boreholes: one fold is tested, one validates, three train. To be affordable, every fourth row of each borehole is used
(neighbours are nearly alike). Of the training rows a share keeps its label (`data.label_share`; rows are drawn one by
one, so that labels are in most boreholes), and for each share, fold and seed these are trained on the same labelled
rows:

  semi      the VAE with its classifier, on all training rows
  alone     the same network on the labelled rows alone, in as many steps, without the decoder's terms: reconstruction
            and KL weigh 0
  logistic, forest    scikit-learn's, on the scaled features of the labelled rows alone, as the part `probes` has them

Kept of a network is the state with the least negative log-likelihood of the validation boreholes, whose labels are all
there, after some first steps (FIRST) and after each epoch. Scores are of all rows, each by the model whose fold tested
it. Before the likelihood is taken, MIXED of the uniform distribution is mixed into the probabilities of every method,
since a forest gives 0 to some classes. A score is the mean over seeds, each of which draws labels and initialisations
anew. Half of its 95 % interval is the root of the sum of two squares: 1.96 standard deviations over resamples of whole
boreholes, and half the interval of Student's t over the seeds; of a difference those of both methods at once.
(Percentiles would lie beside the balanced accuracy: resamples lack some classes of few boreholes, which are hard.)

Results are kept by run in --folder, and the same command goes on.
"""

import functools
import os
import time
import warnings
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bench
from jaxtrain import config as config_lib, rng, statistics, step as step_lib
from jaxtrain.data import splits as splits_lib
from jaxtrain.data.tables import Table
from jaxtrain.devices import backend, parallel
from jaxtrain.experiments.tabular_vae import grouped, lithology, predict, probes, vae
from jaxtrain.report import figures
from jaxtrain.types import Splits

SHARES, FOLDS, EVERY, MIXED = (0.01, 0.03, 0.1, 0.3, 1.0), 5, 4, 1e-3
PEERS = ("logistic", "forest")
METHODS = {"semi": "semi-supervised", "alone": "same network, labelled rows alone", "logistic": "logistic regression",
           "forest": "random forest"}
SCORES = {"accuracy": 1, "balanced_accuracy": 1, "nll_nats": -1}  # and which direction is better
QUANTILE = 1.96
FIRST = (8, 16, 32, 64, 96)  # steps: few labelled rows are soon learnt by heart
FLOPS = 3e7  # of a step


class Network(NamedTuple):
  """A network that is compiled once for a fold.

  Attributes:
    init: `(key) -> state`.
    train: `(state, data, steps) -> state` after so many more.
    log_prob: `(state, x [N, D]) -> [N, K]` in nats.
    num_batches: steps of an epoch.
  """
  init: Callable
  train: Callable
  log_prob: Callable
  num_batches: int


class Rows(NamedTuple):
  """Rows of a part of a fold: `x` [N, D] in standardised units, `label` [N], and the borehole `group` [N]."""
  x: np.ndarray
  label: np.ndarray
  group: np.ndarray


class Asked(NamedTuple):
  """What is measured: rows of the table before some are left out (0 = all), epochs and learning rate of a network."""
  rows: int
  epochs: int
  learning_rate: float


def every_fourth(config) -> Table:
  """The synthetic table with every fourth row of each borehole."""
  table = vae.read_lithology(config)
  rows = np.rint(table.truth["Depth_Bin"] * lithology.BINS_PER_METRE) % EVERY == 0
  return table._replace(features=table.features[rows], label=table.label[rows], group=table.group[rows],
                        facts=table.facts | {"rows": int(rows.sum())}, truth={})


@functools.cache
def read_fold(fold: int, asked: Asked) -> tuple[Any, Splits]:
  """(settings of `geology` without an assessment, sources) of a fold; all labels are there."""
  config = config_lib.with_values(config_lib.read_file(os.path.join(bench.ROOT, "configs/vae.py:geology")), {
      "data.split.kind": "leave_out", "data.split.num_folds": FOLDS, "data.split.fold": fold,
      "data.source": "label_fractions.every_fourth", "data.row_limit": asked.rows, "train.num_epochs": asked.epochs,
      "optim.learning_rate": asked.learning_rate, "eval.parts": (), "eval.transfer": ()})
  found = vae.load(config)
  return config_lib.with_values(config, {"optim.decay_steps": asked.epochs * found.train.num_batches}), found


def rows_of(source) -> Rows:
  """The rows of a source."""
  named = source.rows(np.arange(source.num_rows))
  return Rows(named["x"], named["label"], named["group"])


@functools.cache
def make_network(decoding: bool, fold: int, asked: Asked) -> Network:
  """The network for a fold, with the decoder's terms or without."""
  config, found = read_fold(fold, asked)
  config = config_lib.with_values(config, {} if decoding else {"loss.weights.recon": 0.0, "loss.weights.kl": 0.0})
  model, experiment = vae.make_model(config, found.meta), vae.make(config, found.meta)
  one_step = step_lib.make_one_step(experiment, found.train, parallel.over_whole, config.train.on_nonfinite)

  def train(state, data, steps):
    totals = jax.eval_shape(one_step, state, data, step_lib.stream_keys(state))[1]
    return step_lib.make_repeat(one_step)(state, step_lib.zero_totals(totals), data, steps)[0]

  def log_prob(state, x):
    return jax.nn.log_softmax(model.apply(predict.variables_of(state), x, jnp.ones(len(x))).logits)
  return Network(jax.jit(lambda key: experiment.init(key, None)), jax.jit(train), jax.jit(log_prob),
                 found.train.num_batches)


def nll_nats(prob: np.ndarray, label: np.ndarray) -> np.ndarray:
  """-log p [N] of the classes of rows, of probabilities [N, K] that the uniform distribution is mixed into."""
  own = np.asarray(prob[np.arange(len(label)), label], np.float64)
  return -np.log((1 - MIXED) * own + MIXED / prob.shape[1])


def train_network(network: Network, data: dict, val: Rows, epochs: int, seed: int) -> Any:
  """The state that is best on the validation rows."""
  state, best, least, done = network.init(rng.root_key(seed)), None, np.inf, 0
  ends = [step for step in FIRST if step < network.num_batches]
  for end in [*ends, *(network.num_batches * (k + 1) for k in range(epochs))]:
    state, done = network.train(state, data, jnp.int32(end - done)), end
    nll = nll_nats(np.exp(network.log_prob(state, val.x)), val.label).mean()
    best, least = (state, nll) if nll < least else (best, least)
  if best is None:
    raise FloatingPointError("no state has a finite likelihood of the validation rows")
  return best


def of_network(method: str, label: np.ndarray, fold: int, seed: int, asked: Asked) -> np.ndarray:
  """Probabilities [N, K] of the tested rows by a network that was trained on these labels (-1 = hidden)."""
  _, found = read_fold(fold, asked)
  network, data = make_network(method == "semi", fold, asked), found.train.data | {"label": label}
  if method == "alone":  # as many rows as before, so that it is the same program: each labelled one about as often
    data = {name: column[np.resize(np.flatnonzero(label >= 0), len(label))] for name, column in data.items()}
  state = train_network(network, data, rows_of(found.val), asked.epochs, seed)
  return np.exp(network.log_prob(state, rows_of(found.test).x))


def of_peer(kind: str, label: np.ndarray, fold: int, seed: int, asked: Asked) -> np.ndarray:
  """The same of one of scikit-learn's classifiers; a class that no labelled row has gets 0."""
  from sklearn import exceptions
  _, found = read_fold(fold, asked)
  has, test = np.flatnonzero(label >= 0), rows_of(found.test)
  prob, model = np.zeros((len(test.x), len(found.meta["class_names"]))), probes.make(kind)
  if "random_state" in model.get_params():
    model.set_params(random_state=seed)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", exceptions.ConvergenceWarning)  # after 100 iterations, as in `probes`
    model.fit(found.train.data["x"][has], label[has])
  prob[:, model.classes_] = model.predict_proba(test.x)
  return prob


def measure_one(method: str, share: float, fold: int, seed: int, asked: Asked) -> dict:
  """What a method says of the tested rows: classes, and -log p summed over the rows of each borehole; and seconds."""
  _, found = read_fold(fold, asked)
  label, test, began = found.train.data["label"], rows_of(found.test), time.process_time()
  if share < 1:
    label = splits_lib.hide_labels(label, np.arange(len(label)), share, splits_lib.label_random(seed))
  prob = (of_peer if method in PEERS else of_network)(method, label, fold, seed, asked)
  nats = np.bincount(np.unique(test.group, return_inverse=True)[1], nll_nats(prob, test.label))
  return {"predicted": prob.argmax(axis=1).tolist(), "nll_nats": nats.tolist(), "labelled": int((label >= 0).sum()),
          "seconds": time.process_time() - began}


def seed_of(method: str, share: float, seed: int) -> int:
  """The seed of an answer: with all labels those of scikit-learn's differ next to nothing, and one is enough."""
  return 0 if share == 1 and method in PEERS else seed


class Answers(NamedTuple):
  """What a method says of all rows of the table, of one seed: totals of `grouped` by borehole."""
  classes: np.ndarray
  nats: np.ndarray


def together(tested: list[Rows], found: list[dict], num_classes: int) -> Answers:
  """The answers of all folds; no borehole is in two."""
  classes, nats = [], []
  for rows, one in zip(tested, found):
    code = np.unique(rows.group, return_inverse=True)[1]
    groups = grouped.Groups(code, np.zeros((0, code.max() + 1)))
    classes.append(grouped.class_totals(groups, np.array(one["predicted"]), rows.label, num_classes))
    nats.append(np.stack([one["nll_nats"], np.bincount(code)], axis=1))
  return Answers(np.concatenate(classes), np.concatenate(nats))


def scores(answers: list[Answers]) -> np.ndarray:
  """SCORES of each seed, of all rows, then of resamples of boreholes [S, 1 + R, 3]."""
  num_groups, found = len(answers[0].nats), []
  groups = grouped.Groups(np.arange(num_groups), statistics.group_resamples(num_groups))
  for one in answers:
    of_classes = grouped.resampled(groups, one.classes, grouped.of_classes)[:, :2]
    found.append(np.column_stack([of_classes, grouped.resampled(groups, one.nats, grouped.mean_of)]))
  return np.stack(found)


def summarise(values: np.ndarray) -> dict[str, list[float]]:
  """[value, low, high] by score of what `scores` gives, or of the difference of two; of one seed without its share."""
  mean = values.mean(axis=0)
  of_seeds = [statistics.t_half_width(column) for column in values[:, 0].T] if len(values) > 1 else 0.0
  half = np.hypot(QUANTILE * mean[1:].std(axis=0), of_seeds)
  return {name: [float(mean[0, k] + sign * half[k]) for sign in (0, -1, 1)] for k, name in enumerate(SCORES)}


def wins(own: list[Answers], other: list[Answers], sizes: list[int]) -> dict[str, int]:
  """In how many folds of all seeds the first method is better, by score; `sizes`: boreholes of each fold."""
  ends, found = np.cumsum([0, *sizes]), dict.fromkeys(SCORES, 0)
  of_all = lambda one, a, b: [*grouped.of_classes(one.classes[a:b].sum(0, keepdims=True))[0, :2],
                              grouped.mean_of(one.nats[a:b].sum(0, keepdims=True))[0]]
  for a, b in zip(ends, ends[1:]):
    for one, two in zip(own, other):
      for (name, sign), x, y in zip(SCORES.items(), of_all(one, a, b), of_all(two, a, b)):
        found[name] += int(sign * (x - y) > 0)
  return found


def measure(folder: str, given) -> dict:
  """Scores by share and method, and what `semi` gains on each of the others."""
  asked = Asked(given.rows, given.epochs, given.learning_rate)
  bench.check_given(folder, asked._asdict() | {"mixed": MIXED, "every": EVERY})
  backend.set_up_process()
  backend.start_devices(config_lib.common().parallel, FLOPS)
  kept = {}
  for seed in range(given.seeds):  # outermost, so that what is there after a stop is whole seeds
    for fold in range(FOLDS):
      for share in SHARES:
        for method in METHODS:
          of_seed = seed_of(method, share, seed)
          kept[method, share, seed, fold] = bench.kept(
              folder, f"{method}-{share}-{of_seed}-{fold}",
              lambda m=method, s=share, f=fold, k=of_seed: measure_one(m, s, f, k, asked))
  tested = [rows_of(read_fold(fold, asked)[1].test) for fold in range(FOLDS)]
  num_classes = len(read_fold(0, asked)[1].meta["class_names"])
  sizes = [len(np.unique(rows.group)) for rows in tested]
  result = {"rows": sum(len(rows.x) for rows in tested), "boreholes": sum(sizes), "seeds": given.seeds,
            "epochs": asked.epochs, "learning_rate": asked.learning_rate, "shares": {}}
  for share in SHARES:
    answers = {method: [together(tested, [kept[method, share, seed, fold] for fold in range(FOLDS)], num_classes)
                        for seed in range(given.seeds)] for method in METHODS}
    found = {method: scores(some) for method, some in answers.items()}
    labelled = np.mean([kept["semi", share, seed, fold]["labelled"] for seed in range(given.seeds)
                        for fold in range(FOLDS)])
    result["shares"][str(share)] = {
        "labelled": float(labelled), "scores": {method: summarise(values) for method, values in found.items()},
        "gains": {method: summarise(found["semi"] - values) for method, values in found.items() if method != "semi"},
        "wins": {method: wins(answers["semi"], some, sizes) for method, some in answers.items() if method != "semi"}}
  tell(result)
  if given.draw:
    draw_figure(result, given.draw)
  return result


def tell(result: dict) -> None:
  """Prints the tables of the guide: scores, then gains of `semi`, by share and method."""
  for what, of in (("scores", METHODS), ("gains", [name for name in METHODS if name != "semi"])):
    for name in SCORES:
      print(f"\n{name}: {'of each method' if what == 'scores' else 'semi less the other (folds and seeds won)'}\n")
      bench.say_row("share", "labelled rows", *of)
      bench.say_row(*["---"] * (2 + len(of)))
      for share, one in result["shares"].items():
        cells = []
        for method in of:
          value, low, high = one[what][method][name]
          cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})" if what == "scores" else
                       f"{value:+.3f} ({low:+.3f} to {high:+.3f}), {one['wins'][method][name]}")
        bench.say_row(f"{float(share):.0%}", f"{one['labelled']:,.0f}", *cells)


def draw_figure(result: dict, path: str) -> None:
  """Above the scores by share of labels, a line a method; below what `semi` gains on each, with intervals."""
  shares = [float(share) for share in result["shares"]]
  with figures.styled():
    figure = figures.new_figure(9, 5)
    axes = figure.subplots(2, len(SCORES), sharex=True)
    for (above, below), name in zip(axes.T, SCORES):
      for k, (method, hue) in enumerate(zip(METHODS, figures.HUES)):
        own = [one["scores"][method][name][0] for one in result["shares"].values()]
        above.plot(shares, own, marker="o", markersize=3, color=hue, label=METHODS[method])
        if method != "semi":
          value, low, high = np.array([one["gains"][method][name] for one in result["shares"].values()]).T
          below.errorbar(np.array(shares) * 1.06 ** (k - 2), value, [value - low, high - value], color=hue,
                         marker="o", markersize=3, linewidth=0.8)
      below.axhline(0, color=figures.INK, linewidth=0.6)
      below.set_xscale("log")
      below.set_xticks(shares, [f"{share:.0%}" for share in shares])
      below.minorticks_off()
      below.set_xlabel("training rows with a label")
      above.set_title({"nll_nats": "-log p of the class, nats"}.get(name, name.replace("_", " ")))
    axes[1, 0].set_ylabel("semi-supervised less the other")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(METHODS), fontsize=8)
    figure.savefig(path, dpi=90)


def main() -> None:
  """Measures the curve."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--rows", type=int, default=0, help="of a smaller table; 0 = all 238,506")
  parser.add_argument("--epochs", type=int, default=20, help="of a network")
  parser.add_argument("--learning_rate", type=float, default=3e-3)
  parser.add_argument("--seeds", type=int, default=6)
  parser.add_argument("--draw", default="", help="file for the figure")
  bench.run_parts(parser, {"curve": measure})


if __name__ == "__main__":
  main()
