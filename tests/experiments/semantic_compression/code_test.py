"""Codes that do not decode are refused before anything is coded."""

import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import code as code_lib
from jaxtrain.experiments.semantic_compression import integer_net
from jaxtrain.experiments.semantic_compression.code import Code, Lattice, Prior

import symbol_cases as cases

ONE = code_lib.slot(0, [0.5, 0.25, 0.25])
NET = integer_net.quantise_net(cases.float_net(2, 1))


@pytest.mark.parametrize("code,says", [
    (Code(()), "0 slots"), (Code((None,)), "slot 0 must have tables"),
    (Code((ONE._replace(counts=ONE.counts[:, :2]),)), "slot 0 of a code: a table that does not sum"),
    (Code((ONE._replace(offset=2 ** 31),)), "offset of slot 0 is 2147483648"),
    (Code((ONE._replace(counts=np.tile(ONE.counts, (2, 1))),)), "slot 0 has 2 tables and needs 1"),
    (Code((ONE,) * 4, (Lattice("D4", 0),)), "slot 3 has 1 tables and needs 2"),
    (Code((ONE,) * 9, (Lattice("E8", 0),)), "slot 1 has 1 tables and needs 2"),
    (Code((ONE,) * 4, (Lattice("D4", 1),)), "no such slots"),
    (Code((ONE,) * 4, (Lattice("A2", 0),)), "no lattice 'A2'"),
    (Code((ONE,) * 6, (Lattice("D4", 0), Lattice("D4", 2))), "taken already"),
    (Code((ONE, ONE, None), (), Prior((2,), (0,), (), NET)), "1 slots and 1 inputs has a network of 2 inputs"),
    (Code((ONE, ONE, ONE), (), Prior((2,), (0, 1), (), NET)), "because its prior has them"),
    (Code((ONE, None, ONE), (), Prior((1,), (0, 2), (), NET)), "not decoded by then"),
    (Code((ONE, ONE, None), (), Prior((2,), (), (7,), NET)), "not decoded by then"),
    (Code((ONE, ONE, None), (), Prior((2, 2), (0, 1), (), NET)), "has a network of 2 inputs and 2 outputs")])
def test_refused(code, says):
  """Each with one line that names the slot."""
  with pytest.raises(UserError, match=says):
    code_lib.check(code)


def test_symbols_of_another_shape_are_refused():
  """Floats, or other slots."""
  plan = code_lib.Plan(Code((ONE, ONE)))
  for wrong in (np.zeros((3, 1), int), np.zeros((3, 2)), np.zeros(2, int)):
    with pytest.raises(UserError, match=r"the code takes integers in \[N, 2\]"):
      plan.check_symbols(wrong)
