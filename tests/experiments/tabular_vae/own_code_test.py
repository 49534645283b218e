"""Code of the user's own that fails or gives something else: one line that names the field and the function."""

import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import config as config_lib, custom
from jaxtrain.data import tables, tabular
from jaxtrain.errors import UserError

ROWS = 5
TABLE = tables.Table(np.zeros((ROWS, 2)), ("a", "b"), None, (), None, {})


def test_a_function_that_raises_is_named_with_its_field():
  with pytest.raises(UserError, match=r"^config.eval.metrics: os.getcwd failed: TypeError: .* \(2 given\)"):
    config_lib.load_function("eval.metrics", "os.getcwd")(1, 2)
  assert config_lib.load_function("eval.metrics", "os.getcwd")() == os.getcwd()


def test_the_line_at_fault_is_named_and_a_complaint_of_its_own_is_left(tmp_path, monkeypatch):
  (tmp_path / "own_broken.py").write_text("from jaxtrain.errors import UserError\ndef bad(x):\n  return 1 / x\n"
                                          "def told(x):\n  raise UserError(x)\n")
  (tmp_path / "own_syntax.py").write_text("def bad(:\n")
  (tmp_path / "own_needs.py").write_text("import no_such_module_here\n")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(UserError, match="own_broken.bad failed: ZeroDivisionError: .*line 3 of .*own_broken.py"):
    config_lib.load_function("loss.extra", "own_broken.bad")(0)
  with pytest.raises(UserError, match="^mine$"):
    config_lib.load_function("loss.extra", "own_broken.told")("mine")
  for name, words in (("own_syntax", "SyntaxError"), ("own_needs", "no_such_module_here")):
    with pytest.raises(UserError, match=f"config.loss.extra: module {name} failed: .*{words}"):
      config_lib.load_function("loss.extra", f"{name}.bad")


@pytest.mark.parametrize("found, words", [
    ("/tmp", "str"), (jnp.ones(3), r"an array of shape \(3,\)"), ((jnp.ones(()), None), "NoneType"),
    ((1.0, 2.0, 3.0), r"\(float, float, float\)"), (("a", np.array(["b"])), r"\(str, an array")])
def test_a_metric_gives_a_sum_and_a_count(found, words):
  with pytest.raises(UserError, match=rf"config.eval.metrics: mine\(batch, out\) returned .*{words}.*\(sum, count\)"):
    custom.check_metric("mine", found)
  assert [float(part) for part in custom.check_metric("mine", (jnp.ones(()), 4))] == [1.0, 4.0]


@pytest.mark.parametrize("found", [None, 1.0, jnp.ones(()), jnp.ones((ROWS, 2)), jnp.ones(ROWS + 1), [1.0] * ROWS])
def test_a_loss_gives_one_number_per_row(found):
  with pytest.raises(UserError, match=r"config.loss.extra: mine\(batch, out\) returned .* allowed one number per row"):
    jax.eval_shape(lambda: custom.check_term("mine", found, ROWS))
  custom.check_term("mine", jnp.ones(ROWS), ROWS)


@pytest.mark.parametrize("table, words", [
    ("/tmp", "str, allowed jaxtrain.data.tables.Table"), (TABLE._replace(features=[[1.0]]), "no array"),
    (TABLE._replace(feature_names=("a",)), "2 columns with 1 names"),
    (TABLE._replace(label=np.zeros(4)), "5 rows with 4 labels"), (TABLE._replace(facts=None), "facts are NoneType")])
def test_a_loader_gives_a_table(table, words, monkeypatch):
  made = []
  monkeypatch.setattr(config_lib, "load_function", lambda field, name: lambda config: made[-1])
  config = types.SimpleNamespace(data=types.SimpleNamespace(source="my.loader", features=(), leave_out=()))
  made.append(table)
  with pytest.raises(UserError, match=rf"config.data.source: my.loader\(config\) returned .*{words}"):
    tabular.read_table(config, {})
  made.append(TABLE)
  assert tabular.read_table(config, {}) is TABLE
