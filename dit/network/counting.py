"""Parameters and multiply-adds of a network in closed form, without building it; imports no torch.

One multiply-add (MAC) is two floating point operations. Only matrix products are counted, as in the papers'
"Gflops" (which are MACs) and in ``torch.utils.flop_counter``; norms, activations and rotations are not.
Legend: N tokens, D width, P patch, C latent channels, V values of a token; L tokens of a text, W channels of each.
"""

import math
from dataclasses import dataclass

from dit.condition import Classes, ConditionKind, Text, find
from dit.domain import Domain
from dit.errors import check_number
from dit.network.options import N_TIME_FEATURES, DiTOptions, check_fits


@dataclass(frozen=True)
class Counts:
    """What one network costs for one input shape.

    Args:
        n_params_by_group: trainable parameters.
        n_position_table: entries of the fixed position table; not trained, not in ``n_params_total``, though
            DiT's checkpoints store them (XL/2: 675,129,632 parameters with them, 674,834,720 without).
        macs_by_part: forward multiply-adds of one image.
        tokens: N, of the image alone; condition tokens are not counted.
        train_macs_per_image: multiply-adds of one example in training, as its method counts them; None is forward and
            backward once, the backward pass taking twice as many.
    """

    n_params_by_group: dict[str, int]
    n_position_table: int
    macs_by_part: dict[str, int]
    tokens: int
    train_macs_per_image: int | None = None

    @property
    def n_params_total(self) -> int:
        """Trainable parameters."""
        return sum(self.n_params_by_group.values())

    @property
    def n_params_with_position_table(self) -> int:
        """Parameters as DiT's checkpoints count them: the fixed position table included."""
        return self.n_params_total + self.n_position_table

    @property
    def macs_per_image(self) -> int:
        """Forward multiply-adds of one image: the papers' "Gflops"."""
        return sum(self.macs_by_part.values())

    @property
    def macs_per_token(self) -> float:
        """N_flop: the size of the network as compute sees it, in place of the number of parameters."""
        return self.macs_per_image / self.tokens

    @property
    def train_flops_per_image(self) -> int:
        """Training FLOPs of one image: 2 operations per MAC."""
        if self.train_macs_per_image is not None:
            return 2 * self.train_macs_per_image
        return 6 * self.macs_per_image

    def as_dict(self) -> dict[str, int | float | dict[str, int]]:
        """Every count by name, ready for json."""
        return {
            "n_params_total": self.n_params_total,
            "n_params_with_position_table": self.n_params_with_position_table,
            "n_params_by_group": dict(self.n_params_by_group),
            "tokens": self.tokens,
            "macs_per_image": self.macs_per_image,
            "macs_by_part": dict(self.macs_by_part),
            "macs_per_token": self.macs_per_token,
            "train_flops_per_image": self.train_flops_per_image,
        }


def count(config: DiTOptions, domain: Domain, kind: ConditionKind, out_channels: int | None = None) -> Counts:
    """The counts of a network for samples of one domain.

    Args:
        config: the network.
        domain: what one sample is.
        kind: what the network is told.
        out_channels: channels of the output; None means C (2C with a learned variance), of tokens V.

    Raises:
        InputError: the network does not fit the data.
    """
    out_channels, patch = check_fits(config, domain, kind, out_channels), config.patch(len(domain.sizes))
    classes = find(kind, Classes)
    tokens = domain.tokens(patch)
    # tokens are looked up: a row for each of V values and the mask, and no product
    patch_in = 0 if domain.vocabulary else math.prod(patch) * domain.channels
    patch_out = math.prod(patch) * out_channels
    parameters = {
        "patch_embedding": ((patch_in or domain.vocabulary) + 1) * config.width,
        "positions": tokens * config.width if config.positions == "learned" else 0,
        "time_embedding": (N_TIME_FEATURES + 1) * config.width + (config.width + 1) * config.width,
        "label_embedding": (classes.n + 1) * config.width if classes else 0,
        "text_embedding": _text_parameters(config, find(kind, Text)),
        **_block_parameters(config),
        "output": _output_parameters(config, patch_out),
    }
    return Counts(
        n_params_by_group={group: n for group, n in parameters.items() if n},
        n_position_table=tokens * config.width if config.positions == "sincos" else 0,
        macs_by_part={part: n for part, n in _macs(config, kind, tokens, patch_in, patch_out).items() if n},
        tokens=tokens,
    )


def _text_parameters(config: DiTOptions, text: Text | None) -> int:
    if text is None:
        return 0
    d = config.width
    maps = (text.width + 1) * d + (d + 1) * d
    return maps + d + ((text.pooled + 1) * d if text.pooled else 0)


def _block_parameters(config: DiTOptions) -> dict[str, int]:
    d, hidden, depth = config.width, config.mlp_width, config.depth
    crosses = config.attends
    attention = 4 * d * d + 4 * d
    qk_norm = 2 * _norm_parameters(config, config.head_dim, affine=True) if config.qk_norm else 0
    mlp_in = 2 * hidden if config.mlp == "swiglu" else hidden
    n_norms = 3 if crosses else 2
    return {
        "attention": depth * (attention + qk_norm),
        "cross_attention": depth * (attention + qk_norm) if crosses else 0,
        "mlp": depth * (d * mlp_in + mlp_in + hidden * d + d),
        "modulation": depth * config.n_modulations * (d * d + d),
        "norms": depth * n_norms * _norm_parameters(config, d, affine=not config.is_modulated),
        "skips": config.n_skips * (2 * d * d + d),
    }


