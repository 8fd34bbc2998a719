"""The commands by name."""

from __future__ import annotations

from .contrastive import train_contrastive
from .exchange import export, import_model
from .learning import fit_prior, train
from .measuring import compare, diagnose, encode, evaluate, report
from .pictures import complete, reconstruct, sample
from .telling import data, info, recipes
from .walks import interpolate, traverse

__all__ = ["COMMANDS"]

COMMANDS = {
    "train": train,
    "fit-prior": fit_prior,
    "train-contrastive": train_contrastive,
    "evaluate": evaluate,
    "diagnose": diagnose,
    "sample": sample,
    "complete": complete,
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "traverse": traverse,
    "encode": encode,
    "export": export,
    "import": import_model,
    "report": report,
    "compare": compare,
    "info": info,
    "recipes": recipes,
    "data": data,
}
