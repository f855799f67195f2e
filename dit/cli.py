"""The ``dit`` command: one verb, then Hydra overrides.

This file imports nothing but the standard library and the exit codes, so that ``dit --help`` answers at once; each verb
imports what it needs. Exit codes: 0 done, 2 the user's input is wrong, 75 stopped on request and resumable, 1 anything
else.
"""

import atexit
import difflib
import importlib
import io
import os
import sys

from dit.errors import EXIT_DONE, EXIT_INPUT, EXIT_RESUMABLE

VERBS = {
    "encode": "images -> autoencoder moments -> latent shards with a manifest",
    "train": "train one network; the same command resumes it",
    "sample": "draw images from a run's checkpoint",
    "export": "a run's weights for others, with the denoiser's configuration",
    "evaluate": "measure a run's samples, with the protocol beside every number",
    "count": "parameters, multiply-adds and memory of a network",
    "plan": "a grid of sizes and durations at exact compute, with its price",
    "study": "plan, encode, train, evaluate, fit and report; the same command continues",
    "fit": "scaling laws with intervals, from a study or a CSV file",
    "report": "the page, tables and figures of a study",
    "status": "where the runs of a study stand",
    "bench": "throughput and time split of training, sampling or data",
}


def usage() -> str:
    """The text of ``dit --help``."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "dit: scaling studies of diffusion transformers",
            "",
            "usage: dit <verb> [key=value ...]      Hydra overrides; -m sweeps, --cfg job shows the configuration",
            "       dit <verb> --help",
            "",
            *lines,
            "",
            "start with: dit study experiment=digits",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    """Runs ``dit`` and exits with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 shows é as \\xe9
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(EXIT_DONE if arguments else EXIT_INPUT)
    if arguments[0] == "--version":
        from dit import __version__

        print(__version__)
        sys.exit(EXIT_DONE)
    verb, overrides = arguments[0], arguments[1:]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        meant = f"Did you mean dit {near[0]}?" if near else "See dit --help."
        print(f"dit: unknown verb {verb!r}; allowed: {', '.join(VERBS)}. {meant}", file=sys.stderr)
        sys.exit(EXIT_INPUT)
    if verb == "bench" and overrides and "=" not in overrides[0] and not overrides[0].startswith("-"):
        overrides[0] = f"what={overrides[0]}"  # dit bench train
    from dit import signals

    atexit.register(signals.ignore)  # the first to be registered is the last to be called
    if verb in ("train", "study"):
        # Before the heavy imports: a signal that arrives while they run must not be lost.
        signals.listen()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # a rank of torchrun, which may be killed
        signals.die_with(os.getppid())
    # Hydra otherwise prints its own shortened message and exits with 1 before we can tell whose mistake it was.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # argparse, below Hydra, takes overrides in one piece only: -m may stand among them.
    overrides.sort(key=lambda word: word not in ("-m", "--multirun"))
    sys.argv = [f"dit {verb}", *overrides]
    try:
        module = importlib.import_module(f"dit.verbs.{verb}")
        from dit.verbs.app import run
    except KeyboardInterrupt:  # in the seconds that the imports take
        sys.exit(EXIT_RESUMABLE)
    code = run(module.app)
    if {"WORLD_SIZE", "SLURM_STEP_NUM_TASKS"} & set(os.environ):
        from dit.launch import World, leave

        if World.of_launcher().size > 1:
            leave(code)
    sys.exit(code)
