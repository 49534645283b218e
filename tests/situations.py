"""Situations in which an earlier version went wrong, what happens in them now, and the tests that hold it.

  python tests/situations.py               runs those tests, slow ones too, and prints the table
  python tests/situations.py --fast        without the slow ones

A row whose tests do not all pass says so in place of what should happen.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from typing import NamedTuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Situation(NamedTuple):
  """What was met, what came of it before, what comes of it now, and tests as FILE::NAME, all their parameters."""
  what: str
  before: str
  now: str
  tests: tuple[str, ...]


SITUATIONS = (
    Situation("a workdir of a stranger names code, in stages, in a loader, a loss or a sweep's journal",
              "`--mode=eval` ran it", "exit 2, nothing is imported",
              ("strangers_test.py::test_no_code_passes_the_door",
               "strangers_test.py::test_stages_of_a_workdir_are_judged_once_they_are_merged",
               "strangers_test.py::test_no_command_runs_what_a_workdir_names",
               "strangers_test.py::test_what_the_journal_of_a_sweep_names_is_judged_before_any_member_starts")),
    Situation("an HDF5 file shows what other files hold", "other local files were copied into outputs",
              "one line, exit 2",
              ("data/claims_test.py::test_no_hdf5_file_shows_what_another_holds",)),
    Situation("a file that claims terabytes, unfolds to them, or never ends", "memory or time without bound",
              "one line, exit 2",
              ("data/claims_test.py::test_an_hdf5_file_of_hardly_a_byte_that_claims_terabytes",
               "data/claims_test.py::test_a_view_without_an_end",
               "data/claims_test.py::test_an_archive_is_believed_by_its_headers")),
    Situation("two predicts write one output; a neighbour is called `OUT.new`; a link is planted there",
              "a broken file and exit 0; overwritten; followed", "a whole file of one of them; both are left alone",
              ("workdir/atomic_test.py::test_two_writers_of_one_file_leave_what_one_of_them_wrote",
               "workdir/atomic_test.py::test_neither_a_neighbour_nor_what_a_link_names_is_written")),
    Situation("a workdir whose name holds `[...]`, a backslash or letters that are no UTF-8",
              "trained, exit 0, and no checkpoint could be read", "works as any other",
              ("run/checkpoints_test.py::test_a_folder_of_any_name_is_written_and_read",
               "run/checkpoints_test.py::test_runs_and_sweeps_in_such_a_folder",
               "run/checkpoints_test.py::test_commands_in_a_folder_whose_name_is_no_text")),
    Situation("a save cannot be read back", "older checkpoints were deleted, exit 0", "nothing is deleted, exit 1",
              ("run/checkpoints_test.py::test_a_save_that_cannot_be_read_back_deletes_nothing_and_is_an_error",)),
    Situation("the best checkpoint is damaged", "predict applied another one silently",
              "predict refuses, eval and inspect say so",
              ("run/checkpoints_test.py::test_no_other_state_is_taken_for_a_best_that_is_lost",
               "run/checkpoints_test.py::test_each_command_names_the_state_it_took")),
    Situation("a file out of core is truncated, overwritten or replaced under a run", "trained on zeros, exit 0",
              "one line, exit 2", ("data/watched_test.py::test_a_file_that_changes_under_a_run_stops_it",)),
    Situation("the validation loss is not finite", "trained on", "an alarm; halts with 3, the best is kept",
              ("run/best_test.py::test_a_validation_loss_that_is_not_finite_halts_and_the_best_is_kept",
               "run/best_test.py::test_with_skip_it_is_an_alarm")),
    Situation("main on a member of a sweep in training", "two writers' facts were mixed", "in use, exit 2",
              ("sweep/vmap_test.py::test_a_member_in_training_is_in_use_and_free_again_after_it",)),
    Situation("a search or sweep that is continued", "best of this call's members", "best of all members",
              ("sweep/command_test.py::test_the_best_is_of_all_members_whichever_were_asked_for",)),
    Situation("a run made longer later", "another best than in one go", "the same best, digest and history",
              ("run/best_test.py::test_a_run_made_longer_has_the_best_of_one_made_in_one_go",)),
    Situation("random numbers of an evaluation", "one key for data and noise, one stream for val and test",
              "streams of their own",
              ("loop_test.py::test_validation_and_test_have_data_and_draws_of_their_own",)),
    Situation("a plateau in causal discovery", "ignored, or decided at every step", "decides with evaluations",
              ("experiments/causal_discovery/training_test.py::test_a_plateau_decides_with_evaluations",)),
    Situation("785 bad values in flags and config files", "60 tracebacks or aborts",
              "one to four lines, or a proper run",
              ("config/values_test.py::test_no_value_of_a_field_ends_in_a_traceback",
               "config/values_test.py::test_a_field_in_another_spelling_is_one_line")),
    Situation("a state or a step larger than memory", "aborted", "refused before anything is made",
              ("run/fits_test.py::test_a_state_and_a_batch_without_room_are_refused_and_leave_nothing",
               "run/fits_test.py::test_a_step_without_room_is_refused_and_a_smaller_one_may_take_the_folder")),
    Situation("JSON files of a workdir of another shape; a folder `checkpoints/²`", "tracebacks", "one line, exit 2",
              ("run/damaged_test.py::test_config_json_of_another_shape",
               "run/damaged_test.py::test_run_json_of_another_shape",
               "run/damaged_test.py::test_a_record_of_another_shape_is_as_a_damaged_checkpoint",
               "run/damaged_test.py::test_folders_whose_names_are_no_steps")),
    Situation("facts that are damaged", "refused", "restored from the checkpoint before, or refused in one line",
              ("run/damaged_test.py::test_facts_damaged_after_an_older_checkpoint_are_restored_from_it",
               "run/damaged_test.py::test_facts_damaged_before_all_checkpoints_are_refused_and_nothing_is_changed")),
    Situation("streams that are closed, full or gone", "work was lost, or a checkpoint blamed",
              "work goes on and is saved; exit codes as documented",
              ("streams_test.py::test_a_run_is_saved_whatever_its_streams",
               "streams_test.py::test_a_terminal_that_goes_away_saves_the_run")),
    Situation("a full disk", "up to 137 lines of libraries' tracebacks", "one line, from threads too",
              ("run/faults_test.py::test_a_disk_that_fills_anywhere_is_one_line_whoever_writes",
               "commands_test.py::test_a_thread_that_fails_is_one_line")),
    Situation("a workdir that is removed under a run", "made again in part", "one line, exit 1, not made again",
              ("run/faults_test.py::test_a_workdir_that_is_removed_is_one_line_and_not_made_again",)),
    Situation("SIGTERM while figures or a page are drawn, or in `--mode=eval`", "waited for, or done again",
              "85 at once; what was done is not repeated",
              ("run/parts_test.py::test_a_signal_while_figures_are_drawn_ends_it_at_once_and_they_are_drawn_next",
               "run/parts_test.py::test_an_assessment_again_that_was_stopped_goes_on_and_a_finished_one_does_all")),
    Situation("inspect, predict and report beside a run that saves often", "called checkpoints damaged",
              "look again",
              ("run/checkpoints_test.py::test_a_checkpoint_that_goes_away_while_it_is_read_is_not_called_damaged",
               "run/checkpoints_test.py::test_commands_beside_a_run_that_saves_find_a_checkpoint_each_time")),
    Situation("one member of an ensemble diverges", "all were frozen", "it halts alone, in every mode",
              ("ensemble_test.py::test_a_member_that_diverges_halts_alone_in_every_mode",)),
    Situation("`--init_from=run@7` where a folder is so named", "read as step 7 of `run`", "the folder",
              ("run/carry_test.py::test_a_folder_named_like_a_reference_is_that_folder",)),
)


def outcomes(tests: list[str], fast: bool) -> dict[str, list[bool]]:
  """FILE::NAME -> whether each of its cases has passed; those skipped or left out are not there."""
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "results.xml")
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={path}", "-m", "not slow" if fast else ""]
    subprocess.call([*command, *(f"tests/{test}" for test in tests)], cwd=ROOT, stdout=sys.stderr)
    found: dict[str, list[bool]] = {}
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
      file = case.get("classname").removeprefix("tests.").replace(".", "/") + ".py"
      if case.find("skipped") is None:
        passed = case.find("failure") is None and case.find("error") is None
        found.setdefault(f"{file}::{case.get('name').partition('[')[0]}", []).append(passed)
  return found


def table(found: dict[str, list[bool]]) -> str:
  """Markdown: a row for each situation."""
  lines = ["| situation | before | now | cases that hold it |", "|---|---|---|---|"]
  for one in SITUATIONS:
    cases = [passed for test in one.tests if test in found for passed in found[test]]
    now = one.now if cases and all(cases) else "**not as it should be**" if cases else "not run"
    lines.append(f"| {one.what} | {one.before} | {now} | {sum(cases)} of {len(cases)} |")
  return "\n".join(lines)


def main() -> int:
  """Prints the table; 1 where a test has failed."""
  found = outcomes([test for one in SITUATIONS for test in one.tests], "--fast" in sys.argv)
  print(table(found))
  return 0 if all(passed for cases in found.values() for passed in cases) else 1


if __name__ == "__main__":
  sys.exit(main())
