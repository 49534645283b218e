"""Axes of a sweep: each form gives the values it says, draws are distributed as stated, mistakes are a line."""

import numpy as np
import pytest
import scipy.stats

from jaxtrain import config as config_lib
from jaxtrain.errors import UserError
from jaxtrain.sweep import axes

CONFIG = config_lib.read_file("configs/vae.py:smoke")


@pytest.mark.parametrize("text, values", [
    ("optim.learning_rate=1e-3,3e-4", (1e-3, 3e-4)), ("seed=0..3", (0, 1, 2, 3)), ("seed=0..10..5", (0, 5, 10)),
    ("config.seed=7", (7,)), ("model.hidden_dims=(64,32),(8,)", ((64, 32), (8,))), ("optim.learning_rate=1", (1.0,)),
    ("model.kind=unsup, semisup", ("unsup", "semisup")), ("model.batch_norm=true,false", (True, False)),
    ("loss.weights.kl=linspace(0,1,3)", (0.0, 0.5, 1.0)), ("train.batch_size=geomspace(64,256,3)", (64, 128, 256)),
    ("loss.weights.class=0.1", (0.1,))])
def test_forms(text, values):
  found = axes.parse(text, CONFIG).values
  assert found == pytest.approx(values) if isinstance(values[0], float) else found == values
  assert all(type(a) is type(b) for a, b in zip(found, values))


@pytest.mark.parametrize("text, words", [
    ("seed", "allowed FIELD=VALUES"), ("seed=", "allowed FIELD=VALUES"), ("sed=1", "did you mean config.seed?"),
    ("optim=1", "a section, not a field"), ("seed=a", "got 'a', allowed a value of type int"),
    ("seed=1,,2", "an empty"),
    ("seed=3..1", "allowed FIRST..LAST"), ("seed=1,1", "1 is there twice"), ("seed=1..5..0", "allowed FIRST..LAST"),
    ("optim.learning_rate=loguniform(0,1,3)", "low above 0"), ("optim.learning_rate=uniform(2,1,3)", "in order"),
    ("optim.learning_rate=uniform(0,1,2.5)", "a count"), ("optim.learning_rate=linspace(0,1)", "a count"),
    ("optim.learning_rate=uniform(a,b,2)", "two numbers"), ("optim.learning_rate=randint(1,3,2)", "allowed uniform"),
    ("seed=uniform(0,9,3)", "allowed randint"), ("seed=randint(0,2,4)", "4 different whole numbers"),
    ("seed=linspace(0,1,3)", "whole numbers, which the field needs"), ("optim.learning_rate=uniform(0,inf,3)", "two"),
    ("seed=randint(0,4.5,3)", "whole numbers as low and high"), ("seed=randint(0.5,4,3)", "whole numbers as low"),
    ("seed=1e3", "allowed a value of type int"), ("optim.learning_rate=uniform(0,1,999999999)", "a count")])
def test_mistakes(text, words):
  with pytest.raises(UserError, match="sweep|config") as caught:
    axes.parse(text, CONFIG)
  assert words in str(caught.value)


def test_draws_follow_their_distribution_and_more_of_them_keep_the_first():
  """Kolmogorov-Smirnov at a false-alarm rate of 1e-3 on a fixed seed."""
  few = axes.parse("optim.learning_rate=loguniform(1e-4,1e-1,20)", CONFIG).values
  many = axes.parse("optim.learning_rate=loguniform(1e-4,1e-1,2000)", CONFIG).values
  assert few == many[:20]
  assert scipy.stats.kstest(np.log10(many), scipy.stats.uniform(-4, 3).cdf).pvalue > 1e-3
  uniform = axes.parse("loss.weights.kl=uniform(2,4,2000)", CONFIG).values
  assert scipy.stats.kstest(uniform, scipy.stats.uniform(2, 2).cdf).pvalue > 1e-3
  assert axes.parse("optim.learning_rate=loguniform(1e-4,1e-1,20)", CONFIG, 1).values != few
  whole = axes.parse("seed=randint(0,9,10)", CONFIG).values
  assert sorted(whole) == list(range(10)) and whole != tuple(range(10))


def parse(*texts):
  return [axes.parse(text, CONFIG) for text in texts]


def test_the_grid_has_all_combinations_and_draws_go_together():
  found = axes.expand(parse("seed=0..1", "model.kind=unsup,semisup"), [])
  assert found == [{"seed": s, "model.kind": k} for s in (0, 1) for k in ("unsup", "semisup")]
  drawn = axes.expand(parse("optim.learning_rate=loguniform(1e-4,1e-2,5)", "loss.weights.kl=uniform(0,1,5)",
                            "seed=0..1"), [])
  pairs = {(point["optim.learning_rate"], point["loss.weights.kl"]) for point in drawn}
  assert len(drawn) == 10 and len(pairs) == 5 and {point["seed"] for point in drawn} == {0, 1}


@pytest.mark.parametrize("texts, words", [
    (("seed=0..1", "seed=3"), "seed has two axes"), (("optim.learning_rate=uniform(0,1)",), "without a count"),
    (("optim.learning_rate=uniform(0,1,3)", "loss.weights.kl=uniform(0,1,4)"), "need the same count"),
    (("seed=0..99999", "optim.learning_rate=1,2"), "200,000 members")])
def test_axes_that_do_not_go_together(texts, words):
  with pytest.raises(UserError) as caught:
    axes.expand(parse(*texts), [])
  assert words in str(caught.value)


def test_named_sweeps():
  found, settings = axes.named({"seed": range(2), "optim.learning_rate": "geomspace(1e-4,1e-2,3)"}, CONFIG, 0, "a")
  assert [axis.values for axis in found] == [(0, 1), pytest.approx((1e-4, 1e-3, 1e-2))] and settings == []
  found, settings = axes.named([{"seed": 1}, {"seed": 2, "model.kind": "semisup"}], CONFIG, 0, "a")
  assert found == [] and axes.expand(parse("model.latent_dim=2,3"), settings)[-1] == {
      "seed": 2, "model.kind": "semisup", "model.latent_dim": 3}
  for wrong, words in (("seed", "gave str"), ({"sed": (1,)}, "did you mean"), ([{"seed": "x"}], "allowed a value"),
                       ([], "gave list")):
    with pytest.raises(UserError, match=words):
      axes.named(wrong, CONFIG, 0, "a")
