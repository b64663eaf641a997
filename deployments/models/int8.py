"""Linear layers in 8-bit integers, weights and activations, for processors with such units.

Every row of activations has a scale of its own, so a vector does not depend on what else is in
its batch; torch's dynamic quantisation has one scale for all rows.
"""

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """y = x Wᵀ + b with W and x rounded to -127…127: symmetric, a scale for each row of both."""

    packed: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = _scale(weight)
        self.register_buffer("packed", _rounded(weight, scale).t().contiguous())
        self.register_buffer("scale", scale[:, 0])
        bias = torch.zeros(len(weight)) if linear.bias is None else linear.bias.detach().float()
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        scale = _scale(rows)
        products = torch._int_mm(_rounded(rows, scale), self.packed).float()
        y = torch.addcmul(self.bias, products * self.scale, scale)
        return y.view(*x.shape[:-1], -1)


def quantise(module: nn.Module) -> int:
    """Replaces all linear layers within `module`, which computes in float32 otherwise.

    Returns how many there were.
    """
    layers = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    for parent, name, child in layers:
        setattr(parent, name, Int8Linear(child))
    return len(layers)


def _scale(rows: Tensor) -> Tensor:
    """(N, 1): what the largest value of each row is to become 127 by."""
    # Not torch.linalg.vector_norm, which takes 40 % of the whole model's time here.
    largest = rows.abs().amax(dim=1, keepdim=True)
    result: Tensor = largest.clamp_min(1e-12) / 127
    return result


def _rounded(rows: Tensor, scale: Tensor) -> Tensor:
    result: Tensor = torch.round(rows / scale).to(torch.int8)
    return result
