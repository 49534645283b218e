"""Tabular VAE: lithology from ocean-drilling logs, or your own table.

  python -m jaxtrain.main --config=configs/vae.py                # hybrid, unsupervised, 238,506 x 6, 100 epochs
  python -m jaxtrain.main --config=configs/vae.py:standard_semisup
  python -m jaxtrain.main --config=configs/vae.py:csv --config.data.path=table.csv --config.data.features="('a','b')" \
      --config.data.group=well

Variants: hybrid (default), standard, hybrid_semisup, standard_semisup: the two recipes and two models of the lithology
VAE on all rows of the synthetic table; geology: a classifier of boreholes that it has not seen, assessed in full;
digits, breast_cancer: scikit-learn's real data; csv: your file (or data.source=parquet, npz, hdf5, sqlite); tfds: a
prepared TFDS dataset; mixed: a table of numbers, whole numbers and categories, a simulated survey or your file; smoke:
the default, seconds long.
Sweeps (--name of jaxtrain.sweep): pair, seeds, bootstrap, beta, kl_shapes.
"""

from jaxtrain.config import common, pick_variant, tables

LITHOLOGY_TRANSFORMS = ("standardise", "signed_log1p", "signed_log1p", "log1p", "log1p", "log1p")


def base():
  """What all variants share: the network, Adam at 1e-3, 100 epochs of batches of 256."""
  config = common()
  config.experiment = "jaxtrain.experiments.tabular_vae.vae"
  config.seed = 42
  config.data = tables()
  config.train.num_epochs = 100
  config.data.source = "synthetic"
  config.data.categorical = ()  # features that are categories, names or patterns: text, or numbers
  config.data.integer = ()  # features that are whole numbers, names or patterns
  config.data.spikes = ()  # numbers with many rows at 0, names or patterns; at another value: 'name=value'
  config.model.kind = "unsup"  # unsup | semisup, which adds a classifier on the latent
  config.model.latent_dim = 10  # dimensions of the latent space
  config.model.hidden_dims = (64, 32)  # encoder widths; the decoder mirrors them
  config.model.batch_norm = True  # BatchNorm after each ReLU
  config.model.head_dim = 64  # hidden width of the classifier
  config.model.dropout_rate = 0.3  # share of activations that are dropped in the classifier
  config.model.embedding_dim = 8  # numbers that stand for a category in the encoder, at most one a category
  # noise of continuous columns: fixed, so that recon is the squared error | learned, a deviation of each column
  config.model.noise = "fixed"
  config.loss.reduction = "mean"  # of the loss terms: mean over entries | sum over the batch
  config.loss.mask_rate = 0.0  # share of input entries set to 0; 0 = no masking and no masked term
  config.loss.weights = {
      "recon": 1.0,  # weight of the reconstruction error (of continuous columns)
      "integer": 1.0,  # weight of -log p of columns of whole numbers
      "categorical": 1.0,  # weight of -log p of categories
      "masked": 0.5,  # weight of the reconstruction error of masked entries
      "kl": 0.5,  # weight of the KL term (beta) at the end of its schedule
      "class": 0.5,  # weight of the cross-entropy of the classifier
  }
  config.loss.extra = ()  # your own terms, MODULE.FUNCTION(batch, out) -> [B]; each needs loss.weights.FUNCTION
  config.eval.metrics = ()  # your own metrics, MODULE.FUNCTION(batch, out) -> (sum, count)
  config.eval.parts = ()  # of the last assessment beside the rows: clusters, probes, imputation, transfer
  config.eval.clusters = (10, 12, 15, 18, 20)  # numbers of clusters of the part clusters
  config.eval.fit_rows = 20_000  # training rows that clusters, imputers and regressions are fitted on, at most
  config.eval.probe_rows = 40_000  # training rows that probes are fitted on, at most
  config.eval.importance_samples = 64  # draws from the posterior of a row for its log-density; 0 = none
  config.eval.impute_blocks = ()  # features that are hidden together, such as ('R+G+B',); each is also hidden alone
  config.eval.transfer = ()  # numeric columns that are no features, to be predicted from the embedding
  config.loss.kl_schedule = {
      "shape": "constant",  # rise of the KL weight (beta): constant | linear | sigmoid | cyclical | exponential
      "start": 1e-6,  # KL weight (beta) at epoch 0
      "num_epochs": 30,  # epochs from the start value to loss.weights.kl
      "num_cycles": 4,  # how often a cyclical schedule rises
  }
  return config


def hybrid(kind):
  """Means, 10 % masking, beta 1e-6 -> 0.5 over 30 epochs, clip 1, plateau 10 / 0.5."""
  config = base()
  config.data.transforms = LITHOLOGY_TRANSFORMS
  config.model.kind = kind
  config.loss.mask_rate = 0.1
  config.loss.kl_schedule.shape = "linear"
  config.optim.clip_norm = 1.0
  config.optim.plateau.factor = 0.5
  config.train.monitor = "train_loss"
  # While beta rises the loss rises with it: values of before are of another objective and are not compared.
  config.train.monitor_from_epoch = 30
  return config


