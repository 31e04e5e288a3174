"""Agents: how they are called, when they are polled, and what their answers mean. Streams live in `proxying`."""
