"""A convolutional U-Net as a network F(x, t, condition): diffusers' ``UNet2DModel`` behind our interface."""

from typing import TYPE_CHECKING

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from dit.condition import NOTHING, Classes, Condition, ConditionKind
from dit.domain import Domain
from dit.network.base import Network

if TYPE_CHECKING:
    from dit.network.unet_config import UNetConfig


class UNet(Network):
    """The network of a ``UNetConfig``, for samples of one domain and conditions of one kind.

    Args:
        config: shape and options.
        domain: the samples it is built for; other sizes that its levels divide work too.
        kind: what it is told besides the time; a class is added to the time vector.
        out_channels: channels of the output; None means those of the domain.
        seed: of the initial weights, which do not depend on torch's global random state.

    Raises:
        InputError: the network does not fit the data; raised before anything is built.
    """

    config: "UNetConfig"

    def __init__(
        self,
        config: "UNetConfig",
        domain: Domain,
        kind: ConditionKind,
        out_channels: int | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        config.check_fits(domain, kind)
        self.config, self.domain, self.kind = config, domain, kind
        self.out_channels = domain.channels if out_channels is None else out_channels
        n_levels = len(config.channels)
        attends = [level in config.attention for level in range(n_levels)]
        with torch.random.fork_rng(devices=[]):  # torch's initialisers draw from the global state
            torch.manual_seed(seed)
            self.net = UNet2DModel(
                in_channels=domain.channels,
                out_channels=self.out_channels,
                block_out_channels=config.channels,
                layers_per_block=config.blocks,
                down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
                up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
                attention_head_dim=config.head_dim,
                norm_num_groups=config.groups,
                attn_norm_num_groups=config.groups,
                resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
                num_class_embeds=kind.n + 1 if isinstance(kind, Classes) else None,
            )
        middle = self.net.mid_block
        assert middle is not None
        self.blocks = (*self.net.down_blocks, middle, *self.net.up_blocks)
        if torch.get_default_device().type != "meta":
            self._silence()

    @torch.no_grad()
    def _silence(self) -> None:
        """Zeroes the last map of each residual branch and of the output, as DDPM's published initialisation does."""
        last: list[nn.Module] = [self.net.conv_out]
        for module in self.modules():
            if isinstance(module, ResnetBlock2D):
                last.append(module.conv2)
            elif isinstance(module, Attention):
                last.extend(module.to_out or ())
        for layer in last:
            for parameter in layer.parameters():
                parameter.zero_()

    def forward(self, x: Tensor, t: Tensor, told: Condition = NOTHING) -> Tensor:
        """The output F (B, C_out, H, W) in the dtype of x.

        Args:
            x: (B, C, H, W) noised samples; sides that 2^(levels - 1) divides.
            t: (B,) time as shown to the network (0 to 1000 or so), float32.
            told: the condition; an empty one is the null condition.
        """
        labels = None
        if isinstance(self.kind, Classes):
            told = told or self.kind.null(len(t), t.device)
            labels = told["label"]
        dtype = self.net.conv_in.weight.dtype
        return self.net(x.to(dtype), t.float(), labels, return_dict=False)[0].to(x.dtype)
