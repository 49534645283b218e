"""Deep ensembles: each member learns what it would alone, metrics are means, verbs average what may be averaged."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import outside
from jaxtrain import config as config_lib, ensemble, loop, rng, step
from jaxtrain.errors import NonFinite
from jaxtrain.run import trained
from jaxtrain.types import Experiment, Verb

over = lambda fn, batch, key: fn(batch, key)
halting = functools.partial(step.guard_step, on_nonfinite="halt")


def made(num_members):
  """(experiment, that of one member, batch) of the regression outside, with noise in its start."""
  config = config_lib.resolve(outside.get_config("table"))
  splits = outside.load(config)
  one = outside.make(config, splits.meta)
  zero = one.init
  slope = lambda key: jax.random.normal(rng.stream_key(key, "init"), (3, 1))
  start = lambda key, sample: zero(key, sample).replace(params={"slope": slope(key)})
  one = one._replace(init=start)
  batch = splits.train.batch_at(jax.tree.map(jnp.asarray, splits.train.data), 0, jax.random.key(1))
  return ensemble.wrap(one, num_members, halting), one, batch


@pytest.mark.slow
def test_members_are_those_of_runs_of_their_own():
  """Two members after five steps, against each alone in a Python loop."""
  both, one, batch = made(2)
  state, key = both.init(jax.random.key(0), {}), jax.random.key(5)
  alone = [one.init(rng.step_key(jax.random.key(0), k), {}) for k in range(2)]
  for _ in range(5):
    state, metrics = both.train_step(state, batch, key, over)
    alone, each = zip(*[one.train_step(s, batch, rng.step_key(key, k), over) for k, s in enumerate(alone)])
  for k in range(2):
    np.testing.assert_allclose(ensemble.member(state, k).params["slope"], alone[k].params["slope"], rtol=1e-6)
    assert (jax.random.key_data(ensemble.member(state, k).key) == jax.random.key_data(alone[k].key)).all()
  assert not np.allclose(alone[0].params["slope"], alone[1].params["slope"])
  assert int(state.step) == 5
  losses = [np.divide(*m["loss"]) for m in each]
  np.testing.assert_allclose(np.divide(*metrics["loss"]), np.mean(losses), rtol=1e-6)
  np.testing.assert_allclose(np.divide(*metrics["member_loss"]), losses, rtol=1e-6)


def test_scalars_of_an_assessment():
  found = ensemble.mean_and_deviation([{"rows": 5, "r2": 0.5, "a/b": 1.0}, {"rows": 5, "r2": 0.7, "a/b": 2.0}])
  assert found == pytest.approx({"rows": 5, "r2": 0.6, "a/b": 1.5, "sd_r2": np.std([0.5, 0.7], ddof=1)})


def verb(several, decide=None):
  """A verb whose column is the member's slope, and what two members make of it."""
  run = lambda state, columns, num, key: {"y": np.full(num or 3, float(state.params["slope"][0, 0])),
                                          "label": np.array(["a"] * (num or 3), object)}
  pure = lambda state: ((lambda x: x * state.params["slope"][0, 0]), 1)
  one = Verb(run, pure, several, inputs=() if several == "turns" else None, counts=several == "turns", decide=decide)
  return ensemble.wrap(Experiment(None, None, None, predict={"v": one}), 2, halting).predict["v"]


def test_verbs():
  state = made(2)[0].init(jax.random.key(0), {})
  a, b = (float(state.params["slope"][k, 0, 0]) for k in range(2))
  decide = lambda columns: {"label": np.array([f"{columns['y'][0]:.3f}"] * 3, object)}
  mean = verb("mean", decide)
  columns = mean.run(state, None, 0, jax.random.key(0))
  np.testing.assert_allclose(columns["y"], (a + b) / 2)
  np.testing.assert_allclose(columns["y_sd"], np.std([a, b], ddof=1))
  assert columns["label"][0] == f"{(a + b) / 2:.3f}" and set(columns) == {"y", "y_sd", "label"}
  np.testing.assert_allclose(mean.pure(state)[0](jnp.ones((1, 1))), (a + b) / 2, rtol=1e-6)
  each = verb("each")
  assert set(each.run(state, None, 0, jax.random.key(0))) == {"m0_y", "m1_y", "m0_label", "m1_label"}
  np.testing.assert_allclose(each.pure(state)[0](jnp.ones((1, 1))), [[a, b]], rtol=1e-6)
  np.testing.assert_allclose(verb("turns").run(state, None, 3, jax.random.key(0))["y"], [a, a, b])


def test_cells_that_members_agree_on_stay_to_the_bit_and_deviations_are_of_the_mixture():
  """0.1 three times has another mean in floating point; 1 and 3 with deviations 2 and 4: variance 2 + (4 + 16) / 2."""
  one = Verb(None, None, "mean", replaces=True)
  each = [{"a": np.array([0.1, value]), "a_sd": np.array([0.0, sd]), "b": np.array([0.1, 0.7])}
          for value, sd in ((1.0, 2.0), (3.0, 4.0))]
  found = ensemble.join(one, each)
  assert set(found) == {"a", "a_sd", "b"} and found["a"].tolist() == [0.1, 2.0] and found["b"].tolist() == [0.1, 0.7]
  np.testing.assert_allclose(found["a_sd"], [0, np.sqrt(2 + 10)])
  three = ensemble.join(one, [{"a": np.array([0.1])}] * 3)
  assert three["a"].tolist() == [0.1] and np.mean([0.1] * 3) != 0.1


