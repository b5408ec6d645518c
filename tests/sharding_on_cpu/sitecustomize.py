"""First on a process's path: lets accelerate share models out on the CPU, which it does on accelerators only."""

from accelerate import state
from accelerate.utils import DistributedType

initialise = state.AcceleratorState.__init__


def initialise_sharded(self, *arguments, fsdp_plugin=None, **more):
    initialise(self, *arguments, fsdp_plugin=fsdp_plugin, **more)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin


state.AcceleratorState.__init__ = initialise_sharded
