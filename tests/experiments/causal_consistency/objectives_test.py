"""The loss against float64 NumPy that writes each sum out, its limits, and NumPyro against it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from numpyro.infer import SVI, TraceEnum_ELBO
from scipy import integrate, special, stats

import consistency_cases as cases
from jaxtrain import config as config_lib, rng, step as step_lib
from jaxtrain.devices import parallel
from jaxtrain.experiments.causal_consistency import bayes, consistency, joint, nets, objectives, svi

WEIGHTS = {"z_yx": 0.7, "y_xz": 1.3, "x_yz": 0.4, "y_x": 1.1}
K = 3


def random_output(seed=0, num_rows=6):
  """Log-probabilities of rows, normalised where they have to be."""
  random = np.random.RandomState(seed)
  normal = lambda: random.normal(size=(num_rows, K)).astype(np.float32)
  normalised = lambda a: special.log_softmax(a, axis=1)
  return nets.Output(normalised(normal()), normal(), normalised(2 * normal()), normal(), np.zeros(num_rows, np.float32))


def by_hand(objective, out, tau, beta):
  """What each row adds without a treatment, class by class, in float64; gradients are another test's."""
  found = []
  for prior, z, head, x in zip(*(np.asarray(part, np.float64) for part in out[:4])):
    q = [np.exp(h) for h in head]
    z_cost, prior_cost = [-WEIGHTS["z_yx"] * v for v in z], [-WEIGHTS["y_x"] * v for v in prior]
    x_cost, entropy = [-WEIGHTS["x_yz"] * v for v in x], -sum(a * np.log(a) for a in q)
    cost = [beta * (a + b) for a, b in zip(z_cost, prior_cost)]
    if objective == "seed":
      found.append(beta * sum(a * (b + c) for a, b, c in zip(q, z_cost, x_cost)) - tau * entropy)
    elif objective == "hard":
      best = int(np.argmax(head))
      found.append(beta * (z_cost[best] + prior_cost[best] + x_cost[best]))
    elif objective == "stopgrad":
      soft = [a ** (1 / tau) for a in q]
      found.append(beta * sum(a / sum(soft) * (b + c + d) for a, b, c, d in zip(soft, z_cost, prior_cost, x_cost)))
    elif objective == "free_energy":
      found.append(sum(a * (b + beta * c) for a, b, c in zip(q, cost, x_cost)) - tau * entropy)
    else:
      shares = [np.exp(-c / tau) for c in cost]
      found.append(-tau * np.log(sum(shares)) + sum(
          s / sum(shares) * (beta * b - WEIGHTS["y_xz"] * h) for s, b, h in zip(shares, x_cost, head)))
  return found


def dials_of(tau, beta=1.0):
  """Dials after the warm-up."""
  return objectives.Dials(jnp.float32(tau), jnp.float32(beta), jnp.ones(()))


@jax.jit
def every_row(out, tau, beta):
  """{objective: what each row adds}, by one program."""
  return {name: objectives.unlabelled_rows(name, out, WEIGHTS, dials_of(tau, beta)) for name in objectives.OBJECTIVES}


@jax.jit
def every_gradient(out, tau):
  """{objective: gradients of the sum of rows for (outcome, head)}."""
  def loss(parts, name):
    moved = out._replace(outcome=parts[0], head=parts[1])
    return jnp.sum(objectives.unlabelled_rows(name, moved, WEIGHTS, dials_of(tau)))
  return {name: jax.grad(loss)((out.outcome, out.head), name) for name in objectives.OBJECTIVES}


def rows(objective, out, tau, beta=1.0):
  """The same by the code."""
  return every_row(out, np.float32(tau), np.float32(beta))[objective]


@pytest.mark.parametrize("tau,beta", [(1.0, 1.0), (0.3, 0.6)])
@pytest.mark.parametrize("objective", objectives.OBJECTIVES)
def test_rows_without_a_treatment(objective, tau, beta):
  out = random_output()
  np.testing.assert_allclose(rows(objective, out, tau, beta), by_hand(objective, out, tau, beta), rtol=2e-5, atol=1e-6)


def test_cold_is_hard():
  """At tau = 0 `stopgrad` is `hard` to the bit, and near 0 it tends to it; `marginal` tends to the cheapest class."""
  out = random_output()
  np.testing.assert_array_equal(rows("stopgrad", out, 0.0), rows("hard", out, 1.0))
  np.testing.assert_allclose(rows("stopgrad", out, 0.002), rows("hard", out, 1.0), rtol=1e-4)
  cost = -WEIGHTS["z_yx"] * out.outcome - WEIGHTS["y_x"] * out.prior
  smallest = jax.jit(objectives.smallest)
  np.testing.assert_allclose(smallest(cost, np.float32(0)), cost.min(axis=1), rtol=1e-6)
  np.testing.assert_allclose(smallest(cost, np.float32(0.01)), cost.min(axis=1), atol=0.02)
  for tau, moved in ((0.0, 1), (1.0, K)):  # hard EM moves one class, soft EM all; none of it is NaN
    gradient = np.asarray(every_gradient(out, np.float32(tau))["marginal"][0])
    assert (np.count_nonzero(gradient, axis=1) == moved).all() and np.isfinite(gradient).all()


