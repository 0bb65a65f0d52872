#!/usr/bin/env bash
# OpenSSF's model-signing, installed as it asks, cannot be imported: it needs pyOpenSSL, which nothing brings any more.
#
# One would think: `pip install model-signing` gives its command. Seen with model-signing 1.1.1, the newest, beside
# sigstore 4.5.1, the newest that it allows, whose older versions had pyOpenSSL as a requirement:
#   as installed: ModuleNotFoundError: No module named 'OpenSSL'
#   with pyOpenSSL 26.4.0 beside it: Signing succeeded
# This is so for signing with a plain key too, which has no use for certificates. Name pyOpenSSL where it is pinned.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
install model-signing==1.1.1 sigstore==4.5.1
"$folder/venv/bin/python" -c 'from importlib.metadata import version; print("model-signing", version("model-signing"))'
as_installed=$("$folder/venv/bin/model_signing" --version 2>&1 | tail -1) || true
echo "as installed: $as_installed"

install pyopenssl==26.4.0
mkdir "$folder/model" && echo weights > "$folder/model/weights"
openssl ecparam -name prime256v1 -genkey -noout -out "$folder/key.pem"
with_it=$("$folder/venv/bin/model_signing" sign key "$folder/model" --private_key "$folder/key.pem" \
  --signature "$folder/model.sig")
echo "with pyOpenSSL: $with_it"
[ "$as_installed" = "ModuleNotFoundError: No module named 'OpenSSL'" ] && [ "$with_it" = "Signing succeeded" ]
