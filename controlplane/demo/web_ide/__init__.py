"""A small web IDE that stands in for code-server in the demo and the tests: files, an editor, a real shell.

It behaves on the wire as code-server does where a proxy could notice: relative URLs, the Origin rule, the deflate
negotiation, short keep-alive, a bare FIN at the end of a websocket. As code-server does in a container it asks for no
password and gives a shell to whoever reaches it; it listens on loopback. Nothing of the control plane imports it.
"""
