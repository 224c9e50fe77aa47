"""Summaries of an accuracy matrix: Last, Avg, forgetting, backward transfer.

A matrix has one row a stage and one column a dataset, in percent; None where the dataset was not
yet seen. Definitions: Guo et al. 2025, section 5; forgetting as in Chaudhry et al. 2018 (Riemannian Walk,
section 3), except that the best is taken over all stages, so that it is never negative.
"""

from collections.abc import Sequence

Matrix = Sequence[Sequence[float | None]]


def last(matrix: Matrix) -> float:
    """Mean over the datasets seen after the last stage, percent."""
    return _row_mean(_rows(matrix)[-1])


def avg(matrix: Matrix) -> float:
    """Mean over stages of the mean over the datasets seen so far, percent."""
    return _mean([_row_mean(row) for row in _rows(matrix)])


def just_learned(matrix: Matrix, datasets: Sequence[str]) -> dict[str, float]:
    """The accuracy of every dataset seen after the first stage that taught it, percent, by name."""
    return {name: column[0] for name, column in _named(matrix, datasets) if column}


def forgetting(matrix: Matrix, datasets: Sequence[str]) -> dict[str, float]:
    """Best minus last accuracy, in points (0 or more), of every dataset that a later stage followed: of
    those that the last stage was the first to teach nothing can be forgotten yet."""
    named = _named(matrix, datasets)
    return {name: max(column) - column[-1] for name, column in named if len(column) > 1}


def backward_transfer(matrix: Matrix) -> float:
    """Mean of last minus just-learned accuracy, in points (Lopez-Paz and Ranzato 2017).

    Taken over the datasets that later stages followed; 0 where there are none.
    """
    followed = [column for column in _columns(matrix) if len(column) > 1]
    return _mean([column[-1] - column[0] for column in followed]) if followed else 0.0


def _rows(matrix: Matrix) -> Matrix:
    if not matrix or len({len(row) for row in matrix}) != 1:
        raise ValueError("an accuracy matrix needs rows of one length")
    return matrix


def _columns(matrix: Matrix) -> list[list[float]]:
    """The known values of every column, in the order of stages."""
    columns = zip(*_rows(matrix), strict=True)
    return [[value for value in column if value is not None] for column in columns]


def _named(matrix: Matrix, datasets: Sequence[str]) -> list[tuple[str, list[float]]]:
    columns = _columns(matrix)
    if len(columns) != len(datasets):
        raise ValueError(f"{len(columns)} columns for {len(datasets)} datasets")
    return list(zip(datasets, columns, strict=True))


def _row_mean(row: Sequence[float | None]) -> float:
    known = [value for value in row if value is not None]
    if not known:
        raise ValueError("a row of an accuracy matrix needs at least one value")
    return _mean(known)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
