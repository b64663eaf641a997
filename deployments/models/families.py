"""What raylens knows of each family of checkpoints: how it pools, and how it reads texts.

One table, `FAMILIES`, by the `model_type` in config.json, or by `architectures` if one model type
is saved in two ways. `model.pooling: auto` does what a family's authors do; a family that is not in
the table is refused, never guessed at.
"""

from dataclasses import replace
from typing import Literal

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, read_json
from deployments.checkpoints.integrity import weight_names
from deployments.checkpoints.layout import CONFIG
from deployments.models.family import Family, Pooling, TextRules

_CLIP = Family(
    pooling="projection",
    others=("pooler", "cls", "mean", "patches"),
    prefix_tokens=1,
    text=TextRules(padding="eos", pooling="eos", score="softmax"),
    tolerant=True,
)
_BERT = TextRules(padding="mask", pooling="cls", score="softmax")
_JOINT = Family("projection", ("pooler", "mean", "patches"), projection=None)
_PATCHES_AND_CLASS = Family("cls", ("pooler", "mean", "patches"), prefix_tokens=1, tolerant=True)
_POOLED = Family("pooler", ("mean", "patches"))
_SIGLIP = replace(
    _JOINT,
    text=TextRules(padding="max_length", pooling="pooler", score="sigmoid", lower_cases_gemma=True),
    tolerant=True,
)
# Classifiers that normalise between the model proper and the head: `pooler` is what the head reads.
_BEFORE_HEAD = Family("pooler", (), pooled="logits", heads=("classifier",))

