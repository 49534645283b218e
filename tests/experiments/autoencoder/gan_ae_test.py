"""The step of an adversarial autoencoder: who moves when, by which rows; its modes of execution; what is refused."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import child
import gan_cases as cases
import stopping
from jaxtrain import config as config_lib, loop
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import adversarial, ae, gan_ae
from toys import modes

def changed(one, other):
  """How far the farthest parameter has moved."""
  gaps = jax.tree.map(lambda x, y: np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)).max(), one, other)
  return max(jax.tree.leaves(gaps))


def assert_same(one, other):
  """No bit differs."""
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
    np.testing.assert_array_equal(x, y)


def with_rows(batch, k, num_parts):
  """The batch with other numbers in the rows of its k-th part."""
  rows = np.arange(len(batch["weight"])) % num_parts == k
  return batch | {"globals": jnp.where(rows[:, None], batch["globals"] + 1.0, batch["globals"])}


@pytest.mark.slow
def test_both_sides_start_from_keys_of_their_own_and_the_average_is_of_the_autoencoder_alone():
  made = cases.made()
  state = made.state
  assert set(state.params) == set(state.opt_state) == {"model", "critic"} and set(state.ema) == {"model"}
  assert_same(state.ema["model"], state.params["model"])
  alone = ae.make(made.config, made.splits.meta).init(cases.KEY, made.batch)
  assert_same(alone.params["encoder"], state.params["model"]["encoder"])  # of the same key, whatever a critic draws
  twice = jax.eval_shape(made.experiment.init, cases.KEY, made.batch)
  assert jax.tree.structure(twice) == jax.tree.structure(state)


@pytest.mark.slow
def test_a_step_counts_once_moves_both_sides_and_averages_one():
  made = cases.made()
  old = made.begun
  new, metrics = made.stepped(old)
  assert new.step == old.step + 1
  assert all(changed(new.params[name], old.params[name]) > 1e-5 for name in ("model", "critic"))
  decay = made.config.optim.ema_decay
  for ema, before, now in zip(*map(jax.tree.leaves, (new.ema["model"], old.params["model"], new.params["model"]))):
    np.testing.assert_allclose(ema, decay * np.asarray(before, np.float64) + (1 - decay) * np.asarray(now, np.float64),
                               rtol=1e-5, atol=1e-6)
  assert set(metrics) - set(gan_ae.METRICS) == {"square", "moments"}  # which only a summary reads
  assert {"critic_loss", "adversarial", "adversarial_weight", "real_logit", "fake_logit", "critic_accuracy", "r1",
          "critic_lr", "critic_grad_norm", "lr", "grad_norm", *made.game.problem.terms} <= set(metrics)
  mean = {name: total / count for name, (total, count) in metrics.items() if jnp.ndim(total) == 0}
  np.testing.assert_allclose([mean["adversarial_weight"], mean["critic_lr"], mean["lr"]], [0.1, 2e-3, 1e-3], rtol=1e-6)


@pytest.mark.slow
def test_each_update_sees_rows_of_its_own():
  """Two of the critic, one of the other networks. What a part's rows are changes what follows, and nothing before."""
  made = cases.made()
  assert made.experiment.batch_parts == 3
  plain, metrics = made.stepped(made.begun)
  seen = [made.stepped(made.begun, with_rows(made.batch, k, 3))[0] for k in range(3)]
  events = [float(jnp.sum(jax.tree.map(lambda x: x[k::3], made.batch["weight"]))) for k in range(3)]
  np.testing.assert_allclose([metrics["critic_loss"][1], metrics["adversarial"][1]], [sum(events[:2]), events[2]],
                             rtol=1e-5)
  assert all(changed(seen[k].params["critic"], plain.params["critic"]) > 1e-7 for k in (0, 1))
  assert_same(seen[2].params["critic"], plain.params["critic"])
  assert changed(seen[2].params["model"], plain.params["model"]) > 1e-6


@pytest.mark.slow
def test_each_side_has_a_rate_of_its_own():
  made = cases.made()
  rates = {"critic": {"critic_rate": 0.0}, "model": {"rate": 0.0}}
  for still, moves in (("critic", "model"), ("model", "critic")):
    new, _ = made.stepped(made.begun, **rates[still])
    assert_same(new.params[still], made.state.params[still])
    assert changed(new.params[moves], made.state.params[moves]) > 1e-5