def test_entropy_of_the_seed_is_subtracted():
  """At uniform q the term is -tau ln 2, the original's own check."""
  even = np.full((1, 2), np.log(0.5), np.float32)
  out = nets.Output(even, 0 * even, even, 0 * even, np.zeros(1, np.float32))
  found = jax.jit(lambda out: objectives.unlabelled_rows("seed", out, WEIGHTS, dials_of(0.7)))(out)
  np.testing.assert_allclose(found, -0.7 * np.log(2), rtol=1e-6)


def test_the_free_energy_is_least_at_the_posterior():
  """At q = posterior it is -log p(z), so the likelihood; at any other q it is more."""
  out = random_output()._replace(covariates=np.zeros((6, K), np.float32))
  plain, posterior = dict.fromkeys(WEIGHTS, 1.0), special.log_softmax(out.prior + out.outcome, axis=1)
  energy = jax.jit(lambda head: objectives.unlabelled_rows("free_energy", out._replace(head=head), plain, dials_of(1)))
  np.testing.assert_allclose(energy(posterior), -np.logaddexp.reduce(out.prior + out.outcome, axis=1), rtol=1e-5)
  assert (np.asarray(energy(out.head)) > energy(posterior)).all()


@pytest.mark.parametrize("objective,through", [("seed", True), ("free_energy", True), ("stopgrad", False),
                                               ("hard", False), ("marginal", True)])
def test_where_gradients_flow(objective, through):
  """Through the imputing head where the objective says so; in `marginal` it is only pulled to the shares."""
  out = random_output()
  gradient = every_gradient(out, np.float32(1))[objective][1]
  assert bool((np.asarray(gradient) != 0).any()) == through
  if objective == "marginal":
    shares = np.exp(-np.asarray(WEIGHTS["z_yx"] * -out.outcome + WEIGHTS["y_x"] * -out.prior))
    np.testing.assert_allclose(gradient, -WEIGHTS["y_xz"] * shares / shares.sum(1, keepdims=True), rtol=1e-4)


def test_normals():
  log_prob = jax.jit(lambda mean, sd, x: nets.Normals(mean, sd).log_prob(x))
  want = stats.norm.logpdf(0.7, 0.5, 0.2) + stats.norm.logpdf(2.0, -1.0, 3.0)
  found = log_prob(*np.array([[[0.5, -1.0]], [[0.2, 3.0]], [[0.7, 2.0]]], np.float32))
  np.testing.assert_allclose(found, [want], rtol=1e-5)


def parts(**fields):
  """(config, problem, state, batch of training rows) of a small config."""
  config = config_lib.resolve(cases.configured(**fields))
  found = joint.load(config)
  config = config_lib.with_values(config, {"optim.decay_steps": 100})
  experiment = joint.make(config, found.meta)
  split = functools.partial(joint.sources.split_columns, found.meta)
  problem = objectives.Problem(joint.make_model(config, found.meta), split, config.loss, 2)
  batch = jax.jit(found.train.batch_at)(found.train.data, np.int32(0), cases.KEY)
  return config, problem, jax.jit(experiment.init)(rng.root_key(1), {}), batch, experiment


@pytest.mark.slow
@pytest.mark.parametrize("source", ["base", "iv"])
@pytest.mark.parametrize("objective", svi.OBJECTIVES)
@pytest.mark.parametrize("rate", [pytest.param(rate, marks=[pytest.mark.slow] * (rate != 0.5))
                                  for rate in (0.0, 0.5, 0.9)])
