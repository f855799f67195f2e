"""``dit plan``: the runs that a study would make, what they would cost, and what they would tell."""

from omegaconf import DictConfig

from dit.config import study as study_config
from dit.config.checks import check_planned
from dit.config.next_runs import next_runs
from dit.config.parts import Parts
from dit.study.summary import print_next_runs, print_plan
from dit.verbs.app import check_format, hydra_app, show


def task(cfg: DictConfig) -> None:
    """Prints the plan of a study, or its next runs."""
    check_format(cfg.format)
    parts, grid = Parts(cfg), study_config.grid(cfg)
    check_planned(parts)
    plan = study_config.plan(parts, grid)
    if cfg.study.next is not None:
        found = next_runs(parts, plan)
        study_config.refuse_unused(cfg, plan)
        show(found, cfg.format, print_next_runs)
        return
    study_config.refuse_unused(cfg, plan)
    show(plan.as_dict(), cfg.format, print_plan)
    if cfg.study.hours is not None and cfg.format == "table":
        budgets = ",".join(f"{budget:g}" for budget in plan.grid.budgets_flops)
        print(f"for dit study, in place of study.hours: study.budgets_flops=[{budgets}]")


app = hydra_app("plan")(task)
