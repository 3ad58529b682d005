#!/bin/sh
# Find a Python that Firstlight runs on, and let environment.py make .venv ready with it.
# usage: [PYTHON=python3.12] [TORCH_INDEX=URL] sh scripts/environment.sh EXTRAS
# PYTHON names the interpreter; without it the first that fits is taken, and that of an existing .venv last.
here=$(dirname "$0")

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

if [ -n "$PYTHON" ]; then
    if fits "$PYTHON"; then
        exec "$PYTHON" "$here/environment.py" "$@"
    fi
    found=$("$PYTHON" -c 'import platform; print("Python %s" % platform.python_version())' 2>/dev/null) ||
        found='no Python that runs'
    echo "PYTHON=$PYTHON is $found; Firstlight needs Python 3.11, 3.12 or 3.13." >&2
    exit 1
fi

for candidate in python3 python3.13 python3.12 python3.11 "$here/../.venv/bin/python"; do
    if fits "$candidate"; then
        exec "$candidate" "$here/environment.py" "$@"
    fi
done
echo "No Python 3.11, 3.12 or 3.13 was found; install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
exit 1
