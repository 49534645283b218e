"""What the toys compute, held to float64 NumPy that shares no code with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import config as config_lib, rng
from jaxtrain.run import packing, setup
from toys import codebook, gan, modes


class Walk:
  """A toy's guarded step taken one at a time; holds the state, and the batch and key that a step sees."""

  def __init__(self, toy, **fields):
    self.config = config_lib.resolve(modes.configured(toy, **fields))
    self.parts = setup.assemble(self.config)
    self.source = self.parts.splits.train
    self.data = jax.tree.map(jnp.asarray, self.source.data)
    self.state = jax.jit(self.parts.init)(rng.root_key(0), self.data)
    self.first = self.state

  def seen(self):
    """(batch as float64, key) of the next step."""
    step = int(self.state.step)
    batch = self.source.batch_at(self.data, step, rng.key_for(0, "data"))
    return {k: np.asarray(v, np.float64) for k, v in batch.items()}, rng.step_key(rng.key_for(0, "train"), step)

  def __iter__(self):
    """Steps without end: (state before, batch, key, state after, metrics)."""
    keys = rng.key_for(0, "data"), rng.key_for(0, "train")
    while True:
      before, (batch, key) = self.state, self.seen()
      self.state, metrics = self.parts.one_steps[0](before, self.data, keys)
      yield wide(before), batch, key, wide(self.state), {k: (np.float64(s), np.float64(c)) for k, (s, c) in
                                                         metrics.items() if np.ndim(s) == 0}


def wide(state):
  """Leaves of a state by path, floats as float64."""
  leaves = packing.host_leaves(state)
  return {path: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf for path, leaf in leaves.items()}


def slopes(loss, params):
  """Gradient of a loss by central differences."""
  found = {}
  for name, leaf in params.items():
    found[name] = np.zeros(leaf.shape)
    for index in np.ndindex(leaf.shape):
      up, down = leaf.copy(), leaf.copy()
      up[index] += 1e-5
      down[index] -= 1e-5
      found[name][index] = (loss(params | {name: up}) - loss(params | {name: down})) / 2e-5
  return found


def test_a_step_of_the_gan():
  """Two updates of the critic, each on rows of its own, then one of the generator; neither moves the other."""
  plain = {f"{section}.{name}": value for section in ("optim", "optim_critic")
           for name, value in (("name", "sgd"), ("betas", (0.0, 0.0)))}
  before, batch, key, after, metrics = next(iter(Walk("gan", **plain)))
  own = lambda state, name: {path.rpartition("/")[2]: leaf for path, leaf in state.items()
                             if path.startswith(f"params/{name}/")}
  generator, critic = own(before, "generator"), own(before, "critic")
  z = np.asarray(jax.random.normal(rng.step_key(key, 3), (24, gan.NOISE_DIM)), np.float64)
  softplus = lambda x: np.logaddexp(0.0, x)
  make = lambda params, k: z[k::3] @ params["w"] + params["b"]
  judge = lambda params, x: (np.tanh(x @ params["w"] + params["b"]) @ params["v"])[:, 0]
  critic_losses = []
  for k in range(2):
    real, fake = batch["x"][k::3], make(generator, k)
    loss = lambda params: (softplus(-judge(params, real)) + softplus(judge(params, fake))).mean()
    critic_losses.append(loss(critic))
    critic = {name: critic[name] - 0.05 * slope for name, slope in slopes(loss, critic).items()}
  loss = lambda params: softplus(-judge(critic, make(params, 2))).mean()
  moved = {name: generator[name] - 0.02 * slope for name, slope in slopes(loss, generator).items()}
  for name, want in (("critic", critic), ("generator", moved)):
    for leaf in want:
      np.testing.assert_allclose(own(after, name)[leaf], want[leaf], rtol=1e-5, atol=1e-6)
  for leaf in moved:
    np.testing.assert_allclose(after[f"ema/generator/{leaf}"], 0.9 * generator[leaf] + 0.1 * moved[leaf], rtol=1e-5,
                               atol=1e-6)
  assert not any("critic" in path for path in after if path.startswith("ema/"))
  assert after["step"] == 1
  assert np.divide(*metrics["loss"]) == pytest.approx(loss(generator), rel=1e-5)
  assert np.divide(*metrics["critic_loss"]) == pytest.approx(np.mean(critic_losses), rel=1e-5)
  assert metrics["critic_loss"][1] == 16 and metrics["loss"][1] == 8  # rows


@pytest.mark.slow
def test_every_learning_rate_of_a_second_section_is_of_its_schedule():
  rates = [np.divide(*metrics["critic_lr"]) for *_, metrics in (step for step, _ in zip(Walk("gan"), range(40)))]
  np.testing.assert_allclose(rates, 0.05 * 0.5 * (1 + np.cos(np.pi * np.arange(40) / 40)), rtol=1e-4)
  assert min(rates) > 0


