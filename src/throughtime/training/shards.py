"""A model dealt to the processes of a training (FSDP2, Zhao et al. 2023, arXiv:2304.11277), for one that outgrows a
machine: of every parameter, its gradient and its means each process holds a share, which is some of its rows.

A layer's weights are gathered before it runs, and again before its way back, and freed after that; its gradients are
summed where their shares lie. Whoever asks for a whole array waits for the other processes, who have to ask too.
"""

from __future__ import annotations

import warnings
from typing import final

from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from throughtime.models.base import SequenceModel
from throughtime.training.ranks import Ranks


@final
class Shards:
    """The shares of a model.

    Args:
        model: the same in all processes. It is dealt: of its parameters only the own shares are left, and the gradients
            that `losses` leaves in them are sums over all processes.
        ranks: the processes.
    """

    def __init__(self, model: SequenceModel, ranks: Ranks):
        self.model = model
        mesh = init_device_mesh("cpu", (ranks.count,))
        for part in (*model.stack.layers(), model):
            dealt = fully_shard(part, mesh=mesh)
            assert isinstance(dealt, FSDPModule)
            dealt.set_gradient_divide_factor(1.0)
            dealt.set_force_sum_reduction_for_comms(True)  # gloo cannot scale on the way
        register_fsdp_forward_method(model, "losses")
        # Of `losses`, which gives tokens their shape last: nothing is written into what it returns.
        warnings.filterwarnings("ignore", ".*returned a view tensor", UserWarning)

    def share_of(self, array: Tensor, parameter: Tensor) -> Tensor:
        """Of a whole array this process's share, dealt as the parameter is; a copy, where it is no such array."""
        if isinstance(parameter, DTensor) and array.shape == parameter.shape:
            return distribute_tensor(array, parameter.device_mesh, parameter.placements, src_data_rank=None)
        return array.clone()
