"""A glossary: one plain sentence per term, shown where the term occurs.

Convention: a page marks the first occurrence of a term in each section as a button. It shows the sentence on hover, tap
or keyboard focus, without a script; without styles the page is still readable text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

__all__ = ["TERMS", "marked", "tips"]

TERMS = {
    "mean of p(x|z)": "The average of all images that the model considers possible for the code z: smooth, because it "
    "leaves out what z does not determine.",
    "draw from p(x|z)": "One random example given the code z, including the noise that the model cannot predict.",
    "importance samples": "Codes z drawn where they matter and weighted by how well they explain an example: their "
    "mean weight estimates the example's probability.",
    "effective sample size": "The number of equally weighted samples with the same precision: far fewer than drawn if "
    "a few weights dominate.",
    "Pareto k": "How heavy the tail of the sample weights is: below 0.7 their mean is reliable, above it a few "
    "samples dominate.",
    "bits per dimension": "The cost of one entry of an example, such as a pixel, under the model, in "
    "bits: lower is better; comparable across data sizes.",
    "negative log-likelihood": "How surprised the model is by an example, −log p(x): lower is better.",
    "NLL": "Negative log-likelihood, −log p(x): how surprised the model is by an example; lower is better.",
    "log-density": "The logarithm of a probability per unit of the data: it changes with the units, so it can be "
    "compared only between models of the same data in the same units.",
    "nats": "The unit of information with natural logarithms: one nat is 1.44 bits.",
    "ELBO": "Evidence lower bound, which training maximises. The log-likelihood is never below it.",
    "KL": "Kullback–Leibler divergence: how far one distribution is from another, in nats; 0 if they are the same.",
    "posterior": "The distribution over codes z that the encoder gives for an example.",
    "prior": "The distribution over codes z without an example; samples are decoded from it.",
    "aggregate posterior": "The mixture of all examples' posteriors: samples look like data if it matches the prior.",
    "mutual information": "How much information a code has about its example, in nats.",
    "total correlation": "The dependence between latent dimensions, in nats; 0 if they are independent.",
    "active units": "Latent dimensions whose code varies with the data; the others carry no information.",
    "levels": "The number of different values of an entry of the data: 256 for a pixel of one byte.",
    "free bits": "Nats of KL per latent dimension that cost nothing in training, so that the dimension is used.",
    "importance sampling": "Estimating a probability from samples drawn where they matter, each with its weight.",
    "perplexity": "The number of equally used codes with the same entropy.",
    "codebook": "The finite list of vectors from which codes are chosen.",
    "latent": "The code z: the few hidden numbers from which the model makes an example.",
    "layers of latents": "Those of a hierarchy: z1 is next to the data, and each is generated from those above it.",
    "dequantised": "With uniform noise added to integer values, so that a density can be fitted to them.",
}
"""Terms with their explanations, in one or two sentences."""

_SILENT = ("pre", "code", "a", "button", "h1", "h2", "h3", "summary", "svg", "style", "script", "ul", "figcaption")
"""Elements whose text is not marked: legends and captions contain names of classes, files and runs."""
_TAG = re.compile(r"(<[^>]*>)")
_NAMES = {html.escape(term, quote=True).lower(): term for term in TERMS}
_WORD = re.compile(
    r"(?<![\w-])(" + "|".join(map(re.escape, sorted(_NAMES, key=len, reverse=True))) + r")(?![\w(-])([.,;:!?)]*)",
    re.IGNORECASE,
)


def marked(content: str) -> str:
    """HTML with the first occurrence of each term turned into a button that explains it.

    Tags, attributes, code, headings, links, legends and captions are unchanged.

    Args:
        content: HTML in which ``<`` and ``>`` occur only in tags; in text they are escaped.

    Example:
        >>> marked("<p>a KL of 3</p>")[:45]
        '<p>a <button type="button" class="term" popov'
        >>> marked("<code>KL</code>")
        '<code>KL</code>'
    """
    seen, depth, parts = set[str](), 0, list[str]()
    for piece in _TAG.split(content):
        if piece.startswith("<"):
            depth += _step(piece)
        elif not depth:
            piece = _WORD.sub(lambda found: _told(found[1], found[2], seen), piece)
        parts.append(piece)
    return "".join(parts)


def _step(tag: str) -> int:
    """1 at the start of an element whose text is not marked, -1 at its end, else 0."""
    name = re.match(r"</?(\w+)", tag)
    if name is None or name[1] not in _SILENT or tag.endswith("/>"):
        return 0
    return -1 if tag.startswith("</") else 1


def _told(word: str, after: str, seen: set[str]) -> str:
    """A word as a button, kept together with the punctuation after it."""
    term = _NAMES[word.lower()]
    if term in seen or (term.isupper() and not word.isupper()):
        return word + after
    seen.add(term)
    told = html.escape(TERMS[term], quote=True)
    button = f'<button type="button" class="term" popovertarget="{_place(term)}" title="{told}">{word}</button>'
    return f'<span class="whole">{button}{after}</span>' if after else button


def _place(term: str) -> str:
    return f"term-{list(TERMS).index(term)}"


def tips(content: str) -> str:
    """The explanations of the terms marked in HTML: one hidden element each, shown by its button."""
    return "".join(_tips(content))


def _tips(content: str) -> Iterator[str]:
    for term, told in TERMS.items():
        if f'popovertarget="{_place(term)}"' in content:
            name, text = html.escape(term, quote=True), html.escape(told, quote=True)
            yield f'<div popover id="{_place(term)}" class="told"><strong>{name}</strong> {text}</div>'