@pytest.mark.slow
def test_the_codebook_starts_from_data_and_follows_it():
  """First codes: greedily the farthest of the first 32 rows; then moving averages, and fresh rows for dead codes."""
  walk = Walk("codebook")
  batches = [walk.source.batch_at(walk.data, k, rng.key_for(0, "data"))["x"] for k in range(2)]
  state = wide(walk.first)
  latents = np.concatenate(batches).astype(np.float64) @ state["params/tokeniser/w"]
  chosen = [0]
  while len(chosen) < codebook.NUM_CODES:
    gaps = [min(((row - latents[k]) ** 2).sum() for k in chosen) for row in latents]
    chosen.append(int(np.argmax(gaps)))
  np.testing.assert_allclose(state["model_state/book/codes"], latents[chosen], rtol=1e-6)
  book = {name: state[f"model_state/book/{name}"] for name in ("codes", "counts", "sums", "idle")}
  mean, revived = np.zeros(3), 0
  for before, batch, key, after, metrics in (step for step, _ in zip(walk, range(15))):
    z, weight = batch["x"] @ before["params/tokeniser/w"], batch["weight"]
    near = np.argmin(((z[:, None] - book["codes"]) ** 2).sum(-1), axis=1)
    one_hot = np.eye(codebook.NUM_CODES)[near] * weight[:, None]
    used, pick = one_hot.sum(0), np.asarray(codebook.picked(jnp.float32(weight), rng.step_key(key, 0)))
    assert (pick.sum(0) == 1).all() and len(set(pick.argmax(0))) == 4 and (weight[pick.argmax(0)] == 1).all()
    book["idle"] = np.where(used > 0, 0, book["idle"] + 1)
    dead = book["idle"] >= 2
    book["idle"][dead] = 0
    book["counts"] = np.where(dead, 1.0, 0.8 * book["counts"] + 0.2 * used)
    book["sums"] = np.where(dead[:, None], z[pick.argmax(0)], 0.8 * book["sums"] + 0.2 * one_hot.T @ z)
    book["codes"] = book["sums"] / book["counts"][:, None]
    for name, want in book.items():
      np.testing.assert_allclose(after[f"model_state/book/{name}"], want, rtol=1e-4, atol=1e-5, err_msg=name)
    mean = 0.9 * mean + 0.1 * (weight @ batch["x"]) / weight.sum()
    np.testing.assert_allclose(after["model_state/stats/mean"], mean, rtol=1e-4, atol=1e-5)
    assert metrics["revived"][0] == dead.sum()
    revived += dead.sum()
  assert revived >= 2
  kept = {path: str(leaf.dtype) for path, leaf in packing.host_leaves(walk.state).items() if "book" in path}
  assert {path.rpartition("/")[2]: dtype for path, dtype in kept.items()} == {
      "codes": "float32", "counts": "float32", "sums": "float32", "idle": "int32", "start": "bfloat16"}
  assert (after["model_state/book/start"] == state["model_state/book/start"]).all()


def test_perplexity_is_that_of_all_that_was_seen():
  totals = {"usage": (jnp.array([6.0, 2.0, 0.0, 0.0]), jnp.float32(8.0))}
  want = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
  assert float(codebook.summarise(totals)["perplexity"]) == pytest.approx(want, rel=1e-6)


@pytest.mark.slow
def test_the_bound_of_the_mixture():
  """The exact log likelihood of the rows given one draw of the centres, by logsumexp; the KL of normals, once."""
  for before, batch, key, _, metrics in (step for step, _ in zip(Walk("svi"), range(6))):
    scale = np.exp(before["params/log_scale"])
    noise = np.asarray(rng.normal(rng.step_key(key, 0), (3, 3)), np.float64)
    centres = before["params/mean"] + scale * noise
    logits = before["params/logits"] - np.logaddexp.reduce(before["params/logits"])
    squares = ((batch["x"][:, None] - centres) ** 2).sum(-1)
    rows = np.logaddexp.reduce(logits - 0.5 * squares - 1.5 * np.log(2 * np.pi), axis=1)
    kl = (np.log(3.0 / scale) + (scale ** 2 + before["params/mean"] ** 2) / 18.0 - 0.5).sum()
    likelihood = -(batch["weight"] @ rows)
    assert metrics["likelihood"][0] == pytest.approx(likelihood, rel=1e-5)
    assert metrics["kl"] == (pytest.approx(kl, rel=1e-5), 75)
    assert np.divide(*metrics["loss"]) == pytest.approx(likelihood / batch["weight"].sum() + kl / 75, rel=1e-5)
  assert batch["weight"].sum() == 16 and int(before["step"]) == 5  # the ragged batch was among them


def test_the_weight_of_a_rate_follows_its_excess():
  """Dual ascent from the rates that the steps report: every second step, warmed up, never below 0; it reaches both."""
  weight, average, seen = 0.01, None, []
  for before, _, _, after, metrics in (step for step, _ in zip(Walk("dual"), range(40))):
    t, excess = int(before["step"]), np.divide(*metrics["rate"]) - 1.5
    assert np.divide(*metrics["dual_weight"]) == pytest.approx(weight, rel=1e-4, abs=1e-5)
    recon, rate = (np.divide(*metrics[name]) for name in ("recon", "rate"))
    assert np.divide(*metrics["loss"]) == pytest.approx(recon + weight * rate, rel=1e-4)
    assert np.divide(*metrics["temperature"]) == pytest.approx(2.0 * (0.25 / 2.0) ** (t / 40), rel=1e-4)
    average = excess if average is None else average + 0.5 * (excess - average)
    if t % 2 == 1:
      weight = max(0.0, weight + 0.3 * min(1.0, (t + 1) / 4) * average)
    assert after["dual/weight"] == pytest.approx(weight, rel=1e-4, abs=1e-5)
    seen.append(weight)
  assert max(seen) > seen[-1] > 0.01  # the constraint held in the end, and the weight falls
