"""An autoencoder whose decoder is a diffusion model of an event's objects given its latent: an experiment.

In training the decoder denoises objects at random levels of noise, given the latent of the same event without noise.
What an event comes back as is the expectation given its latent; new events are drawn by a sampler. `diffusion` says
what the processes are, `samplers` how objects are drawn, and `objective` what the loss has beside.

**Source:** a decoder that denoises given a latent: Preechakul et al. 2022 (Diffusion autoencoders), section 3, without
their latent of the noise; the processes' own sources are in `diffusion`.
"""

from jaxtrain.config import limits
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import ae, denoising, diffusion, training
from jaxtrain.experiments.autoencoder.problem import Problem
from jaxtrain.types import Experiment, Metric

INIT_ROWS = ae.INIT_ROWS
TRACEABLE = ae.TRACEABLE
CODE = ae.CODE
METRICS = {"loss": ae.METRICS["loss"]} | {
    "denoise": Metric("", "squared error of what noisy objects are taken for, weighted by their level of noise, mean",
                      "lower"),
    "denoise_*": Metric("", "the same of a quarter of the levels in training: 1 has the least noise", "lower"),
} | ae.METRICS | {
    "cont": Metric("", "squared error of an object's normalised numbers when they are expected from the latent alone, "
                   "mean", "lower", words="numbers of objects")}
TAKEN = (*METRICS, *ae.TAKEN, "level", "level_noise")
LIMITS = ae.LIMITS | {
    "model.diffusion.process": limits.one_of(*diffusion.KINDS),
    "model.diffusion.target": limits.one_of(*diffusion.TARGETS),
    "model.diffusion.schedule": limits.one_of(*diffusion.SCHEDULES),
    "model.diffusion.num_levels": limits.whole(2, 100000),
    "model.diffusion.weighting": limits.one_of(*diffusion.WEIGHTINGS),
    "model.diffusion.gamma": limits.at_least(1e-6),
    "model.diffusion.p_mean": limits.between(-10, 10),
    "model.diffusion.p_std": limits.at_least(1e-6),
    "model.diffusion.sigma_min": limits.at_least(1e-6),
    "model.diffusion.sigma_max": limits.at_least(1e-6),
    "model.diffusion.rho": limits.between(1, 100),
    "model.diffusion.sampler": limits.one_of("heun", "ddim", "ancestral"),
    "model.diffusion.num_steps": limits.whole(1, 100000),
    "model.diffusion.eta": limits.between(0, 1),
}

load = ae.load


def make_problem(config, meta) -> Problem:
  """The networks, their latent and their loss of a config and the meta of its data. Raises UserError."""
  decoder = config.model.decoder
  if decoder.own or decoder.kind != "diffusion":
    raise UserError(f"config.model.decoder.{'own' if decoder.own else 'kind'}: got "
                    f"{decoder.own[0] if decoder.own else decoder.kind!r}, allowed the kind diffusion alone in this "
                    "experiment: others do not denoise")
  if meta["kind"] != "events":
    raise UserError("config.data.source: got images, allowed toy, hdf5 and csv: the decoder denoises sets of objects")
  return ae.make_problem(config, meta, TAKEN, denoising.make_denoising(config.model.diffusion))


def notes(p: Problem, settings) -> tuple[str, ...]:
  """What of the config has no effect; `settings` is `config.model.diffusion`."""
  unread = [f"config.model.diffusion.{name}={settings[name]} has no effect with process {settings.process} and sampler "
            f"{settings.sampler}" for name in diffusion.without_effect(settings)]
  return (*training.note_no_prior(p), *unread)


def make(config, meta) -> Experiment:
  """The experiment's pure functions. The learning rate and the loss weights may be tracers."""
  p = make_problem(config, meta)
  return training.make_experiment(p, config, meta, notes(p, config.model.diffusion))
