"""Writes what every reported number is: python docs/list_numbers.py > docs/numbers.md"""

from __future__ import annotations

from tightbound.evaluation import DecoderNoise, Diagnosis, Evaluation, SampleQuality
from tightbound.evaluation.numbers import listed

KINDS = {
    "tightbound evaluate": Evaluation,
    "decoder_noise, a part of it": DecoderNoise,
    "tightbound evaluate --sample-quality": SampleQuality,
    "tightbound diagnose": Diagnosis,
}


FACTS = {
    "score": "NLL, or negative log-density",
    "nats": "nats per example",
    "likelihood": "defined in the first note",
    "entries": "all",
    "units": "the data's, squared",
    "given": "under the posterior, or of diffusion given the least noise",
    "divergence": "KL, or of diffusion the prior term and the diffusion term",
    "how": "closed form or Monte Carlo",
    "drawn": "samples",
    "more": ", or at least this number",
    "proposals": "the proposals used",
    "activity": "by the posterior mean, or for codes by their information",
    "in_features": "in features of a network with a name",
    "remark": "as a share of the data's variance",
    "what": "dimensions",
    "carried": "of the KL",
    "fewer": "",
    "ceiling": "never above ln n",
    "data_std": "beside it",
}
"""What stands in the words for what a result would tell."""


def page() -> str:
    """The page, from the tables that the terminal and the report print from."""
    parts = [f"## {title}\n\n{listed(kind, FACTS)}" for title, kind in KINDS.items()]
    head = (
        "# The numbers\n\nWritten by `python docs/list_numbers.py`: every number that is reported, by its name in JSON."
    )
    return "\n\n".join([head, *parts]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