def standard(kind):
  """Sums over the batch, beta 1, class weight 0.1, nothing else."""
  config = base()
  config.data.transforms = LITHOLOGY_TRANSFORMS
  config.model.kind = kind
  config.loss.reduction = "sum"
  config.loss.weights.kl = 1.0
  config.loss.weights["class"] = 0.1
  config.train.monitor = "train_loss"
  return config


def geology():
  """Lithology with a classifier on boreholes that it has not seen, and all parts of the assessment.

  The classifier weighs more than in the recipes, and nothing is masked or dropped: of 12 settings that were tried this
  has the best negative log-likelihood, and nearly the best accuracy, on the validation boreholes.
  """
  config = hybrid("semisup")
  config.data.split.kind = "group"
  config.train.num_epochs = 40
  config.train.monitor = "val_loss"
  config.train.monitor_from_epoch = 0  # the validation loss has the final beta from the start
  config.optim.schedule, config.optim.plateau.factor = "cosine", 0.0
  config.loss.mask_rate = config.model.dropout_rate = 0.0
  config.loss.weights["class"] = 5.0
  config.loss.weights.kl = 0.05
  config.eval.parts = ("clusters", "probes", "imputation", "transfer")
  config.eval.impute_blocks = ("R+G+B", "NGR total counts (cps)+R+G+B")
  config.eval.transfer = ("Depth_Bin",)
  return config


def real(name, latent_dim):
  """A real table of scikit-learn, split at random by rows, hybrid recipe with a classifier."""
  config = hybrid("semisup")
  config.data.source, config.data.path, config.data.transforms = "sklearn", name, ()
  config.data.split.kind = "random"
  config.model.latent_dim = latent_dim
  config.train.batch_size = 64
  config.train.monitor = "val_loss"
  config.train.monitor_from_epoch = 0  # the validation loss has the final beta from the start
  config.optim.plateau.monitor = "val_loss"
  return config


def csv():
  """A file of your own: set data.path, data.features and data.group (or data.split.kind=random)."""
  config = hybrid("unsup")
  config.data.source, config.data.transforms = "csv", ()
  config.data.split.kind = "group"
  config.train.monitor = "val_loss"
  config.train.monitor_from_epoch = 0  # the validation loss has the final beta from the start
  config.optim.plateau.monitor = "val_loss"
  return config


def tfds():
  """A prepared dataset of TensorFlow Datasets: set data.path; all its numeric features, rows split at random."""
  config = csv()
  config.data.source, config.data.split.kind = "tfds", "random"
  return config


def mixed():
  """Numbers, whole numbers and categories: a simulated survey, or your file with data.source=csv."""
  config = csv()
  config.data.source, config.data.split.kind = "survey", "random"
  config.data.categorical = ("region", "sector", "owner")
  config.data.integer = ("age", "children", "rooms")
  config.data.spikes = ("savings",)
  config.data.transforms = ("income=log1p", "savings=log1p", "commute=log1p")
  config.model.noise = "learned"
  config.loss.reduction, config.loss.weights.kl, config.loss.mask_rate = "sum", 1.0, 0.0
  config.optim.learning_rate = 3e-3
  return config


def smoke():
  """The default on 4,000 rows for 2 epochs."""
  config = hybrid("unsup")
  config.data.row_limit = 4000
  config.train.num_epochs = 2
  return config


VARIANTS = {
    "hybrid": lambda: hybrid("unsup"),
    "standard": lambda: standard("unsup"),
    "hybrid_semisup": lambda: hybrid("semisup"),
    "standard_semisup": lambda: standard("semisup"),
    "geology": geology,
    "digits": lambda: real("digits", 10),
    "breast_cancer": lambda: real("breast_cancer", 10),
    "csv": csv,
    "tfds": tfds,
    "mixed": mixed,
    "smoke": smoke,
}


SWEEPS = {
    "pair": {"model.kind": ("unsup", "semisup")},  # of one recipe, and their figures side by side
    "seeds": {"seed": range(10)},
    "bootstrap": {"data.resample": range(1, 101)},  # of the training rows, after the split
    "beta": {"loss.weights.kl": (0.1, 0.25, 0.5, 1.0), "seed": range(5)},
    "kl_shapes": {"loss.kl_schedule.shape": ("constant", "linear", "sigmoid", "cyclical"), "seed": range(5)},
}


def sweep(name):
  """The settings of a named sweep, --name=NAME of jaxtrain.sweep."""
  return pick_variant(name, SWEEPS, "--name")


def get_config(variant="hybrid"):
  """The config of a variant."""
  return pick_variant(variant, VARIANTS)()