@pytest.mark.slow
def test_before_its_start_the_critic_stays_and_has_no_say():
  """The step is that of a game whose adversarial loss has no weight."""
  made = cases.made()
  first, metrics = made.stepped(made.state)
  assert made.state.step < cases.START and metrics["adversarial_weight"][0] == 0.0
  for part in ("params", "opt_state"):
    assert_same(getattr(first, part)["critic"], getattr(made.state, part)["critic"])
  assert_same(first.params["model"], made.stepped(made.state, lambda_adv=0.0)[0].params["model"])
  assert changed(first.params["model"], made.state.params["model"]) > 1e-5


@pytest.mark.slow
def test_the_adversarial_loss_moves_the_decoder_by_its_weight():
  """Two weights give two decoders; the critic, updated before, is the same."""
  made = cases.made()
  small, large = (made.stepped(made.begun, lambda_adv=weight)[0].params for weight in (0.0, 10.0))
  assert_same(small["critic"], large["critic"])
  assert changed(small["model"]["decoder"], large["model"]["decoder"]) > 1e-5


@pytest.mark.slow
def test_the_adaptive_weight_takes_the_place_of_a_fixed_one():
  made = cases.made(model__critic__adaptive=True)
  _, metrics = made.stepped(made.begun)
  weight = float(metrics["adversarial_weight"][0])
  assert 0 < weight < 0.1 * adversarial.MOST_ADAPTIVE and abs(weight - 0.1) > 1e-4
  np.testing.assert_allclose(made.stepped(made.begun, lambda_adv=0.3)[1]["adversarial_weight"][0], 3 * weight,
                             rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [
    *({"model__critic__loss": kind} for kind in adversarial.KINDS[1:]), {"model__critic__r2_gamma": 1.0},
    {"model__latent__kind": "vq"}, {"model__latent__kind": "fsq", "model__latent__levels": (4, 3)},
    {"model__latent__per_object": True}, {"model__decoder__kind": "mlp"}, {"optim__ema_decay": 0.0},
    {"model__dropout": 0.2}, {"train__precision": "bfloat16"}])
def test_every_kind_trains_with_finite_numbers(fields):
  made = cases.made(**fields)
  state = made.begun
  for k in range(2):
    state, metrics = made.stepped(state, key=jax.random.key(k))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(metrics)), fields
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, state.opt_state)))
  assert changed(state.params["critic"], made.state.params["critic"]) > 0


@pytest.mark.slow
def test_the_critic_learns_to_tell_events_that_hardly_change():
  """With the other networks at rest it gets better than chance: 80 updates on 16 events each."""
  made = cases.made(model__critic__r1_gamma=0.01)
  state, losses = made.begun, []
  for k in range(40):
    state, metrics = made.stepped(state, key=jax.random.key(k), rate=0.0, critic_rate=5e-3)
    losses.append(float(metrics["critic_loss"][0] / metrics["critic_loss"][1]))
  assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
  assert metrics["critic_accuracy"][0] / metrics["critic_accuracy"][1] > 0.7


@pytest.mark.slow
def test_what_is_assessed_and_applied_is_the_autoencoder():
  """As of a state without a critic, by the averaged parameters."""
  made = cases.made()
  state, _ = made.stepped(made.begun)
  alone = gan_ae.autoencoder_of(state)
  assert alone.params is state.params["model"] and alone.applied is state.ema["model"]
  of_ae = ae.make(made.config, made.splits.meta)
  assert set(made.experiment.predict) == set(of_ae.predict) and "generate" in made.experiment.predict
  one, other = (verbs["generate"].run(given, None, 5, cases.KEY)
                for verbs, given in ((made.experiment.predict, state), (of_ae.predict, alone)))
  assert set(one) == set(other)
  for name in one:
    np.testing.assert_array_equal(one[name], other[name])
  assert set(made.experiment.assess) == set(of_ae.assess)
  scalars, _ = made.experiment.assess["val"](state, made.splits, cases.KEY)
  assert scalars == of_ae.assess["val"](alone, made.splits, cases.KEY)[0]


def test_without_an_average_the_parameters_themselves_are_applied():
  state = cases.made().filled().state.replace(ema=None)
  assert gan_ae.autoencoder_of(state).applied is state.params["model"]


def test_a_critic_that_is_never_wrong_raises_an_alarm():
  p = cases.made().game.problem
  assert not any("critic" in text for text in gan_ae.alarms(p, {"val_critic_accuracy": 0.9}))
  assert "100.0% of events" in gan_ae.alarms(p, {"val_critic_accuracy": 1.0})[-1]


