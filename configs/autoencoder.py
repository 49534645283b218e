"""Autoencoders of collider events: discrete and continuous latents of particles, compared on one footing.

  python -m jaxtrain.main --config=configs/autoencoder.py           # simulated events, one of 512 codes for each object
  python -m jaxtrain.main --config=configs/autoencoder.py:hdf5 --config.data.path=4tops_splitted.h5

Variants: vq (default); none, linear: continuous latents, no code; rvq: several codes, each of what those before left;
fsq: a fixed number of levels a dimension; vae: a Normal latent, its rate the divergence from the prior; legacy: the
network and the loss of the original; hdf5: a file of events with its own parts; csv: lines of events as Dark Machines
writes them; images: Fashion-MNIST's files; gan_ae, diffusion_ae, flow: new events by a generator and its critic, by a
denoiser of Karras et al.'s kind, and by flow matching; test_mlp: a small network on made rows; smoke: the default,
seconds long.
Sweeps (--name of jaxtrain.sweep): compare_vq_vs_none, compare_latent_spaces, compare_globals_heads, seeds.
"""

from jaxtrain.config import common, optimiser, pick_variant, tables, with_values

NOT_READ = ("table", "features", "leave_out", "label", "group", "missing", "incomplete", "separator", "decimal",
            "thousands", "encoding", "transforms", "out_of_core", "num_workers", "resample", "label_share")


def with_events(config):
  """The config with the section of the data: simulated events."""
  config.data = tables()
  for name in NOT_READ:
    if name in config.data:
      del config.data[name]
  config.data.source = "toy"  # toy (simulated) | hdf5 | csv | images
  config.data.path = ""  # the file, or the folder of images
  config.data.shuffle = True  # training events in a new order each epoch
  config.data.row_limit = 50000  # events to make, or to read from each part of a file; 0 = all of a file
  config.data.seed = 0  # of the simulation; -1 = the run's own seed
  config.data.num_slots = 18  # objects of an event at most
  config.data.columns = ("e", "pt", "eta", "phi")  # of an object, that are read and brought back
  config.data.norm = "physics"  # physics (logarithms, cos and sin of angles) | zscore_masked | zscore_legacy
  config.data.energy_unit = "GeV"  # of a file: GeV | MeV
  config.data.datasets = {
      "x_train": "X_train",  # dataset of an HDF5 file with the events that train
      "x_val": "X_val",  # with those that validate
      "x_test": "X_test",  # with those that test
      "y_train": "Y_train",  # with the processes of training events; empty = none is read, here and below
      "y_val": "y_val",  # with those of validation
      "y_test": "y_test",  # with those of the test
      "w_train": "",  # with the weights of training events
      "w_val": "",  # with those of validation
      "w_test": "",  # with those of the test
  }
  config.data.loader = ()  # dotted name of a function of your own, (config) -> Events or {part: Events}
  del config.data.split["num_folds"], config.data.split["fold"]
  config.data.split.kind = "random"  # none | random | file (the parts of an HDF5 file)
  config.data.split.fractions = (0.6, 0.2, 0.2)
  return config


