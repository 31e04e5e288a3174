"""The embedded database: SecantusDB as a supervised child, for those who give no MONGODB_URI.

It is a separate program behind MongoDB's wire protocol; nothing of it is imported. It listens on a loopback port of
its own, wants a generated password, is restarted on the same port when it dies, and dies with this process.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from controlplane.errors import (
    StorageDamaged,
    StorageError,
    StorageLocked,
    StorageUnavailable,
)
from controlplane.storage.database import Database
from controlplane.storage.embedded_folder import EmbeddedFolder, Store
from controlplane.storage.embedded_process import ServerExited, ServerProcess
from controlplane.storage.failures import translated
from controlplane.storage.first_start import Certificate, make_certificate

logger = logging.getLogger(__name__)

USER = "controlplane"
PROGRAM = "secantusd-py"
CONNECT_SECONDS = 30.0
FIRST_START_ATTEMPTS = 5  # one stop in twenty hangs on a busy machine
FIRST_STOP_SECONDS = 6.0
FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 10.0
FORMER_SECONDS = 15.0  # a server that was killed with its control plane ends once the disk has answered it
_FORMER_LOOK_SECONDS = 0.5
_QUIET_SECONDS = 60.0  # having run this long, it starts again at once


class EmbeddedServer:
    """`cache_size` is the server's own memory for pages, as it writes sizes: `64M`, `1G`. `former_seconds` is how long
    `start` waits for the server of a control plane that was killed to let go of the files."""

    def __init__(
        self,
        folder: Path,
        *,
        cache_size: str = "64M",
        program: Path | None = None,
        former_seconds: float = FORMER_SECONDS,
    ) -> None:
        self._folder = EmbeddedFolder(folder)
        self._cache_size = cache_size
        self._program = program or Path(sys.executable).with_name(PROGRAM)
        self._former_seconds = former_seconds
        self._process: ServerProcess | None = None
        self._supervision: asyncio.Task[None] | None = None

    @property
    def process_id(self) -> int | None:
        """Of the server that runs now; None while there is none."""
        return None if self._process is None else self._process.id

    async def start(self) -> str:
        """The connection string, valid until `stop`, also across restarts of the server.

        Raises StorageLocked, StorageDamaged, StorageTooNew or StorageError, which name the folder.
        """
        if not await asyncio.to_thread(self._program.is_file):
            raise StorageError(
                f"The embedded database's program {self._program} is not there; set MONGODB_URI instead."
            )
        has_store = await asyncio.to_thread(self._folder.acquire)
        try:
            if not has_store:
                await self._make_store()
            password = await asyncio.to_thread(self._folder.store.read_password)
            self._process = await self._open_store()
            uri = (
                f"mongodb://{USER}:{password}@127.0.0.1:{self._process.port}/"
                "?authSource=admin&directConnection=true&retryWrites=false"
            )
            await self._prove(uri)
        except BaseException:
            await self._end_process()
            self._folder.release()
            raise
        self._supervision = asyncio.create_task(self._supervise(self._process.port))
        return uri

    async def stop(self) -> None:
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.wait((self._supervision,))
            self._supervision = None
        if self._process is not None:
            in_order = await self._process.stop()
            self._process = None
            if in_order:
                await asyncio.to_thread(self._folder.store.files.note_stopped)
        self._folder.release()

    async def _open_store(self) -> ServerProcess:
        """The folder is ours; only a former server, which has yet to end, can still have the files."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._former_seconds
        while True:
            try:
                return await self._try_to_open_store()
            except StorageLocked:
                if loop.time() >= deadline:
                    raise
            logger.warning("another database process still has the files", extra={"folder": str(self._folder.path)})
            await asyncio.sleep(_FORMER_LOOK_SECONDS)

    async def _try_to_open_store(self) -> ServerProcess:
        """As at every start of ours, the files are left as they were when the server cannot open them."""
        files = self._folder.store.files
        snapshot = await asyncio.to_thread(files.begin_run)
        try:
            server = await self._start_process(self._folder.store, "--port", "0", "--auth")
        except StorageLocked:
            await asyncio.to_thread(files.leave_run, snapshot)
            raise
        except StorageError:
            await asyncio.to_thread(files.undo_run, snapshot)
            raise
        await asyncio.to_thread(files.note_running)
        return server

    async def _start_process(self, store: Store, *arguments: str) -> ServerProcess:
        try:
            return await ServerProcess.start(
                self._program,
                (
                    *("--config", str(store.settings_file), "--host", "127.0.0.1"),
                    *("--storage-path", str(store.data), "--cache-size", self._cache_size),
                    *arguments,
                ),
            )
        except ServerExited as error:
            raise self._explain(error) from error

    def _explain(self, error: ServerExited) -> StorageError:
        """What the server's last words mean for who runs us."""
        text = "\n".join(error.lines)
        folder = self._folder.path
        if "already being managed" in text or "Device or resource busy" in text:
            return StorageLocked(f"The storage folder {folder} is in use by another database process.")
        if "WiredTiger" in text:
            return StorageDamaged(
                f"The storage folder {folder} is damaged: the database cannot open it ({_essence(error.lines)})."
            )
        return StorageError(f"The embedded database cannot use {folder}: {error.message}")

    async def _prove(self, uri: str) -> None:
        """That it knows our password, and is ours: in SCRAM the server proves itself too (RFC 5802)."""
        database = Database(uri, "admin", timeout_seconds=CONNECT_SECONDS)
        try:
            await database.ping()
            with translated():
                await database.handle.client.list_database_names()  # reads the table that says what there is
        except StorageUnavailable as error:
            raise StorageDamaged(
                f"The database in {self._folder.path} does not accept the password in "
                f"{self._folder.store.password_file}: {error.message}"
            ) from error
        except StorageError as error:
            raise StorageDamaged(f"The storage folder {self._folder.path} is damaged: {error.message}") from error
        finally:
            database.close()

    async def _end_process(self) -> None:
        if self._process is not None:
            await self._process.kill()
            self._process = None

    # -- the first start ---------------------------------------------------------------------------------------------

    async def _make_store(self) -> None:
        """The server now and then hangs when it is stopped; what was made so far is then thrown away and made anew."""
        for attempt in range(1, FIRST_START_ATTEMPTS + 1):
            if await self._try_to_make_store():
                logger.info("embedded database made", extra={"folder": str(self._folder.path), "attempt": attempt})
                return
        raise StorageError(
            f"The embedded database did not stop after it was made in {self._folder.path}, "
            f"{FIRST_START_ATTEMPTS} times in a row; try again."
        )

    async def _try_to_make_store(self) -> bool:
        """False when the server did not end in order, so that its files may be incomplete."""
        store = await asyncio.to_thread(self._folder.begin_store)
        certificate = await asyncio.to_thread(make_certificate, store.root)
        server = await self._start_process(
            store,
            *("--port", "0", "--tls-require-client-cert", "--tls-ca-file", str(certificate.certificate)),
            *("--tls-cert-file", str(certificate.certificate), "--tls-key-file", str(certificate.key)),
        )
        try:
            await _create_user(server.port, certificate, store.read_password())
        finally:
            in_order = await server.stop(limit_seconds=FIRST_STOP_SECONDS)
        if not in_order:
            return False
        await asyncio.to_thread(certificate.remove)
        await asyncio.to_thread(self._folder.finish_store, store)
        return True

    # -- supervision -------------------------------------------------------------------------------------------------

    async def _supervise(self, port: int) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            if self._process is not None:
                started = asyncio.get_running_loop().time()
                status = await self._process.wait()
                if asyncio.get_running_loop().time() - started > _QUIET_SECONDS:
                    backoff = FIRST_BACKOFF_SECONDS
                lines = self._process.last_lines[-3:]
                logger.error("the embedded database died", extra={"status": status, "last_lines": lines})
                self._process = None
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)
            try:
                self._process = await self._start_process(self._folder.store, "--port", str(port), "--auth")
            except StorageError as error:
                logger.exception("the embedded database does not start again", extra={"why": error.message})
            else:
                logger.warning("the embedded database runs again", extra={"pid": self._process.id})


async def _create_user(port: int, certificate: Certificate, password: str) -> None:
    uri = (
        f"mongodb://127.0.0.1:{port}/?directConnection=true&tls=true"
        f"&tlsCAFile={certificate.certificate}&tlsCertificateKeyFile={certificate.both}"
    )
    database = Database(uri, "admin", timeout_seconds=CONNECT_SECONDS)
    try:
        with translated():
            await database.handle.command("createUser", USER, pwd=password, roles=[{"role": "root", "db": "admin"}])
    finally:
        database.close()


def _essence(lines: tuple[str, ...]) -> str:
    """The first complaint is the cause; later ones follow from it."""
    complaints = [line for line in lines if "ERROR" in line or "Error" in line]
    return (complaints or list(lines) or ["it wrote nothing"])[0].strip()
