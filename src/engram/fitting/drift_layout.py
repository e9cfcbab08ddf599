"""The budgets of one size and variant side by side: means of all of them, and how their errors hang together.

Errors of two budgets are not independent. Both are validated on the same documents, and a trial may continue another of its rho and seed,
or share its initial weights and data with it. So documents are counted across budgets, and the noise of trials of one rho and seed is
taken to be correlated, by a share that the residuals show, to the power of the number of budgets between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engram.fitting.layout import ENOUGH_DOF, Layout, document_parts

_POOLED_DOF = 4
"""Weight, in degrees of freedom, of the common variance in that of a budget or of a rho, and of no correlation in that of two budgets."""
_MOST_CORRELATED = 0.9
_UNKNOWN_CORRELATION = 0.4
"""Of the noise of neighbouring budgets where nothing shows it: near the value that leaves a trend over budgets most uncertain."""
_LEAST_OWN = 0.05
"""Share of its variance that the noise of a trial has beyond that of its documents, at least."""
_RANK = 1e-9


@dataclass(frozen=True)
class Stack:
    """The measured points of all budgets, budget after budget."""

    layouts: tuple[Layout, ...]
    z: np.ndarray
    """log10 of each budget in FLOPs, ascending, [B]."""
    x: np.ndarray
    """Distinct rhos of all budgets, ascending, [k]."""
    budget: np.ndarray
    """Index of the budget of every point, [n]."""
    place: np.ndarray
    """Index in `x` of every point, [n]."""
    means: np.ndarray
    """Loss at every point for the average seed, nats per token, [n]."""
    from_documents: np.ndarray
    """Covariance of the means under document sampling, [n, n]."""
    from_trials: np.ndarray
    """Covariance of the means due to the noise of trials beyond that of their documents, [n, n]."""
    dof: float
    """Degrees of freedom of the size of `from_trials`."""

    @property
    def by_seeds(self) -> bool:
        """Whether seeds show the noise at every budget; if not, the misfit of a smooth change has to."""
        return _show_noise(self.layouts)

    @property
    def rho(self) -> np.ndarray:
        """rho of every point, [n]."""
        return self.x[self.place]

    def of_seeds(self, weights: np.ndarray) -> np.ndarray:
        """A contrast of the means [n] for each seed alone, [S]; empty unless all budgets have the same seeds at all their rhos."""
        observations = [layout.observations for layout in self.layouts]
        seeds = np.unique(observations[0].seed)
        whole = all(len(obs.x) == len(seeds) * len(layout.x) for obs, layout in zip(observations, self.layouts, strict=True))
        if not whole or any(not np.array_equal(np.unique(obs.seed), seeds) for obs in observations):
            return np.empty(0)
        losses = np.concatenate([obs.loss.reshape(-1, len(seeds)) for obs in observations])
        contrasts: np.ndarray = weights @ losses
        return contrasts


def stack(budgets: Sequence[float], layouts: Sequence[Layout]) -> Stack:
    """`layouts` of `budgets` (FLOPs), ascending."""
    z = np.log10(np.array(budgets, float))
    x = np.unique(np.concatenate([layout.x for layout in layouts]))
    budget = np.repeat(np.arange(len(layouts)), [len(layout.x) for layout in layouts])
    place = np.searchsorted(x, np.concatenate([layout.x for layout in layouts]))
    own, dof = _trial_covariance(z, layouts)
    to_means = _blocks([layout.to_means for layout in layouts])
    from_documents = to_means @ _document_covariance(layouts) @ to_means.T
    means = np.concatenate([layout.means for layout in layouts])
    return Stack(tuple(layouts), z, x, budget, place, means, from_documents, to_means @ own @ to_means.T, dof)


def _show_noise(layouts: Sequence[Layout]) -> bool:
    return all(layout.dof >= ENOUGH_DOF for layout in layouts)


def _blocks(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """A block-diagonal matrix."""
    sizes = np.array([block.shape for block in blocks])
    whole = np.zeros(sizes.sum(axis=0))
    for block, (row, column) in zip(blocks, sizes.cumsum(axis=0) - sizes, strict=True):
        whole[row : row + block.shape[0], column : column + block.shape[1]] = block
    return whole


def _document_covariance(layouts: Sequence[Layout]) -> np.ndarray:
    """Covariance of the losses of all trials under document sampling, nats^2 [N, N]."""
    tokens = [layout.observations.n_tokens for layout in layouts]
    parts = [document_parts(layout.observations) for layout in layouts]
    if not all(np.array_equal(other, tokens[0]) for other in tokens):
        return _blocks([part @ part.T for part in parts])
    joint = np.vstack(parts)
    covariance: np.ndarray = joint @ joint.T
    return covariance


def _trial_covariance(z: np.ndarray, layouts: Sequence[Layout]) -> tuple[np.ndarray, float]:
    """Covariance of the noise of all trials beyond that of their documents, nats^2 [N, N], and the degrees of freedom of its size.

    The variance is a product of one of the budget and one of the rho; both lean towards a common one, as neither has many trials.
    """
    budget = np.concatenate([np.full(len(layout.observations.x), b) for b, layout in enumerate(layouts)])
    x = np.concatenate([layout.observations.x for layout in layouts])
    seed = np.concatenate([layout.observations.seed for layout in layouts])
    loss = np.concatenate([layout.observations.loss for layout in layouts])
    by_seeds = _show_noise(layouts)
    projection = _blocks([layout.residual for layout in layouts]) if by_seeds else _without_trend(budget, z, x, loss)
    left = projection @ loss
    apart = np.abs(budget[:, None] - budget)
    same = (x[:, None] == x) & (seed[:, None] == seed)
    neighbours = same & (apart == 1)
    weight = np.sqrt(np.outer(np.diagonal(projection), np.diagonal(projection)))[neighbours].sum()
    # What documents make of the noise comes with the documents
    sampled = float((projection * (projection @ _document_covariance(layouts))).sum() / np.trace(projection))
    squares = float(left @ left) / np.trace(projection)
    found = np.outer(left, left)[neighbours].sum() / (weight + 2 * _POOLED_DOF) / (max(squares - sampled, _LEAST_OWN * squares) + 1e-300)
    correlation = float(np.clip(found, 0, _MOST_CORRELATED)) if by_seeds else _UNKNOWN_CORRELATION
    alike = np.where(same, correlation**apart, 0)
    expected = projection @ alike @ projection
    shares = np.diagonal(expected)
    dof = float(shares.sum() ** 2 / (expected**2).sum())
    variance = _variance(left**2, shares, budget, np.unique(x, return_inverse=True)[1], dof / float(shares.sum()))
    sd = np.sqrt(np.maximum(variance - sampled, _LEAST_OWN * variance))
    return alike * np.outer(sd, sd), dof


def _variance(squares: np.ndarray, shares: np.ndarray, budget: np.ndarray, place: np.ndarray, new: float) -> np.ndarray:
    """Variance of every trial from the squares of residuals, which hold `shares` of it, nats^2 [N].

    `new` is the share of the residuals that is not a repetition of other budgets' ones.
    """
    common = float(squares.sum() / shares.sum()) + 1e-300
    of_budget, of_place = np.ones(budget.max() + 1), np.ones(place.max() + 1)
    for _ in range(3):
        of_budget = _pooled(squares / common / of_place[place], shares, budget, 1.0)
        of_place = _pooled(squares / common / of_budget[budget], shares, place, new)
    factor = of_budget[budget] * of_place[place]
    variance: np.ndarray = factor * float((squares / factor).sum() / shares.sum())
    return variance


def _pooled(squares: np.ndarray, shares: np.ndarray, group: np.ndarray, new: float) -> np.ndarray:
    """Variance of each group, as a multiple of the common one."""
    return (new * np.bincount(group, squares) + _POOLED_DOF) / (new * np.bincount(group, shares) + _POOLED_DOF)


def _without_trend(budget: np.ndarray, z: np.ndarray, x: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Projection on what levels of budgets, effects of rhos and a smooth change with the budget do not explain, [N, N].

    The noise where seeds do not show it: what the model misses counts as noise.
    """
    z = (z - z.mean())[budget]
    middle = x - x.mean()
    levels = np.eye(budget.max() + 1)[budget]
    effects = (x[:, None] == np.unique(x)).astype(float)
    trends = np.column_stack([z * middle, z * middle**2, z * middle**3])
    for count in (3, 2, 1, 0):
        left, sizes, _ = np.linalg.svd(np.hstack([levels, effects, trends[:, :count]]), full_matrices=False)
        left = left[:, sizes > _RANK * sizes[0]]
        if len(loss) - left.shape[1] >= ENOUGH_DOF:
            break
    return np.eye(len(loss)) - left @ left.T
