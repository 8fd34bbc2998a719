"""Writes what every reported number is: python docs/list_numbers.py > docs/numbers.md"""

from __future__ import annotations

from tightbound.evaluation import DecoderNoise, Diagnosis, Evaluation, SampleQuality
from tightbound.evaluation.numbers import listed

KINDS = {
    "tightbound evaluate": Evaluation,
    "decoder_noise, within it": DecoderNoise,
    "tightbound evaluate --sample-quality": SampleQuality,
    "tightbound diagnose": Diagnosis,
}


def page() -> str:
    """The page, from the tables that the terminal and the report print from."""
    parts = [f"## {title}\n\n{listed(kind)}" for title, kind in KINDS.items()]
    head = "# The numbers\n\nWritten by `python docs/list_numbers.py`. `{...}` is filled in where a number is printed."
    return "\n\n".join([head, *parts]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
