"""Pictures inside pages: a figure as PNG with its caption, and one of its own for narrow screens.

Only what a page shows is made here; what a figure draws is in `figures` and beside the experiments.
"""

import base64
import inspect
import io
import os
from typing import Any, Callable

from jaxtrain.report.page import Html, tag

NARROW = 640  # pixels up to which a figure can be read on a phone without scrolling


def takes_narrow(family: Callable) -> bool:
  """Whether a family draws its panels one below the other where it is asked to."""
  return "narrow" in inspect.signature(family).parameters


def caption_of(family: Callable, figure: Any) -> str:
  """What a figure says of itself by its label, else what the docstring of its family says."""
  return " ".join(str(figure.get_label() or inspect.getdoc(family) or "").split())


def remove_older(path: str, start: str) -> None:
  """Removes what lies beside a figure and has a name with the same start."""
  for name in os.listdir(os.path.dirname(path)):
    if name.startswith(start) and name.endswith(".png") and name != os.path.basename(path):
      os.remove(os.path.join(os.path.dirname(path), name))


def png(figure: Any) -> bytes:
  """A figure of matplotlib as the bytes of a PNG file."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", metadata={"Software": None})
  return buffer.getvalue()


def png_source(data: bytes) -> str:
  """The bytes of a picture as an address that holds them."""
  return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def with_code(text: str) -> list[Html | str]:
  """A text whose parts between backticks are code."""
  return [tag("code", part) if k % 2 else part for k, part in enumerate(text.split("`"))]


def picture(name: str, caption: str, data: bytes, narrow: bytes | None = None) -> Html:
  """A PNG picture with its caption; a click or a tap shows it at full size. Narrow screens take `narrow`, if given."""
  width = int.from_bytes(data[16:20], "big") * 4 // 5  # of what its header says: text is of one size in all
  wide = f"--w:{0 if width <= NARROW or narrow is not None else width}px"  # else it scrolls sideways on a phone
  image = tag("img", src=png_source(data), width=str(width), style=wide, alt=f"{name}: {caption}".replace("`", ""))
  if narrow is not None:
    image = tag("picture", tag("source", media="(max-width:40rem)", srcset=png_source(narrow)), image)
  image = tag("label", tag("input", type="checkbox", aria_label=f"{name} at full size"), image)
  return tag("figure", image, tag("figcaption", tag("b", name.replace("_", " ")), ". ", *with_code(caption)))
