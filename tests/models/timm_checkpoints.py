"""A small checkpoint with random weights for each of timm's kinds of models, and timm's reading.

Saved by timm itself, as `push_to_hf_hub` does. Large architectures are shrunk by `model_args`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from tests.models.tiny import enlarge

Options = dict[str, Any]


@dataclass(frozen=True)
class Tiny:
    """How to build a checkpoint."""

    architecture: str
    args: Options = field(default_factory=dict)
    """Of the model, which timm keeps as `model_args`."""
    cfg: Options = field(default_factory=dict)
    """What `pretrained_cfg` says in place of the architecture's own."""


VIT: Options = {"depth": 2, "embed_dim": 48, "num_heads": 3}
SWIN: Options = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
BORDER: Options = {"crop_mode": "border", "crop_pct": 0.9}
SMALL: Options = {"input_size": (3, 96, 96)}

TIMM: dict[str, Tiny] = {
    "ResNet": Tiny("test_resnet"),
    "ResNet, squashed": Tiny("test_resnet", cfg={"crop_mode": "squash", "interpolation": "box"}),
    "ResNet, with borders": Tiny("test_resnet", cfg=BORDER),
    "ResNet, not square": Tiny("test_resnet", cfg={"input_size": (3, 128, 192)}),
    "ResNet v2": Tiny("resnetv2_18", {"layers": [1, 1, 1, 1]}, SMALL),
    "ConvNeXt": Tiny("test_convnext"),
    "ConvNeXt v2": Tiny("convnextv2_atto", {"depths": (1, 1, 2, 1), "dims": (16, 24, 32, 48)}),
    "EfficientNet": Tiny("test_efficientnet"),
    "MobileNet v3": Tiny("mobilenetv3_small_050", cfg=SMALL),
    "MobileNet v4": Tiny("mobilenetv4_conv_small_050", cfg=SMALL),
    "RegNet": Tiny("regnety_002", cfg=SMALL),
    "NFNet": Tiny("test_nfnet"),
    "ViT": Tiny("test_vit"),
    "ViT of CLIP": Tiny("vit_base_patch32_clip_224", VIT),
    "ViT of SigLIP": Tiny("vit_base_patch16_siglip_224", VIT),
    "ViT of SigLIP, averaged": Tiny("vit_base_patch16_siglip_gap_224", VIT),
    "DINOv2, registers": Tiny("vit_small_patch14_reg4_dinov2", VIT, {"input_size": (3, 224, 224)}),
    "DINOv3": Tiny("vit_small_patch16_dinov3", VIT),
    "DeiT, distilled": Tiny("deit_tiny_distilled_patch16_224", VIT),
    "DeiT III": Tiny("deit3_small_patch16_224", VIT),
    "BEiT v2": Tiny("beitv2_base_patch16_224", VIT),
    "EVA-02": Tiny("eva02_tiny_patch14_224", VIT),
    "NaFlexViT": Tiny("naflexvit_base_patch16_gap", {"embed_dim": 48, "depth": 2, "num_heads": 3}),
    "Swin": Tiny("swin_tiny_patch4_window7_224", SWIN),
    "Swin v2": Tiny("swinv2_tiny_window8_256", SWIN),
    "MaxViT": Tiny("maxvit_rmlp_pico_rw_256", cfg={"input_size": (3, 128, 128)}),
    "CoaT": Tiny("coat_lite_tiny", cfg=SMALL),
    "MLP-Mixer": Tiny("mixer_s32_224"),
    "CaiT": Tiny("cait_xxs24_224", {**VIT, "depth_token_only": 1}),
    "XCiT": Tiny("xcit_nano_12_p16_224", {"depth": 2}),
    "LeViT": Tiny("levit_128s"),
    "EfficientViT of MIT": Tiny("efficientvit_b0", cfg=SMALL),
    "EfficientViT of Microsoft": Tiny("efficientvit_m0", cfg=SMALL),
    "MobileOne": Tiny("mobileone_s0", cfg=SMALL),
    "FastViT": Tiny("fastvit_t8", cfg=SMALL),
    "RepViT": Tiny("repvit_m0_9", cfg=SMALL),
    "TinyViT": Tiny("tiny_vit_5m_224", cfg=SMALL),
    "Hiera": Tiny("hiera_tiny_224", {"embed_dim": 24, "stages": (1, 1, 2, 1)}),
    "PoolFormer v2": Tiny("poolformerv2_s12", cfg=SMALL),
    "DenseNet": Tiny("densenet121", {"growth_rate": 8, "block_config": (2, 2, 2, 2)}),
    "Inception v3": Tiny("inception_v3", cfg={"input_size": (3, 128, 128)}),
    "VGG": Tiny("vgg11", {"mlp_ratio": 1 / 16}, SMALL),
    "EdgeNeXt": Tiny("edgenext_xx_small", cfg=SMALL),
    "MobileViT": Tiny("mobilevit_xxs", cfg=SMALL),
    "DLA": Tiny("dla46_c", cfg=SMALL),
    "HRNet": Tiny("hrnet_w18_small", cfg=SMALL),
    "GhostNet": Tiny("ghostnet_050", cfg=SMALL),
    "PVT v2": Tiny("pvt_v2_b0", cfg=SMALL),
    "MambaOut": Tiny("test_mambaout"),
}


def write(name: str, folder: Path) -> Path:
    """Writes the checkpoint of that name into a folder, which need not exist yet."""
    return save(build(TIMM[name]), folder)


def build(tiny: Tiny) -> Any:
    """The model, with weights that make different images' vectors different."""
    model = timm.create_model(
        tiny.architecture, pretrained_cfg_overlay=tiny.cfg or None, **tiny.args
    )
    enlarge(model.eval(), timm.data.resolve_model_data_config(model)["input_size"][1:])
    for name, values in model.state_dict().items():
        # Where queries and keys are normalised in batches, in LeViT and Microsoft's EfficientViT,
        # such weights saturate the softmax, and timm's own float32 and float64 differ.
        if "qkv" in name and name.endswith(("bn.weight", "bn.bias")):
            values.mul_(0.3)
    return model


def save(model: Any, folder: Path) -> Path:
    """As timm's `save_for_hf`, and weights that share memory, as CoaT's do, are saved for each."""
    folder.mkdir(parents=True, exist_ok=True)
    timm.models._hub.save_config_for_hf(model, str(folder / "config.json"))
    weights = {name: values.clone() for name, values in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    return folder


class TimmReference:
    """The model in a folder as the pages of the hub show it: no classifier, timm's transform."""

    reads_blanks = True

    def __init__(self, folder: Path) -> None:
        name = f"local-dir:{folder}"
        self.model: Any = timm.create_model(name, pretrained=True, num_classes=0).eval()
        config = timm.data.resolve_model_data_config(self.model)
        self.transform: Any = timm.data.create_transform(**config, is_training=False)

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(N, D), not normalised."""
        vectors = [self.model(self.transform(image).unsqueeze(0)) for image in images]
        return np.asarray(torch.cat(vectors))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        raise NotImplementedError

    def probabilities(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Any:
        raise NotImplementedError
