r"""Encoders of images and captions into a shared space, in which an image lies close to its caption.

Convention: images ``x`` are ``(n, channels, height, width)`` as a model sees them, captions are tokens ``(m, length)``
padded with -1, and features have length 1, so inner products are cosines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checkpoint
from ..conditions import TextCondition
from ..errors import CheckpointError, ShapeError, UsageError, reading
from ..networks import ConvolutionalEncoder, TokenEmbedding
from ..runtime.budget import within_stored
from ..spec import from_json, register, to_json

__all__ = ["Clip", "Contrastive", "ContrastiveConfig", "TextImageEncoder", "load_clip"]

SHARPEST = math.log(100)
"""The largest logarithm of the scale of the logits."""
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class TextImageEncoder(nn.Module):
    """Abstract: an encoder of images and one of captions into the same space."""

    def tokens(self, captions: Iterable[str]) -> Tensor:
        """Captions as int64 ``(m, length)``.

        Raises:
            DataError: If one is empty.
            UsageError: If one is too long.
        """
        raise NotImplementedError

    def image_features(self, x: Tensor) -> Tensor:
        """Features of images, ``(n, dim)``, of length 1."""
        raise NotImplementedError

    def text_features(self, tokens: Tensor) -> Tensor:
        """Features of captions, ``(m, dim)``, of length 1."""
        raise NotImplementedError

    def similarity(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Cosine of every image and every caption, ``(n, m)``."""
        return self.image_features(x) @ self.text_features(tokens).T


@register("contrastive")
@dataclass(frozen=True)
class ContrastiveConfig:
    """Everything needed to rebuild a :class:`Contrastive`.

    Args:
        shape: Shape ``(channels, height, width)`` of an image.
        vocabulary: Maximum size of the vocabulary.
        length: Maximum number of tokens in a caption.
        dim: Size of the features.
        channels: Channels of each level of the image encoder.

    Raises:
        UsageError: If the shape is not that of an image, or a size is less than 1.

    Example:
        >>> ContrastiveConfig((3, 32, 32)).channels
        (32, 64, 128)
    """

    shape: tuple[int, ...]
    vocabulary: int = 2048
    length: int = 32
    dim: int = 128
    channels: tuple[int, ...] = (32, 64, 128)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(*self.shape, self.dim, *self.channels) < 1:
            raise UsageError(
                "A contrastive encoder needs images and positive sizes.",
                got=self,
                expected="a shape (channels, height, width), and sizes of at least 1",
            )


