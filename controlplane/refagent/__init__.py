"""The reference agent: supervises a real process and serves the agent contract over HTTP.

It follows `docs/agent-contract.md` alone and imports nothing else of the control plane, so that the two cannot share a
mistake. `python -m controlplane.refagent --help` lists what it can be told.
"""