def test_numpyro_gives_the_same_loss(source, objective, rate):
  """At equal parameters, weights that differ from 1, some rows hidden or none, to 1e-5. NumPyro has the likelihood and
  the bound; what fits the other heads, and the penalties, are the same functions on both sides.
  """
  more = {"data.transforms": ("identity",) * 3, "loss.consistency": "y"} if source == "iv" else {
      "loss.consistency": "both"}
  _, p, state, batch, _ = parts(**{"data.source": source, "loss.objective": objective, "data.missing_rate": rate,
                                   "loss.weights.y_xz": 1.2, "loss.weights.x_yz": 0.5, "loss.weights.w_x": 0.6,
                                   "loss.warmup_epochs": 0}, **more)
  batch = consistency.with_anchors(batch)
  both = [step_lib.make_gradient(lambda params, s, chunk, key, lib=lib: lib.loss_sums(p, params, s, chunk, key),
                                 lambda b, lib=lib: lib.term_counts(p, b), lambda s, lib=lib: lib.weights(p, s.step))
          for lib in (objectives, svi)]
  own, numpyro_s = [jax.jit(lambda s, b, fn=fn: fn(s, b, cases.KEY, parallel.over_whole)[:2])(state, batch)
                    for fn in both]
  np.testing.assert_allclose(own[0], numpyro_s[0], rtol=1e-5)
  for a, b in zip(jax.tree.leaves(own[1]), jax.tree.leaves(numpyro_s[1])):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("objective", [pytest.param(name, marks=[pytest.mark.slow] * (name != "free_energy"))
                                       for name in svi.OBJECTIVES])
def test_a_step_is_that_of_numpyro_svi(objective):
  """One step of plain gradient descent and `SVI.update` of NumPyro on the same bound give the same parameters."""
  config, p, state, batch, experiment = parts(**{
      "train.backend": "svi", "loss.objective": objective, "loss.warmup_epochs": 0,
      "optim.name": "sgd", "optim.betas": (0.0, 0.0), "optim.schedule": "constant", "optim.learning_rate": 0.1})
  new, _ = jax.jit(lambda s, b: experiment.train_step(s, b, cases.KEY, parallel.over_whole))(state, batch)

  def sites(of, rows_):
    bound = p.model.bind({"params": numpyro.param("joint", state.params)})
    of(p, svi.Parts(*bound.with_normals(*p.split(rows_))), rows_, jnp.ones(()))

  with jax.numpy_rank_promotion("allow"):
    inference = SVI(functools.partial(sites, svi.row_model), functools.partial(sites, svi.row_guide),
                    optax.sgd(0.1 / len(batch["x"])), TraceEnum_ELBO())
    updated, _ = jax.jit(lambda rows_: inference.update(inference.init(cases.KEY, rows_), rows_))(batch)
  for a, b in zip(jax.tree.leaves(new.params), jax.tree.leaves(inference.get_params(updated)["joint"])):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_gaps_are_zero_in_one_joint():
  """For x ~ N(0, 1), y ~ Bernoulli(1/2), z = x + y + e the exact p(x | y, z) has no gap, and a shifted one has."""
  noise, random = 0.5, np.random.RandomState(0)
  x = random.normal(size=(64, 1))
  y = random.randint(2, size=64)
  z = x + y[:, None] + noise * random.normal(size=(64, 1))

  class Exact:
    shift = 0.0

    def given_outcomes(self, z):
      gain = 1 / (1 + noise ** 2)
      mean = gain * (z[:, None] - jnp.arange(2.0)[None, :, None]) + self.shift
      return nets.Normals(mean, jnp.full(mean.shape, (gain * noise ** 2) ** 0.5))

    def outcomes(self, x):
      mean = x[:, None] + jnp.arange(2.0)[None, :, None]
      return nets.Normals(mean, jnp.full(mean.shape, noise))

    def propensity(self, x, w):
      return jnp.full((len(x), 2), jnp.log(0.5))

    def impute(self, x, w, z):
      return jax.nn.log_softmax(nets.Normals(*self.outcomes(x)).log_prob(z[:, None]))

  split = lambda batch: (batch["x"][:, 1:], batch["x"][:, :0], batch["x"][:, :1])
  batch = consistency.with_anchors({"x": jnp.asarray(np.concatenate([z, x], 1), jnp.float32),
                                    "label": jnp.asarray(y, jnp.int32), "weight": jnp.ones(64)})
  model, shifted_model = Exact(), Exact()
  shifted_model.shift = 1.0

  @jax.jit
  def gaps(batch):
    xs, ws, zs = split(batch)
    out = nets.Output(model.propensity(xs, ws), model.outcomes(xs).log_prob(zs[:, None]), model.impute(xs, ws, zs),
                      model.given_outcomes(zs).log_prob(xs[:, None]), jnp.zeros(64))
    of_x = [jnp.mean(consistency.gap_x(one, out, split, batch)) for one in (model, shifted_model)]
    return jnp.max(jnp.abs(consistency.gap_y(out))), *of_x
  of_y, exact, shifted = map(float, gaps(batch))
  assert of_y < 1e-5
  assert exact < 0.1 < 0.5 < shifted, (exact, shifted)  # p(x) is an estimate from 16 rows: not quite 0


