"""The part of Proxmox VE's API that is spoken to, as https://pve.proxmox.com/pve-docs/api-viewer/ has it: which calls
there are, which parameters each takes, and what their values may be."""

from __future__ import annotations

_BOOLEAN, _NUMBER, _TEXT = r"[01]", r"\d+", r"(?s).*"
_NAME = r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"
_ENV = r"(\w+=[^\x00-\x08\x0a-\x1f\x7f]*)(\0\w+=[^\x00-\x08\x0a-\x1f\x7f]*)*"
_NET = r"name=[-_.\w]+(,(bridge=[-_.\w]+|type=veth|firewall=[01]|tag=\d+|ip6?=[^,]+|gw6?=[^,]+))*"
_TAGS = r"[a-z0-9_][a-z0-9_\-+.]*(;[a-z0-9_][a-z0-9_\-+.]*)*"

# name, method, path, required parameters, optional ones; of each the pattern that its whole value matches
SCHEMA: tuple[tuple[str, str, str, dict[str, str], dict[str, str]], ...] = (
    ("resources", "GET", "/cluster/resources", {}, {"type": "vm|storage|node|sdn"}),
    ("nextid", "GET", "/cluster/nextid", {}, {"vmid": _NUMBER}),
    ("config", "GET", "/nodes/{node}/lxc/{vmid}/config", {}, {"current": _BOOLEAN, "snapshot": _NAME}),
    ("status", "GET", "/nodes/{node}/lxc/{vmid}/status/current", {}, {}),
    ("interfaces", "GET", "/nodes/{node}/lxc/{vmid}/interfaces", {}, {}),
    (
        *("clone", "POST", "/nodes/{node}/lxc/{vmid}/clone", {"newid": _NUMBER}),
        {
            "hostname": _NAME,
            "description": _TEXT,
            "pool": _NAME,
            "snapname": _NAME,
            "storage": _NAME,
            "full": _BOOLEAN,
            "target": _NAME,
            "bwlimit": _NUMBER,
        },
    ),
    (
        *("configure", "PUT", "/nodes/{node}/lxc/{vmid}/config", {}),
        {
            "hostname": _NAME,
            "cores": _NUMBER,
            "memory": _NUMBER,
            "swap": _NUMBER,
            "onboot": _BOOLEAN,
            "description": r"(?s).{0,8192}",
            "tags": _TAGS,
            "net0": _NET,
            "env": _ENV,
            "digest": _NAME,
        },
    ),
    (
        *("resize", "PUT", "/nodes/{node}/lxc/{vmid}/resize"),
        *({"disk": r"rootfs|mp\d+", "size": r"\+?\d+(\.\d+)?[KMGT]?"}, {"digest": _NAME}),
    ),
    ("start", "POST", "/nodes/{node}/lxc/{vmid}/status/start", {}, {"skiplock": _BOOLEAN, "debug": _BOOLEAN}),
    ("stop", "POST", "/nodes/{node}/lxc/{vmid}/status/stop", {}, {"skiplock": _BOOLEAN, "overrule-shutdown": _BOOLEAN}),
    ("shutdown", "POST", "/nodes/{node}/lxc/{vmid}/status/shutdown", {}, {"timeout": _NUMBER, "forceStop": _BOOLEAN}),
    (
        *("destroy", "DELETE", "/nodes/{node}/lxc/{vmid}", {}),
        {"force": _BOOLEAN, "purge": _BOOLEAN, "destroy-unreferenced-disks": _BOOLEAN},
    ),
    ("task", "GET", "/nodes/{node}/tasks/{upid}/status", {}, {}),
    ("log", "GET", "/nodes/{node}/tasks/{upid}/log", {}, {"start": _NUMBER, "limit": _NUMBER, "download": _BOOLEAN}),
)
