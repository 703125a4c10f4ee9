# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a sweep's results hang on: every file of the code by its content."""

from __future__ import annotations

import os
from pathlib import Path

from segnode.evaluation.sweep.origin import code_sha256


def test_code_is_known_by_its_content(tmp_path: Path) -> None:
    package = tmp_path / 'package'
    (package / 'inner' / '__pycache__').mkdir(parents=True)
    file = package / 'inner' / 'module.py'
    file.write_text('a = 1\n')
    seen = [code_sha256(package)]
    os.utime(file, ns=(1, 1))
    (package / 'inner' / '__pycache__' / 'module.pyc').write_bytes(b'compiled')
    assert code_sha256(package) == seen[0]
    # A file's content, its name, and one more of them.
    file.write_text('a = 2\n')
    seen.append(code_sha256(package))
    file.rename(package / 'inner' / 'other.py')
    seen.append(code_sha256(package))
    (package / 'empty.py').touch()
    seen.append(code_sha256(package))
    assert len(set(seen)) == 4
