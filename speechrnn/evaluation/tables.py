"""Tables as text. In: rows of cells, the head first. Out: Markdown, or lines of LaTeX."""

import re
from collections.abc import Sequence

_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {character: f"\\{character}" for character in "_%&#${}"}
)
_NUMBER = re.compile(r"[-+]?[\d.,%]+( to [\d.,%]+|e-\d+)?")


def numeric(rows: Sequence[Sequence[str]]) -> list[bool]:
    """For each column whether all below its head are numbers, which are aligned at the right."""
    columns = zip(*rows, strict=True)
    return [len(column) > 1 and all(map(_NUMBER.fullmatch, column[1:])) for column in columns]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rule = "".join("|--:" if right else "|---" for right in numeric(rows)) + "|"
    head, *body = (
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    )
    return "\n".join([head, rule, *body])


def latex(rows: Sequence[Sequence[str]]) -> str:
    """The lines of a `tabular` of LaTeX's booktabs: the head, a rule, the rows."""
    head, *body = (" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in rows)
    return "\n".join([head, r"\midrule", *body])
