"""IDX files made byte by byte, and those that are refused."""

import numpy as np
import pytest

import made_events
from jaxtrain import memory
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import idx_files

TRAIN, LABELS = idx_files.FILES["train"]


def read(folder, row_limit=0, **split):
  """Parts and facts of a folder."""
  split = made_events.configured(**{f"split__{name}": value for name, value in split.items()}).data.split
  return idx_files.read_parts(str(folder), split, row_limit)


@pytest.mark.parametrize("packed", [False, True])
def test_images_of_the_files(packed, tmp_path):
  """The t10k files test, those of train are split by the first two fractions; pixels are shares of 255."""
  made = made_events.write_images(tmp_path, packed=packed)
  parts, facts = read(tmp_path, kind="file", fractions=(0.75, 0.25, 0.0))
  assert {part: images.shape for part, (images, _) in parts.items()} == {
      "train": (9, 28, 28, 1), "val": (3, 28, 28, 1), "test": (5, 28, 28, 1)}
  images, labels = parts["test"]
  np.testing.assert_array_equal(images, (made["test"][0] / np.float32(255))[..., None])
  assert images.dtype == np.float32 and labels.dtype == np.int32 and labels.tolist() == [0, 1, 2, 3, 4]
  together = np.concatenate([parts["train"][0], parts["val"][0]])
  assert sorted(map(bytes, (255 * together).round().astype(np.uint8))) == sorted(map(bytes, made["train"][0]))
  for image, label in zip(*parts["train"]):  # rows keep their labels
    assert made["train"][1][np.argmin(np.abs(made["train"][0][..., None] / 255 - image).sum(axis=(1, 2, 3)))] == label
  assert len(facts["files"]) == 4 and all(len(digest) == 64 for digest in facts["files"].values())


def test_other_splits_and_a_limit(tmp_path):
  made_events.write_images(tmp_path)
  assert {part: len(images) for part, (images, _) in read(tmp_path, kind="none")[0].items()} == {"train": 17}
  sizes = {part: len(found[0]) for part, found in read(tmp_path, kind="random", fractions=(0.6, 0.2, 0.2))[0].items()}
  assert sum(sizes.values()) == 17 and sizes["train"] == 10
  parts, facts = read(tmp_path, row_limit=4, kind="file", fractions=(0.5, 0.5, 0.0))
  assert [len(images) for images, _ in parts.values()] == [2, 2, 4]
  assert facts["warnings"] == ["train: data.row_limit=4 leaves out 8 of 12 images",
                               "test: data.row_limit=4 leaves out 1 of 5 images"]


IMAGES = np.zeros((12, 28, 28), np.uint8)


@pytest.mark.parametrize("name,data,words", [
    (TRAIN, b"", "begins with nothing, allowed 00000803: an IDX file of bytes with 3 axes"),
    (TRAIN, made_events.idx(IMAGES[:, 0]), "begins with 00000802, allowed 00000803"),
    (TRAIN, made_events.idx(IMAGES, magic=b"\0\0\x0d\x03"), "begins with 00000d03"),
    (TRAIN, made_events.idx(IMAGES)[:-1], "holds fewer bytes than the 9,408 that it claims"),
    (TRAIN, made_events.idx(IMAGES) + b"a", "holds more bytes than the 9,408"),
    (TRAIN, made_events.idx(IMAGES[:, :27]), "images of 27 x 28 pixels, allowed 28 x 28"),
    (TRAIN, made_events.idx(IMAGES[:0]), "no images|12 labels of 0 images"),
    (LABELS, made_events.idx(np.zeros(11, np.uint8)), "11 labels of 12 images"),
    (LABELS, made_events.idx(np.full(12, 10, np.uint8)), "label 10, allowed 0 to 9"),
    (LABELS, made_events.idx(IMAGES), "begins with 00000803, allowed 00000801: an IDX file of bytes with 1 axis")])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_does_not_fit_is_refused(name, data, words, packed, tmp_path):
  made_events.write_images(tmp_path, packed=packed, **{name: data})
  with pytest.raises(UserError, match=words) as error:
    read(tmp_path)
  assert name.split("-")[1] in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_claim_is_judged_before_it_is_read(packed, tmp_path, monkeypatch):
  """Of 2^32 - 1 images, and of what does not fit into the memory that is left."""
  made_events.write_images(tmp_path, packed=packed, **{TRAIN: made_events.idx(IMAGES, (2**32 - 1, 2**32 - 1, 28))})
  with pytest.raises(UserError, match="unfolds to .* GiB"):
    read(tmp_path)
  made_events.write_images(tmp_path, packed=packed)
  monkeypatch.setattr(memory, "free_bytes", lambda: 90_000)
  with pytest.raises(UserError, match="unfolds to"):
    read(tmp_path)


def test_a_damaged_gzip_file_is_refused(tmp_path):
  made_events.write_images(tmp_path, packed=True)
  path = tmp_path / f"{TRAIN}.gz"
  path.write_bytes(path.read_bytes()[:60])
  with pytest.raises(UserError, match="config.data.path: cannot read .*train-images"):
    read(tmp_path)


def test_a_folder_without_the_files_is_refused(tmp_path):
  with pytest.raises(UserError, match="has no file train-images-idx3-ubyte or train-images-idx3-ubyte.gz, allowed"):
    read(tmp_path)
  with pytest.raises(UserError, match="config.data.path: got .*none', allowed the folder of the files train-images"):
    read(tmp_path / "none")