def test_kl_of_the_bayesian_network():
  """Against the integral of q log(q / p), parameter by parameter; priors by inputs of each layer."""
  full = lambda value, *shape: np.full(shape, value, np.float32)
  params = {"mean": {"l": {"kernel": full(0.3, 2, 4, 8), "bias": full(-0.2, 2, 8)}},
            "log_sd": {"l": {"kernel": full(-1.0, 2, 4, 8), "bias": full(-2.0, 2, 8)}}}

  def one(mean, sd, prior):
    q = stats.norm(mean, sd)
    return integrate.quad(lambda t: q.pdf(t) * (q.logpdf(t) - stats.norm.logpdf(t, 0, prior)), mean - 12 * sd,
                          mean + 12 * sd)[0]

  want = 64 * one(0.3, np.exp(-1), 1.5 / 2) + 16 * one(-0.2, np.exp(-2), 1.5 / 2)  # 4 inputs, prior_sd 1.5
  np.testing.assert_allclose(jax.jit(lambda p: bayes.kl_nats(p, 1.5))(params), want, rtol=1e-5)


@pytest.mark.slow
def test_a_bayesian_step_draws_once_for_all_rows():
  """Two halves of a batch in turn see the draw that the whole sees, and the KL counts once."""
  _, _, state, batch, experiment = parts(**{"model.bayesian": True, "loss.warmup_epochs": 0})
  in_halves = lambda fn, b, key: jax.tree.map(jnp.add, *(fn(step_lib.part(b, k, 2), key) for k in range(2)))
  whole, halves = [jax.jit(lambda s, b, over=over: experiment.train_step(s, b, cases.KEY, over))(state, batch)
                   for over in (parallel.over_whole, in_halves)]
  for a, b in zip(jax.tree.leaves(whole[0].params), jax.tree.leaves(halves[0].params)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(whole[1]["kl"][0], halves[1]["kl"][0], rtol=1e-6)


@functools.cache
def scheduled():
  """Compiled dials of a step of a config with schedules."""
  config = cases.configured(**{
      "loss.tau": 0.0, "loss.tau_schedule.shape": "linear", "loss.tau_schedule.start": 4.0,
      "loss.tau_schedule.num_epochs": 4, "loss.beta_schedule.shape": "linear", "loss.beta_schedule.start": 0.0,
      "loss.beta_schedule.num_epochs": 4, "loss.warmup_epochs": 3})
  return jax.jit(functools.partial(objectives.dials, objectives.Problem(None, None, config.loss, 2)))


@pytest.mark.parametrize("step, tau, beta, active", [
    (0, 4.0, 0.0, 0.0), (1, 4.0, 0.0, 0.0), (2, 3.0, 0.25, 0.0), (3, 3.0, 0.25, 0.0), (4, 2.0, 0.5, 0.0),
    (6, 1.0, 0.75, 1.0), (8, 0.0, 1.0, 1.0), (99, 0.0, 1.0, 1.0)])
def test_schedules_are_held_over_an_epoch(step, tau, beta, active):
  """Two steps an epoch: tau from 4 to 0 and beta from 0 to 1 in 4 epochs; 3 epochs on recorded treatments."""
  np.testing.assert_allclose(scheduled()(np.int32(step)), (tau, beta, active), rtol=1e-6)


def test_rows_without_a_treatment_move_nothing_in_the_warm_up():
  """Another outcome of a hidden row gives the same step, with the gaps penalised too; afterwards it does not."""
  _, p, state, batch, experiment = parts(**{"loss.consistency": "y", "loss.warmup_epochs": 1})
  hidden = jnp.argmax(batch["label"] < 0)
  other = batch | {"x": batch["x"].at[hidden, 0].add(1.0)}
  step = jax.jit(lambda s, b: experiment.train_step(s, b, cases.KEY, parallel.over_whole)[0].params)
  for at, same in ((0, True), (2, False)):  # two steps an epoch
    one, two = (jax.tree.leaves(step(state.replace(step=jnp.int32(at)), b)) for b in (batch, other))
    assert all(np.array_equal(a, b) for a, b in zip(one, two)) == same


@pytest.mark.slow
def test_padding_is_no_anchor():
  """A batch of 3 rows padded to 6 has the gap of the 3 rows by themselves."""
  _, p, state, batch, _ = parts(**{"loss.consistency": "both"})
  short = {name: leaf[:3] for name, leaf in batch.items()}
  padded = {name: jnp.concatenate([leaf[:3], leaf[2:3], leaf[2:3], leaf[2:3]]) for name, leaf in batch.items()}
  padded["weight"] = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
  bound = p.model.bind({"params": state.params})
  gap = lambda b: consistency.gap_x(bound, bound(*p.split(b)), p.split, consistency.with_anchors(b))[:3]
  np.testing.assert_allclose(gap(padded), gap(short), rtol=1e-4, atol=1e-6)
