"""The hosted IDE: who may open it, where it is, and whether its code-server runs. Bytes are moved by `proxying`."""
