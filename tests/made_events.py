"""Configs, small sets of events and files of images for tests of autoencoders."""

import gzip
import os
import struct

import numpy as np

import child
from jaxtrain import config as config_lib
from jaxtrain.experiments.autoencoder import event_files, events as events_lib, generator, idx_files

LETTERS = {kind: letter for letter, kind in event_files.OBJECTS.items()}
PATH = os.path.join(child.ROOT, "configs", "autoencoder.py")


def configured(**fields):
  """The default with 200 events; other values of the section of the data at dotted keys, written with __ for dots."""
  values = {"row_limit": 200, "split__fractions": (0.8, 0.1, 0.1)} | fields
  config = config_lib.with_values(config_lib.read_file(PATH), {
      "train.batch_size": 32, **{f"data.{name.replace('__', '.')}": value for name, value in values.items()}})
  return config.lock()


def draw(num_events=40, num_slots=6, seed=0):
  """Events with any number of objects anywhere among the slots, in float32, and weights of their own."""
  random = np.random.RandomState(seed)
  ids = random.randint(1, 8, (num_events, num_slots)) * (random.uniform(size=(num_events, num_slots)) < 0.6)
  ids[:, 0] = random.randint(1, 8, num_events)
  pt, eta = np.exp(random.normal(4, 0.6, ids.shape)), random.normal(0, 1.1, ids.shape)
  phi = random.uniform(-3.1, 3.1, ids.shape)
  momenta = np.stack([pt * np.cosh(eta) * 1.01, pt, eta, phi], axis=-1)
  met = np.stack([np.exp(random.normal(4, 0.5, num_events)), random.uniform(-3.1, 3.1, num_events)], axis=-1)
  return events_lib.assemble(ids, momenta, met, random.randint(1, 6, num_events), random.uniform(0.5, 2, num_events))


def idx(array, shape=None, magic=None):
  """The bytes of an IDX file."""
  shape = array.shape if shape is None else shape
  magic = bytes([0, 0, 8, array.ndim]) if magic is None else magic
  return magic + struct.pack(f">{array.ndim}I", *shape) + array.tobytes()


def write_images(folder, num_train=12, num_test=5, packed=False, **changed):
  """The four files of a folder; `changed` has the bytes of some by the names of their places."""
  random = np.random.RandomState(0)
  made = {}
  for part, count in (("train", num_train), ("test", num_test)):
    images, labels = random.randint(0, 256, (count, 28, 28)).astype(np.uint8), np.arange(count, dtype=np.uint8) % 10
    made[part] = images, labels
    for name, array in zip(idx_files.FILES[part], (images, labels)):
      data = changed[name] if name in changed else idx(array)
      (folder / f"{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(data) if packed else data)
  return made


def write_hdf5(folder, num_events: int = 300) -> str:
  """A file of simulated events in the layout of the four-top study: 60 % train, the rest halves of val and test."""
  events, path = generator.generate(num_events, 0), os.path.join(folder, "events.h5")
  ends = np.array([0, 0.6, 0.8, 1.0]) * num_events
  parts = {part: events.take(slice(int(low), int(high)))
           for part, low, high in zip(event_files.PARTS, ends[:-1], ends[1:])}
  event_files.write_hdf5(path, parts)
  return path


def write_csv(folder, num_events: int = 300) -> str:
  """The lines of such events as Dark Machines writes them."""
  events, path = generator.generate(num_events, 1), os.path.join(folder, "events.csv")
  with open(path, "w", encoding="utf-8") as file:
    for i in range(num_events):
      objects = [",".join([LETTERS[kind], *(f"{value:.6g}" for value in momenta)])
                 for kind, momenta in zip(events.ids[i].tolist(), events.momenta[i]) if kind]
      met, phi = events.globals[i]
      file.write(f"{i}; {events.label[i]}; 1; {met:.6g}; {phi:.6g}; {'; '.join(objects)}\n")
  return path
