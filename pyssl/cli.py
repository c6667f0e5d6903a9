"""The command line: arguments in, exit codes out. Others do the work, `pyssl.report` first."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from pyssl import LOSSES, __version__, _checks, _views, report

DONE, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130

_EPILOG = (
    "exit codes: 0 done, 1 failure, 2 bad usage or bad input (one line on stderr says what was"
    " seen), 130 interrupted"
)
_REPORT = """\
Say what each loss keeps and loses on pairs of views, and why, in one HTML file.

Without VIEWS it uses the handwritten digits that scikit-learn ships, with two augmented views of
each. All losses see the same centred moments (the mean of the views is subtracted).
"""
_REPORT_EPILOG = """\
examples:
  pyssl report
  pyssl report views.npz --embedding-dim 32 --weight-decay 0.01 --loss infonce,spectral

VIEWS is written with np.savez("views.npz", x=x, x_plus=x_plus): two arrays (n, d), row i of each
one view of sample i.
"""
_CLASSIFY = """\
Print the table of modes that a loss learns and loses on your own pairs of views, and why.

The moments of the views are centred (their mean is subtracted), as for `pyssl report`.
"""
_CLASSIFY_EPILOG = """\
example:
  pyssl classify views.npz --embedding-dim 32 --weight-decay 0.01 --json

VIEWS is written with np.savez("views.npz", x=x, x_plus=x_plus): two arrays (n, d), row i of each
one view of sample i. In JSON, values that do not exist are null and infinities are strings.
"""
_SWEEP = """\
Classify a loss at every point of a grid of settings, into a zarr store, with a phase diagram.

Killed or interrupted, it goes on with --resume where it was, to the same bytes.
"""
_SWEEP_EPILOG = """\
example:
  pyssl sweep sweep.toml --store sweep.zarr --resume

where sweep.toml holds

  loss = {name = "infonce", partition = "joint"}
  moments = {dim = 64, spectral_exponent = 1.0}  # or {views = "views.npz"}

  [axes]
  temperature = {from = 0.1, to = 10.0, points = 100, spacing = "log"}
  weight_decay = [0.0, 0.1, 0.2]