def test_a_decoder_without_noise_is_noted():
  made = cases.made()
  assert made.experiment.notes == ()
  config = cases.configured(model__decoder__kind="mlp", optim__decay_steps=10, optim_critic__decay_steps=10)
  for loop_of in (gan_ae, ae):
    said, = loop_of.make(config, made.splits.meta).notes
    assert said.startswith("config.model.decoder.kind=mlp reads no noise")


def test_what_has_no_effect_is_noted():
  made = cases.made()
  steps = made.config.train.num_epochs * made.splits.meta["steps_per_epoch"]
  noted = lambda **fields: gan_ae.make(
      cases.configured(optim__decay_steps=10, optim_critic__decay_steps=10, **fields), made.splits.meta).notes
  assert noted(model__critic__start_step=steps - 1) == ()
  assert f"start_step={steps} is not before the end of the run's {steps} steps" in noted(
      model__critic__start_step=steps)[0]
  assert "no verb generate" in noted(model__latent__per_object=True)[0]


def test_a_batch_divides_into_its_parts():
  with pytest.raises(UserError, match="train.batch_size: got 32, allowed multiples of 3"):
    loop.train(cases.configured(train__batch_size=32))


def own_decoder(settings, meta):
  """A factory as `model.decoder.own` names it."""
  raise NotImplementedError


def test_an_adaptive_weight_needs_a_last_layer():
  config = cases.configured(model__critic__adaptive=True, model__decoder__own=(f"{__name__}.own_decoder",))
  with pytest.raises(UserError, match="config.model.critic.adaptive: got True with a decoder of your own"):
    gan_ae.make_game(config, cases.made().splits.meta)


def critic_loss(batch, out):
  """A term of one's own under the name of another."""
  raise NotImplementedError


def test_names_of_the_game_are_taken():
  config = cases.configured(loss__extra=(f"{__name__}.critic_loss",))
  with pytest.raises(UserError, match="the name 'critic_loss' of .* is taken"):
    gan_ae.make_game(config, cases.made().splits.meta)


def in_child(num_devices, *which):
  """{mode: outcome} of runs on so many devices."""
  environ = os.environ | child.USUAL | {"PYTHONPATH": os.pathsep.join((child.ROOT, os.path.join(child.ROOT, "tests"))),
                                        "JAX_NUM_CPU_DEVICES": str(num_devices)}
  done = subprocess.run([sys.executable, "-m", "gan_cases", *which], cwd=child.ROOT, timeout=500, text=True,
                        capture_output=True, env=environ)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_modes_agree():
  """Canonical has one digest on one, two and eight devices; all others come to the same numbers."""
  one = {mode: modes.outcome(loop.train(cases.of_mode(mode))) for mode in ("jit", "chunks", "canonical")}
  two, eight = in_child(2, "pmap", "canonical"), in_child(8, "canonical")
  assert one["canonical"]["digest"] == two["canonical"]["digest"] == eight["canonical"]["digest"]
  for other in (one["jit"], one["chunks"], two["pmap"]):
    for path, leaf in one["canonical"]["leaves"].items():
      np.testing.assert_allclose(leaf, other["leaves"][path], rtol=1e-3, atol=1e-5, err_msg=path)
    np.testing.assert_allclose(one["canonical"]["losses"], other["losses"], rtol=1e-4)


@pytest.mark.slow
def test_members_of_a_sweep_have_the_bits_of_runs_alone(tmp_path):
  """Seeds, both learning rates and the weight of the adversarial loss differ."""
  keys = ("seed", "optim.learning_rate", "optim_critic.learning_rate", "model.critic.lambda_adv")
  settings = [dict(zip(keys, values)) for values in ((0, 1e-3, 2e-3, 0.1), (3, 3e-3, 1e-3, 0.5))]
  configured = lambda values: config_lib.with_values(cases.short(), values)
  members = modes.sweep(tmp_path / "sweep", "gan_ae", configured, settings)
  for member, values in zip(members, settings):
    loop.train(configured(values), str(tmp_path / f"{values['seed']}"))
    assert child.inspect(member)["digest"] == child.inspect(str(tmp_path / f"{values['seed']}"))["digest"]
    assert child.facts(member) == child.facts(str(tmp_path / f"{values['seed']}"))


@pytest.mark.slow
def test_stopped_and_resumed_it_ends_as_one_never_stopped(tmp_path, monkeypatch):
  straight = loop.train(cases.short(), str(tmp_path / "straight"))
  resumed, stops = stopping.train(cases.short(), str(tmp_path / "run"), monkeypatch, every=3, num_steps=2)
  assert stops >= 1 and resumed.digest == straight.digest
  assert child.facts(str(tmp_path / "run")) == child.facts(str(tmp_path / "straight"))
