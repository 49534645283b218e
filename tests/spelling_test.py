"""Names that were mistyped: which one is suggested, how those that there are are listed."""

import pytest

from jaxtrain import spelling
from jaxtrain.errors import UserError

COLUMNS = ["hole", "rock", "Bulk density", "p-wave, km/s", "x"]


@pytest.mark.parametrize("name, meant", [
    ("rok", "rock"), ("ROCK", "rock"), ("Bulk", "Bulk density"), ("bulk_density", "Bulk density"),
    ("density", "Bulk density"), ("kcor", "rock"), ("max", ""),
    ("temperature", "")])  # x is within max, and no name for it
def test_the_nearest_name(name, meant):
  assert spelling.near(name, COLUMNS) == meant


def test_a_file_is_looked_for_in_its_folder_and_a_folder_beside_it(tmp_path):
  (tmp_path / "configs").mkdir()
  for name in ("messy.csv", "mess.txt", "configs/vae.py"):
    (tmp_path / name).touch()
  wanted = {"mesy.csv": "messy.csv", "config/vae.py": "configs", "configs/vea.py": "configs/vae.py", "unlike.db": ""}
  for typed, found in wanted.items():
    says = spelling.meant_file(str(tmp_path / typed))
    assert says == (f"; did you mean {str(tmp_path / found)!r}?" if found else "")


def test_a_name_with_a_comma_stands_in_quotes_and_says_how_it_is_given():
  assert spelling.listed(COLUMNS) == "hole, rock, Bulk density, 'p-wave, km/s', x"
  assert spelling.listed(COLUMNS, 2) == "hole, rock and 3 more"
  for form, written in ((spelling.IN_TUPLE, "\"('p-wave, km/s',)\""), (spelling.IN_LIST, "'\"p-wave, km/s\"'")):
    assert spelling.no_column("t.csv", "km/s", COLUMNS, form) == (
        f"t.csv has no column 'km/s'; 'p-wave, km/s' is one column, and is written within quotes: {written}; "
        "it has hole, rock, Bulk density, 'p-wave, km/s', x")
  assert spelling.no_column("t.csv", "km/s", COLUMNS).startswith(  # a field of one name
      "t.csv has no column 'km/s'; did you mean 'p-wave, km/s'? It has hole")
  assert spelling.no_column("t.csv", "rok", ["a", "rock"]) == (
      "t.csv has no column 'rok'; did you mean 'rock'? It has a, rock")


def test_a_folder_that_is_not_there_is_said_to_be_none(tmp_path):
  assert spelling.no_run(str(tmp_path)) == f"{str(tmp_path)!r} holds no run (no config.json)"
  assert spelling.no_run("/absent/a") == "'/absent/a' holds no run: there is no such folder"


def test_a_notebook_shows_the_sentence_of_an_error_and_no_traceback():
  """IPython calls `_render_traceback_` of an exception that has it."""
  assert UserError("too many rows")._render_traceback_() == ["UserError: too many rows"]
