"""Encoders of images and texts to embeddings."""

from .contrastive import Contrastive, ContrastiveConfig, load_clip

__all__ = ["Contrastive", "ContrastiveConfig", "load_clip"]
