"""Fake model providers: local HTTPS servers that speak the OpenAI API (and Anthropic's messages), fail on demand, and keep
everything that they were sent, byte by byte, for those who judge what a gateway lets out.

In a test: `with FakeProviders(directory) as fakes: openai = fakes.add("openai", ["api.openai.test"])`, then
`cluster.hosts_file.update(fakes.host_records)`, `fakes.ca_cert` as what the gateway trusts, and `openai.recorded`.
As processes: `python -m fairlead_cluster.providers`.
"""

from fairlead_cluster.providers.faults import Fault as Fault
from fairlead_cluster.providers.faults import Kind as Kind
from fairlead_cluster.providers.fleet import FakeProvider as FakeProvider
from fairlead_cluster.providers.fleet import FakeProviders as FakeProviders
from fairlead_cluster.providers.recording import Recorded as Recorded
from fairlead_cluster.providers.replies import Behaviour as Behaviour