class Contrastive(TextImageEncoder):
    r"""A small encoder of images and captions, trained to match each image with its caption in a batch.

    .. math:: \mathcal{L}_i = -\tfrac12 \log \frac{e^{s \, u_i^\top v_i}}{\sum_j e^{s \, u_i^\top v_j}}
        - \tfrac12 \log \frac{e^{s \, u_i^\top v_i}}{\sum_j e^{s \, u_j^\top v_i}}

    with :math:`u, v` the features of images and captions, and a learned scale :math:`s \le 100`.

    References:
        Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021).

    Args:
        config: Its sizes.

    Example:
        >>> model = Contrastive(ContrastiveConfig((3, 8, 8), dim=4, channels=(8,)))
        >>> model.text.initialise_captions(["a red circle", "a blue square"])
        >>> model(torch.rand(5, 3, 8, 8), model.tokens(["a red circle", "a blue circle"])).shape
        torch.Size([5, 2])
    """

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        self.config = config
        self.text = TextCondition(config.vocabulary, config.length)
        self.image_encoder = ConvolutionalEncoder(config.shape, config.dim, config.channels)
        self.text_encoder = TokenEmbedding(config.vocabulary, config.length, config.dim)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(0.07)))

    def tokens(self, captions: Iterable[str]) -> Tensor:
        return self.text.tokenizer.encode_all(captions).to(self.log_scale.device)

    def image_features(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.config.shape:
            raise ShapeError("The images do not fit.", got=tuple(x.shape), expected=f"(n, {self.config.shape})")
        return F.normalize(self.image_encoder(x), dim=-1)

    def text_features(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.text_encoder(tokens), dim=-1)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Logits of every image and caption, ``(n, m)``."""
        return self.log_scale.clamp(max=SHARPEST).exp() * self.similarity(x, tokens)

    def loss(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The contrastive loss over the batch, ``(n,)`` nats: image to caption and caption to image.

        Unlike all other losses here it depends on the batch. Examples with the same caption are not negatives.
        """
        same = (tokens[:, None] == tokens[None]).all(-1).fill_diagonal_(False)
        logits = self(x, tokens).masked_fill(same, -math.inf)
        return -(logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()) / 2

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file with the sizes in its header.

        Raises:
            CheckpointError: If it cannot be written.
        """
        checkpoint.write(Path(path), {"config": to_json(self.config), "weights": checkpoint.tensors_of(self)})

    @classmethod
    def load(cls, path: str | Path) -> Contrastive:
        """Loads what :meth:`save` wrote, in evaluation mode.

        Raises:
            CheckpointError: If it cannot be read, or is something else.
        """
        state = checkpoint.read(Path(path))
        if set(state) != {"config", "weights"} or not isinstance(state["config"], dict):
            raise CheckpointError(f"{path} is not a contrastive encoder.", got=f"it holds {', '.join(list(state)[:5])}")
        with reading(path, CheckpointError, remedy="Train it again."), within_stored(Path(path)):
            model = cls(from_json(state["config"], ContrastiveConfig))
        checkpoint.load_into(model, state["weights"], path)
        checkpoint.require_finite(model)
        return model.eval()


class Clip(TextImageEncoder):
    """A CLIP in Hugging Face's format; grey images are repeated to three channels, and images are resized.

    References:
        Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021).

    Args:
        model: The ``CLIPModel``.
        tokenizer: Its tokenizer, as ``transformers`` loads it.
        mean: Mean of each channel over its training images.
        std: Their standard deviation.

    Raises:
        UsageError: If a caption is too long.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Any,  # transformers has no types that could be read without it
        tokenizer: Callable[[str], Mapping[str, list[int]]],
        mean: Sequence[float] = _MEAN,
        std: Sequence[float] = _STD,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def tokens(self, captions: Iterable[str]) -> Tensor:
        most = self.model.config.text_config.max_position_embeddings
        rows = [self.tokenizer(caption)["input_ids"] for caption in captions]
        if longest := max((len(row) for row in rows if len(row) > most), default=0):
            raise UsageError(
                "A caption is too long for this CLIP.", got=f"{longest} tokens", expected=f"{most} at most"
            )
        return torch.tensor([row + [-1] * (most - len(row)) for row in rows], device=self.mean.device)

    def image_features(self, x: Tensor) -> Tensor:
        side = self.model.config.vision_config.image_size
        sized = F.interpolate(x.expand(-1, 3, -1, -1), (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        seen = self.model.vision_model(pixel_values=(sized - self.mean) / self.std).pooler_output
        return F.normalize(self.model.visual_projection(seen), dim=-1)

    def text_features(self, tokens: Tensor) -> Tensor:
        there = tokens >= 0
        ids = tokens.where(there, self.model.config.text_config.eos_token_id)
        read = self.model.text_model(input_ids=ids, attention_mask=there.long()).pooler_output
        return F.normalize(self.model.text_projection(read), dim=-1)


def load_clip(path: str | Path) -> Clip:
    """Loads a CLIP from a folder in Hugging Face's format; nothing is downloaded, and no code from the folder is run.

    Args:
        path: The folder, with ``config.json``, ``model.safetensors`` and the tokenizer's files.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        UsageError: If the transformers library is not installed.
        CheckpointError: If the folder holds no such model.

    Example:
        >>> load_clip("no/such/folder")
        Traceback (most recent call last):
        tightbound.errors.CheckpointError: There is no CLIP in no/such/folder.
          got:      no config.json and no model.safetensors
          expected: a CLIPModel that `save_pretrained` wrote
          remedy:   Convert a pickle that you trust to safetensors with transformers.
    """
    folder = Path(path)
    if lacking := [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]:
        raise CheckpointError(
            f"There is no CLIP in {folder}.",
            got=f"no {' and no '.join(lacking)}",
            expected="a CLIPModel that `save_pretrained` wrote",
            remedy="Convert a pickle that you trust to safetensors with transformers.",
        )
    kind = checkpoint.read_json(folder / "config.json").get("model_type")
    if kind != "clip":
        raise CheckpointError(f"There is no CLIP in {folder}.", got=f"model_type {kind!r}", expected="'clip'")
    model, tokenizer = _pretrained(folder)
    return Clip(model, tokenizer, *_scaling(folder)).eval()


def _pretrained(folder: Path) -> tuple[Any, Any]:
    try:
        from transformers import AutoTokenizer, CLIPModel  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(
            "A CLIP needs the transformers library.",
            got=error,
            remedy="Install it: pip install 'tightbound[transformers]'",
        ) from None
    expected = "a CLIPModel that `save_pretrained` wrote"
    with (
        reading(f"The CLIP in {folder}", CheckpointError, expected=expected),
        within_stored(folder / "model.safetensors"),
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, found = CLIPModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    if lacking := sorted(found["missing_keys"]):
        got = f"no {', '.join(lacking[:5])}"
        raise CheckpointError(f"The CLIP in {folder} lacks weights.", got=got, expected="all weights of a CLIPModel")
    return model, tokenizer


def _scaling(folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    file = folder / "preprocessor_config.json"
    told = checkpoint.read_json(file) if file.is_file() else {}
    with reading(file, CheckpointError, expected="three numbers in image_mean and in image_std"):
        scaling = torch.tensor([told.get("image_mean", _MEAN), told.get("image_std", _STD)], dtype=torch.float64)
        mean, std = scaling.view(2, 3).tolist()
    return mean, std
