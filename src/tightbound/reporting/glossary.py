"""What the words mean that stop a newcomer: one plain sentence each, shown where a word stands.

Convention: a page marks the first occurrence of a term in each section as a button. It shows the sentence when pointed
at, tapped, or reached by the keyboard; no script is needed for that, and a page without any style is still a text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

__all__ = ["TERMS", "marked", "tips"]

TERMS = {
    "mean of p(x|z)": "The average of all pictures that the model holds possible for the code z: smooth, because it "
    "leaves out what the code does not tell.",
    "draw from p(x|z)": "One example taken at random from what the code z leaves open, with the noise that "
    "the model cannot tell.",
    "importance samples": "Codes z drawn where they matter and weighted by how well they explain an example: their "
    "mean weight estimates the example's probability.",
    "effective sample size": "How many equally weighted samples would tell as much: far fewer than were drawn where a "
    "few weights dominate.",
    "Pareto k": "How heavy the tail of the sample weights is: below 0.7 their mean can be trusted, above it a few "
    "samples decide everything.",
    "bits per dimension": "The information that one number of an example, such as a pixel, costs under the model, in "
    "bits: lower is better, and data of any size can be compared.",
    "negative log-likelihood": "How surprised the model is by an example, −log p(x): lower is better.",
    "NLL": "Negative log-likelihood, −log p(x): how surprised the model is by an example; lower is better.",
    "log-density": "The logarithm of a probability per unit of the data: it changes with the units, so it can be "
    "compared only between models of the same data in the same units.",
    "nats": "The unit of information with natural logarithms: one nat is 1.44 bits.",
    "ELBO": "Evidence lower bound: what training pushes up. The log-likelihood is never below it.",
    "KL": "Kullback–Leibler divergence: how far one distribution is from another, in nats; 0 if they are the same.",
    "posterior": "The codes z that the encoder holds possible for an example.",
    "prior": "The codes z that the model expects before it sees an example; samples are decoded from it.",
    "aggregate posterior": "The codes of all examples together: samples look like data where it agrees with the prior.",
    "mutual information": "How much a code tells about which example it came from, in nats.",
    "total correlation": "How much the latent dimensions tell about one another, in nats; 0 if they are independent.",
    "active units": "Latent dimensions whose code changes with the data; the others say nothing.",
    "levels": "How many different values a number of the data can take: 256 for a pixel of one byte.",
    "free bits": "Nats of KL for each latent dimension that training does not punish, so that it is used.",
    "importance sampling": "Estimating a probability from samples drawn where they matter, each with its weight.",
    "perplexity": "How many codes, equally used, would be as hard to guess.",
    "codebook": "The finite list of vectors that a code picks from.",
    "latent": "The code z: the few hidden numbers from which the model makes an example.",
    "dequantised": "With uniform noise added to whole-numbered values, so that a density can be fitted to them.",
}
"""Terms and what they mean, in one plain sentence or two."""

_SILENT = ("pre", "code", "a", "button", "h1", "h2", "h3", "summary", "svg", "style", "script", "ul", "figcaption")
"""Elements whose text is left alone: names of classes, files and runs stand in legends and captions."""
_TAG = re.compile(r"(<[^>]*>)")
_NAMES = {html.escape(term, quote=True).lower(): term for term in TERMS}
_WORD = re.compile(
    r"(?<![\w-])(" + "|".join(map(re.escape, sorted(_NAMES, key=len, reverse=True))) + r")(?![\w(-])([.,;:!?)]*)",
    re.IGNORECASE,
)


def marked(content: str) -> str:
    """HTML with the first occurrence of each term made a button that tells what it means.

    Tags, their attributes, code, headings, links, legends and captions stay as they are.

    Args:
        content: HTML in which ``<`` and ``>`` stand for tags alone: in text they are escaped.

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
    """1 where an element begins whose text is left alone, -1 where it ends, else 0."""
    name = re.match(r"</?(\w+)", tag)
    if name is None or name[1] not in _SILENT or tag.endswith("/>"):
        return 0
    return -1 if tag.startswith("</") else 1


def _told(word: str, after: str, seen: set[str]) -> str:
    """A word as a button, in one piece with the punctuation after it, which would else begin a line of its own."""
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
    """What the terms mean that are marked in HTML: an element each, hidden until its button shows it."""
    return "".join(_tips(content))


def _tips(content: str) -> Iterator[str]:
    for term, told in TERMS.items():
        if f'popovertarget="{_place(term)}"' in content:
            name, text = html.escape(term, quote=True), html.escape(told, quote=True)
            yield f'<div popover id="{_place(term)}" class="told"><strong>{name}</strong> {text}</div>'
