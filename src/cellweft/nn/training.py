"""The training loop of all networks: batches, optimiser, history, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch

EpochProgress = Callable[[int, int], None]
"""Called with (epochs done, all epochs)."""


def no_epoch_progress(done: int, total: int) -> None:
    """Report nothing."""


LossOf = Callable[[torch.Tensor], torch.Tensor]
"""Maps the positions of a batch's rows, (n_batch,), to its loss, a scalar."""


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
        Parameters to train, in place.
    loss_of
        Returns the loss of a batch, given the positions of its rows.
    batches
        Called once per epoch; yields positions of rows.
    epochs, lr
        Number of epochs, and the learning rate.
    progress
        Called with (epochs done, all epochs) after every epoch.
    patience, judge
        If both are given, ``judge`` returns the validation loss after each epoch. Training stops after
        ``patience`` epochs without a lower loss, and the weights with the lowest loss are restored.

    Returns
    -------
    list of float
        Mean loss of the batches in each epoch.
    """
    learned = list(parameters)
    optimiser = torch.optim.Adam(learned, lr=lr, fused=True)  # saves a fifth with these small networks
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
    """The weights with the lowest loss so far; none before the first evaluation."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self._kept: list[torch.Tensor] = []
        self._lowest, self._waited = math.inf, 0

    @torch.no_grad()
    def waited(self, judge: Callable[[], torch.Tensor]) -> int:
        """Evaluate the loss; return the number of evaluations since the lowest one."""
        loss = float(judge())
        if loss < self._lowest:
            self._lowest, self._waited = loss, 0
            self._kept = [parameter.detach().clone() for parameter in self._parameters]
        else:
            self._waited += 1
        return self._waited

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the weights with the lowest loss."""
        for parameter, best in zip(self._parameters, self._kept, strict=False):  # there are none, or all
            parameter.copy_(best)


def fit_steps(
    optimiser: torch.optim.Optimizer,
    loss_at: Callable[[int], torch.Tensor],
    *,
    steps: int,
    rate: Callable[[int], float],
    progress: EpochProgress = no_epoch_progress,
) -> list[float]:
    """Minimise a loss over steps, each with its own batch.

    Parameters
    ----------
    optimiser
        Optimiser of the parameters, which are trained in place.
    loss_at
        Returns the loss of a step, a scalar, given its number from 0.
    steps
        Number of steps.
    rate
        Returns the fraction of the optimiser's learning rate to use in a step, given its number.
    progress
        Called with (steps done, all steps) after each step.

    Returns
    -------
    list of float
        Mean loss of each twentieth of the steps (of each step if there are fewer than 20).
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
    """Return a schedule for `fit_steps`: an increase over the first steps, then half a cosine down to 0.

    Parameters
    ----------
    steps, warm
        Number of all steps, and of the first ones.
    """

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))

    return rate


def shuffled(
    n_rows: int, *, size: int, generator: torch.Generator, most: int | None = None
) -> Iterator[torch.Tensor]:
    """Yield batches of row positions in random order: all rows, or ``most`` of them.

    A last batch with a single row is omitted, because genes cannot be compared over one cell.

    Parameters
    ----------
    n_rows
        Number of rows.
    size
        Rows per batch.
    generator
        Random generator, on the CPU.
    most
        Largest number of rows per epoch; all by default.
    """
    order = torch.randperm(n_rows, generator=generator)[:most]
    for rows in torch.split(order, size):
        if len(rows) > 1:
            yield rows


def linear(n_in: int, n_out: int, generator: torch.Generator) -> torch.nn.Linear:
    """Return a linear layer with torch's usual initial weights, drawn from ``generator``."""
    layer = torch.nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
    bound = n_in**-0.5
    with torch.no_grad():
        for weight in (layer.weight, layer.bias):
            weight.uniform_(-bound, bound, generator=generator)
    return layer
