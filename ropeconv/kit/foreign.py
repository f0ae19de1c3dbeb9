"""Other libraries, made to behave: their errors as one line, transformers without its own
output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def no_panic() -> Iterator[None]:
    """A panic of a library in Rust (tokenizers) is an error like others, not the end."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(first_line(error)) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and no advice on stderr; what matters is checked and raised."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
