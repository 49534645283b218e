"""What `jaxtrain.predict` does with events: from columns, from files in their own layout, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import event_cases as cases
import made_events
from jaxtrain import ensemble
from jaxtrain.data import files
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import apply, event_files, events as events_lib, predict
from jaxtrain.experiments.autoencoder.events import Events


def table(made, num=6, **more):
  """Events as columns of a table."""
  given = made.rows()
  events = Events(given["ids"], given["momenta"], given["met"], given["label"], given["event_weight"])
  rows = event_files.to_rows(events)[:num]
  return files.Columns("in.csv", {name: rows[:, k] for k, name in enumerate(predict.column_names(made.splits.meta))}
                       | more, {})


@pytest.mark.slow
@pytest.mark.parametrize("kind, stages", [("vq", 1), ("rvq", 2)])
def test_codes_are_those_of_the_assessment_and_empty_slots_have_none(kind, stages):
  made = cases.filled(model__latent__kind=kind, model__latent__num_stages=2)
  found = made.experiment.predict["encode"].run(made.state, table(made), 0, cases.KEY)
  given = {name: column[:6] for name, column in made.rows().items()}
  back = apply.apply(made.coder, made.state, apply.rows_of(given))
  for t in range(18):
    for q in range(stages):
      name = f"code_{t}" + (f"_{q}" if stages > 1 else "")
      np.testing.assert_array_equal(found[name], back["index"][:, t, q])
      np.testing.assert_array_equal(found[name] < 0, given["ids"][:, t] == 0)
  assert len(found) == 19 * stages + 1 and "bits" in found


@pytest.mark.slow
def test_latents_that_are_not_coded_have_coordinates():
  made = cases.filled(model__latent__kind="linear")
  found = made.experiment.predict["encode"].run(made.state, table(made), 0, cases.KEY)
  assert f"emb_event_{7}" in found and len(found) == 19 * 8 + 1


def test_a_file_in_the_layout_of_training_goes_in_and_comes_back(tmp_path):
  made, given = cases.filled(), cases.filled().rows()
  path, out = str(tmp_path / "in.h5"), str(tmp_path / "out.h5")
  events = Events(given["ids"], given["momenta"], given["met"], given["label"], given["event_weight"])
  event_files.write_hdf5(path, {"test": events})
  verb = made.experiment.predict["reconstruct"]
  columns = verb.readers[".h5"](path, made.state)
  found = verb.run(made.state, columns, 0, cases.KEY)
  verb.writers[".h5"](out, made.state, columns, found)
  back = event_files.read_hdf5(out, event_files.names_there(out), 18)["test"]
  np.testing.assert_allclose(back.momenta[:, 3, 1], found["pt_3_recon"], rtol=1e-6)
  np.testing.assert_array_equal(back.ids[:, 2], found["id_2_recon"])
  same = made.experiment.predict["score"].run(made.state, columns, 0, cases.KEY)
  np.testing.assert_allclose(same["error"], apply.apply(made.coder, made.state, apply.rows_of(given))["error"],
                             rtol=1e-4, atol=1e-6)


def test_rows_that_lack_a_cell_are_empty_and_strange_ones_refused():
  made = cases.filled()
  pt = table(made).values["pt_0"].copy()
  pt[2] = np.nan
  found = made.experiment.predict["score"].run(made.state, table(made, pt_0=pt), 0, cases.KEY)
  assert np.isnan(found["error"][2]) and np.isfinite(np.delete(found["error"], 2)).all()
  strange = np.array([1, 1, 1, 1, 1.5, 1])
  with pytest.raises(UserError, match="event 5 is 1.5"):  # the row of the file, whatever is missing before it
    made.experiment.predict["score"].run(made.state, table(made, pt_0=pt, id_0=strange), 0, cases.KEY)
  nothing = made.experiment.predict["score"].run(made.state, table(made, met=np.full(6, np.nan)), 0, cases.KEY)
  assert len(nothing["error"]) == 6 and np.isnan(nothing["error"]).all()


@pytest.mark.slow
def test_members_of_an_ensemble_give_events_side_by_side(tmp_path):
  """A mean of types or of azimuths is none; and a file of events has no place for several copies of one."""
  made = cases.filled()
  state = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), made.state).replace(key=cases.KEY)
  verb = ensemble.several("reconstruct", made.experiment.predict["reconstruct"], 2)
  found = verb.run(state, table(made), 0, cases.KEY)
  alone = made.experiment.predict["reconstruct"].run(made.state, table(made), 0, cases.KEY)
  assert set(found) == {f"m{k}_{name}" for k in (0, 1) for name in alone}
  np.testing.assert_array_equal(found["m1_phi_0_recon"], alone["phi_0_recon"])
  with pytest.raises(UserError, match="--output: a file .h5 holds an event once"):
    verb.writers[".h5"](str(tmp_path / "out.h5"), state, table(made), found)


def test_part_and_process_stand_beside_the_events_of_a_file(tmp_path):
  path = made_events.write_hdf5(tmp_path, 30)
  found = cases.filled().experiment.predict["score"].readers[".h5"](path, None)
  parts = event_files.read_hdf5(path, event_files.DATASETS, 18)
  assert found.values["part"].tolist() == ["train"] * 18 + ["val"] * 6 + ["test"] * 6
  label = np.concatenate([events.label for events in parts.values()])
  assert found.values["process"].tolist() == [events_lib.PROCESS_NAMES[k] for k in label]


def test_lines_of_the_challenge_are_read_and_other_tables_are_not(tmp_path, capsys):
  made, path = cases.filled(), tmp_path / "events.csv"
  path.write_text("0;4top;1;50.0;0.5;j,200.0,100.0,0.1,-1.0;b,90.0,80.0,0.2,2.0\n\n1;ttbar;0.5;20.0;-1.5;\n")
  read = made.experiment.predict["score"].readers[".csv"]
  found = read(str(path), None)
  assert found.values["process"].tolist() == ["tttt", "tt"] and found.values["met"].tolist() == [50.0, 20.0]
  assert found.values["id_1"].tolist() == [events_lib.B_JET, 0]
  np.testing.assert_allclose(found.values["pt_0"], [100, 0])
  assert capsys.readouterr().err == ""
  path.write_text("0;new;1;5e4;0.5;j,2e8,1e8,0.1,-1.0\n")
  read(str(path), None)
  said = capsys.readouterr().err
  assert "is the file in MeV" in said and "have the label 0: new" in said
  for other in ("id_0;met\n1;2\n", "a,b\n1,2\n", ""):
    path.write_text(other)
    assert read(str(path), None) is None
  assert read(str(tmp_path / "none.csv"), None) is None
  path.write_text("0;tt;1;50;0.5;j,2,1,0.1,x\n")
  with pytest.raises(UserError, match="line 1: phi of object 1 is 'x', allowed a number"):
    read(str(path), None)


def test_a_type_that_the_run_does_not_know_is_refused():
  made = cases.filled()
  with pytest.raises(UserError, match="event 1 has an object of type 99, allowed 0 to 7"):
    made.experiment.predict["score"].run(made.state, table(made, id_0=np.full(6, 99)), 0, cases.KEY)
