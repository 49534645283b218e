"""A run takes over from another what `checkpoint.init` and `checkpoint.init_paths` say, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import config as config_lib, loop, rng
from jaxtrain.errors import UserError
from jaxtrain.run import carry, packing, setup
from jaxtrain.workdir import records
from toys import modes


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """toy -> (its config with another seed, experiment, fresh state of it, folder of a run, that run's final state)."""
  made = {}

  def get(toy):
    if toy not in made:
      result = loop.train(modes.configured(toy), str(tmp_path_factory.mktemp(toy) / "run"))
      config = config_lib.resolve(modes.configured(toy, seed=1))
      parts = setup.assemble(config)
      fresh = jax.jit(parts.init)(rng.root_key(1), jax.tree.map(jnp.asarray, parts.splits.train.data))
      made[toy] = parts.experiment, fresh, f"{result.workdir}@last", result.state
    return made[toy]
  return get


def from_other(toy, source, what="params", patterns=()):
  """(paths whose values are the other run's, paths whose values are still fresh, what was said)."""
  experiment, fresh, reference, other = source(toy)
  new, words = carry.take_over(fresh, reference, what, patterns, experiment)
  new, fresh, other = map(packing.host_leaves, (new, fresh, other))
  same = lambda one: {path for path in new if new[path].tobytes() == one[path].tobytes()}
  assert {path: leaf.dtype for path, leaf in new.items()} == {path: leaf.dtype for path, leaf in fresh.items()}
  return same(other) - same(fresh), same(fresh) - same(other), words


@pytest.mark.slow
def test_params_take_parameters_and_model_state_and_leave_a_dual(source):
  taken, left, words = from_other("dual", source)
  assert taken == {"params/encoder", "params/decoder", "params/gate"}
  assert {"dual/weight", "dual/average", "step", "key", "opt_state/rule/0/mu"} <= left
  assert words == "params/decoder (1 array), params/encoder (1 array), params/gate (1 array)"
  taken, left, words = from_other("codebook", source)
  assert {path.split("/")[0] for path in taken} == {"params", "model_state"} and "model_state/book (5 arrays)" in words
  assert "opt_state/rule/0/mu" in left


def test_all_takes_duals_and_optimisers_but_no_position(source):
  taken, left, _ = from_other("dual", source, "all")
  assert {"dual/weight", "dual/average", "opt_state/rule/0/mu", "params/gate"} <= taken and left == {"step", "key"}


@pytest.mark.parametrize("patterns, fields", [
    (("tokeniser/*",), {"params/tokeniser/w"}),
    (("tokeniser/*", "model_state/book/codes"), {"params/tokeniser/w", "model_state/book/codes"})])
def test_patterns_take_what_they_name(patterns, fields, source):
  taken, left, _ = from_other("codebook", source, patterns=patterns)
  assert taken == fields and {"params/decoder/w", "model_state/book/counts"} <= left


def test_a_folder_named_like_a_reference_is_that_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert records.parse_reference("run@7") == ("run", "7")
  (tmp_path / "run@7").mkdir()
  assert records.parse_reference("run@7") == ("run@7", "best")
  assert records.parse_reference("run@7@last") == ("run@7", "last")


@pytest.mark.slow
def test_a_moving_average_of_some_parameters_follows_what_was_taken(source):
  """The generator's average starts at the other run's; where the critic alone is taken, it stays its own."""
  taken, _, words = from_other("gan", source)
  assert {"ema/generator/w", "params/generator/w", "params/critic/v"} <= taken
  assert words.endswith("; the moving average of the parameters starts at them")
  taken, left, words = from_other("gan", source, patterns=("critic/*",))
  assert "moving average" not in words and "ema/generator/w" in left
  assert taken == {"params/critic/w", "params/critic/b", "params/critic/v"}


def test_a_pattern_that_matches_nothing_is_refused(source):
  with pytest.raises(UserError, match=r"config.checkpoint.init_paths: 'tokenizer/\*' matches nothing.*decoder/w"):
    from_other("codebook", source, patterns=("tokeniser/*", "tokenizer/*"))
  with pytest.raises(UserError, match=r"^config.optim.frozen: 'tokenizer/\*' matches no parameter, such as decoder/w"):
    setup.assemble(config_lib.resolve(modes.configured("codebook", **{"optim.frozen": ("tokenizer/*",)})))


@pytest.mark.slow
def test_a_tokeniser_is_taken_and_kept_while_the_rest_trains(source, tmp_path, capsys):
  """Bit for bit, with weight decay that would move it; the rest trains as it would."""
  _, _, reference, other = source("codebook")
  fields = {"seed": 1, "checkpoint.init_paths": ("tokeniser/*",), "optim.frozen": ("tokeniser/*",),
            "optim.weight_decay": 0.1, "train.num_epochs": 4}
  capsys.readouterr()
  result = loop.train(modes.configured("codebook", **fields), str(tmp_path / "run"), init_from=reference)
  assert f"from {reference}: params/tokeniser (1 array)\n" in capsys.readouterr().out
  params = jax.tree.map(np.asarray, result.state.params)
  assert (params["tokeniser"]["w"] == np.asarray(other.params["tokeniser"]["w"])).all()
  start = np.asarray(source("codebook")[1].params["decoder"]["w"])
  assert np.abs(params["decoder"]["w"] - start).min() > 1e-3
  assert result.history["loss"][-1] < result.history["loss"][0]
