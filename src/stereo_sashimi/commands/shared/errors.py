"""What a person sees when a command fails: one message, no traceback, unless it is our own mistake."""

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

T = TypeVar("T")


def speak(run: Callable[..., T]) -> Callable[..., T | None]:
    """Wrap a command: errors about input (ValueError, a backend that does not run, files) exit with 1 and one message.

    `STEREO_SASHIMI_TRACEBACK=1` shows the whole traceback instead. In a sweep the error goes on to the sweeper.
    """

    # Hydra finds the configs folder through the wrapped function.
    @functools.wraps(run)
    def command(*args: object, **kwargs: object) -> T | None:
        try:
            return run(*args, **kwargs)
        except KeyboardInterrupt:
            print("\nInterrupted.", file=sys.stderr)
            sys.exit(130)
        except (ValueError, OSError, HydraException, OmegaConfBaseException) as error:
            _fail(_root(error), error)
        except RuntimeError as error:
            # Imported here: the commands' help should not wait for torch.
            from stereo_sashimi.ops.backend_error import BackendError

            if not isinstance(error, BackendError):
                raise
            _fail(error, error)

    return command


def sweeping() -> bool:
    """Whether this process runs the jobs of a sweep (`python train.py -m ..`)."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def as_typed(text: str) -> str:
    """A message whose commands are those that work here: `stereo-sashimi train` where that is what was started.

    After `pip install` there is no train.py and no preprocess/.
    """
    if Path(sys.argv[0]).stem != "stereo-sashimi":
        return text
    text = re.sub(r"python preprocess/(\w+?)(_wav)?\.py", r"stereo-sashimi prepare \1", text)
    text = text.replace("python -m stereo_sashimi", "stereo-sashimi")
    return re.sub(r"python (train|generate|evaluate|compress)\.py", r"stereo-sashimi \1", text)


def _fail(root: BaseException, error: BaseException) -> NoReturn:
    if os.environ.get("STEREO_SASHIMI_TRACEBACK"):
        raise error
    said = str(root)
    if isinstance(root, ConfigAttributeError | ConfigKeyError):
        said = f"the command reads {root.full_key}, which its config does not have. Give {root.full_key}=.."
    elif isinstance(root, OSError) and root.filename is not None:
        said = f"{root.filename}: {root.strerror}. Give a path that this user may read, for outputs also write."
    print(as_typed(f"{type(root).__name__}: {said}"), file=sys.stderr)
    if sweeping():
        # Hydra counts the job as failed and goes on with the next.
        raise error
    sys.exit(1)


def _root(error: BaseException) -> BaseException:
    """Hydra wraps what a constructor raised; the first error is the one that explains."""
    while error.__cause__ is not None and isinstance(error, HydraException):
        error = error.__cause__
    return error
