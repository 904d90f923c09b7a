"""The one training loop: batches, optimiser, history, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch

EpochProgress = Callable[[int, int], None]
"""Called with (epochs done, epochs in all)."""


def no_epoch_progress(done: int, total: int) -> None:
    """Report nothing."""


LossOf = Callable[[torch.Tensor], torch.Tensor]
"""From the positions of a batch's rows (n_batch,) to its loss, a scalar."""


def fit_epochs(
    parameters: Iterable[torch.nn.Parameter],
    loss_of: LossOf,
    batches: Callable[[], Iterator[torch.Tensor]],
    *,
    epochs: int,
    lr: float,
    progress: EpochProgress = no_epoch_progress,
    patience: int = 0,
    judge: Callable[[], torch.Tensor] | None = None,
) -> list[float]:
    """Minimise a loss with Adam over batches of rows.

    Parameters
    ----------
    parameters
        What is learned, in place.
    loss_of
        The loss of a batch, given the positions of its rows.
    batches
        Called once an epoch: yields positions of rows.
    epochs, lr
        Passes, and the learning rate.
    progress
        Called with (epochs done, epochs in all) after every epoch.
    patience, judge
        Where both are given, the loss of rows that are not trained on is looked at after every epoch: after
        so many epochs without a lower one training ends, with the weights of the lowest.

    Returns
    -------
    list of float
        Mean loss of the batches, an entry per epoch.
    """
    learned = list(parameters)
    optimiser = torch.optim.Adam(learned, lr=lr, fused=True)  # these nets are small: it saves a fifth
    best = _Best(learned)
    history: list[float] = []
    for epoch in range(epochs):
        losses = []
        for rows in batches():
            optimiser.zero_grad()
            loss = loss_of(rows)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.detach())
        history.append(float(torch.stack(losses).mean()) if losses else float("nan"))
        progress(epoch + 1, epochs)
        if judge is not None and patience and best.waited(judge) >= patience:
            progress(epochs, epochs)
            break
    best.restore()
    return history


class _Best:
    """The weights with the lowest loss so far; none as long as none was looked at."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self._kept: list[torch.Tensor] = []
        self._lowest, self._waited = math.inf, 0

    @torch.no_grad()
    def waited(self, judge: Callable[[], torch.Tensor]) -> int:
        """Look at the loss; return for how many looks there was none lower."""
        loss = float(judge())
        if loss < self._lowest:
            self._lowest, self._waited = loss, 0
            self._kept = [parameter.detach().clone() for parameter in self._parameters]
        else:
            self._waited += 1
        return self._waited

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the weights with the lowest loss."""
        for parameter, best in zip(self._parameters, self._kept, strict=False):  # keep none, or all
            parameter.copy_(best)


def fit_steps(
    optimiser: torch.optim.Optimizer,
    loss_at: Callable[[int], torch.Tensor],
    *,
    steps: int,
    rate: Callable[[int], float],
    progress: EpochProgress = no_epoch_progress,
) -> list[float]:
    """Minimise a loss over steps, each with a batch of its own.

    Parameters
    ----------
    optimiser
        Of what is learned, in place.
    loss_at
        The loss of a step, a scalar, given its number from 0.
    steps
        How many.
    rate
        From the number of a step to the part of the optimiser's learning rate that it takes.
    progress
        Called with (steps done, steps in all) after every step.

    Returns
    -------
    list of float
        Mean loss of every twentieth of the steps (of each step where there are fewer).
    """
    losses = []
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    for step in range(steps):
        optimiser.zero_grad()
        loss = loss_at(step)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        losses.append(loss.detach())
        progress(step + 1, steps)
    parts = torch.stack(losses).tensor_split(min(steps, 20)) if losses else ()
    return [float(part.mean()) for part in parts]


def warm_cosine(steps: int, *, warm: int = 20) -> Callable[[int], float]:
    """Return a schedule for `fit_steps`: a rise over the first steps, then half a cosine down to 0.

    Parameters
    ----------
    steps, warm
        Steps in all, and of the rise.
    """

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))

    return rate


def shuffled(
    n_rows: int, *, size: int, generator: torch.Generator, most: int | None = None
) -> Iterator[torch.Tensor]:
    """Yield batches of row positions in random order: all rows, or the first ``most`` of the shuffle.

    A last batch of a single row is left out, since a batch's genes cannot be compared over one cell.

    Parameters
    ----------
    n_rows
        Rows to draw from.
    size
        Rows per batch.
    generator
        The stream that shuffles, on the CPU.
    most
        Rows per epoch at most; all by default.
    """
    order = torch.randperm(n_rows, generator=generator)[:most]
    for rows in torch.split(order, size):
        if len(rows) > 1:
            yield rows


def linear(n_in: int, n_out: int, generator: torch.Generator) -> torch.nn.Linear:
    """Return a linear layer with torch's usual start, drawn from ``generator`` and not the global stream."""
    layer = torch.nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
    bound = n_in**-0.5
    with torch.no_grad():
        for weight in (layer.weight, layer.bias):
            weight.uniform_(-bound, bound, generator=generator)
    return layer
