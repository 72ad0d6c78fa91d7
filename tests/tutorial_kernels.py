"""Kernels of tutorials that are reached by files in a folder of their own, as another process may take a port first.

`pytest -p tests.tutorial_kernels --nbmake …` has every notebook run by such a kernel.
"""

import functools
import shutil
import tempfile
import weakref
from pathlib import Path

import nbmake.nb_run
from jupyter_client.manager import AsyncKernelManager
from traitlets import CaselessStrEnum, default


class FileKernelManager(AsyncKernelManager):
    """Starts kernels that listen at files, not at ports."""

    transport = CaselessStrEnum(["tcp", "ipc"], default_value="ipc", config=True)

    @default("connection_file")
    def _connection_file_default(self) -> str:
        folder = tempfile.mkdtemp(prefix="kernel-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return str(Path(folder) / "kernel.json")


nbmake.nb_run.NotebookClient = functools.partial(nbmake.nb_run.NotebookClient, kernel_manager_class=FileKernelManager)
