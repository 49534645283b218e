"""TensorBoard files of a run: every number of a row of scalars.csv, and the config as hyper-parameters.

A copy for a viewer, not a record: `facts/` is that. On resume TensorBoard is told to drop what lies behind the
checkpoint.
"""

from typing import Any

from jaxtrain.errors import need

SHOWN = ("loss/train", "loss/val", "loss/test")  # metrics beside the hyper-parameters


class Board:
  """Writes tensorboard/ of a run."""

  def __init__(self, folder: str, config: dict[str, Any], step: int):
    """`config`: dotted key -> value; `step`: where the run goes on. Raises UserError where tensorboardX is missing."""
    self.writer = need("tensorboardX", "tensorboard").SummaryWriter(folder, purge_step=step + 1)
    if not step:
      summary = need("tensorboardX.summary", "tensorboard")
      plain = {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key,
               value in config.items()}
      for part in summary.hparams(plain, {name: None for name in SHOWN}):
        self.writer.file_writer.add_summary(part)

  def row(self, row: dict[str, Any]) -> None:
    """Adds the numbers of a row of scalars.csv, as `<name>/<split>`."""
    for name, value in row.items():
      tag = name.removeprefix("metric_").removeprefix(f"{row['split']}_")
      twice = name == "metric_loss" and row.get(f"{row['split']}_loss") is not None
      if isinstance(value, (int, float)) and name not in ("epoch", "step") and not twice:
        self.writer.add_scalar(f"{tag}/{row['split']}", value, row["step"])

  def close(self) -> None:
    """Ends the files."""
    self.writer.close()