def _output_parameters(config: DiTOptions, patch_out: int) -> int:
    d = config.width
    modulation = 2 * (d * d + d) if config.is_modulated else 0
    return _norm_parameters(config, d, affine=not config.is_modulated) + modulation + (d + 1) * patch_out


def _norm_parameters(config: DiTOptions, channels: int, *, affine: bool) -> int:
    if config.norm == "rms":
        return channels
    return 2 * channels if affine else 0


def _macs(
    config: DiTOptions, kind: ConditionKind, tokens: int, patch_in: int, patch_out: int
) -> dict[str, int]:
    d, depth, hidden = config.width, config.depth, config.mlp_width
    n, m = tokens + config.n_extra_tokens(kind), config.n_attended_tokens(kind)
    mlp_matrices, text = 3 if config.mlp == "swiglu" else 2, find(kind, Text)
    # Queries and output on N tokens, keys and values on the condition's.
    cross = depth * 2 * d * (d * n + d * m + n * m) if m else 0
    return {
        "patch_embedding": tokens * patch_in * d,
        "time_embedding": N_TIME_FEATURES * d + d * d,
        "text_embedding": text.length * (text.width * d + d * d) + text.pooled * d if text else 0,
        "attention_projections": depth * 4 * d * d * n,
        "attention_scores": depth * 2 * n * n * d,
        "cross_attention": cross,
        "mlp": depth * mlp_matrices * d * hidden * n,
        "modulation": depth * config.n_modulations * d * d,
        "skips": config.n_skips * 2 * d * d * n,
        "output": tokens * patch_out * d + (2 * d * d if config.is_modulated else 0),
    }


def activation_bytes(
    config: DiTOptions,
    domain: Domain,
    kind: ConditionKind,
    batch_size: int,
    bytes_per_element: int = 4,
) -> int:
    """Bytes that one training step keeps for the backward pass: eager, no checkpointing, fused attention.

    Per image token and block, in units of D and with h the MLP's hidden width over D: 2 per norm (3 for
    RMSNorm, which torch does not fuse on CPU) and 1 more where it is modulated; 3 for q, k, v and 2 more
    where they are normed or rotated; 1 for the attention's result; 2h (GELU) or 4h (SwiGLU); with adaLN-Zero
    2 for what the gates multiply; 2 and a norm for cross-attention; 2 for a long skip. DiT: 6 + 3 + 1 + 8 + 2
    = 20. A token's logits count too. Per token of a text: 2 for keys and values in each block (3 where keys are normed,
    4 by RMSNorm), and 3 of its embedder. Vectors per image and head are left out; so are weights, gradients and the
    optimizer's state.

    Args:
        config: the network.
        domain: what one sample is.
        kind: what the network is told.
        batch_size: images of one step on one device.
        bytes_per_element: 4 for float32, 2 for bfloat16 weights; autocast lies between.
    """
    check_number("batch_size", batch_size, low=1, integer=True)
    check_fits(config, domain, kind)
    tokens = domain.tokens(config.patch(len(domain.sizes)))
    d, hidden = config.width, config.mlp_width
    norm = d * (2 + (config.norm == "rms") + config.is_modulated)
    per_query = d * (config.qk_norm * (1 + (config.norm == "rms")))
    queries_and_keys = 2 * max(per_query, config.rope * d)
    mlp = 4 * hidden if config.mlp == "swiglu" else 2 * hidden
    block = 2 * norm + 3 * d + queries_and_keys + d + mlp
    block += 2 * d if config.n_modulations == 6 else 0
    if config.attends:
        block += norm - d * config.is_modulated + 2 * d + per_query
    in_blocks = (tokens + config.n_extra_tokens(kind)) * (config.depth * block + config.n_skips * 2 * d)
    text = find(kind, Text)
    in_text = text.length * (config.depth * (2 * d + per_query) + 3 * d) if text else 0
    logits = tokens * domain.vocabulary  # of which the cross-entropy keeps the logarithms
    return batch_size * bytes_per_element * (in_blocks + in_text + tokens * norm + logits)


def count_dict(
    config: DiTOptions,
    domain: Domain,
    kind: ConditionKind,
    out_channels: int | None = None,
    batch_size: int = 1,
) -> dict[str, object]:
    """The network, its input, all its counts and the activations of a batch as one value ready for json."""
    counts = count(config, domain, kind, out_channels)
    return {
        "network": config.as_dict(),
        "input_shape": list(domain.shape),
        **({"num_classes": classes.n} if (classes := find(kind, Classes)) else {}),
        **({"text": vars(text)} if (text := find(kind, Text)) else {}),
        "out_channels": check_fits(config, domain, kind, out_channels),
        **counts.as_dict(),
        "batch_size": batch_size,
        "activation_bytes_float32": activation_bytes(config, domain, kind, batch_size, 4),
        "activation_bytes_bfloat16": activation_bytes(config, domain, kind, batch_size, 2),
    }
