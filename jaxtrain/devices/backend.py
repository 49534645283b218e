"""The backend: platform, threads of the CPU, memory that is free. The one place that configures JAX for a process."""

import os
import resource

import jax

from jaxtrain import memory
from jaxtrain.errors import UserError


def set_up_process() -> None:
  """Settings of JAX that belong to the process, before the first device use."""
  import jax
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


# Below this much work a step is faster on one thread: XLA's pool costs more than it brings (README, Speed).
SINGLE_THREAD_FLOPS = 100e6
threads_in_use: list[int] = []  # set once, by the first device use of the process


def free_bytes() -> int:
  """Memory that a program may still take: of the first device where it keeps count, else of the machine."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if "bytes_limit" in stats:
    return stats["bytes_limit"] - stats["bytes_in_use"]
  return memory.free_bytes()


def use_cores(most: int) -> None:
  """Makes each core a device of its own, up to `most`, where the platform is a CPU and nobody has said how many.

  Has an effect before the first device use of the process only.
  """
  told = ("JAX_NUM_CPU_DEVICES" in os.environ
          or "XLA_FLAGS" in os.environ and "host_platform_device_count" in os.environ["XLA_FLAGS"])
  if not threads_in_use and not told:
    jax.config.update("jax_num_cpu_devices", max(1, min(most, len(os.sched_getaffinity(0)))))


def start_devices(settings, flops_per_step: float) -> int:
  """Starts the backend with the platform and the number of CPU threads that fit, and returns the threads (0: all).

  XLA reads the environment variable NPROC when its CPU client starts and never again, so only the first call in a
  process has a choice; later calls return what that one chose.
  """
  if threads_in_use:
    return threads_in_use[0]
  if settings.platform != "auto":
    jax.config.update("jax_platforms", "cuda" if settings.platform == "gpu" else settings.platform)
  if settings.deterministic:
    flags = os.environ["XLA_FLAGS"] if "XLA_FLAGS" in os.environ else ""
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
  preset = os.environ["NPROC"] if "NPROC" in os.environ else None
  threads = settings.cpu_threads
  if not threads and preset is None and flops_per_step < SINGLE_THREAD_FLOPS:
    threads = 1
  if threads:
    os.environ["NPROC"] = str(threads)
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # jax asserts that some platform is left
    reason = str(error).splitlines()[0] if str(error) else "no such device on this machine"
    raise UserError(f"config.parallel.platform: got {settings.platform!r}: {reason}") from None
  finally:
    os.environ.pop("NPROC", None)
    if preset is not None:
      os.environ["NPROC"] = preset
  threads_in_use.append(threads or int(preset or 0))
  return threads_in_use[0]


def max_memory_mib() -> float:
  """Peak memory: of the first device where it keeps count, else of the process."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    return stats["peak_bytes_in_use"] / 2**20
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
