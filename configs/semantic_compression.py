"""Semantic compression: a learned codec of structured states whose rate is in bits, and what of their meaning is kept.

  python -m jaxtrain.main --config=configs/semantic_compression.py              # simulated agents, errors of about 1 %
  python -m jaxtrain.main --config=configs/semantic_compression.py:table --config.data.path=states.csv \
      --config.data.continuous=x,y --config.data.categorical=kind

Variants: entropy (default); none: a variational autoencoder without a code; vq: one of 512 codes a state; fsq: a fixed
number of levels a slot; lattice: points of E8 in place of whole numbers; adaptive, grouped: levels by group of columns;
hyperprior: side numbers say how the others are distributed; trajectory: agents that move, each state coded given the
one before (kind previous, for any table in order); table: your file (or data.source=parquet, npz, hdf5, sqlite);
sqlite: a simulation's database; smoke: the default, seconds long. Sweeps (--name of jaxtrain.sweep): levels, seeds.
"""

from jaxtrain.config import common, pick_variant, tables, with_values

NOT_READ = ("features", "leave_out", "label", "incomplete", "transforms", "out_of_core", "num_workers", "resample",
            "label_share")


def with_states(config):
  """The config with the section of the data: simulated agents."""
  config.data = tables()
  for name in NOT_READ:
    del config.data[name]
  config.data.source = "independent"  # independent | correlated | trajectory | gaussian | simulation_db | a file's kind
  config.data.num_states = 10000  # simulated states, of all parts
  config.data.seed = 0  # of the simulation; -1 = the run's own seed
  config.data.blocks = ()  # further columns of simulated agents: inventory, goals
  config.data.step_std = 3.0  # deviation of a move in x and y, in metres, with source trajectory
  config.data.num_steps = 50  # states of an agent, with source trajectory
  config.data.num_dims = 16  # of source gaussian
  config.data.correlation = 0.9  # of neighbouring dimensions of source gaussian
  config.data.simulation_id = ""  # of which simulation the states are, with source simulation_db; empty = of all
  config.data.role = "actions"  # where roles come from, with source simulation_db: actions | agent_type | defending
  config.data.continuous = ()  # columns of a file that are numbers, names or patterns
  config.data.integer = ()  # columns that are whole numbers
  config.data.binary = ()  # columns of 0 and 1
  config.data.categorical = ()  # columns of names
  config.data.quantiles = (0.0, 1.0)  # of the training rows, between which the range of a number is
  return config


def entropy():
  """Simulated agents; whole numbers under a learned density."""
  config = with_states(common())
  config.experiment = "jaxtrain.experiments.semantic_compression.codec"
  config.data.split.kind = "random"
  config.data.split.fractions = (0.8, 0.1, 0.1)
  config.model.latent_dim = 0  # slots of the code; 0 = one for each column
  config.model.hidden_dims = (256, 128, 64)  # of the analysis, and in reverse of the synthesis; () = linear maps
  config.model.activation = "gelu"  # relu | gelu | leaky_relu
  config.model.grouped = False  # each group of columns has an encoder and slots of its own
  config.model.num_components = 8  # logistics of a slot's density
  config.model.compressor = {
      "kind": "entropy",  # entropy | lattice | hyperprior | previous | vq | fsq | none
      "level": 1.0,  # error of a number in per cent of its range, about; more is fewer bits
      "group_levels": (),  # factors of the level by group of columns, such as ('spatial=0.5',)
      "lossless": False,  # files also hold what the symbols leave open: states come back bit for bit in float32
      "num_side": 4,  # side numbers of a state, with kind hyperprior
      "prior_dims": (64,),  # hidden layers of the prior's network, with kinds hyperprior and previous
      "lattice": "e8",  # e8 | d4
      "num_codes": 512,  # codes of a slot, with kind vq
      "num_slots": 1,  # codes of a state, with kind vq
      "residual": False,  # each slot codes what those before it left; else each a part of the latent
      "levels": (),  # of each slot, with kind fsq; () = 8 for a number, one for each class
      "decay": 0.99,  # of the moving averages of codes
      "revive_below": 0.1,  # codes used less than this share of the mean move; 0 = never
  }
  config.loss.weights = {
      "rate": 1.0,  # of the bits of a state
      "recon": 1.0,  # of the bits of numbers, given what comes back
      "binary": 20.0,  # of the bits of binary columns, given what comes back
      "categorical": 20.0,  # of the bits of classes, given what comes back
      "semantic": 0.5,  # of what is lost of the features that carry meaning
      "kl": 1.0,  # of the divergence from the prior, in bits, with kind none
      "commitment": 0.25,  # of the distance of a latent from its codes, with kind vq
  }
  config.loss.feature_weights = "canonical"  # of features in the semantic loss: canonical | equal
  config.loss.feature_epochs = 0  # epochs from equal weights to these; 0 = from the start
  config.loss.feature_shape = "linear"  # of that way: linear | exp
  config.loss.extra = ()  # loss terms of your own, dotted names of (batch, out) -> [B]; each needs a weight
  config.eval.metrics = ()  # metrics of your own, dotted names of (batch, out) -> (sum, count)
  config.loss.target_bits = 0.0  # bits a state that the level is sought for; 0 = the level stays
  config.loss.dual = {
      "interval": 1,  # steps between changes of the level
      "rate": 0.01,  # change of its logarithm at a rate of twice the target
      "average_rate": 0.05,  # of the moving average of the rate
      "warmup_steps": 0,  # steps until the level moves at full rate
  }
  config.train.batch_size = 64
  config.train.num_epochs = 100
  config.optim.learning_rate = 1e-3
  config.optim.schedule = "cosine"
  config.optim.clip_norm = 0.0
  return config


