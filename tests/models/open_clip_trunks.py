"""timm's image towers that OpenCLIP's checkpoints have, much smaller: the same kinds under names of
their own, which timm then knows."""

from typing import Any

from timm.models import convnext, eva, fastvit, register_model, vision_transformer, vitamin

SMALL: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 2}


def small_siglip(pretrained: bool = False, **options: Any) -> Any:
    return vision_transformer.vit_base_patch16_siglip_224(pretrained, **SMALL, **options)


def small_vit(pretrained: bool = False, **options: Any) -> Any:
    return vision_transformer.vit_base_patch16_224(pretrained, **SMALL, **options)


def small_pe_core(pretrained: bool = False, **options: Any) -> Any:
    return eva.vit_pe_core_tiny_patch16_384(pretrained, attn_pool_num_heads=2, **SMALL, **options)


def small_eva02(pretrained: bool = False, **options: Any) -> Any:
    return eva.eva02_base_patch16_clip_224(pretrained, **SMALL, **options)


def small_fastvit(pretrained: bool = False, **options: Any) -> Any:
    stages = {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 64, 128)}
    return fastvit.fastvit_mci0(pretrained, **stages, **options)


def small_convnext(pretrained: bool = False, **options: Any) -> Any:
    stages = {"depths": (1, 1, 1, 1), "dims": (16, 32, 48, 64)}
    return convnext.convnext_base(pretrained, **stages, **options)


def small_vitamin(pretrained: bool = False, **options: Any) -> Any:
    convolutions = vitamin.VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6)
    embedding = vitamin.VitCfg(
        embed_dim=(16, 32, 48),
        depths=(1, 1, 1),
        stem_width=16,
        conv_cfg=convolutions,
        head_type="1d",
    )
    return vitamin.vitamin_small_224(pretrained, embed_cfg=embedding, **SMALL, **options)


for _entry in (
    small_siglip,
    small_vit,
    small_pe_core,
    small_eva02,
    small_fastvit,
    small_convnext,
    small_vitamin,
):
    register_model(_entry)