@pytest.mark.slow
def test_an_ensemble_resumes_and_predicts(tmp_path):
  """One run of three members, stopped in the middle and gone on with; classes from mean probabilities."""
  config = config_lib.read_file("configs/vae.py:breast_cancer")
  for key, value in {"train.num_members": 3, "train.num_epochs": 2, "checkpoint.every_epochs": 1, "log.progress": False,
                     "log.figures": "none", "model.hidden_dims": (8,)}.items():
    config_lib.assign(config, key, value)
  straight = loop.train(config, str(tmp_path / "a"))
  config.train.num_epochs = 1
  loop.train(config, str(tmp_path / "b"))
  config.train.num_epochs = 2
  assert loop.train(config, str(tmp_path / "b")).digest == straight.digest
  run = trained.restore(str(tmp_path / "a"), "last")
  experiment, state = run.experiment, run.state
  slopes = jax.tree.leaves(state.params)
  assert all(leaf.shape[0] == 3 for leaf in slopes) and not np.allclose(slopes[0][0], slopes[0][1])
  from jaxtrain.data import files, tables
  table = tables.read_sklearn("breast_cancer")
  columns = files.Columns("x", {name: table.features[:20, d].astype(object)
                                for d, name in enumerate(table.feature_names)}, "row {}")
  found = experiment.predict["classify"].run(state, columns, 0, jax.random.key(0))
  best = np.where(found["prob_malignant"] > found["prob_benign"], "malignant", "benign")
  assert (found["pred_label"] == best).all() and (found["prob_malignant_sd"] > 0).any()


def diverging(monkeypatch, members):
  """Lets these members of the regression outside diverge at their steps ({number: step}), known by their keys."""
  def spoil(config, state, new, metrics):
    for k, at in members.items():
      key_of_member = jax.random.key_data(rng.step_key(rng.root_key(config.seed), k))
      hit = (jax.random.key_data(state.key) == key_of_member).all() & (state.step == at)
      new = new.replace(params=jax.tree.map(lambda leaf: jnp.where(hit, jnp.inf, leaf), new.params))
    return new, metrics

  outside.change_steps(monkeypatch, spoil)


def ensemble_of_three(workdir=None, **fields):
  config = outside.get_config("table")
  for key, value in ({"train.num_members": 3} | fields).items():
    config_lib.assign(config, key, value)
  return loop.train(config, workdir)


@pytest.mark.slow
def test_a_member_that_diverges_halts_alone(tmp_path, monkeypatch):
  """At step 12 of 42: it keeps its state of then, the others end as they would without it, and the facts say so."""
  whole = ensemble_of_three()
  diverging(monkeypatch, {1: 12})
  broken = ensemble_of_three(str(tmp_path / "run"))
  guard = broken.state.guard
  assert guard.stopped.tolist() == [False, True, False] and guard.first_bad.tolist() == [-1, 12, -1]
  assert guard.num_bad.tolist() == [0, 1, 0] and int(broken.state.step) == 42
  slopes, others = (np.asarray(result.state.params["slope"]) for result in (broken, whole))
  np.testing.assert_allclose(slopes[[0, 2]], others[[0, 2]], rtol=1e-6)
  assert np.isfinite(slopes).all() and not np.allclose(slopes[1], others[1], rtol=1e-2)
  with open(tmp_path / "run" / "facts" / "events.jsonl", encoding="utf-8") as file:
    events = [json.loads(line) for line in file]
  alarms = {event["step"]: event["alarms"] for event in events if event["moment"] == "on_epoch_end"}
  assert alarms[7] == [] and {step: alarms[step] for step in alarms if step > 7} == {
      step: ["1 steps left out as not finite", "member 1 halted at step 12"] for step in (14, 21, 28, 35, 42)}
  assert np.isfinite(broken.history["loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pmap", "canonical"])
def test_a_member_that_diverges_halts_alone_in_every_mode(mode, monkeypatch):
  """Batches of 20 of the 100 rows, which divide into chunks."""
  fields = {"parallel.mode": mode, "train.batch_size": 20, "train.num_steps": 20, "train.num_epochs": 0}
  whole = ensemble_of_three(**fields)
  diverging(monkeypatch, {1: 12})
  broken = ensemble_of_three(**fields)
  assert broken.state.guard.stopped.tolist() == [False, True, False] and int(broken.state.step) == 20
  slopes, others = (np.asarray(result.state.params["slope"]) for result in (broken, whole))
  np.testing.assert_allclose(slopes[[0, 2]], others[[0, 2]], rtol=1e-6)
  assert np.isfinite(slopes).all() and not np.allclose(slopes[1], others[1], rtol=1e-2)


@pytest.mark.slow
def test_a_run_ends_once_all_its_members_have_halted(monkeypatch):
  diverging(monkeypatch, {0: 9, 1: 12, 2: 20})
  with pytest.raises(NonFinite, match="step 20: the new state is not finite"):
    ensemble_of_three()
