"""From the route table to Envoy's files. The only folder that knows Envoy's names: an upgrade of Envoy touches nothing else.

Written for Envoy 1.40. What users can edit lives in routes, clusters and extension configs, which change under running streams;
bootstrap and listeners depend on fairlead's version and on ports only, since a changed listener cuts streams.
"""

from fairlead.gateway.envoy.files import GatewayFiles, render_files
from fairlead.gateway.envoy.settings import GatewaySettings

__all__ = ["GatewayFiles", "GatewaySettings", "render_files"]