FAMILIES: dict[str, Family] = {
    # Images and texts in one space.
    "clip": _CLIP,  # OpenCLIP's and MetaCLIP's checkpoints too
    "metaclip_2": _CLIP,
    "altclip": replace(_CLIP, text=replace(_BERT, positions_from_pad=True)),
    "chinese_clip": replace(_CLIP, text=replace(_BERT, max_tokens=52)),
    # The vision models of these two pool directly into the shared space.
    "align": replace(_JOINT, text=replace(_BERT, max_tokens=64)),
    "siglip": _SIGLIP,  # SigLIP 2 of a fixed resolution too
    # NaFlex, whose images have grids of different shapes.
    "siglip2": replace(_SIGLIP, others=("pooler", "mean"), takes_patches=True),
    # Of its two class tokens, the one that alt texts supervise; texts by the mean of their tokens.
    "tipsv2": replace(
        _JOINT,
        others=("cls", "mean"),
        prefix_tokens=1,
        text=TextRules(padding="mask", pooling="pooler", score="softmax"),
        tolerant=True,
    ),
    "clipseg": _CLIP,  # whose segmentation is trained on top of a CLIP that stays as it was
    "groupvit": replace(_CLIP, others=("pooler", "mean"), prefix_tokens=0, tolerant=False),
    # LiT: the text half is trained beside a vision half that attention pools. Without a mask,
    # transformers' text half would not be causal, so it gets one.
    "aimv2": replace(
        _CLIP,
        others=("pooler", "mean"),
        prefix_tokens=0,
        text=TextRules(padding="mask", pooling="eos", score="softmax"),
    ),
    # Both halves' class tokens are contrasted (FLAVA, section 3.2); texts have 77 tokens there.
    "flava": replace(
        _CLIP,
        text=replace(_BERT, max_tokens=77),
        part="image_model",
        projection="image_projection",
        projects_cls=True,
    ),
    # BLIP's contrastive space, of class tokens, texts cut to 35 tokens as in its authors'
    # `blip_itm.py`. What captions or answers holds its vision half alone.
    "BlipForImageTextRetrieval": replace(
        _CLIP,
        text=replace(_BERT, max_tokens=35, part="text_encoder", projection="text_proj"),
        model_class="BlipForImageTextRetrieval",
        projection="vision_proj",
        projects_cls=True,
    ),
    "blip": replace(_CLIP, text=replace(_BERT, max_tokens=35, pooling="pooler")),
    # Late interaction. Its authors cut queries at 50 tokens; transformers, nowhere.
    "colpali": Family(
        "tokens",
        (),
        text=TextRules(
            padding="mask", pooling="tokens", score="maxsim", max_tokens=1024, part="language_model"
        ),
        model_class="ColPaliForRetrieval",
    ),
    # Vision towers saved alone.
    "CLIPVisionModelWithProjection": replace(
        _CLIP, text=None, model_class="CLIPVisionModelWithProjection"
    ),
    "clip_vision_model": Family(
        "pooler", ("cls", "mean", "patches"), prefix_tokens=1, tolerant=True
    ),
    "siglip_vision_model": Family("pooler", ("mean", "patches"), tolerant=True),
    "siglip2_vision_model": Family("pooler", ("mean",), tolerant=True, takes_patches=True),
    "blip_vision_model": Family(
        "pooler", ("cls", "mean"), prefix_tokens=1, tolerant=True, model_class="BlipVisionModel"
    ),
    # Pre-trained without any pooling, and probed by attention that a task trains; without a task,
    # the mean, as in timm's copies of the same weights.
    "aimv2_vision_model": Family("mean", ("pooler",), tolerant=True),
    "tipsv2_vision_model": _PATCHES_AND_CLASS,
    # Transformers. Their poolers, if they have one, are trained with a head or not at all.
    "vit": _PATCHES_AND_CLASS,
    "deit": replace(_PATCHES_AND_CLASS, prefix_tokens=2),
    "dinov2": _PATCHES_AND_CLASS,
    "dinov2_with_registers": _PATCHES_AND_CLASS,
    "dinov3_vit": _PATCHES_AND_CLASS,
    "beit": Family("pooler", ("cls", "mean", "patches"), prefix_tokens=1, tolerant=True),
    "data2vec-vision": Family(
        "pooler",
        ("cls", "mean"),
        prefix_tokens=1,
        tolerant=True,
        options=(("add_pooling_layer", True),),  # it has its classifiers' pooler only when told so
    ),
    "vit_mae": Family(
        "cls",
        ("mean", "patches"),
        prefix_tokens=1,
        hides_patches=True,
        tolerant=True,
        options=(("mask_ratio", 0.0),),
    ),
    "vit_msn": Family("cls", ("mean",), prefix_tokens=1, tolerant=True),
    "ijepa": Family("mean", (), tolerant=True),  # no class token: its paper's probes read the mean
    "mlcd_vision_model": Family("pooler", ("cls", "mean"), prefix_tokens=1, tolerant=True),
    # Eight class tokens, whose mean is its `pooler_output`.
    "pixio": Family("pooler", ("mean",), prefix_tokens=8, tolerant=True),
    # C-RADIO's summary: its class tokens, one for each teacher that has a summary, side by side.
    "radio": Family("pooler", (), pooled="summary", tolerant=True),
    "swin": replace(_POOLED, tolerant=True),
    "swinv2": _POOLED,
    "hiera": replace(_POOLED, tolerant=True),
    "focalnet": _POOLED,
    "levit": _POOLED,
    "pvt": Family("cls", ("mean",), prefix_tokens=1, tolerant=True),
    "pvt_v2": Family("mean", (), tolerant=True),
    "segformer": Family("mean", (), tolerant=True),
    "cvt": replace(_BEFORE_HEAD, model_class="CvtForImageClassification"),
    # Convolutional networks.
    "bit": _POOLED,
    "convnext": replace(_POOLED, tolerant=True),
    "convnextv2": replace(_POOLED, tolerant=True),
    "dinov3_convnext": Family("pooler", ("mean", "patches"), prefix_tokens=1, tolerant=True),
    "efficientnet": _POOLED,
    "mobilenet_v1": _POOLED,
    "mobilenet_v2": _POOLED,
    "mobilevit": _POOLED,
    "mobilevitv2": _POOLED,
    "poolformer": replace(_BEFORE_HEAD, model_class="PoolFormerForImageClassification"),
    "swiftformer": replace(
        _BEFORE_HEAD, model_class="SwiftFormerForImageClassification", heads=("head", "dist_head")
    ),
    "regnet": _POOLED,
    "resnet": _POOLED,
}

