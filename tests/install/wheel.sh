#!/usr/bin/env bash
# The wheel, built from a clone and installed with every extra into an empty virtual environment, at the pinned versions.
# Run from anywhere: tests/install/wheel.sh FOLDER (empty, 2 GiB). Needs what building pyfuse3 needs; see ./run.
set -euo pipefail
clone=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
mkdir -p "$1"
cd "$1"

say() { printf '== %s\n' "$*"; }

say "a wheel"
git clone --quiet "$clone" clone
python3 -m venv build
build/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir wheels ./clone
wheel=$(echo wheels/mdmfs-*.whl)
sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' clone/.constraints.txt >versions.txt

say "bare: what a worker has"
python3 -m venv bare
bare/bin/python -m pip install --quiet --disable-pip-version-check --constraint versions.txt "$wheel"
bare/bin/mdmfs --version
bare/bin/mdmfs --help >help.txt
for command in hospitald keystored metadatad mount view; do bare/bin/mdmfs "$command" --help >/dev/null; done
bare/bin/mdmfs policy digest strict
bare/bin/mdmfs init keystore one.toml --no-check --name one --hospital /DC=org/CN=hospital --listen 127.0.0.1:8443 \
    --directory shelf --certificate c.pem --key k.pem --trust ca
if bare/bin/python -c 'import psycopg' 2>/dev/null; then say "an extra came unasked"; exit 1; fi
printf '%s\n' '[metadata]' 'listen = "127.0.0.1:8444"' 'database = "postgresql://nowhere/x"' 'hospital = "/DC=org/CN=hospital"' \
    '[tls]' 'certificate = "c.pem"' 'key = "k.pem"' 'trust = "ca"' >metadata.toml
told=$(bare/bin/mdmfs doctor metadata.toml || true)
[[ "$told" == *'the extra is missing: pip install "mdmfs[postgresql]"'* ]] || { say "a missing extra is not told: $told"; exit 1; }

say "with pixels, postgresql, s3, test and view"
python3 -m venv full
full/bin/python -m pip install --quiet --disable-pip-version-check --constraint versions.txt "$wheel[pixels,postgresql,s3,test,view]"
full/bin/python -m pip check
full/bin/python -c 'import PIL, jpeg_ls, psycopg, obstore, pytest'
cd clone # the tests of the clone, on the installed program
mv mdmfs ../not-this-one
../full/bin/python -m pytest --quiet -p no:cacheprovider tests/unit/model tests/unit/access tests/unit/sealing tests/unit/deid/test_*decode*.py
cd ..

say "works: $(head -n 1 help.txt)"
