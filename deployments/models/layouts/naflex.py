"""The vision half of SigLIP 2 NaFlex, which takes images of every aspect ratio as patches.

The model is transformers' own but for its embeddings, which loop over images and cannot be traced.
"""

from typing import Any

import torch
from torch import Tensor, nn

from deployments.models.family import Family


class PatchVision(nn.Module):
    """The vision model, and the family's pooling over the patches that an image has."""

    def __init__(self, model: Any, family: Family) -> None:
        """`model` as `loading.load_model` gives it; only its vision half is kept."""
        super().__init__()
        self.backbone = getattr(model, "vision_model", model)
        self.backbone.embeddings = PatchEmbeddings(self.backbone.embeddings)
        self._pooling = family.pooling

    def forward(self, patches: Tensor, grids: Tensor) -> Tensor:
        """As `LoadedCheckpoint.vision` for a `PatchSpec`."""
        places = torch.arange(patches.shape[1], device=patches.device)
        real = places < grids.prod(1, keepdim=True)
        output = self.backbone(
            pixel_values=patches, pixel_attention_mask=real.int(), spatial_shapes=grids
        )
        if self._pooling == "mean":
            shares = real / real.sum(1, keepdim=True)
            hidden: Tensor = output.last_hidden_state
            return (shares.to(hidden.dtype)[:, None] @ hidden)[:, 0]
        pooled: Tensor | None = output.pooler_output
        if pooled is None:
            raise ValueError("the model has no pooler; choose another model.pooling")
        return pooled


class PatchEmbeddings(nn.Module):
    """transformers' Siglip2VisionEmbeddings for a batch at once."""

    def __init__(self, own: Any) -> None:
        super().__init__()
        self.patch_embedding = own.patch_embedding
        self.position_embedding = own.position_embedding
        self._side = own.position_embedding_size

    def forward(self, pixel_values: Tensor, spatial_shapes: Tensor) -> Tensor:
        """(N, P, values) and (N, 2) to (N, P, D)."""
        rows, columns = spatial_shapes[:, :1], spatial_shapes[:, 1:]
        places = torch.arange(pixel_values.shape[1], device=pixel_values.device)
        # What is behind the last patch is hidden, but has to be finite.
        places = torch.minimum(places, rows * columns - 1)
        across = self._weights(places % columns, columns)
        down = self._weights(places.div(columns, rounding_mode="floor"), rows)
        weights = (down[..., None] * across[..., None, :]).flatten(2)
        table = self.position_embedding.weight
        positions = (weights @ table.float()).to(table.dtype)
        embedded: Tensor = self.patch_embedding(pixel_values) + positions
        return embedded

    def _weights(self, cell: Tensor, cells: Tensor) -> Tensor:
        """How much each of the table's cells weighs in cell number `cell` (N, P) of `cells` (N, 1),
        along one side: (N, P, side), float32.

        As interpolate does it for `mode="bilinear", antialias=True, align_corners=False`: a
        triangle around the cell's centre, as wide as a cell of the coarser grid on each side (see
        compute_indices_weights_aa in ATen's UpSampleKernel.cpp). Distances are in units of
        1 / (2 * side * cells), so that they are exact in every precision.
        """
        own = torch.arange(self._side, device=cell.device)
        reach = 2 * cells.clamp(min=self._side)[..., None]
        apart = (2 * own + 1) * cells[..., None] - (2 * cell[..., None] + 1) * self._side
        triangle = (reach - apart.abs()).clamp(min=0)
        weights: Tensor = triangle / triangle.sum(2, keepdim=True)
        return weights
