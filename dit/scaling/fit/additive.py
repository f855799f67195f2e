"""The additive law L(N, D) = E + A N^-alpha + B D^-beta ("approach 3") and the allocation it implies.

Source: Hoffmann et al. 2203.15556, section 3.3; Besiroglu et al. 2404.10102 for its objective.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dit.errors import InputError, check_choice, check_number
from dit.scaling.fit import laws
from dit.scaling.fit.losses import NAMES
from dit.scaling.fit.optimum import minimise
from dit.scaling.fit.points import Points
from dit.scaling.fit.starts import additive_starts

Array = np.ndarray
PARAMETERS = ("A", "alpha", "B", "beta", "E")
SAME = 1e-6  # objectives within this relative distance are the same optimum
ZERO = 1e-9  # a term whose share of every loss is below this is absent: the optimum lies at its boundary


@dataclass(frozen=True)
class AdditiveFit:
    """Fitted L = E + A N^-alpha + B D^-beta.

    Attributes:
        E: irreducible loss; A, B, alpha, beta: the two terms in the units of N and D.
        k: FLOPs per N D, so that C = k N D.
        loss: name of the loss; delta: Huber's delta, in log loss.
        objective: sum of losses at the optimum (huber: sum of Huber(delta); lad: sum of |r|; mse_log: sum of
            r^2/2, with r the residual of ln L; mse: residual sum of squares of L).
        n: number of points; starts: how many were tried; converged: how many converged; agreed: how many of
            them reached the reported optimum.
        absent: terms that are zero at the optimum (a boundary, where intervals from curvature mean nothing).
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    k: float
    loss: str
    delta: float
    objective: float
    n: int
    starts: int
    converged: int
    agreed: int
    absent: tuple[str, ...] = ()

    @property
    def a(self) -> float:
        """Exponent of N*(C): beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def b(self) -> float:
        """Exponent of D*(C): alpha / (alpha + beta) = 1 - a."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def G(self) -> float:
        """Coefficient of N* = G (C/k)^a: (alpha A / (beta B))^(1 / (alpha + beta))."""
        return float(np.exp(np.log(self.alpha * self.A / (self.beta * self.B)) / (self.alpha + self.beta)))

    def n_opt(self, c: float) -> float:
        """Size N that is best for compute ``c`` (FLOPs)."""
        return self.G * (c / self.k) ** self.a

    def d_opt(self, c: float) -> float:
        """Data D that is best for compute ``c`` (FLOPs)."""
        return (c / self.k) ** self.b / self.G

    def loss_opt(self, c: float) -> float:
        """Loss at the best allocation of compute ``c`` (FLOPs)."""
        return float(self.predict(self.n_opt(c), self.d_opt(c)))

    def predict(self, n: Any, d: Any) -> Any:
        """Loss at size ``n`` and data ``d``."""
        return self.E + self.A * n ** (-self.alpha) + self.B * d ** (-self.beta)

    def as_dict(self) -> dict[str, Any]:
        """All numbers, derived ones included."""
        return {**asdict(self), "a": self.a, "b": self.b, "G": self.G}


@dataclass(frozen=True)
class AdditiveProblem:
    """Points in the optimiser's coordinates: centred ln N and ln D, ln L.

    Keeps what is needed to go back: mean of ln N and ln D, and k.
    """

    law: laws.LogSumExp
    y: Array
    n: Array
    d: Array
    mean_n: float
    mean_d: float
    k: float

    @classmethod
    def of(cls, points: Points) -> "AdditiveProblem":
        """The problem of these points.

        Raises:
            InputError: fewer points than parameters, or N and D that do not vary independently.
        """
        log_n, log_d = np.log(points.get("n")), np.log(points.get("d"))
        _check_design(log_n, log_d)
        mean_n, mean_d = float(log_n.mean()), float(log_d.mean())
        n, d = log_n - mean_n, log_d - mean_d
        return cls(laws.additive(n, d), np.log(points.loss), n, d, mean_n, mean_d, points.completed().k)

    def starts(self, loss: str) -> Array:
        """Starts (S, 5) from the data."""
        return additive_starts(self.n, self.d, np.exp(self.y), relative=loss != "mse")

    def natural(self, theta: Array) -> dict[str, Array]:
        """A, alpha, B, beta, E (each (R,)) of rows ``theta`` (R, 5)."""
        log_a, alpha, log_b, beta, log_e = theta.T
        return {
            "A": np.exp(log_a + alpha * self.mean_n),
            "alpha": alpha,
            "B": np.exp(log_b + beta * self.mean_d),
            "beta": beta,
            "E": np.exp(log_e),
        }

    def theta(self, fit: AdditiveFit) -> Array:
        """Coordinates (5,) of a fit."""
        return np.array(
            [
                np.log(fit.A) - fit.alpha * self.mean_n,
                fit.alpha,
                np.log(fit.B) - fit.beta * self.mean_d,
                fit.beta,
                np.log(fit.E),
            ]
        )


def fit_additive(points: Points, loss: str = "huber", delta: float = 1e-3) -> AdditiveFit:
    """The additive law's global optimum on these points, from 25 starts made of the data.

    Args:
        points: needs two of N, D and C (C = 6 N D fills in the third).
        loss: huber (of ln L, summed), lad (least absolute deviations of ln L, exact), mse_log, or mse (of L).
        delta: Huber's delta, in log loss.

    Raises:
        InputError: an unknown loss, fewer points than parameters, N and D on one line (a single budget).
    """
    check_choice("loss", loss, NAMES)
    check_number("delta", delta, above=0.0)
    points = points.completed()
    problem = AdditiveProblem.of(points)
    found = minimise(problem.law, loss, delta, problem.y, np.ones((1, len(points))), problem.starts(loss))
    objective = np.where(np.isfinite(found.objective), found.objective, np.inf)
    best = int(np.argmin(objective))
    agreed = objective <= objective[best] * (1 + SAME) + 1e-300
    natural: Mapping[str, Array] = problem.natural(found.theta[best : best + 1])
    shares = problem.law.value_and_shares(found.theta[best : best + 1])[1]
    absent = tuple(name for name, share in zip("ABE", shares) if share.max() < ZERO)
    return AdditiveFit(
        **{name: float(value[0]) for name, value in natural.items()},
        k=problem.k, loss=loss, delta=delta, objective=float(objective[best]), n=len(points),
        starts=len(objective), converged=int(found.converged.sum()), agreed=int((agreed & found.converged).sum()),
        absent=absent,
    )  # fmt: skip


def _check_design(log_n: Array, log_d: Array) -> None:
    if len(log_n) < len(PARAMETERS) + 1:
        raise InputError(
            "data", f"({len(log_n)} points)", f"more points than the {len(PARAMETERS)} parameters"
        )
    for key, values in (("columns.n", log_n), ("columns.d", log_d)):
        if len(np.unique(np.round(values, 6))) < 3:
            raise InputError(
                key, f"({len(np.unique(values))} different values)", "at least 3 different values"
            )
    spread = np.linalg.svd(np.stack([log_n - log_n.mean(), log_d - log_d.mean()]), compute_uv=False)
    if spread[1] < 1e-3 * spread[0]:
        raise InputError(
            "data", "(one budget only: ln N and ln D lie on one line)", "points at two or more budgets",
            "One budget cannot tell the size term from the data term.",
        )  # fmt: skip