"""


class _UsageError(Exception):
    """Bad usage or bad input, in one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        The exit code: 0 done, 1 failure, 2 bad usage or bad input, 130 interrupted.

    Raises
    ------
    SystemExit
        From the parser: 0 after ``--help`` and ``--version``, 2 for arguments it can't read.

    Examples
    --------
    >>> from pyssl.cli import main
    >>> main(["classify", "nowhere.npz"])
    2
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    prog = f"{parser.prog} {options.command}"
    try:
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _say(prog, "interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader, say `head`, has seen enough
        # or Python complains when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except _UsageError as error:
        return _say(prog, str(error), USAGE)
    except (ImportError, OSError) as error:
        return _say(prog, str(error), FAILURE)
    except Exception as error:  # a fault of ours, or no memory: still one line
        return _say(prog, f"failed with {type(error).__name__}: {error}", FAILURE)
    return DONE


def _parser() -> _Parser:
    parser = _Parser(
        prog="pyssl",
        description="Loss landscapes of self-supervised learning, and what collapses on them.",
        epilog="example:\n  pyssl report\n\n" + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pyssl {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    page = _command(commands, "report", "write the report page", _REPORT, _REPORT_EPILOG)
    page.add_argument("views", nargs="?", metavar="VIEWS", help=".npz file; default: digits")
    _add_settings(page, default=None, digits=True)
    page.add_argument(
        "--out",
        default="pyssl-report.html",
        metavar="FILE",
        help="where to write the page (default: %(default)s in the current folder)",
    )
    page.add_argument(
        "--image-shape",
        type=_image_shape,
        metavar="HxW",
        help="draw directions as images of this height and width, for example 28x28",
    )
    page.add_argument(
        "--verify",
        action="store_true",
        help="also train each loss on the views, and set the end beside theory (up to minutes)",
    )
    page.set_defaults(run=_report)

    table = _command(commands, "classify", "print the table", _CLASSIFY, _CLASSIFY_EPILOG)
    table.add_argument("views", metavar="VIEWS", help=".npz file")
    _add_settings(table, default="infonce")
    table.add_argument("--json", action="store_true", help="print JSON instead of a table")
    table.set_defaults(run=_classify)

    grid = _command(commands, "sweep", "classify on a grid of settings", _SWEEP, _SWEEP_EPILOG)
    grid.add_argument("sweep", metavar="SWEEP", help=".toml file")
    grid.add_argument("--store", required=True, metavar="STORE", help="zarr store to write")
    grid.add_argument(
        "--resume", action="store_true", help="go on with a store that is there already"
    )
    grid.add_argument(
        "--out",
        metavar="FILE",
        help="where to write the phase diagram (default: STORE with .png for its suffix)",
    )
    grid.set_defaults(run=_sweep)
    return parser


def _command(
    commands: Any, name: str, summary: str, description: str, epilog: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"{epilog}\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def _add_settings(
    parser: argparse.ArgumentParser, default: str | None, digits: bool = False
) -> None:
    own = report.own_settings()
    parser.add_argument(
        "--loss",
        default=default,
        metavar="NAME[,NAME...]",
        help=f"which losses, of {', '.join(LOSSES)} (default: {default or 'all'});"
        f" here, unlike in the library, {' and '.join(f'{a} means {b}' for a, b in own.items())}",
    )
    parser.add_argument(
        "--embedding-dim",
        type=int,
        default=report.EMBEDDING_DIM,
        metavar="K",
        help="dimension of the embedding (default: %(default)s)",
    )
    parser.add_argument(
        "--weight-decay",
        type=float,
        metavar="G",
        help="weight decay, adding (G/2)|W|^2 (default: "
        + (
            f"{report.DIGITS_WEIGHT_DECAY:g} for the digits, 0 for your own views)"
            if digits
            else "0)"
        ),
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=report.TEMPERATURE,
        metavar="TAU",
        help="temperature of the losses that have one (default: %(default)g)",
    )


def _image_shape(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected HxW such as 28x28, got {text!r}") from None
    return height, width


# ---- commands ------------------------------------------------------------------------------------


def _report(options: argparse.Namespace) -> None:
    with _progress() as progress:
        with _input():
            path = report.writable(options.out)
            data = None if options.views is None else _views.read(options.views)
            found = report.compare(
                data,
                image_shape=options.image_shape,
                progress=progress,
                verify=options.verify,
                **_settings(options),
            )
        html = found.page(progress)
    report.save(html, path)
    print(found.summary())
    print(f"wrote {path} ({len(html) / 1e6:.1f} MB): open it in a browser")


def _classify(options: argparse.Namespace) -> None:
    with _input():
        found = report.compare(_views.read(options.views), **_settings(options))
    if options.json:
        print(json.dumps(found.as_dict(), indent=1, allow_nan=False))
    else:
        print(found)


def _sweep(options: argparse.Namespace) -> None:
    from pyssl import _phase as plots
    from pyssl import _sweep_file, sweeps

    with _input():
        out = options.out or Path(options.store).with_suffix(".png")
        path = report.writable(out)
        start = sweeps.prepare(
            **_sweep_file.read(options.sweep),
            store=options.store,
            resume=options.resume,
            progress=sys.stderr.isatty(),
        )
    with _checks.needs("the phase diagram needs Matplotlib"):
        import matplotlib as mpl  # noqa: F401
    found = start()
    print(sweeps.summary(found))
    picture = plots.overview(found)
    if picture is None:
        print(f"wrote {options.store}; no picture: fewer than two axes of numbers")
    else:
        path.write_bytes(picture)
        print(f"wrote {options.store} and {path}")


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `report.compare` that both commands share."""
    return {
        "losses": _names(options.loss),
        "embedding_dim": options.embedding_dim,
        "weight_decay": options.weight_decay,
        "temperature": options.temperature,
    }


def _names(given: str | None) -> list[str] | None:
    return None if given is None else [name.strip() for name in given.split(",")]


@contextmanager
def _input() -> Iterator[None]:
    """Blame the user's arguments and files for what the library refuses inside."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _UsageError(str(error)) from None


@contextmanager
def _progress() -> Iterator[report.Progress]:
    """Show a bar on a terminal, and nothing elsewhere."""
    with _checks.needs("the progress bar needs rich"):
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<20}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total, what: bars.update(
            task, completed=done, total=total, description=what, refresh=True
        )


def _say(prog: str, message: str, code: int) -> int:
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)
    return code
