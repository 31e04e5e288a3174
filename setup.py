"""What the control plane needs, as ranges; `requirements.lock` pins the exact set for CI and the binary."""

from setuptools import find_packages, setup

EMBEDDED = ["secantusdb==0.7.0b3"]  # a beta: pinned on purpose (docs/architecture.md, "Embedded database")
TEST = [
    *EMBEDDED,
    "pytest>=9,<10",
    "pytest-tornado>=0.8.1,<0.9",
    "setuptools<82",  # pytest-tornado imports pkg_resources, which setuptools 82 dropped
    "pytest-timeout>=2.4,<3",
    "pytest-xdist>=3.6,<4",
    "mongomock-motor>=0.0.36,<0.1",
    "typing_extensions>=4.12",  # mongomock imports it without declaring it
    "aiosmtpd>=1.4.6,<2",
    "playwright>=1.60,<2",  # drives the Chromium of the system; it brings none of its own
    "jsonschema>=4.23,<5",  # Stripe's description of its answers
]
DEV = [
    *TEST,
    "ruff>=0.17,<0.18",
    "mypy>=2.4,<3",
    "import-linter>=2.17,<3",
    "types-psutil>=7",
    "types-jsonschema>=4.23",
    "types-setuptools<83",
    "pip-tools>=7.6",
    "pyinstaller>=6.22,<7",
]

setup(
    name="controlplane",
    version="0.1.0",
    description="Control plane of a hosting service for game servers and dev containers",
    python_requires=">=3.11",
    packages=find_packages(include=["controlplane*", "handlers*"]),
    package_data={"controlplane": ["py.typed", "billing/mail_texts/*"], "controlplane.demo.web_ide": ["page/*"]},
    py_modules=["run"],
    install_requires=[
        "tornado>=6.6,<7",
        "motor>=3.7.1,<4",
        "pymongo>=4.16,<5",
        "pyjwt>=2.15,<3",
        "bcrypt>=5,<6",
        "pycurl>=7.45,<8",
        "cerberus>=1.3.8,<2",
        "orjson>=3.10,<4",
        "httptools>=0.6.4,<1",
        "cryptography>=45",
        "prometheus-client>=0.22,<1",
        "stripe>=16.1,<17",  # a new major version pins a new API version
        "aiosmtplib>=5,<6",
        "psutil>=7,<8",
        "uvloop>=0.21,<1; sys_platform != 'win32'",
    ],
    extras_require={"embedded": EMBEDDED, "test": TEST, "dev": DEV},
)
