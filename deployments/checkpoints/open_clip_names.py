"""The names by which OpenCLIP's users know its checkpoints, and the hub repositories behind them.

`ViT-B-32__openai`: an architecture and its weights' tag, as Immich writes them. From open_clip's
own table (open_clip/pretrained.py, 3.3), which cannot be imported without torch; a test compares
both.
"""

from difflib import get_close_matches

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.settings import ModelSettings

# Left out: ViTamin, whose weights there are single files without a configuration, and two names
# for which open_clip downloads the weights of another: ViT-SO400M-14-SigLIP-378__webli, of the 384
# pixel model, and ViT-B-16-plus-240__laion400m_e32, of epoch 31.
_NAMES: dict[str, tuple[str, ...]] = {
    "timm/resnet50_clip.openai": ("RN50__openai", "RN50-quickgelu__openai"),
    "timm/resnet50_clip.yfcc15m": ("RN50__yfcc15m", "RN50-quickgelu__yfcc15m"),
    "timm/resnet50_clip.cc12m": ("RN50__cc12m", "RN50-quickgelu__cc12m"),
    "timm/resnet101_clip.openai": ("RN101__openai", "RN101-quickgelu__openai"),
    "timm/resnet101_clip.yfcc15m": ("RN101__yfcc15m", "RN101-quickgelu__yfcc15m"),
    "timm/resnet50x4_clip.openai": ("RN50x4__openai", "RN50x4-quickgelu__openai"),
    "timm/resnet50x16_clip.openai": ("RN50x16__openai", "RN50x16-quickgelu__openai"),
    "timm/resnet50x64_clip.openai": ("RN50x64__openai", "RN50x64-quickgelu__openai"),
    "timm/vit_base_patch32_clip_224.openai": ("ViT-B-32__openai", "ViT-B-32-quickgelu__openai"),
    "timm/vit_base_patch32_clip_224.laion400m_e31": (
        "ViT-B-32__laion400m_e31",
        "ViT-B-32-quickgelu__laion400m_e31",
    ),
    "timm/vit_base_patch32_clip_224.laion400m_e32": (
        "ViT-B-32__laion400m_e32",
        "ViT-B-32-quickgelu__laion400m_e32",
    ),
    "timm/vit_base_patch32_clip_224.laion2b_e16": ("ViT-B-32__laion2b_e16",),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": ("ViT-B-32__laion2b_s34b_b79k",),
    "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K": ("ViT-B-32__datacomp_xl_s13b_b90k",),
    "laion/CLIP-ViT-B-32-DataComp.M-s128M-b4K": ("ViT-B-32__datacomp_m_s128m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.M.clip-s128M-b4K": ("ViT-B-32__commonpool_m_clip_s128m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.M.laion-s128M-b4K": ("ViT-B-32__commonpool_m_laion_s128m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.M.image-s128M-b4K": ("ViT-B-32__commonpool_m_image_s128m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.M.text-s128M-b4K": ("ViT-B-32__commonpool_m_text_s128m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.M.basic-s128M-b4K": ("ViT-B-32__commonpool_m_basic_s128m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.M-s128M-b4K": ("ViT-B-32__commonpool_m_s128m_b4k",),
    "laion/CLIP-ViT-B-32-DataComp.S-s13M-b4K": ("ViT-B-32__datacomp_s_s13m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.S.clip-s13M-b4K": ("ViT-B-32__commonpool_s_clip_s13m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.S.laion-s13M-b4K": ("ViT-B-32__commonpool_s_laion_s13m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.S.image-s13M-b4K": ("ViT-B-32__commonpool_s_image_s13m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.S.text-s13M-b4K": ("ViT-B-32__commonpool_s_text_s13m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.S.basic-s13M-b4K": ("ViT-B-32__commonpool_s_basic_s13m_b4k",),
    "laion/CLIP-ViT-B-32-CommonPool.S-s13M-b4K": ("ViT-B-32__commonpool_s_s13m_b4k",),
    "timm/vit_base_patch32_clip_224.metaclip_400m": (
        "ViT-B-32__metaclip_400m",
        "ViT-B-32-quickgelu__metaclip_400m",
    ),
    "timm/vit_base_patch32_clip_224.metaclip_2pt5b": (
        "ViT-B-32__metaclip_fullcc",
        "ViT-B-32-quickgelu__metaclip_fullcc",
    ),
    "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K": ("ViT-B-32-256__datacomp_s34b_b86k",),
    "timm/vit_base_patch16_clip_224.openai": ("ViT-B-16__openai", "ViT-B-16-quickgelu__openai"),
    "timm/vit_base_patch16_clip_224.laion400m_e31": ("ViT-B-16__laion400m_e31",),
    "timm/vit_base_patch16_clip_224.laion400m_e32": ("ViT-B-16__laion400m_e32",),
    "laion/CLIP-ViT-B-16-laion2B-s34B-b88K": ("ViT-B-16__laion2b_s34b_b88k",),
    "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K": ("ViT-B-16__datacomp_xl_s13b_b90k",),
    "laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K": ("ViT-B-16__datacomp_l_s1b_b8k",),
    "laion/CLIP-ViT-B-16-CommonPool.L.clip-s1B-b8K": ("ViT-B-16__commonpool_l_clip_s1b_b8k",),
    "laion/CLIP-ViT-B-16-CommonPool.L.laion-s1B-b8K": ("ViT-B-16__commonpool_l_laion_s1b_b8k",),
    "laion/CLIP-ViT-B-16-CommonPool.L.image-s1B-b8K": ("ViT-B-16__commonpool_l_image_s1b_b8k",),
    "laion/CLIP-ViT-B-16-CommonPool.L.text-s1B-b8K": ("ViT-B-16__commonpool_l_text_s1b_b8k",),
    "laion/CLIP-ViT-B-16-CommonPool.L.basic-s1B-b8K": ("ViT-B-16__commonpool_l_basic_s1b_b8k",),
    "laion/CLIP-ViT-B-16-CommonPool.L-s1B-b8K": ("ViT-B-16__commonpool_l_s1b_b8k",),
    "apple/DFN2B-CLIP-ViT-B-16": ("ViT-B-16__dfn2b", "ViT-B-16-quickgelu__dfn2b"),
    "timm/vit_base_patch16_clip_224.metaclip_400m": (
        "ViT-B-16__metaclip_400m",
        "ViT-B-16-quickgelu__metaclip_400m",
    ),
    "timm/vit_base_patch16_clip_224.metaclip_2pt5b": (
        "ViT-B-16__metaclip_fullcc",
        "ViT-B-16-quickgelu__metaclip_fullcc",
    ),
    "timm/vit_base_patch16_plus_clip_240.laion400m_e31": ("ViT-B-16-plus-240__laion400m_e31",),
    "timm/vit_large_patch14_clip_224.openai": ("ViT-L-14__openai", "ViT-L-14-quickgelu__openai"),
    "timm/vit_large_patch14_clip_224.laion400m_e31": ("ViT-L-14__laion400m_e31",),
    "timm/vit_large_patch14_clip_224.laion400m_e32": ("ViT-L-14__laion400m_e32",),
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": ("ViT-L-14__laion2b_s32b_b82k",),
    "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K": ("ViT-L-14__datacomp_xl_s13b_b90k",),
    "laion/CLIP-ViT-L-14-CommonPool.XL.clip-s13B-b90K": ("ViT-L-14__commonpool_xl_clip_s13b_b90k",),
    "laion/CLIP-ViT-L-14-CommonPool.XL.laion-s13B-b90K": (
        "ViT-L-14__commonpool_xl_laion_s13b_b90k",
    ),
    "laion/CLIP-ViT-L-14-CommonPool.XL-s13B-b90K": ("ViT-L-14__commonpool_xl_s13b_b90k",),
    "timm/vit_large_patch14_clip_224.metaclip_400m": (
        "ViT-L-14__metaclip_400m",
        "ViT-L-14-quickgelu__metaclip_400m",
    ),
    "timm/vit_large_patch14_clip_224.metaclip_2pt5b": (
        "ViT-L-14__metaclip_fullcc",
        "ViT-L-14-quickgelu__metaclip_fullcc",
    ),
    "apple/DFN2B-CLIP-ViT-L-14": ("ViT-L-14__dfn2b", "ViT-L-14-quickgelu__dfn2b"),
    "apple/DFN2B-CLIP-ViT-L-14-39B": ("ViT-L-14__dfn2b_s39b",),
    "timm/vit_large_patch14_clip_336.openai": (
        "ViT-L-14-336__openai",
        "ViT-L-14-336-quickgelu__openai",
    ),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": ("ViT-H-14__laion2b_s32b_b79k",),
    "timm/vit_huge_patch14_clip_224.metaclip_2pt5b": (
        "ViT-H-14__metaclip_fullcc",
        "ViT-H-14-quickgelu__metaclip_fullcc",
    ),
    "timm/vit_huge_patch14_clip_224.metaclip_altogether": ("ViT-H-14__metaclip_altogether",),
    "apple/DFN5B-CLIP-ViT-H-14": ("ViT-H-14__dfn5b", "ViT-H-14-quickgelu__dfn5b"),
    "apple/DFN5B-CLIP-ViT-H-14-378": ("ViT-H-14-378__dfn5b", "ViT-H-14-378-quickgelu__dfn5b"),
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K": ("ViT-g-14__laion2b_s12b_b42k",),
    "laion/CLIP-ViT-g-14-laion2B-s34B-b88K": ("ViT-g-14__laion2b_s34b_b88k",),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": ("ViT-bigG-14__laion2b_s39b_b160k",),
    "timm/vit_gigantic_patch14_clip_224.metaclip_2pt5b": (
        "ViT-bigG-14__metaclip_fullcc",
        "ViT-bigG-14-quickgelu__metaclip_fullcc",
    ),
    "laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k": ("roberta-ViT-B-32__laion2b_s12b_b32k",),
    "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k": (
        "xlm-roberta-base-ViT-B-32__laion5b_s13b_b90k",
    ),
    "laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k": (
        "xlm-roberta-large-ViT-H-14__frozen_laion5b_s13b_b90k",
    ),
    "laion/CLIP-convnext_base-laion400M-s13B-b51K": ("convnext_base__laion400m_s13b_b51k",),
    "laion/CLIP-convnext_base_w-laion2B-s13B-b82K": ("convnext_base_w__laion2b_s13b_b82k",),
    "laion/CLIP-convnext_base_w-laion2B-s13B-b82K-augreg": (
        "convnext_base_w__laion2b_s13b_b82k_augreg",
    ),
    "laion/CLIP-convnext_base_w-laion_aesthetic-s13B-b82K": (
        "convnext_base_w__laion_aesthetic_s13b_b82k",
    ),
    "laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K": (
        "convnext_base_w_320__laion_aesthetic_s13b_b82k",
    ),
    "laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K-augreg": (
        "convnext_base_w_320__laion_aesthetic_s13b_b82k_augreg",
    ),
    "laion/CLIP-convnext_large_d.laion2B-s26B-b102K-augreg": (
        "convnext_large_d__laion2b_s26b_b102k_augreg",
    ),
    "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft": (
        "convnext_large_d_320__laion2b_s29b_b131k_ft",
    ),
    "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup": (
        "convnext_large_d_320__laion2b_s29b_b131k_ft_soup",
    ),
    "laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg": (
        "convnext_xxlarge__laion2b_s34b_b82k_augreg",
    ),
    "laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-rewind": (
        "convnext_xxlarge__laion2b_s34b_b82k_augreg_rewind",
    ),
    "laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-soup": (
        "convnext_xxlarge__laion2b_s34b_b82k_augreg_soup",
    ),
    "laion/CoCa-ViT-B-32-laion2B-s13B-b90k": ("coca_ViT-B-32__laion2b_s13b_b90k",),
    "laion/mscoco_finetuned_CoCa-ViT-B-32-laion2B-s13B-b90k": (
        "coca_ViT-B-32__mscoco_finetuned_laion2b_s13b_b90k",
    ),
    "laion/CoCa-ViT-L-14-laion2B-s13B-b90k": ("coca_ViT-L-14__laion2b_s13b_b90k",),
    "laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k": (
        "coca_ViT-L-14__mscoco_finetuned_laion2b_s13b_b90k",
    ),
    "timm/eva_giant_patch14_clip_224.laion400m_s11b_b41k": ("EVA01-g-14__laion400m_s11b_b41k",),
    "timm/eva_giant_patch14_plus_clip_224.merged2b_s11b_b114k": (
        "EVA01-g-14-plus__merged2b_s11b_b114k",
    ),
    "timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k": ("EVA02-B-16__merged2b_s8b_b131k",),
    "timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k": ("EVA02-L-14__merged2b_s4b_b131k",),
    "timm/eva02_large_patch14_clip_336.merged2b_s6b_b61k": ("EVA02-L-14-336__merged2b_s6b_b61k",),
    "timm/eva02_enormous_patch14_clip_224.laion2b_s4b_b115k": ("EVA02-E-14__laion2b_s4b_b115k",),
    "timm/eva02_enormous_patch14_plus_clip_224.laion2b_s9b_b144k": (
        "EVA02-E-14-plus__laion2b_s9b_b144k",
    ),
    "timm/ViT-B-16-SigLIP": ("ViT-B-16-SigLIP__webli",),
    "timm/ViT-B-16-SigLIP-256": ("ViT-B-16-SigLIP-256__webli",),
    "timm/ViT-B-16-SigLIP-i18n-256": ("ViT-B-16-SigLIP-i18n-256__webli",),
    "timm/ViT-B-16-SigLIP-384": ("ViT-B-16-SigLIP-384__webli",),
    "timm/ViT-B-16-SigLIP-512": ("ViT-B-16-SigLIP-512__webli",),
    "timm/ViT-L-16-SigLIP-256": ("ViT-L-16-SigLIP-256__webli",),
    "timm/ViT-L-16-SigLIP-384": ("ViT-L-16-SigLIP-384__webli",),
    "timm/ViT-SO400M-14-SigLIP": ("ViT-SO400M-14-SigLIP__webli",),
    "timm/ViT-SO400M-16-SigLIP-i18n-256": ("ViT-SO400M-16-SigLIP-i18n-256__webli",),
    "timm/ViT-SO400M-14-SigLIP-384": ("ViT-SO400M-14-SigLIP-384__webli",),
    "timm/ViT-B-32-SigLIP2-256": ("ViT-B-32-SigLIP2-256__webli",),
    "timm/ViT-B-16-SigLIP2": ("ViT-B-16-SigLIP2__webli",),
    "timm/ViT-B-16-SigLIP2-256": ("ViT-B-16-SigLIP2-256__webli",),
    "timm/ViT-B-16-SigLIP2-384": ("ViT-B-16-SigLIP2-384__webli",),
    "timm/ViT-B-16-SigLIP2-512": ("ViT-B-16-SigLIP2-512__webli",),
    "timm/ViT-L-16-SigLIP2-256": ("ViT-L-16-SigLIP2-256__webli",),
    "timm/ViT-L-16-SigLIP2-384": ("ViT-L-16-SigLIP2-384__webli",),
    "timm/ViT-L-16-SigLIP2-512": ("ViT-L-16-SigLIP2-512__webli",),
    "timm/ViT-SO400M-14-SigLIP2": ("ViT-SO400M-14-SigLIP2__webli",),
    "timm/ViT-SO400M-14-SigLIP2-378": ("ViT-SO400M-14-SigLIP2-378__webli",),
    "timm/ViT-SO400M-16-SigLIP2-256": ("ViT-SO400M-16-SigLIP2-256__webli",),
    "timm/ViT-SO400M-16-SigLIP2-384": ("ViT-SO400M-16-SigLIP2-384__webli",),
    "timm/ViT-SO400M-16-SigLIP2-512": ("ViT-SO400M-16-SigLIP2-512__webli",),
    "timm/ViT-gopt-16-SigLIP2-256": ("ViT-gopt-16-SigLIP2-256__webli",),
    "timm/ViT-gopt-16-SigLIP2-384": ("ViT-gopt-16-SigLIP2-384__webli",),
    "UCSC-VLAA/ViT-L-14-CLIPA-datacomp1B": ("ViT-L-14-CLIPA__datacomp1b",),
    "UCSC-VLAA/ViT-L-14-CLIPA-336-datacomp1B": ("ViT-L-14-CLIPA-336__datacomp1b",),
    "UCSC-VLAA/ViT-H-14-CLIPA-datacomp1B": ("ViT-H-14-CLIPA__datacomp1b",),
    "UCSC-VLAA/ViT-H-14-CLIPA-336-laion2B": ("ViT-H-14-CLIPA-336__laion2b",),
    "UCSC-VLAA/ViT-H-14-CLIPA-336-datacomp1B": ("ViT-H-14-CLIPA-336__datacomp1b",),
    "UCSC-VLAA/ViT-bigG-14-CLIPA-datacomp1B": ("ViT-bigG-14-CLIPA__datacomp1b",),
    "UCSC-VLAA/ViT-bigG-14-CLIPA-336-datacomp1B": ("ViT-bigG-14-CLIPA-336__datacomp1b",),
    "visheratin/nllb-clip-base-oc": ("nllb-clip-base__v1",),
    "visheratin/nllb-clip-large-oc": ("nllb-clip-large__v1",),
    "visheratin/nllb-clip-base-siglip": ("nllb-clip-base-siglip__v1",),
    "visheratin/nllb-siglip-mrl-base": ("nllb-clip-base-siglip__mrl",),
    "visheratin/nllb-clip-large-siglip": ("nllb-clip-large-siglip__v1",),
    "visheratin/nllb-siglip-mrl-large": ("nllb-clip-large-siglip__mrl",),
    "apple/MobileCLIP-S1-OpenCLIP": ("MobileCLIP-S1__datacompdr",),
    "apple/MobileCLIP-S2-OpenCLIP": ("MobileCLIP-S2__datacompdr",),
    "apple/MobileCLIP-B-OpenCLIP": ("MobileCLIP-B__datacompdr",),
    "apple/MobileCLIP-B-LT-OpenCLIP": ("MobileCLIP-B__datacompdr_lt",),
    "timm/MobileCLIP2-B-OpenCLIP": ("MobileCLIP2-B__dfndr2b",),
    "timm/MobileCLIP2-S0-OpenCLIP": ("MobileCLIP2-S0__dfndr2b",),
    "timm/MobileCLIP2-S2-OpenCLIP": ("MobileCLIP2-S2__dfndr2b",),
    "timm/MobileCLIP2-S3-OpenCLIP": ("MobileCLIP2-S3__dfndr2b",),
    "timm/MobileCLIP2-S4-OpenCLIP": ("MobileCLIP2-S4__dfndr2b",),
    "timm/MobileCLIP2-L-14-OpenCLIP": ("MobileCLIP2-L-14__dfndr2b",),
    "timm/PE-Core-T-16-384": ("PE-Core-T-16-384__meta",),
    "timm/PE-Core-S-16-384": ("PE-Core-S-16-384__meta",),
    "timm/PE-Core-B-16": ("PE-Core-B-16__meta",),
    "timm/PE-Core-L-14-336": ("PE-Core-L-14-336__meta",),
    "timm/PE-Core-bigG-14-448": ("PE-Core-bigG-14-448__meta",),
    "timm/vit_huge_patch14_clip_224.metaclip2_worldwide": (
        "ViT-H-14-worldwide__metaclip2_worldwide",
        "ViT-H-14-worldwide-quickgelu__metaclip2_worldwide",
    ),
    "timm/vit_huge_patch14_clip_378.metaclip2_worldwide": (
        "ViT-H-14-worldwide-378__metaclip2_worldwide",
    ),
    "timm/vit_gigantic_patch14_clip_224.metaclip2_worldwide": (
        "ViT-bigG-14-worldwide__metaclip2_worldwide",
    ),
    "timm/vit_gigantic_patch14_clip_378.metaclip2_worldwide": (
        "ViT-bigG-14-worldwide-378__metaclip2_worldwide",
    ),
}


def repository(id: str) -> str | None:
    """The hub repository of a name; None for an id that is not written like one.

    Tags may be written with hyphens, as some of Immich's are. Raises CheckpointError for a name
    that is not in the table.
    """
    if "/" in id or "__" not in id:
        return None
    wanted = _clean(id)
    by_name = {name: repository for repository, names in _NAMES.items() for name in names}
    if wanted not in by_name:
        near = get_close_matches(wanted, by_name, n=3)
        raise CheckpointError(
            f"model {id!r}: open_clip has no such architecture with such weights that raylens can "
            f"download; set model.id to {' or '.join(near) or 'ViT-B-32__openai'}, or to a Hugging "
            "Face id"
        )
    return by_name[wanted]


def names_of(model: ModelSettings) -> tuple[str, ...]:
    """The names to which the model answers besides its own, as clients may write them.

    Empty if it is not pooled as its authors do, and for a repository that timm calls
    `timm/<model>.<tag>`: it holds two models, and its id stands for timm's, which has no text tower
    and gives other vectors.
    """
    id = model.id
    is_timms = id.startswith("timm/") and "." in id
    if is_timms or model.pooling not in ("auto", "projection"):
        return ()
    names = next((n for r, n in _NAMES.items() if r == id or _clean(id) in n), ())
    return tuple(sorted({*names, *map(_hyphened, names)} - {id}))


def _clean(name: str) -> str:
    """With its tag as open_clip's table has it."""
    architecture, _, tag = name.partition("__")
    return f"{architecture}__{tag.lower().replace('-', '_')}"


def _hyphened(name: str) -> str:
    architecture, _, tag = name.partition("__")
    return f"{architecture}__{tag.replace('_', '-')}"
