"""The processes of one training: each reads its own lanes, and all have the same weights.

Processes are started by `throughtime train --processes` (`training.launcher`) or by torchrun, which tell each its rank.
Everything that is exchanged is an array or bytes; nothing is pickled. Axes: T time, B batch (lane).
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as processes
from torch.distributed.rendezvous import rendezvous

from throughtime import states
from throughtime.errors import ThroughtimeError
from throughtime.models.base import SequenceModel
from throughtime.objective.evaluation import Predictor
from throughtime.states import States
from throughtime.streams.batch import Batch, select_lanes
from throughtime.training.launcher import MEETING

LETTING_GO = 0.2
"""Seconds that gloo's threads have for the last arrays; they take microseconds of a processor that is theirs."""

LOST = ("gloo", "Connection closed by peer", "Connection reset by peer")
"""What the messages of collective operations hold that failed because another process is gone."""

Float = TypeVar("Float", np.float32, np.float64)


class PeerError(ThroughtimeError):
    """Another process of the training ended, so that this one cannot go on."""


@final
class Ranks:
    """One process among those of a training.

    Args:
        rank: which one, from 0.
        count: how many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1):
        self.rank, self.count = rank, count

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def own(self, lanes: int) -> range:
        """The lanes that this process reads: neighbours, as many as the others have or one more."""
        return range(lanes * self.rank // self.count, lanes * (self.rank + 1) // self.count)

    def add_up(self, parameters: Sequence[Tensor], values: Sequence[float]) -> list[float]:
        """Sum gradients over all processes, in place; and the values, in float64, which are returned."""
        if self.count == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64)
        under_way = processes.all_reduce(told, async_op=True)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        if gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            processes.all_reduce(flat)
            summed = flat.split([gradient.numel() for gradient in gradients])
            for parameter, gradient in zip(parameters, summed, strict=True):
                parameter.grad = gradient.view_as(parameter)
        under_way.wait()
        found: list[float] = told.tolist()
        return found

    def join_lanes(self, array: Tensor, lanes: int, axis: int = 0) -> Tensor:
        """An array over the own lanes made one over all; `axis` is that of the lanes."""
        if self.count == 1:
            return array
        whole = array.new_zeros([lanes if at == axis else size for at, size in enumerate(array.shape)])
        own = self.own(lanes)
        whole.narrow(axis, own.start, len(own)).copy_(array)
        processes.all_reduce(whole)
        return whole

    def gather(self, array: Tensor) -> list[Tensor]:
        """The arrays of all processes, which have the same shape, in order."""
        if self.count == 1:
            return [array]
        found = [torch.empty_like(array) for _ in range(self.count)]
        processes.all_gather(found, array)
        return found

    def share(self, data: bytes) -> bytes:
        """What the process that leads gives, to all."""
        if self.count == 1:
            return data
        size = torch.tensor([len(data)])
        processes.broadcast(size, 0)
        if not size:
            return b""
        content = torch.zeros(int(size), dtype=torch.uint8)
        if self.leads:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        processes.broadcast(content, 0)
        return content.numpy().tobytes()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """A block that the first process of each machine runs before the others."""
        first = int(os.environ.get("LOCAL_RANK", "0")) == 0
        if self.count > 1 and not first:
            processes.barrier()
        yield
        if self.count > 1 and first:
            processes.barrier()


def is_dealt(array: Tensor) -> bool:
    """Whether each process holds a share of the array: a DTensor, a type whose import takes most of a second, and which
    nothing can be before."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(array, tensors.DTensor)


def whole(array: Tensor) -> Tensor:
    """An array that is dealt, put together; all processes have to ask at the same time. Others are what they are."""
    if not is_dealt(array):
        return array
    gathered: Tensor = array.full_tensor()  # type: ignore[attr-defined]
    return gathered


def whole_model(model: SequenceModel, weights: Mapping[str, Tensor]) -> SequenceModel:
    """An unsharded copy of a model with these weights, which may be sharded. Every process has to call it at once."""
    with torch.device("meta"):
        copy = model.sibling()
    copy.load_state_dict({name: whole(array) for name, array in weights.items()}, assign=True)
    return copy.eval()


def this_rank() -> Ranks:
    """This process, among the others where torchrun started several. They stay connected until it ends.

    Raises:
        ThroughtimeError: where what torchrun tells is no number.
    """
    told = [os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")]
    if not all(number.isdecimal() for number in told):
        raise ThroughtimeError(
            f"RANK and WORLD_SIZE should be numbers, got {' and '.join(told)}; leave them to torchrun"
        )
    rank, count = map(int, told)
    if count > 1 and not processes.is_initialized():
        # Where torchrun's meeting place outlives those who died, what they left there must not be taken for ours.
        meeting = os.environ.get(MEETING)
        store, rank, count = next(rendezvous(f"{meeting}?rank={rank}&world_size={count}" if meeting else "env://"))
        own = processes.PrefixStore(f"start {_starts()}", store)  # type: ignore[attr-defined]
        processes.init_process_group("gloo", store=own, rank=rank, world_size=count)
        atexit.register(_disconnect)
    return Ranks(rank, count)


@contextmanager
def others_needed(ranks: Ranks) -> Iterator[None]:
    """A block in which a collective operation that fails for want of another process raises PeerError."""
    try:
        yield
    except RuntimeError as error:
        if ranks.count > 1 and (isinstance(error, processes.DistError) or any(text in str(error) for text in LOST)):
            raise PeerError(
                "another process of this training ended; it goes on from its last checkpoint with --resume"
            ) from error
        raise


def _disconnect() -> None:
    """Before the interpreter ends.

    A thread of gloo lets go of an array a moment after those who waited for it go on, and needs the interpreter for
    that: where it is gone, the process would abort.
    """
    processes.destroy_process_group()
    time.sleep(LETTING_GO)


def started_again() -> bool:
    """Whether torchrun started these processes because others had died."""
    return _starts() > 0


def _starts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@final
class DistributedPredictor:
    """A model whose lanes are shared among processes, as what is measured. All of them have to ask the same."""

    def __init__(self, model: Predictor, ranks: Ranks):
        self._model, self._ranks = model, ranks

    @property
    def state_tolerance(self) -> float:
        return self._model.state_tolerance

    def initial_state(self, batch_size: int) -> States:
        return self._model.initial_state(batch_size)

    def losses(self, batch: Batch, state: States) -> tuple[NDArray[np.float64], States]:
        lanes = batch.reset_TB.shape[1]
        own = np.array(self._ranks.own(lanes), np.int64)
        losses, after = np.zeros((len(batch.targets), len(own))), states.select(state, own)
        if len(own):
            losses, after = self._model.losses(select_lanes(batch, own), after)
        return self._join(losses, lanes, 1), self._join_states(after, lanes)

    def advance(self, batch: Batch, state: States) -> States:
        lanes = batch.reset_TB.shape[1]
        own = np.array(self._ranks.own(lanes), np.int64)
        after = states.select(state, own)
        if len(own):
            after = self._model.advance(select_lanes(batch, own), after)
        return self._join_states(after, lanes)

    def _join_states(self, state: States, lanes: int) -> States:
        """One array is exchanged, however many the state has."""
        return states.shaped(self._join(states.flat(state), lanes, 0), state)

    def _join(self, array: NDArray[Float], lanes: int, axis: int) -> NDArray[Float]:
        own = torch.from_numpy(np.ascontiguousarray(array))
        joined: NDArray[Float] = self._ranks.join_lanes(own, lanes, axis).numpy()
        return joined