def vq():
  """Simulated events; one of 512 codes for each object."""
  config = with_events(common())
  config.experiment = "jaxtrain.experiments.autoencoder.ae"
  config.model.encoder = {
      "kind": "mlp",  # mlp | gnn | gan (a set transformer) | diffusion (one that knows a noise level)
      "own": (),  # dotted name of a factory of your own, (settings, meta) -> flax module, in place of the kind
      "hidden_dims": (128, 128),  # of an object's network
      "embed_dim": 8,  # of an object's type
      "num_blocks": 3,  # of gnn, gan and diffusion
      "num_heads": 4,  # of gan and diffusion
  }
  config.model.decoder = {
      "kind": "mlp",  # mlp | gnn | gan (a set transformer with noise) | diffusion (a denoiser)
      "own": (),  # dotted name of a factory of your own, (settings, meta) -> flax module, in place of the kind
      "hidden_dims": (128, 128),  # of an object's network
      "globals_dims": (32,),  # of the network of missing energy and its azimuth
      "num_blocks": 3,  # of gnn, gan and diffusion
      "num_heads": 4,  # of gan and diffusion
  }
  config.model.latent = {
      "kind": "vq",  # none | linear | vq | fsq | rvq | vae
      "own": (),  # dotted name of a factory of your own, (settings, meta) -> flax module
      "per_object": True,  # objects have latents; False: the event alone, and decoders are given objects' types
      "dim": 32,  # of a latent
      "num_codes": 512,  # of a codebook, with kinds vq and rvq
      "num_stages": 4,  # codes of an object, with kind rvq
      "levels": (8, 8, 8),  # of each dimension, with kind fsq
      "decay": 0.99,  # of the moving averages of codes
      "revive_below": 0.1,  # codes used less than this share of the mean move; 0 = never
      "gradient": "straight",  # past the code: straight | rotation
  }
  config.model.prior = {
      "hidden_dim": 128,  # of the network of new latents, where objects have none of their own
      "num_blocks": 3,  # of its layers
      "num_steps": 30,  # from noise to a latent
  }
  config.model.activation = "gelu"  # after each hidden layer
  config.model.dropout = 0.0  # share of a hidden layer that is dropped
  config.model.globals_slot = True  # the event as a whole has a latent of its own
  config.model.legacy = False  # the network of the original
  config.loss.weights = {
      "cont": 1.0,  # of the squared error of the normalised numbers of an object
      "denoise": 1.0,  # the same of noisy objects, by the level of noise, where the decoder denoises
      "id": 1.0,  # of the cross-entropy of its type, nats
      "exists": 0.1,  # of the cross-entropy of whether a slot holds an object, nats
      "globals": 0.1,  # of the squared error of missing energy and its azimuth, normalised
      "commitment": 0.25,  # of the distance of a latent from its code
      "kl": 0.01,  # of the divergence from a standard Normal, nats of an object
      "prior": 1.0,  # of the squared error of the flow of new latents
      "image": 1.0,  # of the cross-entropy of a pixel, nats
  }
  config.loss.extra = ()  # loss terms of your own, dotted names of (batch, out) -> [B]; each needs a weight
  config.eval.metrics = ()  # metrics of your own, dotted names of (batch, out) -> (sum, count)
  config.train.batch_size = 128
  config.train.num_epochs = 20
  config.optim.learning_rate = 1e-3
  config.optim.clip_norm = 1.0
  config.optim.schedule = "cosine"
  return config


def changed(**fields):
  """The default with other values at dotted keys, written with __ for dots."""
  return with_values(vq(), {key.replace("__", "."): value for key, value in fields.items()})


def legacy():
  """The original's network and loss: padding counts, missing energy is in GeV, nothing says what an object is."""
  return changed(model__legacy=True, model__globals_slot=False, model__latent__revive_below=0.0,
                 data__norm="zscore_legacy", loss__weights__globals=1.0, train__num_epochs=10,
                 optim__schedule="constant")


def generative(loop, decoder):
  """One latent of an event, of which new ones can be drawn; the decoder is given the types of objects."""
  config = changed(model__latent__per_object=False, model__latent__kind="vae", model__latent__dim=16,
                   model__encoder__kind="gan", model__encoder__hidden_dims=(64, 128), model__encoder__num_blocks=2,
                   model__decoder__kind=decoder, model__decoder__hidden_dims=(64, 128), loss__weights__kl=0.001,
                   loss__weights__globals=1.0, train__batch_size=256, train__num_epochs=20,
                   optim__learning_rate=2e-3, optim__warmup_steps=100, optim__ema_decay=0.995)
  config.experiment = f"jaxtrain.experiments.autoencoder.{loop}"
  return config


def gan_ae():
  """Objects drawn by a generator, which a critic tells from real ones."""
  config = generative("gan_ae", "gan")
  config.loss.weights.cont = 0.3  # with more the generator takes the mean of what could be, with less the critic stops
  config.model.critic = {
      "loss": "hinge",  # hinge | nonsat | lsgan | rpgan | wgan_gp
      "hidden_dims": (64, 128),  # of its set transformer
      "num_blocks": 2,  # of its set transformer
      "num_heads": 4,  # of its attention
      "r1_gamma": 1.0,  # half of it is the weight of the squared gradient at real events
      "r2_gamma": 0.0,  # likewise at drawn events
      "noise": 0.1,  # deviation of what is added to the normalised numbers of all events before they are judged
      "lambda_adv": 0.1,  # weight of the adversarial term
      "adaptive": False,  # that weight times the ratio of gradients at the decoder's last layer
      "start_step": 0,  # step from which there is a critic
      "d_steps": 1,  # its updates in a step, each of fresh events
  }
  config.optim_critic = optimiser()
  config.optim_critic.learning_rate, config.optim_critic.schedule = 1e-3, "cosine"
  config.optim.betas = config.optim_critic.betas = (0.5, 0.99)
  config.train.num_epochs = config.train.monitor_from_epoch = 12  # the loss does not say which state draws best
  return config


