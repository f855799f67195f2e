"""``dit encode``: images -> latent shards; ``verify=DIR`` checks the hashes of a directory instead."""

import logging
import time
from pathlib import Path

from omegaconf import DictConfig

from dit.config.encoding import GROUPS
from dit.config.given import refuse_unread
from dit.config.instantiation import instantiate
from dit.data.manifest import doubts, read_manifest, verify
from dit.errors import InputError
from dit.launch import World
from dit.verbs.app import hydra_app

log = logging.getLogger("dit")


def task(cfg: DictConfig) -> None:
    """Encodes one data set, or verifies what was encoded."""
    if cfg.verify is not None:
        if not Path(cfg.verify).is_dir():
            raise InputError("verify", cfg.verify, "a directory written by `dit encode`")
        refuse_unread(cfg)
        log.info("%s: %d files are as written", cfg.verify, verify(cfg.verify))
        return
    data = cfg.data
    source, autoencoder, split, condition = (
        instantiate(node) for node in (data.source, cfg.autoencoder.spec, data.split, cfg.condition.spec)
    )
    from dit.data.encode import encode_dataset, share_of_this_process  # torch: after the cheap checks

    # every key of conf/data but where the images come from, how they are split and where the latents go
    settings = {str(key): data[key] for key in data if key not in ("directory", "source", "split")}
    rank, world_size = share_of_this_process()
    device = _device(cfg.device)
    refuse_unread(cfg, besides=GROUPS)  # a directory named otherwise needs neither's name
    result = encode_dataset(
        data.directory,
        source,
        autoencoder,
        split,
        **settings,
        condition=condition,
        device=device,
        rank=rank,
        world_size=world_size,
        progress=_Lines(),
    )
    if not result.complete:
        log.info("%d blocks are left to other processes", result.blocks_missing)
    else:
        log.info("%s %s", result.directory, "written" if result.fresh else "is there already")
        for doubt in doubts(read_manifest(result.directory)):
            log.warning("%s: %s", result.directory, doubt)


app = hydra_app("encode")(task)


def _device(name: str | None) -> str:
    """The device of this process: those of one node take its GPUs in turn."""
    import torch

    try:
        device = torch.device(name)  # type: ignore[arg-type]  # what is no text is told below
        if device.type == "cuda" and device.index is None and (count := torch.cuda.device_count()):
            device = torch.device("cuda", World.of_launcher().local_rank % count)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError("device", name, "a device of this machine: cpu, cuda, cuda:1") from error
    return str(device)


class _Lines:
    """A log line per stage and every few seconds."""

    def __init__(self) -> None:
        self.last, self.stage = 0.0, ""

    def __call__(self, stage: str, done: int, total: int, detail: str) -> None:
        now = time.monotonic()
        if stage != self.stage or done == total or now - self.last > 5:
            self.last, self.stage = now, stage
            log.info("%s %d/%d %s", stage, done, total, detail)
