"""OpenSSF's own tool at work, where only that is installed: it signs a folder, and verifies others.

`python model_signing_tool.py sign FOLDER PRIVATE.pem` writes `model.sig` into the folder;
`python model_signing_tool.py verify PUBLIC.pem FOLDER…` prints a JSON list: what is wrong with each, or null.
"""

import json
import sys
from pathlib import Path

from model_signing import signing, verifying

if sys.argv[1] == "sign":
    folder = Path(sys.argv[2])
    signing.Config().use_elliptic_key_signer(private_key=Path(sys.argv[3])).sign(folder, folder / "model.sig")
else:
    found: list[str | None] = []
    for folder in map(Path, sys.argv[3:]):
        config = verifying.Config().use_elliptic_key_verifier(public_key=Path(sys.argv[2]))
        try:
            config.verify(folder, folder / "model.sig")
        except Exception as exc:  # noqa: BLE001 - each of its kinds is a refusal
            found.append(repr(exc))
        else:
            found.append(None)
    print(json.dumps(found))