def diffusion_ae(**fields):
  """Objects drawn by a denoiser, given the latent of the event and the types of objects."""
  config = generative("diffusion_ae", "diffusion")
  config.model.diffusion = {
      "process": "edm",  # edm | ddpm | flow
      "target": "v",  # of ddpm: eps | x0 | v
      "schedule": "cosine",  # of ddpm: linear | cosine
      "num_levels": 1000,  # of ddpm
      "weighting": "min_snr",  # of ddpm: uniform | snr | min_snr
      "gamma": 5.0,  # largest weight of min_snr
      "p_mean": -1.2,  # of the logarithm of edm's noise in training
      "p_std": 1.2,  # its deviation
      "sigma_min": 0.002,  # least noise of edm's sampler
      "sigma_max": 80.0,  # its most noise
      "rho": 7.0,  # how its levels are spaced
      "sampler": "heun",  # heun (edm, flow) | ddim | ancestral (ddpm)
      "num_steps": 30,  # of the sampler
      "eta": 0.0,  # noise of ddim's steps, as a share of the ancestral sampler's
  }
  return with_values(config, fields)


def test_mlp():
  """A small network on made rows: a test of an installation."""
  config = common()
  config.experiment = "jaxtrain.experiments.autoencoder.mlp"
  config.data = {
      "task": "regression",  # regression | binary
      "num_rows": 5000,  # of all parts
      "num_features": 16,  # of a row
      "noise": 0.1,  # deviation of what is added to the answer
      "seed": 42,  # of the rows; -1 = the run's own seed
      "split": {
          "kind": "random",  # none | random
          "fractions": (0.8, 0.2, 0.0),  # of rows that train, validate and test
      },
  }
  config.model.hidden_dims = (64, 64)  # of the network
  config.model.activation = "relu"  # after each hidden layer
  config.model.dropout = 0.0  # share of a hidden layer that is dropped
  config.train.batch_size = 128
  config.train.num_epochs = 10
  config.optim.learning_rate = 1e-3
  return config


def smoke():
  """The default with 600 events for 3 epochs and small networks."""
  return changed(data__row_limit=600, train__num_epochs=3, train__batch_size=64, model__latent__num_codes=32,
                 model__latent__dim=8, model__encoder__hidden_dims=(32,), model__decoder__hidden_dims=(32,),
                 optim__decay_steps=18)


VARIANTS = {
    "vq": vq,
    "none": lambda: changed(model__latent__kind="none"),
    "linear": lambda: changed(model__latent__kind="linear"),
    "rvq": lambda: changed(model__latent__kind="rvq"),
    "fsq": lambda: changed(model__latent__kind="fsq"),
    "vae": lambda: changed(model__latent__kind="vae"),
    "legacy": legacy,
    "hdf5": lambda: changed(data__source="hdf5", data__split__kind="file", data__row_limit=0),
    "csv": lambda: changed(data__source="csv", data__row_limit=0, data__energy_unit="MeV"),
    "images": lambda: changed(data__source="images", data__row_limit=0, data__split__kind="file",
                              model__encoder__hidden_dims=(32, 64), model__decoder__hidden_dims=(64, 32)),
    "gan_ae": gan_ae,
    "diffusion_ae": diffusion_ae,
    "flow": lambda: diffusion_ae(**{"model.diffusion.process": "flow"}),
    "test_mlp": test_mlp,
    "smoke": smoke,
}

SWEEPS = {
    "compare_vq_vs_none": {"model.latent.kind": ("none", "vq")},
    "compare_latent_spaces": {"model.latent.kind": ("none", "linear", "vq")},
    "compare_globals_heads": {"model.latent.kind": ("none", "linear", "vq"), "loss.weights.globals": (0.0, 1.0, 10.0),
                              "seed": range(3)},
    "seeds": {"seed": range(5)},
}


def sweep(name):
  """The settings of a named sweep, --name=NAME of jaxtrain.sweep."""
  return pick_variant(name, SWEEPS, "--name")


def get_config(variant="vq"):
  """The config of a variant."""
  return pick_variant(variant, VARIANTS)()
