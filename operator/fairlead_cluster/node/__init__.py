"""The node stand-in: nodes at a real API server whose pods are local processes, without root and without containers.

`NodeStandIn` does what kubelets do (and the volume provisioner of the default StorageClass); `python -m
fairlead_cluster.node` runs it alone. Where it differs from a kubelet is said in `standin` and `rewriting`.
"""

from fairlead_cluster.node.options import Engines, Options, VolumeSync
from fairlead_cluster.node.specs import DEFAULT_NODES, NodeSpec
from fairlead_cluster.node.standin import NodeStandIn

__all__ = ["DEFAULT_NODES", "Engines", "NodeSpec", "NodeStandIn", "Options", "VolumeSync"]