def changed(**fields):
  """The default with other values at dotted keys, written with __ for dots."""
  return with_values(entropy(), {key.replace("__", "."): value for key, value in fields.items()})


def two_stage():
  """A variational autoencoder by the original's recipe: first the prior, then the meaning, from the first's best state.
  """
  config = changed(model__compressor__kind="none", model__compressor__level=5.0, train__num_epochs=50)
  config.stages = ({"loss.weights.kl": 1.0}, {"loss.weights.kl": 0.1, "loss.weights.semantic": 1.0})
  return config


def table():
  """A file of your own: set data.path and its columns by kind."""
  return changed(data__source="csv", data__split__fractions=(0.7, 0.15, 0.15))


def smoke():
  """The default with 600 states for 4 epochs, in batches that 8 devices share."""
  return changed(data__num_states=600, train__num_epochs=4, train__batch_size=64, model__hidden_dims=(32,),
                 optim__decay_steps=32)


VARIANTS = {
    "entropy": entropy,
    "none": lambda: changed(model__compressor__kind="none", model__compressor__level=5.0),
    "vq": lambda: changed(model__compressor__kind="vq"),
    "fsq": lambda: changed(model__compressor__kind="fsq"),
    "lattice": lambda: changed(model__compressor__kind="lattice"),
    "adaptive": lambda: changed(model__compressor__group_levels=(
        "spatial=0.5", "resource=0.5", "performance=0.796", "status=1.778")),
    "grouped": lambda: changed(model__grouped=True, model__compressor__group_levels=(
        "spatial=0.5", "resource=2", "performance=3", "status=5")),
    "lossless": lambda: changed(model__compressor__lossless=True),
    "two_stage": two_stage,
    "hyperprior": lambda: changed(data__source="correlated", model__compressor__kind="hyperprior"),
    "trajectory": lambda: changed(data__source="trajectory", data__step_std=6.0, data__num_steps=100,
                                  data__split__kind="group", model__compressor__kind="previous", train__num_epochs=20),
    "table": table,
    "sqlite": lambda: changed(data__source="simulation_db", data__split__kind="group"),
    "smoke": smoke,
}

SWEEPS = {
    "levels": {"model.compressor.level": (0.25, 0.5, 1.0, 2.0, 5.0, 10.0), "seed": range(3)},
    "seeds": {"seed": range(10)},
}


def sweep(name):
  """The settings of a named sweep, --name=NAME of jaxtrain.sweep."""
  return pick_variant(name, SWEEPS, "--name")


def get_config(variant="entropy"):
  """The config of a variant."""
  return pick_variant(variant, VARIANTS)()