# Model types with a second name.
_OTHER_NAMES = {"mlcd": "mlcd_vision_model"}
# What files call a text half, where transformers renames its weights.
_IN_FILES = {"tipsv2": "text_encoder"}
# Model types that stand for another model too, which has weights of this part.
_TOLD_BY_A_WEIGHT = {
    "clip_vision_model": ("visual_projection", FAMILIES["CLIPVisionModelWithProjection"]),
    "blip": ("vision_proj", FAMILIES["BlipForImageTextRetrieval"]),
    "aimv2_vision_model": ("head", Family("pooler", ("mean",), tolerant=True)),  # LiT's
}

# Late interaction with tiles, or patches at an image's own resolution.
_AS_MANY_VECTORS_AS_FIT = {"colmodernvbert", "colqwen2"}

# Poolings that need no knowledge of the family, for families that are not in the table.
_ANYWHERE: tuple[Pooling, ...] = ("cls", "pooler")


def choose_family(checkpoint: Checkpoint, pooling: Literal["auto"] | Pooling) -> Family:
    """The checkpoint's row of the table with `pooling` applied; `text` only for `projection`.

    Raises CheckpointError for a family that raylens does not know, and for a pooling that the
    family cannot do.
    """
    config = read_json(checkpoint.folder / CONFIG)
    kind = str(config.get("model_type"))
    architectures = config.get("architectures") or ()
    if not isinstance(architectures, list | tuple):
        architectures = (architectures,)
    if kind in _AS_MANY_VECTORS_AS_FIT:
        raise CheckpointError(
            f"model {checkpoint.id!r} is of the family {kind!r}, which makes more or fewer vectors "
            "of an image by its size and shape, and raylens has as many for each; for late "
            "interaction choose a checkpoint of the family 'colpali'"
        )
    names = (*map(str, architectures), kind, _OTHER_NAMES.get(kind))
    family = next((FAMILIES[name] for name in names if name in FAMILIES), None)
    if family is not None and (family.text is not None or kind in _TOLD_BY_A_WEIGHT):
        family = _as_saved(family, kind, weight_names(checkpoint.folder))
    if family is None and pooling in _ANYWHERE:
        return Family(pooling, _ANYWHERE)
    if family is None:
        raise CheckpointError(
            f"model {checkpoint.id!r} is of the family {kind!r}, whose pooling raylens does not "
            f"know; it knows {', '.join(sorted(FAMILIES))}. Serve one of these, or set "
            f"model.pooling to {' or '.join(_ANYWHERE)}"
        )
    known = (family.pooling, *family.others)
    if pooling == "auto":
        pooling = family.pooling
    if pooling not in known:
        raise CheckpointError(
            f"model.pooling is {pooling!r}, which {kind} models such as {checkpoint.id!r} do not "
            f"have; it may be {', '.join(known)}"
        )
    return replace(
        family,
        pooling=pooling,
        others=tuple(other for other in known if other != pooling),
        text=family.text if pooling in ("projection", "tokens") else None,
    )


def _as_saved(family: Family, kind: str, names: set[str]) -> Family:
    """The weights decide which parts of the model there are, whatever config.json says: one model
    type stands for two spaces, and what is fine-tuned from one half keeps the type of both."""
    part, other = _TOLD_BY_A_WEIGHT.get(kind, ("", family))
    if part and _any(names, part):
        return other
    if family.text is None or _any(names, _IN_FILES.get(kind, family.text.part)):
        return family
    family, known = replace(family, text=None), (family.pooling, *family.others)
    if _any(names, "classifier"):  # all of these read the mean of the patches
        pooling: Pooling = "mean"
    elif family.projection is not None and not _any(names, family.projection):
        pooling = "pooler"
    else:
        return family
    others = (other for other in known if other not in (pooling, "projection"))
    return replace(family, pooling=pooling, others=tuple(others))


def _any(names: set[str], part: str) -> bool:
    """Whether there are weights of this part, which may be in another module."""
    return any(f".{part}." in f".{name}" for name in names)
