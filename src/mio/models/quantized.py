"""Linear layers whose weights are int8 or int4 with scales: memory for speed. Activations stay as they are.

Scales are rounded to bf16 before they divide, so that no later cast changes them: no weight is off by more than half a
step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.types import MioError

Bits = Literal[4, 8]

GROUP = 64  # int4 weights that share a scale
ROWS = 256  # output channels that become floats at a time: a block that stays in the processor's cache
FEW = 8  # tokens up to which torch's int8 product beats a block of floats (bf16 on AVX-512: 6x at one, equal at 14)
PRODUCT8 = hasattr(torch, "_weight_int8pack_mm")  # private in torch 2.13; without it all goes by blocks


class _Product(torch.autograd.Function):
    """The gradient of the input, from floats made anew: what waits for it are integers, not floats of all layers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        return torch.cat([F.linear(x, block) for block in layer.blocks(x.dtype)], dim=-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        parts = zip(grad.split(ROWS, dim=-1), ctx.layer.blocks(grad.dtype), strict=True)
        return sum((part @ block for part, block in parts), start=grad.new_zeros(())).to(ctx.dtype), None


class QuantizedLinear(nn.Module):
    """What both widths share: `weight` integers, `scale` bf16, the bias of the layer that it replaces."""

    bits: ClassVar[int]
    weight: Tensor
    scale: Tensor

    def __init__(self, like: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = like.in_features, like.out_features
        self.bias = like.bias
        for name in ("weight", "scale"):
            self.register_buffer(name, None)
        self.fill(like.weight)

    def fill(self, weight: Tensor) -> None:
        """Take float weights (out, in), a block at a time, so that little memory is needed beside the result."""
        rows = len(weight) if weight.is_meta else ROWS  # what is not there needs no sparing
        blocks = [self.pack(block) for block in weight.detach().split(rows)]
        self.weight, self.scale = (torch.cat(parts) for parts in zip(*blocks, strict=True))

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weights as they act: (out, in)."""
        return self.unpack(self.weight, self.scale.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias

    def blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """The weights as they act, some rows at a time."""
        for weight, scale in zip(self.weight.split(ROWS), self.scale.to(dtype).split(ROWS), strict=True):
            yield self.unpack(weight, scale)

    def pack(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Floats (out, in) -> integers and scales, both with `out` rows."""
        raise NotImplementedError

    def unpack(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The inverse, in the scales' dtype, for any block of rows."""
        raise NotImplementedError


class Int8Linear(QuantizedLinear):
    """One scale for each output channel; integers in [-127, 127]."""

    bits = 8

    def forward(self, x: Tensor) -> Tensor:
        few = x.dtype == torch.bfloat16 and x.device.type == "cpu" and x.numel() <= FEW * self.in_features
        if not (few and PRODUCT8) or torch.is_grad_enabled():
            return super().forward(x)
        out = torch._weight_int8pack_mm(x.reshape(-1, self.in_features), self.weight, self.scale.to(x.dtype))
        out = out.reshape(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias

    def pack(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        scale = _scale(weight, 127)
        return (weight.float() / scale.float()[:, None]).round_().to(torch.int8), scale

    def unpack(self, weight: Tensor, scale: Tensor) -> Tensor:
        return weight.to(scale.dtype).mul_(scale[:, None])


class Int4Linear(QuantizedLinear):
    """One scale for each 64 inputs of an output channel; integers in [-7, 7], stored plus 8, two in a byte.

    The low halves of a row's bytes are its first half, the high halves the second: no interleaving on the way back.
    """

    bits = 4

    def pack(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        groups = F.pad(weight.float(), (0, -self.in_features % GROUP)).unflatten(1, (-1, GROUP))  # (out, groups, 64)
        scale = _scale(groups, 7)
        low, high = (groups / scale.float()[..., None]).round_().add_(8).to(torch.uint8).flatten(1).chunk(2, dim=1)
        return low | high << 4, scale

    def unpack(self, weight: Tensor, scale: Tensor) -> Tensor:
        steps = torch.cat([weight & 15, weight >> 4], dim=1).to(scale.dtype).sub_(8)
        return steps.unflatten(1, (-1, GROUP)).mul_(scale[..., None]).flatten(1)[:, : self.in_features]


def _scale(weight: Tensor, most: int) -> Tensor:
    """Scales of the last dimension's largest values, never zero; rounding moves `most` by less than half a step."""
    return (weight.abs().amax(-1).float() / most).clamp_min_(1e-12).bfloat16()


KINDS: dict[int, type[QuantizedLinear]] = {kind.bits: kind for kind in (Int8Linear, Int4Linear)}


def quantize_linears(module: nn.Module, bits: Bits, skip: Collection[str] = ("lm_head",)) -> nn.Module:
    """Replace every linear layer below `module`, in place and one at a time, except those whose own name is in `skip`.

    Returns `module`, or what stands for it where it is itself a linear layer. Layers on the meta device stay empty
    until `QuantizedLinear.fill`.

    Raises:
        MioError: neither 4 nor 8 bits.
    """
    if bits not in KINDS:
        raise MioError(f"Weights of {bits} bits are not carried.", fix="Choose 8 or 4.")
    for name, child in list(module.named_children()):
        if name not in skip:
            setattr(module, name, quantize_linears(child, bits, skip))
    return KINDS[bits](module) if type(module) is nn.Linear else module
