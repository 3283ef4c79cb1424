"""The `fastloss` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import fastloss
from fastloss.cli.errors import BadInputError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit 2 with one line, where argparse would print its usage too."""
        _complain(f"{self.prog}: {message} (see {self.prog} --help)")
        self.exit(2)


def _complain(message: str) -> None:
    """One line on standard error, whatever a file's name or another's message holds."""
    if sys.stderr is not None:
        print(" ".join(message.split()), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastloss", description=(fastloss.__doc__ or "").partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"fastloss {fastloss.__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )

    score = commands.add_parser(
        "score",
        help="score a file of logits against a file of targets",
        description="Score logits of shape (..., V) against class indices, both .npy files. The logits "
        "are read block by block, so that memory is bounded whatever the file's size.",
    )
    score.add_argument("logits", type=Path, metavar="LOGITS.npy", help="float16, float32 or float64")
    score.add_argument("targets", type=Path, metavar="TARGETS.npy", help="integers, one for each row")
    score.add_argument("--out", type=Path, metavar="ROWS.npz", help="keep the per-row columns there")
    score.add_argument(
        "--ignore-index", type=_index, default=-100, metavar="I", help="targets not to count (-100)"
    )
    score.add_argument(
        "--top-k", type=_ranks, default=(1, 5), metavar="K,...", help="accuracies to print (1,5)"
    )
    score.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="divides the logits (1.0)"
    )
    score.add_argument("--json", action="store_true", help="print one JSON object")

    demo = commands.add_parser(
        "demo",
        help="score a language model of Python's own source files",
        description="Fit a bigram model to the standard library's source files on this machine, score "
        "held-out positions of it, and set fastloss beside plain NumPy. No network; under a minute.",
    )
    demo.add_argument(
        "--positions", type=_positive, default=2048, metavar="N", help="held-out positions (2048)"
    )
    demo.add_argument("--keep", type=Path, metavar="DIR", help="write logits.npy and targets.npy there")

    bench = commands.add_parser(
        "bench",
        help="time fastloss on this machine beside the libraries installed",
        description="Time fastloss beside NumPy, and SciPy, PyTorch and JAX where they are installed, all "
        "taking turns, and beside what the machine's memory and arithmetic allow. About two minutes.",
    )
    bench.add_argument("--quick", action="store_true", help="one smaller workload, three rounds")
    bench.add_argument("--json", action="store_true", help="print one JSON object")

    info = commands.add_parser("info", help="versions, CPU, threads and cache of this installation")
    info.add_argument("--json", action="store_true", help="print one JSON object")

    warmup = commands.add_parser(
        "warmup",
        help="compile ahead, into the cache",
        description="Compile every operation, or those named, so that no later call has to: in an image "
        "build, or before a job forks its workers.",
    )
    warmup.add_argument("ops", nargs="*", metavar="OP", help="operations, softmax for example (all)")
    warmup.add_argument(
        "--dtypes", type=_words, default=("float32", "float64"), metavar="D,...",
        help="types to compute in (float32,float64)",
    )
    warmup.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _ranks(text: str) -> tuple[int, ...]:
    try:
        ranks = tuple(sorted({int(k) for k in text.split(",")}))
    except ValueError:
        ranks = ()
    if not ranks or ranks[0] < 1:
        raise argparse.ArgumentTypeError(f"expected numbers from 1 on, like 1,5, got {text!r}")
    return ranks


def _index(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 1 << 63
    if not -(1 << 63) <= number < 1 << 63:
        raise argparse.ArgumentTypeError(f"expected an integer of 64 bits, got {text!r}")
    return number


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when done, 2 on bad input, which gets one line on standard error."""
    try:
        try:
            return _run(_parser().parse_args(argv))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        _discard_output()
        return 141
    except OSError as error:  # what the commands read and write is a BadInputError: it is our output
        _discard_output()
        _complain(f"fastloss: standard output: {error.strerror or error}")
        return 1


def _run(arguments: argparse.Namespace) -> int:
    from fastloss._engine import threads

    try:
        try:
            threads.count()
        except ValueError as error:  # FASTLOSS_NUM_THREADS
            raise BadInputError(str(error)) from None
        if arguments.command == "score":
            from fastloss.cli.score import run_score

            run_score(
                arguments.logits, arguments.targets, out=arguments.out,
                ignore_index=arguments.ignore_index, ranks=arguments.top_k,
                temperature=arguments.temperature, as_json=arguments.json,
            )
        elif arguments.command == "demo":
            from fastloss.cli.demo import run_demo

            run_demo(positions=arguments.positions, keep=arguments.keep)
        elif arguments.command == "bench":
            from fastloss.cli.bench import run_bench

            run_bench(quick=arguments.quick, as_json=arguments.json)
        elif arguments.command == "warmup":
            from fastloss.cli.warm import run_warmup

            run_warmup(
                dtypes=arguments.dtypes, ops=tuple(arguments.ops) or None, as_json=arguments.json
            )
        else:
            from fastloss.cli.info import run_info

            run_info(as_json=arguments.json)
    except BadInputError as error:
        _complain(f"fastloss {arguments.command}: {error}")
        return 2
    except MemoryError as error:
        _complain(f"fastloss {arguments.command}: out of memory. {error}")
        return 1
    return 0


def _discard_output() -> None:
    """So that what is still in its buffer does not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
