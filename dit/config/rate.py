"""The rate of this machine, measured for a plan: ``dit bench train`` of two networks, in processes of their own.

So planning imports no torch. A rate of a few steps on an idle machine is good to a few per cent; runs that share its
memory are slower.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig

from dit import signals
from dit.condition import Classes
from dit.config.facts import Facts
from dit.errors import InputError
from dit.study.planned import Plan, PlannedRun
from dit.study.price import Price

SECONDS = 300.0  # for one of the two, the start of torch included
TIMED_FLOPS = 3e11  # of the steps that are timed: some seconds on a core
FEWEST, MOST = 2, 50  # steps
# What of a command line changes the rate of a step.
DATA = ("data", "autoencoder", "condition")
GROUPS = ("experiment", "network", "objective", "method", "optimizer")
GROUPS += ("averages", "hardware", "strategy", "compile", "accumulation", "activation_checkpointing")
GROUPS += ("batch_size",)


def measured(facts: Facts, plan: Plan, batch_size: int, devices: int) -> Price:
    """The rate of the smallest and of the largest network of a plan on one device of this machine.

    Args:
        facts: the data; where networks are told a class, latents are made up, else those that are there are read.
        plan: its runs have the networks.
        batch_size: images per step.
        devices: how many will work at a time.

    Raises:
        InputError: a network that cannot be timed here, with the reason.
    """
    ends = sorted(plan.runs, key=lambda run: run.counts.macs_per_token)
    found = {run.counts.macs_per_token: _rate(run, facts, batch_size) for run in (ends[0], ends[-1])}
    text = " and ".join(
        f"{found[run.counts.macs_per_token]:.3g} FLOP/s at width {run.width}" for run in (ends[0], ends[-1])
    )
    return Price(max(found.values()), devices, f"measured here: {text}", tuple(sorted(found.items())))


def _rate(run: PlannedRun, facts: Facts, batch_size: int) -> float:
    """FLOPs per second of a run's training steps."""
    steps = round(TIMED_FLOPS / (batch_size * run.counts.train_flops_per_image))
    more = [
        f"network.width={run.width}",
        f"steps={min(max(steps, FEWEST), MOST)}",
        "warm_up=1",
        "format=json",
    ]
    if isinstance(facts.kind, Classes):
        shape = ",".join(map(str, facts.domain.shape))
        words = [*_words(GROUPS), f"latent_shape=[{shape}]", f"num_classes={facts.kind.n}"]
    else:
        words = _words((*GROUPS, *DATA))
    parent = os.getpid()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dit", "bench", *words, *more],
            capture_output=True, text=True, timeout=SECONDS, preexec_fn=lambda: signals.die_with(parent),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _unknown(run, f"its steps take more than {SECONDS:g} s") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise _unknown(run, said[-1].removeprefix("dit: ") if said else f"exit code {done.returncode}")
    return float(json.loads(done.stdout)["train_flops_per_second"])


def _unknown(run: PlannedRun, why: str) -> InputError:
    remedy = "Plan where it can run; or give study.flops_per_second and study.budgets_gpu_hours."
    return InputError(
        "study.hours", f"(width {run.width}: {why})", "a machine that trains its networks", remedy
    )


def _words(groups: Sequence[str]) -> list[str]:
    """Those of this command that give something of these groups; and its folders of configuration."""
    config = HydraConfig.get()
    folders = [item.path for item in config.runtime.config_sources if item.provider == "command-line"]
    kept = [
        word
        for word in config.overrides.task
        if word.lstrip("+~").partition("=")[0].partition(".")[0].partition("@")[0] in groups
        and not word.lstrip("+").startswith(("network.width=", "experiment=null"))
    ]
    return [*(word for path in folders for word in ("--config-dir", path)), *kept]
