"""``dit status``: where the runs of a study stand, from their files and SLURM's queue."""

from omegaconf import DictConfig

from dit.config import study as study_config
from dit.config.given import refuse_unread
from dit.study.ledger import Ledger
from dit.study.watch import as_dict, table
from dit.verbs.app import check_format, hydra_app, show


def task(cfg: DictConfig) -> None:
    """Prints where the runs of a study stand."""
    check_format(cfg.format)
    ledger = Ledger(study_config.study_directory(cfg))
    refuse_unread(cfg)
    show(as_dict(ledger.shown()), cfg.format, lambda result: print(table(result)))


app = hydra_app("status")(task)
