"""A survey of lenses, as the command `einfield batch` fits it: manifest and template in, one table out.

The directory of a survey is that of the command, and both may work in it at the same time. `run` does not repeat lenses that
are finished; it may be killed at any moment and called again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arrays import as_whole
from .errors import InvalidInput

Path = str | os.PathLike[str]
Report = Callable[[str], None]

_MEANINGS = {0: "done", 1: "failed", 75: "out of time", 130: "interrupted"}


@dataclass(frozen=True)
class Outcome:
    """How `plan` or `run` ended.

    Attributes
    ----------
    status : "done"; "failed", when some lenses have a problem or failed; "out of time" or "interrupted", when the same call
        continues
    exit_status : that of the command: 0, 1, 75 or 130
    log : lines of the log
    warnings : one sentence each: what is wrong with which lens
    """

    status: str
    exit_status: int
    log: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class Status:
    """How far a survey is.

    Attributes
    ----------
    lenses, ok, suspect, failed, unfinished : numbers of lenses
    log : lines of `einfield batch status`: also flags, and who works on what
    """

    lenses: int
    ok: int
    suspect: int
    failed: int
    unfinished: int
    log: list[str]


def plan(
    manifest: Path,
    template: Path | None = None,
    *,
    sample: int = 1,
    backend: str = "auto",
    device: int | None = None,
    threads: int = 0,
    precision: Literal["single", "double"] = "single",
    progress: Report | None = None,
) -> Outcome:
    """Checks every lens and predicts memory, time and files. Nothing is written.

    Parameters
    ----------
    manifest : path of the table of lenses, FITS or ECSV: "FILE" or "FILE[HDU]"
    template : path of the configuration of all lenses; None: every row names its own
    sample : int
        Lenses of each of the largest groups that are fitted to measure the time, for a minute at most; 0 = none.
    backend, device, precision : as for `fit`
    threads : int
        Of the CPU, each of which fits one lens at a time; 0 = as many as the process may use.
    progress : callable, optional
        Gets every line of the log.

    Returns
    -------
    Outcome
        "failed" when a lens has a problem, which stops no other.

    Raises
    ------
    InvalidInput
        "FILE:LINE: ...", for a manifest or template that cannot be read.
    """
    return _outcome(_core.batch_plan(os.fspath(manifest), _optional(template), as_whole("sample", sample),
                                     *_machine(backend, device, threads, precision, progress)))


def run(
    manifest: Path,
    directory: Path,
    template: Path | None = None,
    *,
    shard: str = "auto",
    only: str | Sequence[str] = (),
    time_limit: float | str | None = None,
    keep: Literal["none", "flagged", "all"] = "none",
    lease: float | str = 180,
    backend: str = "auto",
    device: int | None = None,
    threads: int = 0,
    precision: Literal["single", "double"] = "single",
    progress: Report | None = None,
) -> Outcome:
    """Fits the lenses that are not finished.

    Parameters
    ----------
    manifest, template : as for `plan`
    directory : of the survey, made when it is absent
    shard : "auto", or "i/n": begin with this share of the lenses, then help others
    only : str or list of str
        Fit these again: "failed", "flagged", "changed", or ids.
    time_limit : float [s] or str, optional
        End after this time, as "55m", with checkpoints.
    keep : "none", "flagged" or "all"
        Lenses whose results are written to directory/lenses, for `einfield.open_result`.
    lease : float [s] or str
        Time without a sign of life after which a lens of another process is taken over.
    backend, device, threads, precision, progress : as for `plan`

    Returns
    -------
    Outcome
        "failed" when a lens failed, which stops no other; "out of time"; "interrupted" after Ctrl-C, with checkpoints.

    Raises
    ------
    InvalidInput
        Also for a directory that holds something else.
    IoError
    """
    if keep not in ("none", "flagged", "all"):
        raise InvalidInput(f'keep: found {keep!r}, expected "none", "flagged" or "all"')
    settings = [("out", os.fspath(directory)), ("shard", shard), ("only", only if isinstance(only, str) else ",".join(only)),
                ("keep", keep), ("lease", str(lease))]
    if time_limit is not None:
        settings.append(("time-limit", str(time_limit)))
    return _outcome(_core.batch_run(os.fspath(manifest), _optional(template), settings,
                                    *_machine(backend, device, threads, precision, progress)))


def status(directory: Path) -> Status:
    """How far the survey in a directory is.

    Raises
    ------
    InvalidInput
        For a directory without a survey.
    """
    path = os.fspath(directory)
    log = _core.batch_status(path)
    names = _core.batch_table(path)["status"]
    return Status(len(names), names.count("ok"), names.count("suspect"), names.count("failed"), names.count("unfinished"), log)


def collect(
    directory: Path, out: Path | None = None, *, gallery: Path | None = None, overwrite: bool = False
) -> dict[str, NDArray[Any]]:
    """Writes the table of a survey, and returns it. At any time: lenses without a result have the status "unfinished".

    Parameters
    ----------
    directory : of the survey
    out : path of the table, FITS or, with the ending .ecsv, text; None: directory/lenses.fits, which is replaced
    gallery : path of a folder, optional
        For a page, report.html, with small pictures of all lenses.
    overwrite : bool
        Replace existing files.

    Returns
    -------
    dict of (lenses,) arrays
        By the names of the columns: "id", "status", "flags" (bits), "chi2", "lens.0.theta_E" and, with `_err`, its 1 sigma ...
        NaN or "" where there is no value. The file has units and descriptions; `examples/survey/README.md` lists them.

    Raises
    ------
    InvalidInput
        For a directory without a survey, and for files that exist, unless `overwrite`.
    IoError
    """
    path = os.fspath(directory)
    _core.batch_collect(path, _optional(out), _optional(gallery), bool(overwrite))
    return {name: np.asarray(column) for name, column in _core.batch_table(path).items()}


def _optional(path: Path | None) -> str:
    return "" if path is None else os.fspath(path)


def _machine(backend: str, device: int | None, threads: int, precision: str, progress: Report | None) -> tuple[Any, ...]:
    if backend not in ("auto", "cpu", "cuda"):
        raise InvalidInput(f'backend: found {backend!r}, expected "auto", "cpu" or "cuda"')
    if precision not in ("single", "double"):
        raise InvalidInput(f'precision: found {precision!r}, expected "single" or "double"')
    if progress is not None and not callable(progress):
        raise InvalidInput(f"progress: found {progress!r}, expected None or a function")
    of_device = None if device is None else as_whole("device", device)
    return backend, of_device, as_whole("threads", threads), precision == "double", progress


def _outcome(answer: tuple[Any, ...]) -> Outcome:
    exit_status, log, warned = answer
    return Outcome(_MEANINGS[exit_status], exit_status, log, [line.removeprefix("einfield: warning: ") for line in warned])
